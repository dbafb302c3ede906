"""What the transformers of this package share: a block, attention with a distance bias, and a code of places."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def position_code(rows: int, cols: int, frame: tuple[int, int], origin: tuple[int, int], width: int) -> Tensor:
    """Sine-cosine code (rows * cols, width) of each token's place in the whole image, as fractions of its sides.

    Fractions, so that a window of a large image knows where on the part it lies, and so that images of
    different sizes share one code. ``frame`` and ``origin`` count tokens.
    """
    y = (torch.arange(rows) + origin[0] + 0.5) / frame[0]
    x = (torch.arange(cols) + origin[1] + 0.5) / frame[1]
    frequency = torch.pi * 2.0 ** torch.linspace(0, 6, width // 4)

    def code(position: Tensor) -> Tensor:
        angle = position[:, None] * frequency
        return torch.cat((angle.sin(), angle.cos()), dim=1)

    grid = (code(y)[:, None].expand(-1, cols, -1), code(x)[None].expand(rows, -1, -1))
    return torch.cat(grid, dim=2).reshape(rows * cols, width)


def distance_bias(rows: int, cols: int, heads: int, device: torch.device) -> Tensor:
    """Attention bias (heads, N, N) of a grid of tokens: minus a slope times their distance.

    ALiBi (Press et al., ICLR 2022) in two dimensions: the first head looks at the nearest tokens, the last one, with
    slope 0, everywhere.
    """
    slopes = 2.0 ** -torch.arange(heads, device=device)
    slopes[-1] = 0.0
    place = torch.arange(rows * cols, device=device)
    y, x = place // cols, place % cols
    return -slopes[:, None, None] * torch.hypot((y[:, None] - y[None]).float(), (x[:, None] - x[None]).float())


class Attention(nn.Module):
    """Multi-head self-attention with an additive bias (heads, N, N)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        self.attn_drop = nn.Identity()  # attention can be read here, as in timm's modules

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        def split(x: Tensor) -> Tensor:
            return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

        key, value = self.key_value(x).chunk(2, dim=2)
        # spelt out: on a CPU the fused kernel's backward pass takes four times as long on so few tokens
        similarity = split(self.query(x)) @ split(key).transpose(2, 3)
        weight = self.attn_drop((similarity * (x.shape[2] // self.heads) ** -0.5 + bias).softmax(dim=3))
        return self.project((weight.to(value.dtype) @ split(value)).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block around any attention (width, heads)."""

    def __init__(self, width: int, heads: int, attention: Callable[[int, int], nn.Module] = Attention) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """``context`` is what the attention needs besides (B, N, width): the bias of :class:`Attention`."""
        x = x + self.attention(self.norm_attention(x), *context)
        return x + self.mlp(self.norm_mlp(x))
