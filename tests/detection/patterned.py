"""Small pictures of a woven pattern, a planted square, and a backbone too small to know anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from explainvad.detection.backbone.embedded import EmbeddedBackbone
from explainvad.detection.backbone.network import Architecture, HybridBackbone
from explainvad.types import InspectionImage

TINY = Architecture(stem=8, detail=8, width=16, context=16, conv_blocks=1, attention_blocks=1, heads=2, dimension=24)
SQUARE = (slice(24, 38), slice(30, 44))  # rows and columns of the planted defect


def picture(pixels: NDArray[np.uint8]) -> InspectionImage:
    """Wrap uint8 (H, W, 3)."""
    return InspectionImage("img-1", "a.png", pixels, "0" * 64, 1, Path("a.png"))


def pattern(seed: int, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """A smooth weave, slightly moved, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    grey = 128 + 60 * np.sin(x / 5 + rng.uniform(-0.3, 0.3)) * np.cos(y / 7)
    rgb = np.stack([grey, 0.9 * grey, 0.7 * grey], axis=2) + rng.normal(0, 3, (height, width, 3))
    return np.clip(rgb, 0, 255).astype(np.uint8)


def normal_pictures(count: int, first: int = 0) -> list[InspectionImage]:
    """``count`` normal pictures, 64 x 64."""
    return [picture(pattern(seed)) for seed in range(first, first + count)]


def defective_picture(seed: int) -> InspectionImage:
    """A red square in the weave, at SQUARE."""
    pixels = pattern(seed)
    pixels[SQUARE] = [220, 20, 20]
    return picture(pixels)


def random_backbone(seed: int = 0, resolution: int = 64) -> EmbeddedBackbone:
    """A tiny network with random weights: what holds for it holds for any."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HybridBackbone(TINY)
    return EmbeddedBackbone(network, resolution, f"random, seed {seed}")
