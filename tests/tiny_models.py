"""Tiny networks of the real classes with random weights, as a weight store on disk. Seconds, no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from explainvad.detection.backbones import Backbones
from explainvad.detection.loading import clip_network, timm_network
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_install import bring
from explainvad.detection.weights_lock import LAYOUTS

VIT = "tiny-vit"  # plain transformer, 3 blocks, patches of 8 px
CNN = "tiny-resnet"  # stem and four stages
CLIP = "tiny-clip"  # images of 120 px in a 15 x 15 grid of patches of 8 px; 16-d embeddings
CLIP_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 120, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]},
}
NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    VIT: (
        "vit_tiny_patch16_224",
        {"img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "dynamic_img_size": True},
        8,
    ),
    CNN: ("resnet10t", {}, 32),
}


def write_store(folder: Path) -> Path:
    """Write every network of NETWORKS and the CLIP below ``folder``, seed 0, and lock them."""
    for name, (architecture, arguments, multiple) in NETWORKS.items():
        config = {
            "architecture": architecture,
            "model_args": arguments,
            "multiple": multiple,
            "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
        }
        write_weights(folder / name, "timm", config)
    write_weights(folder / CLIP, "open_clip", CLIP_CONFIG)
    for name in (*NETWORKS, CLIP):
        bring(WeightStore(folder), name, folder / name)
    return folder


def write_weights(folder: Path, library: str, config: dict[str, Any], seed: int = 0, classes: int = 0) -> None:
    """Write configuration and random tensors in the layout of the library; locks nothing."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip = library == "open_clip"
        network = clip_network(folder.name, config) if clip else timm_network(folder.name, config, classes)
    config_file, tensors = LAYOUTS[library]
    save_file(network.state_dict(), folder / tensors)
    (folder / config_file).write_text(json.dumps(config))


def tiny_backbones(folder: Path) -> Backbones:
    """A pool over a store that :func:`write_store` wrote; float32, on the CPU."""
    return Backbones(WeightStore(folder), bf16=False)
