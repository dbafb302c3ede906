"""The decoder of the feature reconstruction: what normal features look like, through a noisy bottleneck.

After Dinomaly (Guo et al., "The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection", CVPR 2025):
dropout in the bottleneck and linear attention without a locality of its own keep the decoder from learning to pass
anything through, the identity-mapping trap of the survey (arXiv 2507.15905, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.transformer import Block


class LinearAttention(nn.Module):
    """Softmax-free attention, phi(q) (phi(k)^T v) with phi = elu + 1 (Katharopoulos et al., ICML 2020): O(N) tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.query_key_value(x).chunk(3, dim=2)
        )
        query, key = F.elu(query) + 1, F.elu(key) + 1
        key = key / key.shape[2]  # the sums below must not grow with the image
        context = key.transpose(2, 3) @ value
        norm = (query @ key.sum(2)[..., None]).clamp_min(1e-6)
        return self.project(((query @ context) / norm).transpose(1, 2).flatten(2))


class FeatureDecoder(nn.Module):
    """Reconstructs groups of features (B, N, channels) from themselves, squeezed and with noise."""

    def __init__(self, groups: tuple[int, ...], width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.groups = tuple(groups)
        channels = sum(groups)
        self.bottleneck = nn.Sequential(
            nn.Linear(channels, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.blocks = nn.ModuleList(Block(width, heads, LinearAttention) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, channels)

    def forward(self, features: Tensor, position: Tensor) -> Tensor:
        """Cosine distances (B, N, groups) in [0, 2] of features (B, N, channels) from their reconstruction.

        ``position`` (B, N, width) or (N, width) is added to the squeezed features.
        """
        x = self.bottleneck(features) + position
        for block in self.blocks:
            x = block(x)
        predicted = self.head(self.norm(x)).split(self.groups, dim=2)
        target = features.split(self.groups, dim=2)
        return torch.stack(
            [1 - F.cosine_similarity(p.float(), t.float(), dim=2) for p, t in zip(predicted, target, strict=True)],
            dim=2,
        )


@contextmanager
def dropout_on(network: nn.Module, seed: int = 0, device: str | torch.device = "cpu") -> Iterator[None]:
    """Leave dropout on, and nothing else, for passes that sample a network.

    Gal & Ghahramani, "Dropout as a Bayesian Approximation" (ICML 2016). The masks come from ``seed`` alone, so an
    image's answer does not depend on what was asked before. The network is in evaluation mode afterwards, and the
    global generators are as they were.
    """
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.train()
        try:
            yield
        finally:
            network.eval()


def mc_dropout(decoder: FeatureDecoder, features: Tensor, position: Tensor, members: int, seed: int = 0) -> Tensor:
    """Distances (members, N, groups) of ``members`` passes over features (N, channels) with dropout left on."""
    with dropout_on(decoder, seed, features.device):
        distance: Tensor = decoder(features.expand(members, -1, -1), position)
    return distance


def loose_loss(distance: Tensor, easy_share: float, easy_weight: float = 0.1) -> Tensor:
    """Mean distance, where the ``easy_share`` of best reconstructed points counts ``easy_weight`` of the others.

    Dinomaly's loose reconstruction: what is already reconstructed well is not fitted to perfection, which would let
    anomalies through as well.
    """
    limit = torch.quantile(distance.detach().flatten(), easy_share)
    weight = torch.where(distance.detach() < limit, easy_weight, 1.0)
    return (weight * distance).mean()
