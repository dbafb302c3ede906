"""Small pictures of one simple part, with or without a spot of rust, and lots of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainvad.config import DetectionConfig, InspectionConfig

WIDTH, HEIGHT = 80, 64
RUST = (slice(28, 35), slice(36, 44))  # rows and columns of the planted defect
N_REFERENCES = 60
GOOD, RUSTY, FOREIGN = "good", "rusty", "foreign"

# What a fit of seconds needs; the guarantees do not depend on how well the scorers see.
CONFIG = InspectionConfig(
    alpha=0.1,
    device="cpu",
    detection=DetectionConfig(resolution=80, adaptation_steps=1, reconstruction_steps=30, bank_rows=200),
)
CONFIG_TOML = """\
alpha = 0.1
device = "cpu"
[detection]
resolution = 80
adaptation_steps = 1
reconstruction_steps = 30
bank_rows = 200
"""


def part(seed: int, kind: str = GOOD, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A ribbed disc on a dark ground, uint8 (height, width, 3); place, light and noise come from the seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    dx, dy = rng.uniform(-1.5, 1.5, 2)
    disc = (x - width / 2 - dx) ** 2 + (y - height / 2 - dy) ** 2 < (0.4 * height) ** 2
    grey = np.where(disc, 150 + 30 * np.sin((x - dx) / 3), 60)
    if kind == FOREIGN:
        grey = 200 - 0.8 * grey + 40 * (np.abs(x - y) < 6)
    rgb = np.stack([grey, 0.95 * grey, 0.85 * grey], axis=2) * rng.uniform(0.9, 1.1)
    if kind == RUSTY:
        rgb[RUST] = (210, 110, 70)
    return np.clip(rgb + rng.normal(0, rng.uniform(2, 4), rgb.shape), 0, 255).astype(np.uint8)


def write_part(path: Path, seed: int, kind: str = GOOD) -> Path:
    """Write the picture in the format of the path's suffix, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(part(seed, kind)).save(path)
    return path


def write_references(folder: Path, n: int = N_REFERENCES) -> Path:
    """``n`` pictures of normal parts."""
    for seed in range(n):
        write_part(folder / f"part_{seed:03d}.png", seed)
    return folder


def write_lot(folder: Path, kinds: list[str], first: int = 1000) -> Path:
    """One picture for each of ``kinds``, named by number and kind."""
    for i, kind in enumerate(kinds):
        write_part(folder / f"{i:02d}_{kind}.png", first + i, kind)
    return folder
