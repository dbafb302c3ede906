"""A Segment Anything of the real class with 64 px frames and random weights: 0.5 MB, milliseconds an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from explainvad.detection.sam_network import PUBLISHED, empty_sam

TINY = replace(
    PUBLISHED["vit_b"],
    side=64, width=32, depth=2, heads=2, mlp=64, window=2, whole_frame=(1,), channels=32, mask_channels=8,
    decoder_mlp=64, quality_width=32,
)  # fmt: skip
NAME = "vit_32x2"


def tiny_sam(seed: int = 0) -> nn.Module:
    """The network; its relative positions, zero when freshly made, are random too."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = empty_sam(TINY)
        for key, value in network.state_dict().items():
            if "rel_pos" in key or key.endswith("pos_embed"):
                value.normal_(0, 0.1)
    return network


def write_sam(path: Path, seed: int = 0, **changed: Tensor | None) -> Path:
    """A checkpoint in the format of the path's suffix; of ``changed`` tensors, None leaves one out."""
    tensors = {**tiny_sam(seed).state_dict(), **changed}
    state = {key: value.contiguous() for key, value in tensors.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path
