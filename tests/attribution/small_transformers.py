"""Small transformers with random weights, numbers of them, and what a watcher is shown of their attention."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from explainvad.attribution.watched_attention import watched
from explainvad.types import PixelFunction

PLAIN = {"embed_dim": 32, "depth": 2, "num_heads": 2}
VIT = {**PLAIN, "img_size": 32, "patch_size": 8, "dynamic_img_size": True, "num_classes": 0}
# architecture, arguments, side of a patch, prefix tokens
TRANSFORMERS = {
    "ViT": ("vit_tiny_patch16_224", VIT, 8, 1),
    "registers": ("vit_small_patch14_reg4_dinov2", {**PLAIN, "img_size": 56, "dynamic_img_size": True}, 14, 5),
    "rotary": ("vit_small_patch16_dinov3", PLAIN, 16, 5),
    "no class token": ("vit_tiny_patch16_224", {**VIT, "class_token": False, "global_pool": "avg"}, 8, 0),
}


def vit(name: str = "ViT") -> nn.Module:
    torch.manual_seed(0)
    architecture, arguments, _, _ = TRANSFORMERS[name]
    return timm.create_model(architecture, pretrained=False, **arguments).eval().requires_grad_(False)


def asked_of(
    network: nn.Module, frame: Tensor, side: int, prefix: int, token: tuple[int, int] | None, **more: Any
) -> PixelFunction:
    """Length of the token that is asked about, or of the class token."""
    rows, cols = frame.shape[1] // side, frame.shape[2] // side

    def value(frames: Tensor) -> Tensor:
        tokens: Tensor = network.forward_features(frames)  # type: ignore[operator]
        place = 0 if token is None else prefix + token[0] * cols + token[1]
        return tokens[:, place].norm(dim=1)

    whole = slice(0, frame.shape[1]), slice(0, frame.shape[2])
    given: dict[str, Any] = {"grid": (rows, cols), "value": value, **more}
    return PixelFunction(
        "length",
        frame=frame,
        baseline=torch.zeros_like(frame),
        size=(frame.shape[1], frame.shape[2]),
        window=whole,
        network=network,
        prefix=prefix,
        token=token,
        **given,
    )


class Recorder:
    """Keeps attention and gradient times attention (heads, N, N) of each layer, the last one first."""

    def __init__(self, count: int) -> None:
        self.asked = torch.ones(count, dtype=torch.bool)
        self.layers: list[tuple[Tensor, Tensor]] = []
        self._rows: list[tuple[Tensor, Tensor]] = []

    def see(self, tokens: Tensor, weights: Tensor, product: Tensor) -> None:
        self._rows.append((weights.clone(), product.clone()))

    def passed(self, heads: int) -> None:
        whole = (torch.cat(part).unflatten(0, (heads, -1)) for part in zip(*self._rows, strict=True))
        weights, product = whole
        self.layers.append((weights, product))
        self._rows = []


def recorded(function: PixelFunction) -> list[tuple[Tensor, Tensor]]:
    rows, cols = function.grid or (0, 0)
    recorder = Recorder(function.prefix + rows * cols)
    with torch.enable_grad(), watched(function.network, recorder) as found:
        number = function.value(function.frame[None]).sum()
    found.back(number)
    return recorder.layers


def spelled_out(network: nn.Module, openly: bool = True) -> None:
    """Let timm compute its weights openly, or leave it to torch."""
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = not openly
