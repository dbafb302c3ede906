"""The hybrid backbone: convolution for detail, attention for context, one feature vector for every 8 x 8 px.

::

    RGB (3, H, W) on [0, 1]
      -> raw and locally normalised contrast                        6 channels
      -> conv 5x5 /2, conv 3x3 /2, residual block                   detail, 1/4
      -> conv 3x3 /2, residual blocks                               detail, 1/8
      -> conv 3x3 /2, transformer blocks (distance-biased)          context, 1/16
      -> up to 1/8, added to the detail, residual block
      -> 1x1 to ``dimension``, unit length                          features (dimension, H/8, W/8)

With the default sizes 3.1 million parameters, and 2.1 GMAC (4.1 GFLOP) for an image of 256 x 256 px; :func:`count_macs`
counts any other. Group normalisation takes each image's own statistics, so that light and contrast drop out; on
generated surfaces that learnt markedly faster than layer normalisation per pixel or batch normalisation. Attention is
biased by distance (ALiBi, Press et al., ICLR 2022) and knows no absolute place, so any image size will do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.transformer import Block, distance_bias

STRIDE = 8  # px of the input to a feature vector
GROUPS = 8  # of channels that are normalised together
MULTIPLE = 16  # the input's sides are multiples of it
CONTRAST_CELL = 8  # px of the cells over which local contrast is measured
CONTRAST_FLOOR = 0.02  # of [0, 1]: deviation below which contrast is noise


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of the network. ``conv_blocks`` 0 and ``attention_blocks`` 0 make the two pure kinds for comparison."""

    stem: int = 32
    detail: int = 64  # channels at 1/4
    width: int = 128  # channels at 1/8
    context: int = 192  # channels at 1/16
    conv_blocks: int = 2  # residual blocks at 1/8
    attention_blocks: int = 4
    heads: int = 6
    dimension: int = 128  # of a feature vector

    def as_dict(self) -> dict[str, int]:
        """For the manifest that travels with the weights."""
        return asdict(self)


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(norm(x)))), 3x3 each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.expand = nn.Conv2d(channels, channels, 3, padding=1)
        self.project = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.silu(self.expand(self.norm(x))))


class HybridBackbone(nn.Module):
    """See the module's docstring."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.stem = nn.Conv2d(6, a.stem, 5, stride=2, padding=2)
        self.to_detail = nn.Conv2d(a.stem, a.detail, 3, stride=2, padding=1)
        self.to_width = nn.Conv2d(a.detail, a.width, 3, stride=2, padding=1)
        convolutional = a.conv_blocks > 0
        self.detail = nn.Sequential(*([ResidualBlock(a.detail)] if convolutional else []))
        self.blocks = nn.Sequential(*(ResidualBlock(a.width) for _ in range(a.conv_blocks)))
        self.to_context = nn.Conv2d(a.width, a.context, 3, stride=2, padding=1)
        self.context = nn.ModuleList(Block(a.context, a.heads) for _ in range(a.attention_blocks))
        self.context_norm = nn.LayerNorm(a.context)
        self.from_context = nn.Linear(a.context, a.width)
        self.merge = nn.Sequential(*([ResidualBlock(a.width)] if convolutional else []), nn.GroupNorm(GROUPS, a.width))
        self.head = nn.Linear(a.width, a.dimension)

    def forward(self, images: Tensor) -> Tensor:
        """Unit features (B, dimension, H / 8, W / 8) of RGB images (B, 3, H, W) on [0, 1], sides multiples of 16."""
        return self.levels(images)[1]

    def levels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Detail (B, width, H / 8, W / 8) as the convolutions leave it, and the unit features of :meth:`forward`."""
        x = F.silu(self.stem(contrasts(images).contiguous(memory_format=torch.channels_last)))
        x = self.detail(self.to_detail(x))
        detail = self.blocks(self.to_width(F.silu(x)))
        merged = self.merge(detail + self._context(detail))
        features = self.head(F.silu(merged).permute(0, 2, 3, 1))
        return detail, F.normalize(features.float(), dim=3).permute(0, 3, 1, 2)

    def _context(self, x: Tensor) -> Tensor:
        tokens = self.to_context(F.silu(x))
        rows, cols = tokens.shape[2:]
        tokens = tokens.flatten(2).transpose(1, 2)
        bias = distance_bias(rows, cols, self.architecture.heads, tokens.device).to(tokens.dtype)
        for block in self.context:
            tokens = block(tokens, bias)
        context = self.from_context(self.context_norm(tokens)).transpose(1, 2).unflatten(2, (rows, cols))
        return F.interpolate(context, scale_factor=2, mode="bilinear", align_corners=False)


def contrasts(images: Tensor) -> Tensor:
    """What the network reads (B, 6, H, W): the image on [-1, 1], and its deviation from the surroundings.

    The deviation is measured against mean and spread over about 40 px, so the light's gradient drops out of it.
    """
    cells = F.avg_pool2d(torch.cat((images, images.square().mean(1, keepdim=True)), dim=1), CONTRAST_CELL)
    cells = F.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
    local = F.interpolate(cells, size=images.shape[2:], mode="bilinear", align_corners=False)
    mean, square = local[:, :3], local[:, 3:]
    spread = (square - mean.square().mean(1, keepdim=True)).clamp_min(0).add(CONTRAST_FLOOR**2).sqrt()
    return torch.cat((images * 2 - 1, (images - mean) / spread), dim=1)


def count_macs(network: HybridBackbone, height: int, width: int) -> int:
    """Multiply-accumulate operations of a forward pass, counted in convolutions, linear layers and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, height, width))
    return int(counter.get_total_flops()) // 2
