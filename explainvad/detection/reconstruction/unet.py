"""A plain U-Net as autoencoder: with its skip connections it copies defects too, and is kept to show just that.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation" (MICCAI 2015), rebuilding its
input. Skips pass fine detail around the bottleneck, the identity-mapping trap of the survey (arXiv 2507.15905,
section 4); without them it is a common convolutional autoencoder.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from explainvad.detection.reconstruction.pixels import PixelOptions, PixelReconstruction


class UNetOptions(PixelOptions):
    """Defaults an eighth as wide as the paper's network, to suit a CPU."""

    steps: int = Field(400, ge=1, le=1_000_000, description="training steps")
    learning_rate: float = Field(3e-3, gt=0, le=0.1, description="of AdamW, at its highest")
    channels: int = Field(8, ge=2, le=128, description="of the finest level; doubled at each coarser one")
    depth: int = Field(4, ge=1, le=6, description="times that the picture is halved")
    skips: bool = Field(True, description="whether detail may pass around the bottleneck")


class UNet(nn.Module):
    """Two convolutions a level; max-pooling down, transposed convolutions up."""

    def __init__(self, channels: int, depth: int, skips: bool) -> None:
        super().__init__()
        widths = [channels << level for level in range(depth + 1)]
        self.skips = skips
        self.down = nn.ModuleList(_level(a, b) for a, b in pairwise([3, *widths[:-1]]))
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = _level(widths[-2], widths[-1])
        self.widen = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(list(pairwise(widths))))
        self.up = nn.ModuleList(_level(a * (1 + skips), a) for a in reversed(widths[:-1]))
        self.head = nn.Conv2d(channels, 3, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Reconstruction (B, 3, rows, cols); both sides must be multiples of 2^depth."""
        passed, x = [], pixels
        for level in self.down:
            x = level(x)
            passed.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        for raised, level in zip(self.widen, self.up, strict=True):
            x, fine = raised(x), passed.pop()
            x = level(torch.cat((x, fine), 1) if self.skips else x)
        return self.head(x)


def _level(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            layer
            for a in (inputs, outputs)
            for layer in (nn.Conv2d(a, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
        )
    )


class UNetAutoencoder(PixelReconstruction[UNetOptions]):
    """``evidence``: rebuilt."""

    name = "unet"
    summary = "Rebuilds an image with a U-Net; with skip connections it copies defects too (for comparison only)"
    source = "Ronneberger et al., U-Net, MICCAI 2015"
    options_type = UNetOptions

    @property
    def stride(self) -> int:
        """px at the bottleneck."""
        return 1 << self.options.depth

    def build(self) -> UNet:
        """The untrained network."""
        return UNet(self.options.channels, self.options.depth, self.options.skips)
