"""Random scalar fields that surfaces are made of: coloured noise, cells, distances; and palettes that colour them.

All fields are float32 (n, n), row 0 at the top; lengths are px.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.synthesis.dice import Dice


def coordinates(n: int) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, in px."""
    axis = torch.arange(n, dtype=torch.float32)
    return axis[:, None].expand(n, n), axis[None].expand(n, n)


def standardise(field: Tensor) -> Tensor:
    """Mean 0, deviation 1."""
    return (field - field.mean()) / (field.std() + 1e-6)


def smooth_noise(dice: Dice, rows: int, cols: int, cells: int) -> Tensor:
    """Low-frequency noise (rows, cols) with about ``cells`` bumps a side and deviation near 1."""
    coarse = dice.normal(1, 1, cells, cells)
    return F.interpolate(coarse, size=(rows, cols), mode="bicubic", align_corners=False)[0, 0]


def spectral_noise(dice: Dice, n: int, stretch: float, fineness: float | None = None) -> Tensor:
    """Gaussian noise with a random power law or ring spectrum, stretched along a random direction.

    ``stretch`` >= 1 is the ratio of the correlation lengths along and across; ``fineness`` fixes the ring's
    frequency in cycles per px.
    """
    angle = dice.uniform(0, math.pi)
    fy, fx = torch.fft.fftfreq(n)[:, None], torch.fft.rfftfreq(n)[None]
    along = (math.cos(angle) * fx + math.sin(angle) * fy) * math.sqrt(stretch)
    across = (-math.sin(angle) * fx + math.cos(angle) * fy) / math.sqrt(stretch)
    radius = torch.hypot(along, across)
    if fineness is None and dice.coin():
        spectrum = (radius + 0.01).pow(-dice.uniform(0.3, 2.5))
    else:
        centre = fineness or dice.log_uniform(0.014, 0.25)
        spectrum = torch.exp(-0.5 * (torch.log((radius + 1e-3) / centre) / dice.uniform(0.25, 1.2)) ** 2)
    spectrum[0, 0] = 0
    return standardise(torch.fft.irfft2(torch.fft.rfft2(dice.normal(n, n)) * spectrum, s=(n, n)))


def waves(dice: Dice, n: int, period: float, warp: float) -> tuple[Tensor, Tensor]:
    """Phases (radians) of two crossing wave trains with ``period`` px, bent by ``warp`` periods."""
    y, x = coordinates(n)
    angle = dice.uniform(0, math.pi)
    skew = angle + math.pi / 2 * (dice.uniform(0.6, 1.4) if dice.coin(0.3) else 1.0)
    k = 2 * math.pi / period
    bend = 2 * math.pi * warp
    ratio = dice.log_uniform(0.5, 2.0) if dice.coin() else 1.0
    first = k * (x * math.cos(angle) + y * math.sin(angle)) + bend * smooth_noise(dice, n, n, 5)
    second = k * ratio * (x * math.cos(skew) + y * math.sin(skew)) + bend * smooth_noise(dice, n, n, 5)
    return first, second


def cells(dice: Dice, n: int, size: float, jitter: float, stretch: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Worley's cellular noise: distance to the nearest and second nearest site in units of ``size``, and cell values.

    Sites lie one in each square of a grid, displaced by up to ``jitter`` (0: lattice, 1: anywhere in its square).
    The values (3, n, n) are uniform on [0, 1), constant on a cell.
    """
    y, x = coordinates(n)
    angle = dice.uniform(0, math.pi)
    u = (x * math.cos(angle) + y * math.sin(angle)) / (size * math.sqrt(stretch))
    v = (-x * math.sin(angle) + y * math.cos(angle)) / (size / math.sqrt(stretch))
    u, v = u - u.min() + 1, v - v.min() + 1
    across, down = int(u.max()) + 3, int(v.max()) + 3
    place, value = dice.rand(2, down, across), dice.rand(3, down * across)
    site_u = torch.arange(across)[None] + 0.5 + jitter * (place[0] - 0.5)
    site_v = torch.arange(down)[:, None] + 0.5 + jitter * (place[1] - 0.5)
    site_u, site_v = site_u.reshape(-1), site_v.reshape(-1)
    home = v.long() * across + u.long()
    first = torch.full((n, n), torch.inf)
    second = torch.full((n, n), torch.inf)
    owner = torch.zeros(n, n, dtype=torch.int64)
    for dv in (-1, 0, 1):
        for du in (-1, 0, 1):
            site = home + (dv * across + du)
            distance = torch.hypot(site_u[site] - u, site_v[site] - v)
            second = torch.minimum(second, torch.maximum(first, distance))
            owner = torch.where(distance < first, site, owner)
            first = torch.minimum(first, distance)
    return first, second, value[:, owner]


def spots(dice: Dice, rows: int, cols: int, density: float, stamp: Tensor) -> Tensor:
    """Copies of ``stamp`` (odd, odd) of random strength at random places, ``density`` of them to a pixel."""
    impulses = torch.where(dice.rand(rows, cols) < density, 0.4 + 0.6 * dice.rand(rows, cols), torch.zeros(()))
    return F.conv2d(impulses[None, None], stamp[None, None], padding=(stamp.shape[0] // 2, stamp.shape[1] // 2))[0, 0]


def rounded(distance: Tensor, softness: float = 1.0) -> Tensor:
    """Coverage in [0, 1] of a shape from its signed distance in px (negative inside), antialiased."""
    return torch.sigmoid(-4.0 / softness * distance)


def palette(dice: Dice, field: Tensor, contrast: float | None = None) -> Tensor:
    """Colour a field of deviation near 1: RGB (3, n, n) about [0, 1], through two or three random colours."""
    contrast = contrast if contrast is not None else dice.log_uniform(0.04, 0.3)
    if dice.coin(0.4):  # grey
        level = dice.uniform(0.15, 0.85)
        return (level + contrast * field)[None].expand(3, -1, -1)
    base = colour(dice)
    direction = dice.normal(3)
    direction = direction / direction.norm() * math.sqrt(3)
    tint = base[:, None, None] + contrast * direction[:, None, None] * field
    if dice.coin(0.3):  # a second hue for one side of the field
        other = dice.normal(3)[:, None, None] * contrast
        tint = tint + other * field.clamp_min(0)
    return tint


def colour(dice: Dice) -> Tensor:
    """A random colour (3,): grey, or of some saturation."""
    grey = dice.uniform(0.1, 0.9)
    return (grey + dice.uniform(0, 0.25) * dice.normal(3)).clamp(0.03, 0.97)
