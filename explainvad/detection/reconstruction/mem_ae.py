"""MemAE: an autoencoder that may rebuild an image from a memory of normal patterns only.

Gong et al., "Memorizing Normality to Detect Anomaly: Memory-augmented Deep Autoencoder for Unsupervised Anomaly
Detection" (ICCV 2019). An encoder squeezes each place to a query z; it addresses the N items of a memory M with
w = softmax(z M^T), weights below lambda are shrunk to zero, and the decoder sees nothing but w^ M. Like the authors'
code, and unlike eq. 5, the similarity is not divided by the lengths: cosines, at most 1, would leave the weights of
hundreds of items so even that all of them were shrunk away.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from explainvad.detection.reconstruction.pixels import Crops, PixelOptions, PixelReconstruction

ENTROPY = 2e-4  # alpha of eq. 10
EPSILON = 1e-12


class MemAEOptions(PixelOptions):
    """Defaults after the paper's network for CIFAR-10, half as wide, to suit a CPU."""

    learning_rate: float = Field(3e-3, gt=0, le=0.1, description="of AdamW, at its highest")

    channels: int = Field(32, ge=4, le=512, description="of the first stage; the code has four times as many")
    memory: int = Field(500, ge=2, le=20_000, description="N, items")
    shrink: float = Field(1.0, ge=0, le=3, description="lambda, in units of 1 / N; the paper's range is 1 to 3")


class Memory(nn.Module):
    """N items of normality, and what is left of a query when it must be said with them."""

    def __init__(self, items: int, width: int, shrink: float) -> None:
        super().__init__()
        self.items = nn.Parameter((2 * torch.rand(items, width) - 1) * width**-0.5)
        self.threshold = shrink / items

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Read-out (..., width) of queries (..., width), and the weights (..., N) of the items, which add up to 1.

        Both are zero where every weight lies below lambda, which cannot be with lambda = 1 / N.
        """
        with torch.autocast(query.device.type, enabled=False):  # weights near lambda need all their digits
            weight = (query.float() @ self.items.T).softmax(-1)  # w, eq. 4
            above = weight - self.threshold
            kept = above.relu() * weight / (above.abs() + EPSILON)  # eq. 7
            kept = kept / kept.sum(-1, keepdim=True).clamp_min(EPSILON)
            return kept @ self.items, kept


def entropy(weight: Tensor) -> Tensor:
    """Mean entropy (nats) of addressing weights (..., N), eq. 9: small where few items are used."""
    return -torch.special.xlogy(weight, weight.clamp_min(EPSILON)).sum(-1).mean()


class MemoryAutoencoder(nn.Module):
    """Four convolutions of stride 2, the memory, and four transposed ones."""

    def __init__(self, channels: int, items: int, shrink: float) -> None:
        super().__init__()
        down = (3, channels, 2 * channels, 2 * channels, 4 * channels)
        up = down[:0:-1]
        self.encoder = nn.Sequential(*(_stage(nn.Conv2d(a, b, 3, 2, 1), b) for a, b in pairwise(down)))
        self.memory = Memory(items, 4 * channels, shrink)
        self.decoder = nn.Sequential(
            *(_stage(nn.ConvTranspose2d(a, b, 3, 2, 1, 1), b) for a, b in pairwise(up)),
            nn.ConvTranspose2d(channels, 3, 3, 2, 1, 1),
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (B, 3, rows, cols), and weights (B, rows / 16, cols / 16, N)."""
        read, weight = self.memory(self.encoder(pixels).permute(0, 2, 3, 1))
        return self.decoder(read.permute(0, 3, 1, 2)), weight


def _stage(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.LeakyReLU(0.2))


class MemAE(PixelReconstruction[MemAEOptions]):
    """``evidence``: rebuilt; item int32 and weight float32 (rows, cols), each place's heaviest item and its weight."""

    name = "mem-ae"
    summary = "Rebuilds an image from a memory of normal patterns; scores what the memory cannot say"
    source = "Gong et al., Memorizing Normality to Detect Anomaly (MemAE), ICCV 2019"
    options_type = MemAEOptions
    stride = 16

    def build(self) -> MemoryAutoencoder:
        """The untrained network."""
        return MemoryAutoencoder(self.options.channels, self.options.memory, self.options.shrink)

    def loss(self, network: nn.Module, crops: Crops, generator: torch.Generator) -> Tensor:
        """Mean squared residual and alpha times the entropy of the weights, eq. 10."""
        rebuilt, weight = network(crops.pixels)
        return F.mse_loss(rebuilt.float(), crops.pixels) + ENTROPY * entropy(weight)

    def rebuild(self, frame: Tensor) -> tuple[Tensor, dict[str, NDArray[Any]]]:
        """The reconstruction, and which items it was made from."""
        rebuilt, weight = self.network(frame[None])
        heaviest, item = weight[0].cpu().max(-1)
        return rebuilt, {"item": item.int().numpy(), "weight": heaviest.detach().numpy()}
