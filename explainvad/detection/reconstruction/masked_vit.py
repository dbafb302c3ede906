"""Masked autoencoder: each patch is told from the others, so that a defect cannot vouch for itself.

He et al., "Masked Autoencoders Are Scalable Vision Learners" (CVPR 2022), trained on the reference images. The encoder
sees the visible patches only, a small decoder fills in mask tokens, and the loss counts masked patches alone. To score,
the patches are dealt to groups at random and each pass masks (or, above one half, shows) one of them, so that a round
of passes masks each patch at least once; its reconstruction is the mean of those passes. Rounds deal differently, and
are the members for the epistemic part of the doubt.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from explainvad.detection.frames import blend_weight, windows
from explainvad.detection.reconstruction.pixels import Crops, PixelOptions, PixelReconstruction
from explainvad.detection.transformer import Block, position_code

HEAD = 32  # channels of an attention head


class PatchOptions(PixelOptions):
    """What scorers on patches may be told besides."""

    side: int = Field(64, ge=16, le=1024, description="px, of the square crops, and of the windows on large frames")
    batch: int = Field(16, ge=1, le=1024, description="crops a step")
    patch: int = Field(8, ge=2, le=64, description="px")
    width: int = Field(96, ge=HEAD, le=1024, multiple_of=HEAD, description="channels of the encoder")
    depth: int = Field(3, ge=1, le=24, description="blocks of the encoder")
    mask_ratio: float = Field(0.75, ge=0, lt=1, description="share of patches that are masked; 0: all are seen")
    rounds: int = Field(4, ge=1, le=64, description="ways of dealing the masks in which an image is rebuilt")


class MaskedViTOptions(PatchOptions):
    """Defaults for a small network; the paper's ratio."""

    steps: int = Field(3000, ge=1, le=1_000_000, description="training steps")
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of patches that are masked")
    decoder_width: int = Field(64, ge=HEAD, le=1024, multiple_of=HEAD, description="channels of the decoder")
    decoder_depth: int = Field(2, ge=1, le=24, description="blocks of the decoder")


Options = TypeVar("Options", bound=PatchOptions)


