"""The masked autoencoder: a Vision Transformer that predicts hidden patches from visible ones.

He et al., "Masked Autoencoders Are Scalable Vision Learners" (CVPR 2022), with two changes. The decoder's
queries attend to the visible tokens only, never to each other (Fu et al., "Rethinking Patch Dependence for
Masked Autoencoders", 2024), which makes scoring several times cheaper. And it predicts a variance
beside each pixel's mean, trained by the beta-weighted likelihood of Seitzer et al., "On the Pitfalls of
Heteroscedastic Uncertainty Estimation" (ICLR 2022), because an edge that moves with the part's pose is
harder to predict than a flat face, and a residual must be judged against that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of the network; they travel with its weights."""

    patch: int = 16
    width: int = 128
    heads: int = 4
    encoder_depth: int = 4
    decoder_depth: int = 2

    def as_dict(self) -> dict[str, int]:
        """For the bundle's manifest."""
        return asdict(self)


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, 3, rows, cols) -> (B, N, 3 * patch * patch), tokens row by row."""
    return F.unfold(images, patch, stride=patch).transpose(1, 2)


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


def distance_bias(queries: Tensor, context: Tensor, cols: int, heads: int) -> Tensor:
    """Attention bias (heads, Q, K): minus a slope times the distance in patches between tokens of one grid.

    ALiBi (Press et al., ICLR 2022) in two dimensions: the first head looks at the nearest tokens, the last one, with
    slope 0, everywhere. Locality that need not be learnt first is what makes a minute of training enough.
    """
    slopes = 2.0 ** -torch.arange(heads, device=queries.device)
    slopes[-1] = 0.0
    dy = (queries // cols)[:, None] - (context // cols)[None]
    dx = (queries % cols)[:, None] - (context % cols)[None]
    return -slopes[:, None, None] * torch.hypot(dy.float(), dx.float())


class Attention(nn.Module):
    """Multi-head attention of ``queries`` to ``context``, with an additive bias (heads, Q, K)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        def split(x: Tensor) -> Tensor:
            return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

        key, value = self.key_value(context).chunk(2, dim=2)
        out = F.scaled_dot_product_attention(split(self.query(queries)), split(key), split(value), attn_mask=bias)
        return self.project(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block; attends to ``context`` if given, else to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, bias: Tensor, context: Tensor | None = None) -> Tensor:
        normed = self.norm_attention(x)
        x = x + self.attention(normed, normed if context is None else context, bias)
        return x + self.mlp(self.norm_mlp(x))


class MaskedAutoencoder(nn.Module):
    """ViT encoder over visible patches; decoder that predicts mean and log-variance of hidden ones."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.embed = nn.Linear(3 * a.patch**2, a.width)
        self.encoder = nn.ModuleList(Block(a.width, a.heads) for _ in range(a.encoder_depth))
        self.encoder_norm = nn.LayerNorm(a.width)
        self.query = nn.Parameter(torch.zeros(a.width))
        self.decoder = nn.ModuleList(Block(a.width, a.heads) for _ in range(a.decoder_depth))
        self.decoder_norm = nn.LayerNorm(a.width)
        self.mean = nn.Linear(a.width, 3 * a.patch**2)
        self.log_variance = nn.Linear(a.width, a.patch**2)  # one a pixel, shared by its three channels

    def encode(self, patches: Tensor, position: Tensor, tokens: Tensor, cols: int) -> list[Tensor]:
        """Tokens (B, N, width) after every encoder block, the last one normalised.

        ``tokens`` (N,) are the patches' indices in a grid with ``cols`` columns.
        """
        x = self.embed(patches) + position
        bias = distance_bias(tokens, tokens, cols, self.architecture.heads)
        layers = []
        for block in self.encoder:
            x = block(x, bias)
            layers.append(x)
        layers[-1] = self.encoder_norm(x)
        return layers

    def forward(
        self, patches: Tensor, position: Tensor, cols: int, visible: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict the hidden patches from the visible ones.

        ``patches`` (B, N, 3 p^2) of a grid with ``cols`` columns, ``position`` (N, width) or (B, N, width), ``visible``
        and ``hidden`` token indices. Returns mean (B, len(hidden), 3 p^2) and log-variance (B, len(hidden), p^2).
        """
        context = self.encode(patches[:, visible], position[..., visible, :], visible, cols)[-1]
        bias = distance_bias(hidden, visible, cols, self.architecture.heads)
        x = (self.query + position[..., hidden, :]).expand(len(patches), -1, -1)
        for block in self.decoder:
            x = block(x, bias, context)
        x = self.decoder_norm(x)
        return self.mean(x), self.log_variance(x).clamp(-10, 10)


def mask_groups(rows: int, cols: int, block: int, groups: int, generator: torch.Generator) -> Tensor:
    """Divide a grid of tokens into ``groups`` complementary, nearly equal sets of square blocks.

    Returns int64 (rows * cols): the group of each token. Blocks of several patches hide a defect larger than one
    patch as a whole, so that it cannot be predicted from itself; a small grid gets smaller blocks.
    """
    block = max(1, min(block, min(rows, cols) // 2))
    offset = torch.randint(block, (2,), generator=generator)
    y = (torch.arange(rows) + offset[0]) // block
    x = (torch.arange(cols) + offset[1]) // block
    across = int(x[-1]) + 1
    blocks = torch.randperm((int(y[-1]) + 1) * across, generator=generator) % groups
    return blocks[(y[:, None] * across + x[None, :]).reshape(-1)]


def likelihood_loss(target: Tensor, mean: Tensor, log_variance: Tensor, beta: float = 1.0) -> Tensor:
    """Gaussian negative log-likelihood, weighted by variance^beta without gradient (Seitzer et al. 2022, eq. 5)."""
    squared = (target - mean).square().unflatten(2, (3, -1)).mean(2)
    loss = 0.5 * (squared * (-log_variance).exp() + log_variance)
    return (loss * (beta * log_variance.detach()).exp()).mean()
