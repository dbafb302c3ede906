"""Where a transformer looked: attention rollout and gradient-weighted attention, of any network that shows its weights.

Rollout (Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020): the attention of each layer, heads
fused, half of it the residual connection, multiplied over the layers. Gradient-weighted attention (Chefer, Gur & Wolf,
"Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV 2021):
R <- R + A' R with A' = mean over heads of max(gradient * A, 0), where the gradient is that of the number explained.

Only the rows of R that were asked for are computed, from the last layer to the first: vectors times matrices in
place of products of matrices, which makes both methods cost little beside the network's own pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.errors import NotExplainableError
from explainvad.types import PixelFunction

Fusion = Literal["mean", "max", "min"]
RESIDUAL = 0.5  # share of the residual connection in a layer of the rollout
LARGEST_BYTES = 4 << 30  # of attention held at a time


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMaps:
    """Both maps on the grid of patches (rows, cols), float32 on the CPU, and the number that was explained."""

    rollout: Tensor  # shares of a token's attention, in [0, 1]
    gradient_weighted: Tensor  # >= 0, in the number's own unit
    layers: int
    value: float


@contextmanager
def captured(network: nn.Module) -> Iterator[list[Tensor]]:
    """Attention (B, heads, N, N) of each layer, in the order in which they run, while the block lasts.

    timm's modules compute their weights openly once ``fused_attn`` is off, and pass them through ``attn_drop``, where a
    hook finds them; so do the blocks of this package. torch's ``MultiheadAttention``, which open_clip has, gets a
    forward that spells out the same product. Afterwards the network is as it was.
    """
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, weights: Tensor) -> Tensor:
        # the weights of a frozen network, asked about fixed pixels, are leaves
        if torch.is_grad_enabled() and not weights.requires_grad:
            weights = weights.requires_grad_()
        found.append(weights)
        return weights

    hooks: list[Any] = []
    fused: list[tuple[Any, bool]] = []
    replaced: list[Any] = []
    try:
        for module in network.modules():
            if isinstance(module, nn.MultiheadAttention):
                replaced.append(module)
                module.forward = _openly(module, keep)  # type: ignore[method-assign]
            elif isinstance(drop := getattr(module, "attn_drop", None), nn.Module):
                hooks.append(drop.register_forward_hook(keep))
                if hasattr(module, "fused_attn"):
                    fused.append((module, bool(module.fused_attn)))
                    module.fused_attn = False  # type: ignore[assignment]
        yield found
    finally:
        for hook in hooks:
            hook.remove()
        for module, before in fused:
            module.fused_attn = before
        for module in replaced:
            del module.forward  # the class has its own


def _openly(module: nn.MultiheadAttention, keep: Callable[[nn.Module, Any, Tensor], Tensor]) -> Callable[..., Any]:
    """Self-attention with the module's weights, as its own forward computes it in evaluation mode."""

    def forward(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, None]:
        if key is not query or value is not query or module.in_proj_weight is None:
            raise NotExplainableError("its attention is not of a sequence to itself")
        x = query if module.batch_first else query.transpose(0, 1)
        qkv = F.linear(x, module.in_proj_weight, module.in_proj_bias).unflatten(-1, (3, module.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        similarity = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if (mask := options.get("attn_mask")) is not None:
            similarity = similarity.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else similarity + mask
        weights = keep(module, (), similarity.softmax(-1))
        out = F.linear((weights @ v).transpose(1, 2).flatten(2), module.out_proj.weight, module.out_proj.bias)
        return (out if module.batch_first else out.transpose(0, 1)), None

    return forward


def attention_maps(function: PixelFunction, fusion: Fusion = "mean") -> AttentionMaps:
    """Both maps from one pass forward and one back.

    They are rows of the token that the number is about; of the class token where it is about that, and of all patches
    alike where there is none. The token's own share, the identity that R begins with, is left out of the
    gradient-weighted map. Raises NotExplainableError where the network has no attention over all patches, or where it
    would not fit into LARGEST_BYTES.
    """
    if function.grid is None:
        raise NotExplainableError("its network has no tokens that attend to one another over the whole frame")
    rows, cols = function.grid
    count = function.prefix + rows * cols
    _require_room(function.network, count)
    with torch.enable_grad(), captured(function.network) as layers:
        value = function.value(function.frame[None])
        if not layers:
            raise NotExplainableError("its network does not show its attention")
        if wrong := [tuple(weights.shape) for weights in layers if weights.shape[-2:] != (count, count)]:
            raise NotExplainableError(
                f"its attention is not over all {count} tokens of a frame, but of shape {wrong[0]}, as in windows"
            )
        # layers that the number does not read have no gradient
        gradients = torch.autograd.grad(value.sum(), layers, allow_unused=True)
    read = [(weights.detach()[0], g[0]) for weights, g in zip(layers, gradients, strict=True) if g is not None]
    asked = _asked(function, count).to(layers[0])

    def on_grid(row: Tensor) -> Tensor:
        return row[function.prefix :].reshape(rows, cols).float().cpu()

    return AttentionMaps(
        rollout=on_grid(rollout([weights for weights, _ in read], asked, fusion)),
        gradient_weighted=on_grid(gradient_weighted([w for w, _ in read], [g for _, g in read], asked)),
        layers=len(read),
        value=float(value.detach()),
    )


def rollout(layers: Sequence[Tensor], asked: Tensor, fusion: Fusion = "mean", residual: float = RESIDUAL) -> Tensor:
    """Share (N,) that each token of the input has in the tokens ``asked`` (N,) of the last layer.

    ``layers`` (heads, N, N) are the attention of each layer, the first one first; rows sum to 1. ``residual`` is the
    share of the residual connection. With ``fusion`` other than the mean, rows are brought back to a sum of 1.
    """
    row = asked
    for weights in reversed(layers):
        if fusion == "mean":  # rows sum to 1 already, and each head is read once
            mixed = (row.expand(len(weights), 1, -1) @ weights).mean((0, 1))
        else:
            fused = getattr(weights, f"a{fusion}")(0)
            row = row / (residual + (1 - residual) * fused.sum(1))
            mixed = row @ fused
        row = residual * row + (1 - residual) * mixed
    return row


def gradient_weighted(layers: Sequence[Tensor], gradients: Sequence[Tensor], asked: Tensor) -> Tensor:
    """Relevance (N,) >= 0 of each token of the input for the tokens ``asked`` (N,), without what is theirs from start.

    ``layers`` (heads, N, N) and the number's ``gradients`` to them, the first layer first.
    """
    row = asked
    for weights, gradient in zip(reversed(layers), reversed(gradients), strict=True):
        positive = (gradient * weights).clamp_min_(0)
        row = row + (row.expand(len(weights), 1, -1) @ positive).mean((0, 1))
    return row - asked


def _asked(function: PixelFunction, count: int) -> Tensor:
    """Weight (N,) of the tokens that the number is about; sums to 1."""
    asked = torch.zeros(count)
    if function.token is not None and function.grid is not None:
        asked[function.prefix + function.token[0] * function.grid[1] + function.token[1]] = 1
    elif function.prefix:
        asked[0] = 1  # class tokens come first
    else:
        asked[:] = 1 / count
    return asked


def _require_room(network: nn.Module, count: int) -> None:
    heads = sum(
        int(getattr(module, "num_heads", getattr(module, "heads", 1)))
        for module in network.modules()
        if isinstance(module, nn.MultiheadAttention) or isinstance(getattr(module, "attn_drop", None), nn.Module)
    )
    if (needed := 2 * 4 * heads * count**2) > LARGEST_BYTES:  # with their gradients
        raise NotExplainableError(
            f"attention among {count:,} tokens would take {needed / 2**30:.1f} GiB, more than {LARGEST_BYTES >> 30}: "
            "give a smaller picture, or fit with a lower resolution"
        )
