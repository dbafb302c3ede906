"""Families of generated surfaces: textures that go on for ever, where any place is as good as another.

Each function makes a canvas, RGB float32 (3, n, n) about [0, 1], of a process with parameters of its own. See
``scenes`` for the families with a layout.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.fields import (
    cells,
    colour,
    coordinates,
    palette,
    rounded,
    smooth_noise,
    spectral_noise,
    standardise,
    waves,
)


def coloured_noise(dice: Dice, n: int) -> Tensor:
    """Anisotropic coloured noise, one or two layers, some of them folded: cast, rolled, sanded, cloudy surfaces."""
    field = spectral_noise(dice, n, dice.log_uniform(1, 6))
    if dice.coin():
        field = field + dice.rand().item() * spectral_noise(dice, n, dice.log_uniform(1, 6))
    fold = dice.integer(4)
    if fold == 1:
        field = field.abs()
    elif fold == 2:
        field = torch.tanh(dice.uniform(1, 4) * field)
    elif fold == 3:
        field = torch.exp(0.7 * field)
    return palette(dice, standardise(field).clamp(-4, 4))


def lattice(dice: Dice, n: int) -> Tensor:
    """Gratings, grids, weaves and perforations, slightly bent."""
    first, second = waves(dice, n, dice.log_uniform(6, 40), dice.uniform(0, 0.15))
    kind = dice.integer(4)
    if kind == 0:
        field = first.sin() + (second.sin() if dice.coin() else 0)
    elif kind == 1:  # plain weave: threads on top in turn
        over = (first.sin() * second.sin()) > 0
        field = torch.where(over, first.cos().abs(), 0.6 * second.cos().abs())
    elif kind == 2:  # holes or dots
        field = torch.tanh(dice.uniform(2, 8) * (first.sin() * second.sin() - dice.uniform(-0.2, 0.5)))
    else:  # bars
        field = torch.tanh(dice.uniform(1, 6) * (first.sin() + dice.uniform(-0.5, 0.5)))
    field = standardise(field) + dice.uniform(0, 0.5) * spectral_noise(dice, n, 1.0)
    return palette(dice, standardise(field))


def grains(dice: Dice, n: int) -> Tensor:
    """Voronoi grains, leather, pebbles and cracked glaze, from cellular noise."""
    first, second, value = cells(dice, n, dice.log_uniform(6, 48), dice.uniform(0.5, 1.0), dice.log_uniform(1, 2.5))
    border = second - first
    kind = dice.integer(4)
    if kind == 0:  # flat grains of different brightness
        field = value[0] + dice.uniform(0, 0.5) * torch.tanh(8 * border)
    elif kind == 1:  # leather: soft cushions between grooves
        field = torch.tanh(dice.uniform(2, 8) * border)
    elif kind == 2:  # pebbles
        field = -first + 0.5 * value[0]
    else:  # dark or bright seams
        field = dice.sign() * torch.exp(-dice.uniform(8, 25) * border) + 0.2 * value[0]
    field = standardise(field) + dice.uniform(0, 0.4) * spectral_noise(dice, n, 1.0)
    tint = palette(dice, standardise(field))
    if kind == 0 and dice.coin():  # each grain its own hue
        tint = tint + dice.uniform(0, 0.15) * (value - 0.5)
    return tint


def tooled_metal(dice: Dice, n: int) -> Tensor:
    """Brushed along a line, or turned about an axis, with a soft reflection."""
    if dice.coin():
        field = spectral_noise(dice, n, dice.log_uniform(12, 120))
        if dice.coin(0.3):
            field = field + dice.uniform(0.2, 0.8) * spectral_noise(dice, n, dice.log_uniform(12, 120))
        light = smooth_noise(dice, n, n, 3)
    else:
        y, x = coordinates(n)
        cy, cx = dice.uniform(-0.3, 1.3) * n, dice.uniform(-0.3, 1.3) * n
        radius, angle = torch.hypot(y - cy, x - cx), torch.atan2(y - cy, x - cx)
        # grooves: noise that depends on the radius alone, at a quarter of a pixel
        profile = spectral_profile(dice, 8 * n)
        field = profile[(4 * radius).long().clamp_max(8 * n - 1)]
        field = field + dice.uniform(0, 0.5) * spectral_noise(dice, n, 1.0)
        light = (dice.choice((1, 2, 4)) * angle + dice.uniform(0, 2 * math.pi)).cos()
    return palette(dice, standardise(field), dice.log_uniform(0.02, 0.12)) + dice.uniform(0, 0.12) * light


def spectral_profile(dice: Dice, length: int) -> Tensor:
    """One-dimensional noise (length,) with a random power law, deviation 1."""
    spectrum = (torch.fft.rfftfreq(length) + 2e-3).pow(-dice.uniform(0, 1.2))
    return standardise(torch.fft.irfft(torch.fft.rfft(dice.normal(length)) * spectrum, n=length))


def strata(dice: Dice, n: int) -> Tensor:
    """Wood, marble and layered stone: bands along a strongly bent coordinate, with fine fibres."""
    y, x = coordinates(n)
    angle = dice.uniform(0, math.pi)
    across = (x * math.cos(angle) + y * math.sin(angle)) / n
    bend = dice.uniform(0.02, 0.25) * smooth_noise(dice, n, n, dice.choice((2, 3, 5)))
    profile = spectral_profile(dice, 4096)
    field = profile[((across + bend + 3) * dice.log_uniform(60, 500)).long() % 4096]
    field = standardise(field) + dice.uniform(0.1, 0.8) * spectral_noise(dice, n, dice.log_uniform(1, 30))
    return palette(dice, standardise(field))


def scattered_objects(dice: Dice, n: int) -> Tensor:
    """Like objects at random places on a ground: granules, pills, chips, seeds."""
    size = dice.log_uniform(18, 56)
    first, _, value = cells(dice, n, size, dice.uniform(0.2, 0.7))
    radius = dice.uniform(0.2, 0.34)
    spread = dice.uniform(0, 0.25)
    distance = (first - radius * (1 - spread * value[1])) * size
    ground = palette(dice, spectral_noise(dice, n, dice.log_uniform(1, 4)), dice.log_uniform(0.01, 0.08))
    dome = (1 - (first / radius) ** 2).clamp_min(0).sqrt()
    body = colour(dice)[:, None, None] * (dice.uniform(0.5, 1.0) + 0.4 * dome)
    body = body + dice.uniform(0, 0.2) * (value[2:3] - 0.5) + dice.uniform(0, 0.04) * spectral_noise(dice, n, 1.0)
    cover = rounded(distance)
    if dice.coin(0.4):  # an imprint, the same on all
        ring = rounded((first - radius * dice.uniform(0.3, 0.7)).abs() * size - dice.uniform(0.5, 2))
        body = body + dice.sign() * dice.uniform(0.05, 0.3) * ring
    return ground * (1 - cover) + body * cover
