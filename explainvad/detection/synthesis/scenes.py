"""Families of generated scenes with a layout: a part or a print looks the same in every picture of it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.fields import (
    colour,
    coordinates,
    palette,
    rounded,
    smooth_noise,
    spectral_noise,
)


def shape_distance(dice: Dice, n: int, y0: float, x0: float, size: float) -> Tensor:
    """Signed distance (n, n) in px to a random disc, ring, box, bar or polygon at (y0, x0), radius about ``size``."""
    y, x = coordinates(n)
    angle = dice.choice((0.0, math.pi / 4, dice.uniform(0, math.pi)))
    u = (x - x0) * math.cos(angle) + (y - y0) * math.sin(angle)
    v = -(x - x0) * math.sin(angle) + (y - y0) * math.cos(angle)
    kind = dice.integer(5)
    if kind == 0:
        return torch.hypot(u, v) - size
    if kind == 1:
        width = size * dice.uniform(0.1, 0.35)
        return (torch.hypot(u, v) - (size - width)).abs() - width
    if kind == 2:
        corner = size * dice.uniform(0, 0.4)
        du, dv = u.abs() - size * dice.uniform(0.5, 1) + corner, v.abs() - size * dice.uniform(0.5, 1) + corner
        return torch.hypot(du.clamp_min(0), dv.clamp_min(0)) + torch.maximum(du, dv).clamp_max(0) - corner
    if kind == 3:
        length, width = size * dice.uniform(0.7, 1.4), max(1.0, size * dice.uniform(0.06, 0.25))
        return torch.hypot((u.abs() - length).clamp_min(0), v) - width
    sides = 3 + dice.integer(4)
    sector = math.pi / sides
    around = torch.remainder(torch.atan2(v, u), 2 * sector) - sector
    return torch.hypot(u, v) * around.cos() - size * 0.8


def printed(dice: Dice, n: int) -> Tensor:
    """Labels, boards and scales: sharp marks in a few inks on a plain ground, some repeated in rows."""
    canvas = palette(dice, spectral_noise(dice, n, dice.log_uniform(1, 8)), dice.log_uniform(0.005, 0.05)).clone()
    inks = [colour(dice) for _ in range(1 + dice.integer(3))]

    def stamp(distance: Tensor) -> None:
        cover = dice.uniform(0.5, 1.0) * rounded(distance)
        canvas.lerp_(dice.choice(inks)[:, None, None].expand_as(canvas), cover)

    for _ in range(2 + dice.integer(5)):
        stamp(shape_distance(dice, n, dice.uniform(0, n), dice.uniform(0, n), dice.log_uniform(5, n / 4)))
    for _ in range(dice.integer(3)):  # a row or a field of one mark, like text, pads or a scale
        pitch = dice.log_uniform(9, 36)
        tile = int(pitch) + 1
        mark = shape_distance(dice, tile, tile / 2, tile / 2, pitch * dice.uniform(0.15, 0.4))
        field = mark.repeat(-(-n // tile), -(-n // tile))[:n, :n]
        if dice.coin(0.4):  # letters: some marks of the row are left out or cut
            present = dice.rand(-(-n // tile), -(-n // tile)) < 0.75
            field = torch.where(present.repeat_interleave(tile, 0).repeat_interleave(tile, 1)[:n, :n], field, 99.0)
        y, x = coordinates(n)
        top, left = dice.uniform(-0.2, 0.8) * n, dice.uniform(-0.2, 0.8) * n
        inside = (y > top) & (y < top + dice.uniform(0.1, 0.6) * n) & (x > left) & (x < left + dice.uniform(0.3, 1) * n)
        stamp(torch.where(inside, field, 99.0))
    return canvas


def shaded_part(dice: Dice, n: int) -> Tensor:
    """A machined or moulded part: bosses, holes and steps of a height field under one lamp."""
    height = torch.zeros(n, n)
    for _ in range(2 + dice.integer(6)):
        edge = dice.log_uniform(1, 8)
        step = torch.sigmoid(
            -shape_distance(dice, n, dice.uniform(0, n), dice.uniform(0, n), dice.log_uniform(6, n / 3)) / edge * 2
        )
        height = height + dice.sign() * dice.uniform(0.5, 2.5) * edge * step
    height = height + dice.uniform(0, 1.5) * smooth_noise(dice, n, n, 4)
    height = height + dice.uniform(0, 0.15) * spectral_noise(dice, n, dice.log_uniform(1, 20))
    slope_y, slope_x = torch.gradient(height)
    azimuth, elevation = dice.uniform(0, 2 * math.pi), dice.uniform(0.5, 1.3)
    light = (
        math.cos(azimuth) * math.cos(elevation),
        math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
    )
    norm = (1 + slope_x.square() + slope_y.square()).sqrt()
    lambert = ((-slope_x * light[0] - slope_y * light[1] + light[2]) / norm).clamp_min(0)
    gloss = lambert.clamp_max(1).pow(dice.log_uniform(8, 60)) * dice.uniform(0, 0.5)
    base = colour(dice)[:, None, None]
    part = base * (0.25 + 0.75 * lambert) + gloss
    part = part + dice.uniform(0, 0.04) * spectral_noise(dice, n, dice.log_uniform(1, 20))
    if dice.coin(0.5):  # the part ends somewhere, and the ground shows
        outline = shape_distance(
            dice, n, dice.uniform(0.3, 0.7) * n, dice.uniform(0.3, 0.7) * n, dice.uniform(0.3, 0.6) * n
        )
        cover = rounded(outline)
        part = part * cover + palette(dice, spectral_noise(dice, n, 1.0), 0.01) * (1 - cover)
    return part


def assembly(dice: Dice, n: int) -> Tensor:
    """Several different objects, each with a surface of its own, laid out in a fixed order."""
    canvas = palette(dice, spectral_noise(dice, n, dice.log_uniform(1, 30)), dice.log_uniform(0.01, 0.08)).clone()
    for _ in range(3 + dice.integer(6)):
        size = dice.log_uniform(8, n / 5)
        distance = shape_distance(dice, n, dice.uniform(0, n), dice.uniform(0, n), size)
        shade = 1 + 0.5 * torch.exp(-((distance + size / 2) ** 2) / (size**2)) - 0.25
        skin = palette(dice, spectral_noise(dice, n, dice.log_uniform(1, 10)), dice.log_uniform(0.01, 0.1)) * shade
        if dice.coin():  # a cast shadow
            moved = F.pad(distance, (3, 0, 3, 0), value=99.0)[:n, :n]
            canvas.mul_(1 - dice.uniform(0.1, 0.5) * rounded(moved, 4.0))
        canvas.lerp_(skin, rounded(distance))
    return canvas
