"""Reconstruction of pixels: a network trained from scratch on normal images rebuilds what is normal only.

What the four scorers of this kind share: the working frame, random crops to train on, the residual between an image and
its reconstruction, and the score. A network that merely copies its input rebuilds defects as well, the
identity-mapping trap of the survey (arXiv 2507.15905, section 4); ``residuals.identity_gap`` measures it.

Pixels are float32 on -1 to 1, and a residual is in that unit. Networks see them at a stride; both sides of a frame, a
crop and a window are multiples of it. Edges and textures are rebuilt worse than plain faces on every part, so that the
raw residual of the papers says little about an image; by default it is judged against what is usual at its place.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from explainvad.detection.frames import (
    FRAME_BYTES,
    gaussian_blur,
    resized,
    shorter_side_size,
    spread_out,
    to_frame,
    top_mean,
)
from explainvad.detection.reconstruction.residuals import RESIDUALS
from explainvad.detection.scorer import FrozenScorer, ScorerOptions
from explainvad.detection.traced import Place, Spot, most_anomalous
from explainvad.detection.training import arrays_of, reproducible, restored, train
from explainvad.types import ImageScore, InspectionImage, PixelFunction


class PixelOptions(ScorerOptions):
    """What all scorers that reconstruct pixels may be told."""

    resolution: int = Field(128, ge=16, le=2048, description="px, of the working frame's shorter side")
    side: int = Field(128, ge=16, le=1024, description="px, of the square crops that a training step sees")
    steps: int = Field(1000, ge=1, le=1_000_000, description="training steps")
    batch: int = Field(8, ge=1, le=1024, description="crops a step")
    learning_rate: float = Field(2e-3, gt=0, le=0.1, description="of AdamW, at its highest")
    residual: Literal["squared", "absolute", "ssim", "gradient"] = Field(
        "squared", description="how a pixel and its reconstruction are compared"
    )
    sigma: float = Field(2.0, ge=0, le=64, description="px of the working frame, blur of the map")
    usual: bool = Field(True, description="judge a residual by what is usual at its place; else it is taken as it is")
    top: float = Field(0.001, gt=0, le=1, description="share of pixels whose mean residual is the image's score")


PLACES = 48  # cells a side of the grid on which usual residuals are kept
USUAL = "usual"  # array (2, PLACES, PLACES), or (2, 1, 1) where residuals are taken as they are
MEASURED = 32  # reference images, at most, that measure the usual residual
SPREAD_FLOOR = 0.5  # of the mean spread, added to the spread at a place

Options = TypeVar("Options", bound=PixelOptions)


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Pixels (B, 3, h, w) of equal crops, and of each its top left corner and its frame's rows and columns, in px."""

    pixels: Tensor
    corners: Sequence[tuple[int, int]]
    frames: Sequence[tuple[int, int]]


