"""A tiny network of every family of backbones, of timm's real classes with random weights."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import pytest
import torch
from patterned import pattern, picture
from torch import Tensor, nn

from explainvad.detection.backbones import FrozenBackbone
from explainvad.detection.weights import Weights
from explainvad.types import InspectionImage

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Family(NamedTuple):
    """A tiny network of a real class, and what it must answer."""

    architecture: str
    arguments: dict[str, Any]
    multiple: int
    strides: tuple[int, ...]  # of each layer
    widths: tuple[int, ...]
    prefix: int = 0  # class and register tokens


PLAIN = {"embed_dim": 32, "depth": 3, "num_heads": 2, "dynamic_img_size": True}
NARROW = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}
FAMILIES = {
    "ResNet-18": Family("resnet18", NARROW, 32, (2, 4, 8, 16, 32), (64, 8, 16, 24, 32)),
    "WideResNet-50-2": Family(
        "wide_resnet50_2", {**NARROW, "base_width": 16}, 32, (2, 4, 8, 16, 32), (64, 32, 64, 96, 128)
    ),
    "ViT": Family("vit_tiny_patch16_224", {**PLAIN, "img_size": 64}, 16, (16,) * 3, (32,) * 3, 1),
    "DINO": Family("vit_small_patch16_224.dino", {**PLAIN, "img_size": 64}, 16, (16,) * 3, (32,) * 3, 1),
    "DINOv2": Family("vit_small_patch14_dinov2", {**PLAIN, "img_size": 56}, 14, (14,) * 3, (32,) * 3, 1),
    "DINOv2 with registers": Family(
        "vit_small_patch14_reg4_dinov2", {**PLAIN, "img_size": 56}, 14, (14,) * 3, (32,) * 3, 5
    ),
    "DINOv3": Family(
        "vit_small_patch16_dinov3", {"embed_dim": 32, "depth": 3, "num_heads": 2}, 16, (16,) * 3, (32,) * 3, 5
    ),
    # Windows of 7 meet grids of other sizes: the network pads them itself
    "Swin": Family(
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 1, 2, 2), "strict_img_size": False},
        32,
        (4, 8, 16, 32),
        (8, 16, 32, 64),
    ),
    # Patches of 2 x 2 cells at stride 32: an odd grid is stretched and brought back inside
    "MobileViT": Family("mobilevit_xxs", {}, 32, (2, 4, 8, 16, 32), (16, 24, 48, 64, 320)),
    "TinyViT": Family(
        "tiny_vit_5m_224",
        {"embed_dims": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
        32,
        (4, 8, 16, 32),
        (8, 16, 16, 32),
    ),
    "EfficientViT b": Family(
        "efficientvit_b0",
        {"widths": (8, 8, 16, 16, 32), "depths": (1, 1, 1, 1, 1), "head_dim": 8},
        32,
        (4, 8, 16, 32),
        (8, 16, 16, 32),
    ),
    "EfficientViT m": Family("efficientvit_m0", {}, 64, (16, 32, 64), (64, 128, 192)),
}
TOKENS = [name for name, family in FAMILIES.items() if family.prefix]

each_family = pytest.mark.parametrize("name", FAMILIES)


@functools.cache
def network_of(name: str) -> nn.Module:
    """Random weights, and no two norms alike: an image must tell whether one was left out."""
    network = weights_of(name).network()
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def weights_of(name: str, multiple: int | None = None) -> Weights:
    family = FAMILIES[name]
    config = {"architecture": family.architecture, "model_args": family.arguments}
    return Weights(name, "timm", None, config, multiple or family.multiple, MEAN, STD)


def backbone_of(name: str, resolution: int = 96, **how: Any) -> FrozenBackbone:
    network = network_of(name)
    if how.get("bf16"):
        network = weights_of(name).network()
        network.load_state_dict(network_of(name).state_dict())
    return FrozenBackbone(network, weights_of(name), resolution, **how)


def oblong(seed: int = 0, height: int = 101, width: int = 149) -> InspectionImage:
    return picture(pattern(seed, height, width))


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())
