"""UniAD's transformer: masked attention around each place, and a query of its own in every layer of the decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

HEADS = 8


def neighbour_mask(rows: int, cols: int, side: int, device: torch.device | str = "cpu") -> Tensor:
    """Bool (N, N) of a grid of N = rows x cols places: True where one may not look, ``side`` x ``side`` around itself.

    Raises ValueError where a place could look nowhere.
    """
    reach = side // 2
    if max(rows, cols) <= 2 * reach + 1:
        raise ValueError(
            f"a neighbourhood of {side} x {side} hides the whole grid of {rows} x {cols} places from one of them: "
            "choose a smaller one, or a finer grid"
        )
    place = torch.arange(rows * cols, device=device)
    y, x = place // cols, place % cols
    return ((y[:, None] - y).abs() <= reach) & ((x[:, None] - x).abs() <= reach)


def jittered(tokens: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Features (..., C) with normal noise on every channel, of deviation scale x ||f|| / C."""
    noise = torch.randn(tokens.shape, generator=generator).to(tokens)
    return tokens + noise * (scale / tokens.shape[-1] * tokens.norm(dim=-1, keepdim=True))


class Attention(nn.Module):
    """Multi-head attention (B, N, width) of queries to keys and their values, where ``seen`` (N, N) is True."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
        def split(x: Tensor) -> Tensor:
            return x.unflatten(2, (HEADS, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            split(self.query(query)), split(self.key(key)), split(self.value(value)), attn_mask=seen
        )
        answer: Tensor = self.project(mixed.transpose(1, 2).flatten(2))
        return answer


class _Layer(nn.Module):
    """What both layers share: attention with places in query and key alone, and an MLP, each normalised afterwards.

    Dropout is on what is added and in the MLP, not on attention weights: that would double the time of a step.
    """

    def __init__(self, width: int, attentions: int, dropout: float) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(Attention(width) for _ in range(attentions))
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(attentions + 1))
        self.dropout = nn.Dropout(dropout)

    def attend(self, which: int, x: Tensor, to: Tensor, place: Tensor, seen: Tensor | None) -> Tensor:
        answer = self.attentions[which](x + place, to + place, to, seen)
        normed: Tensor = self.norms[which](x + self.dropout(answer))
        return normed

    def digest(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norms[-1](x + self.dropout(self.mlp(x)))
        return normed


class EncoderLayer(_Layer):
    """Tokens (B, N, width) look at one another."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(width, 1, dropout)

    def forward(self, x: Tensor, place: Tensor, seen: Tensor | None) -> Tensor:
        return self.digest(self.attend(0, x, x, place, seen))


class DecoderLayer(_Layer):
    """The layer's own query looks at the encoder's tokens, and what comes of it at the previous layer's.

    Without a query (``places`` 0) the previous layer's tokens take its place, and may be passed on as they are.
    """

    def __init__(self, width: int, places: int, dropout: float) -> None:
        super().__init__(width, 2, dropout)
        self.query = nn.Parameter(torch.randn(places, width)) if places else None

    def forward(self, previous: Tensor, memory: Tensor, place: Tensor, seen: Tensor | None) -> Tensor:
        x = previous if self.query is None else self.query.expand_as(memory)
        x = self.attend(0, x, memory, place, seen)
        return self.digest(self.attend(1, x, previous, place, seen))


class QueryTransformer(nn.Module):
    """Rebuilds features (B, N, channels) of a grid of N = rows x cols places."""

    def __init__(
        self,
        channels: int,
        rows: int,
        cols: int,
        *,
        width: int,
        depth: int,
        dropout: float,
        neighbours: int,
        query: bool = True,
    ) -> None:
        """``neighbours`` 0 masks nothing."""
        super().__init__()
        self.rows, self.cols, self.neighbours = rows, cols, neighbours
        self.project_in = nn.Linear(channels, width)
        self.row_code, self.col_code = (nn.Parameter(torch.rand(side, width // 2)) for side in (rows, cols))
        self.encoder = nn.ModuleList(EncoderLayer(width, dropout) for _ in range(depth))
        self.decoder = nn.ModuleList(DecoderLayer(width, query * rows * cols, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.project_out = nn.Linear(width, channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    @property
    def place(self) -> Tensor:
        """The learned code (N, width) of the places: one half for the row, the other for the column."""
        shape = self.rows, self.cols, -1
        halves = self.row_code[:, None].expand(shape), self.col_code[None].expand(shape)
        return torch.cat(halves, dim=2).flatten(0, 1)

    def forward(self, features: Tensor) -> Tensor:
        seen = ~neighbour_mask(self.rows, self.cols, self.neighbours, features.device) if self.neighbours else None
        place = self.place
        memory = self.project_in(features)
        for layer in self.encoder:
            memory = layer(memory, place, seen)
        x = memory
        for layer in self.decoder:
            x = layer(x, memory, place, seen)
        rebuilt: Tensor = self.project_out(self.norm(x))
        return rebuilt