class PixelReconstruction(FrozenScorer[Options]):
    """A network of one's own on pixels; ``backbones`` gives device and precision only.

    The unit of the score is deviations of the residual usual at a place, or the residual's own with ``usual=False``.

    ``evidence``: rebuilt uint8 (rows, cols, 3), the reconstruction over the working frame, and what the method adds.
    """

    family = "reconstruction"

    @property
    def weights(self) -> str:
        """For the report."""
        return "trained from scratch on the reference images' pixels"

    @property
    @abstractmethod
    def stride(self) -> int:
        """px; sides of frames and crops are multiples of it."""

    @property
    def snap(self) -> int:
        """px; corners of crops are multiples of it."""
        return 1

    @property
    def crop_side(self) -> int:
        """px of a training crop, the multiple of the stride below ``side``."""
        return max(1, self.options.side // self.stride) * self.stride

    @abstractmethod
    def build(self) -> nn.Module:
        """The untrained network."""

    def loss(self, network: nn.Module, crops: Crops, generator: torch.Generator) -> Tensor:
        """Loss of a training step: the mean squared residual."""
        return F.mse_loss(network(crops.pixels).float(), crops.pixels)

    def rebuild(self, frame: Tensor) -> tuple[Tensor, dict[str, NDArray[Any]]]:
        """Reconstructions (members, 3, rows, cols) of a frame (3, rows, cols), and further evidence."""
        return self.network(frame[None]), {}

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Train on random crops of the images, of FRAME_BYTES of them at most."""
        first = self._pixels(images[0])
        held = spread_out(len(images), FRAME_BYTES // first.numel())
        frames = [first, *(self._pixels(images[i]) for i in held[1:])]
        with reproducible(seed, self.backbones.device) as generator:
            network = self._placed(self.build())

            def loss_of(step: int) -> Tensor:
                crops = self._crops(frames, generator)
                with self.backbones.precision():
                    return self.loss(network, crops, generator)

            loss = train(
                network,
                loss_of,
                self.options.steps,
                learning_rate=self.options.learning_rate,
                what=f"training {self.label}",
                progress=self.progress,
            )
            arrays = arrays_of(network)
            facts = {
                "training": f"{self.options.steps} steps of {self.options.batch} crops from {len(frames)} images",
                "loss when trained": f"{loss:.5f}",
            }
            self.load({**arrays, USUAL: np.array([0, 1], np.float32).reshape(2, 1, 1)}, facts)
            if self.options.usual:
                self.arrays[USUAL] = self._usual([frames[i] for i in spread_out(len(frames), MEASURED)])

    def load(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> None:
        """Restore the network; every weight must be there, none may be left over (RuntimeError)."""
        super().load(arrays, facts)
        weights = {name: array for name, array in self.arrays.items() if name != USUAL}
        self._network = self._placed(restored(self.build, weights))

    @property
    def network(self) -> nn.Module:
        """The trained network. Raises NotFittedError before ``fit`` and ``load``."""
        self.fitted()
        return self._network

    def score_one(self, image: InspectionImage) -> ImageScore:
        """Score one image; members are the reconstructions of :meth:`rebuild`, where there are several."""
        residual, rebuilt, evidence = self._residual(self._centred(self._pixels(image)))
        usual = F.interpolate(self.arrays[USUAL][None], residual.shape[1:], mode="bilinear", align_corners=False)[0]
        maps = (residual - usual[0]) / usual[1]
        mean = maps.mean(0)
        members = maps if len(maps) > 1 else maps[:0]
        picture = ((rebuilt.mean(0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return ImageScore(
            scorer=self.label,
            value=top_mean(mean, self.options.top),
            anomaly_map=to_frame(mean, image.height, image.width),
            evidence={"rebuilt": picture.permute(1, 2, 0).numpy(), **evidence},
            members=np.array([top_mean(m, self.options.top) for m in members], dtype=np.float32),
            member_maps=F.avg_pool2d(members[:, None], self.stride)[:, 0].numpy(),
        )

    def pixel_function(
        self, image: InspectionImage, score: ImageScore, baseline: InspectionImage, at: Place | None = None
    ) -> PixelFunction:
        """The residual of the pixel of the working frame that is rebuilt worst, or ``at`` another, as it is scored."""
        height, width = self._pixels(image).shape[1:]
        place = at or most_anomalous(score.anomaly_map)
        whole = slice(0, height), slice(0, width)
        row, col = Spot.of((height, width), [whole], place).cell(height, width)
        usual = F.interpolate(self.arrays[USUAL][None], (height, width), mode="bilinear", align_corners=False)[0]
        mean, spread = usual[:, row, col].tolist()

        def value(frames: Tensor) -> Tensor:
            residuals = torch.stack([self._residual(frame)[0].mean(0)[row, col] for frame in frames])
            return (residuals - mean) / spread

        return PixelFunction(
            what=f"residual of the pixel at y {place[0]:.1%}, x {place[1]:.1%}, in the score's unit",
            value=value,
            frame=self._centred(self._pixels(image)),
            baseline=self._centred(self._pixels(baseline)),
            size=(height, width),
            window=whole,
            network=self.network,
        )

    def _residual(self, frame: Tensor) -> tuple[Tensor, Tensor, dict[str, NDArray[Any]]]:
        """Blurred residuals (members, rows, cols) of a frame, its reconstructions, and evidence."""
        with self.backbones.precision():
            rebuilt, evidence = self.rebuild(frame.to(self.backbones.device))
        rebuilt = rebuilt.float().cpu()
        compare = RESIDUALS[self.options.residual]
        blurred = [gaussian_blur(compare(frame, r), self.options.sigma, cut=4.0) for r in rebuilt]
        return torch.stack(blurred), rebuilt, evidence

    @torch.no_grad()
    def _usual(self, frames: Sequence[Tensor]) -> Tensor:
        """Mean and spread (2, PLACES, PLACES) of the residual at a place of normal frames.

        Cells are smoothed over their neighbours; parts that lie anywhere make the grid even, which is right for them.
        """
        moments = torch.zeros(2, PLACES, PLACES)
        for frame in frames:
            residual = self._residual(self._centred(frame))[0].mean(0)
            powers = torch.stack((residual, residual.square()))
            moments += F.adaptive_avg_pool2d(powers, PLACES) / len(frames)
        mean, square = (gaussian_blur(moment, 1.0) for moment in moments)
        spread = (square - mean.square()).clamp_min(0).sqrt()
        return torch.stack((mean, spread + SPREAD_FLOOR * spread.mean() + 1e-6))

    def _placed(self, network: nn.Module) -> nn.Module:
        return network.to(self.backbones.device).to(memory_format=torch.channels_last)

    def _pixels(self, image: InspectionImage) -> Tensor:
        """The working frame, uint8 (3, rows, cols)."""
        size = shorter_side_size(image.height, image.width, self.options.resolution, self.stride)
        return resized(image.pixels, size)

    @staticmethod
    def _centred(pixels: Tensor) -> Tensor:
        return pixels.float() / 127.5 - 1

    def _crops(self, frames: Sequence[Tensor], generator: torch.Generator) -> Crops:
        """Equal crops of random frames: squares of ``side`` px, or less where a frame is smaller."""
        chosen = [frames[i] for i in torch.randint(len(frames), (self.options.batch,), generator=generator).tolist()]
        rows, cols = (min(self.crop_side, *(frame.shape[axis] for frame in chosen)) for axis in (1, 2))
        pixels, corners = [], []
        for frame in chosen:
            top, left = (
                self.snap * int(torch.randint((whole - part) // self.snap + 1, (), generator=generator))
                for whole, part in zip(frame.shape[1:], (rows, cols), strict=True)
            )
            pixels.append(frame[:, top : top + rows, left : left + cols])
            corners.append((top, left))
        batch = self._centred(torch.stack(pixels)).to(self.backbones.device, memory_format=torch.channels_last)
        return Crops(batch, corners, [(frame.shape[1], frame.shape[2]) for frame in chosen])