def random_masks(batch: int, patches: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Masks bool (batch, patches), True where masked: as near to ``ratio`` of each as leaves one patch visible."""
    masked = min(round(patches * ratio), patches - 1)
    return torch.rand(batch, patches, generator=generator).argsort(1) < masked


def complementary_masks(rounds: int, patches: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Masks bool (passes, rounds, patches), True where masked, that mask each patch in one pass of a round at least.

    The patches are dealt evenly to 1 / ratio groups, or 1 / (1 - ratio) above one half; a pass masks one group, or
    above one half all others. The masked share is so the nearest to ``ratio`` that equal groups allow.
    """
    groups = min(patches, round(1 / min(ratio, 1 - ratio)))
    group = torch.rand(rounds, patches, generator=generator).argsort(1) % groups
    chosen = group == torch.arange(groups)[:, None, None]
    return ~chosen if ratio > 0.5 else chosen


class MaskedAutoencoder(nn.Module):
    """A transformer over visible patches, and a smaller one that fills in the masked ones."""

    def __init__(self, patch: int, width: int, depth: int, decoder_width: int, decoder_depth: int) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(3 * patch**2, width)
        self.encoder = nn.ModuleList(Block(width, width // HEAD) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.narrow = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.randn(decoder_width) * 0.02)
        self.place = nn.Linear(width, decoder_width)
        self.decoder = nn.ModuleList(Block(decoder_width, decoder_width // HEAD) for _ in range(decoder_depth))
        self.head = nn.Sequential(nn.LayerNorm(decoder_width), nn.Linear(decoder_width, 3 * patch**2))

    def forward(self, pixels: Tensor, mask: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (B, 3, rows, cols) from what ``mask`` (B, N) leaves visible, equally many in all rows.

        ``code`` (B, N, width) says where patches lie. The second value is a penalty, 0 here.
        """
        tokens = self.embed(F.pixel_unshuffle(pixels, self.patch).flatten(2).transpose(1, 2)) + code
        visible = torch.nonzero(~mask)[:, 1].unflatten(0, (len(mask), -1))[..., None]
        x = tokens.gather(1, visible.expand(-1, -1, tokens.shape[2]))
        for block in self.encoder:
            x = block(x, x.new_zeros(()))
        x = self.narrow(self.norm(x))
        filled = self.mask_token.to(x.dtype).expand(*mask.shape, -1)
        x = filled.scatter(1, visible.expand(-1, -1, x.shape[2]), x) + self.place(code)
        for block in self.decoder:
            x = block(x, x.new_zeros(()))
        return unpatched(self.head(x), pixels, self.patch), x.new_zeros(())


def unpatched(patches: Tensor, like: Tensor, patch: int) -> Tensor:
    """A picture shaped ``like`` another, (B, 3, rows, cols), of patches (B, N, 3 patch²)."""
    grid = like.shape[2] // patch, like.shape[3] // patch
    return F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, grid), patch)


class PatchReconstruction(PixelReconstruction[Options]):
    """Scorers that rebuild patches from others; large frames are seen through windows as large as a training crop.

    ``evidence``: rebuilt; residual float32 (rows / patch, cols / patch), each patch's mean squared residual.
    """

    @property
    def stride(self) -> int:
        """px of a patch."""
        return self.options.patch

    @property
    def snap(self) -> int:
        """px; patches are cut from a frame in one way, or the same place would look different each time."""
        return self.options.patch

    @abstractmethod
    def build(self) -> nn.Module:
        """A network of (pixels, mask, code) that returns a reconstruction and a penalty, as MaskedAutoencoder does."""

    def loss(self, network: nn.Module, crops: Crops, generator: torch.Generator) -> Tensor:
        """Mean squared residual of the masked patches (of all, where nothing is masked), and the network's penalty."""
        code = self._code(crops.pixels, crops.corners, crops.frames)
        count, patches = code.shape[:2]
        mask = random_masks(count, patches, self.options.mask_ratio, generator).to(code.device)
        rebuilt, penalty = network(crops.pixels, mask, code)
        error = F.avg_pool2d((rebuilt.float() - crops.pixels).square().mean(1), self.stride).flatten(1)
        return (error[mask] if self.options.mask_ratio else error).mean() + penalty

    def rebuild(self, frame: Tensor) -> tuple[Tensor, dict[str, NDArray[Any]]]:
        """Reconstructions by round, blended over windows, and the mean residual of each patch."""
        rows, cols = frame.shape[1:]
        total: Tensor | None = None
        weight = frame.new_zeros(rows, cols)
        for y, x in windows(rows, cols, self.crop_side, self.stride):
            seen = self._rebuilt(frame[:, y, x], (y.start, x.start), (rows, cols))
            blend = blend_weight(*seen.shape[2:]).to(frame)
            if total is None:
                total = frame.new_zeros(len(seen), 3, rows, cols)
            total[:, :, y, x] += blend * seen
            weight[y, x] += blend
        assert total is not None
        rebuilt = total / weight
        residual = F.avg_pool2d((rebuilt - frame).square().mean((0, 1))[None], self.stride)[0]
        return rebuilt, {"residual": residual.detach().cpu().numpy()}

    def _rebuilt(self, pixels: Tensor, corner: tuple[int, int], frame: tuple[int, int]) -> Tensor:
        """Reconstructions (rounds, 3, rows, cols) of a window (3, rows, cols), each patch from passes that mask it."""
        code = self._code(pixels[None], [corner], [frame])
        ratio = self.options.mask_ratio
        if not ratio:
            mask = torch.zeros(code.shape[:2], dtype=torch.bool, device=pixels.device)
            return self.network(pixels[None], mask, code)[0].float()
        # The same masks for all windows and images: a score must not depend on what was scored before
        generator = torch.Generator().manual_seed(0)
        masks = complementary_masks(self.options.rounds, code.shape[1], ratio, generator).to(pixels.device)
        shown, code = (t.expand(self.options.rounds, *t.shape[-k:]) for t, k in ((pixels, 3), (code, 2)))
        total, count = torch.zeros_like(shown), torch.zeros_like(shown[:, :1])
        for mask in masks:
            masked = F.interpolate(
                mask.float().unflatten(1, (pixels.shape[1] // self.stride, -1))[:, None], scale_factor=self.stride
            )
            total = total + masked * self.network(shown, mask, code)[0].float()
            count = count + masked
        return total / count

    def _code(self, pixels: Tensor, corners: Sequence[tuple[int, int]], frames: Sequence[tuple[int, int]]) -> Tensor:
        """Code (B, N, width) of where the patches of crops lie in their frames."""
        p = self.stride
        grid = pixels.shape[2] // p, pixels.shape[3] // p
        codes = [
            position_code(*grid, (rows // p, cols // p), (top // p, left // p), self.options.width)
            for (top, left), (rows, cols) in zip(corners, frames, strict=True)
        ]
        return torch.stack(codes).to(pixels)


class MaskedViT(PatchReconstruction[MaskedViTOptions]):
    """``evidence``: rebuilt; residual float32 (rows / patch, cols / patch), each patch's mean squared residual."""

    name = "masked-vit"
    summary = "Hides patches and tells them from the others; scores those that come out differently"
    source = "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022"
    options_type = MaskedViTOptions

    def build(self) -> MaskedAutoencoder:
        """The untrained network."""
        o = self.options
        return MaskedAutoencoder(o.patch, o.width, o.depth, o.decoder_width, o.decoder_depth)
