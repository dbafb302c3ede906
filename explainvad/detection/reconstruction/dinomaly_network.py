"""Dinomaly's decoder, from a noisy bottleneck to the middle layers in two groups, and its loose loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.reconstruction.decoder import LinearAttention
from explainvad.detection.transformer import Block

GROUPS = 2
HEAD = 64  # channels of an attention head, as DINOv2 has them


class GroupDecoder(nn.Module):
    """Rebuilds the mean features of the first and of the second half of an encoder's layers from the mean of all.

    Block l of the decoder answers to layer n + 1 - l of the encoder, so that the last blocks rebuild the first group. A
    decoder that is narrower than the encoder ends each group in a linear layer. Neither places nor masks are given:
    frozen features know where they lie, and attention that is linear has no locality to abuse.
    """

    def __init__(self, channels: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.first = layers // 2  # layers in the first group
        self.layers = layers
        # noise before, inside and after the squeeze
        self.bottleneck = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(channels, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )
        heads = 1 if width % HEAD else width // HEAD
        self.blocks = nn.ModuleList(Block(width, heads, LinearAttention) for _ in range(layers))
        self.heads = nn.ModuleList(
            nn.Identity() if width == channels else nn.Linear(width, channels) for _ in range(GROUPS)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.01, a=-0.03, b=0.03)
                nn.init.zeros_(module.bias)

    def forward(self, groups: Tensor) -> Tensor:
        """Reconstruction (B, 2, N, channels) of the groups' mean features (B, 2, N, channels)."""
        share = self.first / self.layers
        x = self.bottleneck(share * groups[:, 0] + (1 - share) * groups[:, 1])
        answers = []
        for block in self.blocks:
            x = block(x)
            answers.append(x)
        answers.reverse()
        parts = answers[: self.first], answers[self.first :]
        means = (torch.stack(part).mean(0) for part in parts)
        return torch.stack([head(mean) for head, mean in zip(self.heads, means, strict=True)], dim=1)


def distances(groups: Tensor, rebuilt: Tensor) -> Tensor:
    """Cosine distance (B, 2, N) in [0, 2] of features (B, 2, N, channels) from their reconstruction."""
    return 1 - F.cosine_similarity(groups, rebuilt.float(), dim=3)


def loose_loss(groups: Tensor, rebuilt: Tensor, easy: float, damping: float = 0.1) -> Tensor:
    """Global cosine distance with hard mining, the mean over images and groups.

    An image's group is one long vector of N x channels. The share ``easy`` of the points of a group, over the batch,
    that is already rebuilt best moves the weights by ``damping`` of its gradient only: fitted to perfection, the
    decoder would rebuild anomalies as well.
    """
    rebuilt = rebuilt.float()
    distance = distances(groups, rebuilt.detach()).transpose(0, 1)  # (2, B, N)
    hard = max(1, int(distance[0].numel() * (1 - easy)))
    limit = distance.flatten(1).topk(hard).values[:, -1]
    weight = torch.where(distance < limit[:, None, None], damping, 1.0).transpose(0, 1)[..., None]
    # the value is that of `rebuilt`, its gradient is `weight` times as large
    damped = rebuilt.detach() + weight * (rebuilt - rebuilt.detach())
    return (1 - F.cosine_similarity(groups.flatten(2), damped.flatten(2), dim=2)).mean()
