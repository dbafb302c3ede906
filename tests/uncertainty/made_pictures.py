"""Pictures drawn from random numbers: a plate, a small part, a texture, and photographs of the demo's product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from explainvad.demo.parts import flange
from explainvad.demo.photograph import Shot, photograph
from explainvad.types import InspectionImage

Array = NDArray[np.float64]


def picture(pixels: Array) -> InspectionImage:
    rounded = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return InspectionImage("img-1", "a.png", rounded, "0" * 64, 1, Path("a.png"))


def plate(seed: int, lines: float = 7.0) -> Array:
    """A milled plate, a little moved and unevenly lit, with a bore and camera noise: (96, 128, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :128].astype(float)
    dy, dx = rng.uniform(-1, 1, 2)
    grey = 130 + 25 * np.sin((x + dx) * 2 * np.pi / lines) + 20 * np.cos((y + dy) / 30)
    grey[(y - 48 - dy) ** 2 + (x - 64 - dx) ** 2 < 20**2] = 40
    grey = grey * rng.normal(1, 0.02) + rng.normal(0, 3, grey.shape)
    return np.stack([grey, 0.95 * grey, 0.9 * grey], axis=2)


def speck(seed: int, right: float = 0.0) -> Array:
    """A small disc on a plain ground, ``right`` px off its place: (96, 128, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :128].astype(float)
    dy, dx = rng.normal(0, 0.8, 2)
    grey = 120 + 50 * gaussian_filter(rng.standard_normal((96, 128)), 3)
    grey[(y - 48 - dy) ** 2 + (x - 64 - dx - right) ** 2 < 7**2] = 200  # 1 % of the picture
    return np.repeat(grey[..., None], 3, axis=2)


def grain(seed: int) -> Array:
    """A texture, in which nothing has a place: (96, 128, 3)."""
    noise = np.random.default_rng(seed).standard_normal((2, 96, 128))
    return np.repeat(128 + 300 * gaussian_filter(noise[0], 5) + 30 * gaussian_filter(noise[1], 1), 3).reshape(
        96, 128, 3
    )


def product(seed: int) -> Array:
    """A photograph of the demo's flange: (300, 400, 3)."""
    return photograph(flange(), Shot.draw(np.random.default_rng(seed))).astype(float)
