"""MuSc: unlabelled images of a lot score one another, because a normal patch has likenesses in most of them.

Li et al., "MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the Unlabeled
Images", ICLR 2024. LNAMD: tokens of several layers l, averaged over neighbourhoods of r x r. MSM: the distance of a
token to its nearest in every other image, and of these distances the mean of the lowest 30 %. RsCIN (off unless asked
for): an image's score is averaged with those of the images most like it.

Differences from the paper: likeness for RsCIN is that of mean last tokens, since extractors keep no class token; an
image is compared with a bounded number of others, evenly spread over the lot; scores are not scaled to the lot's
smallest and largest.

The one scorer whose score depends on other images. Calibrated against reference images and used on a lot, its p-values
are nominal: exchangeability breaks where a defect is frequent, since defects then find likenesses too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Annotated, Self

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field, field_validator
from torch import Tensor

from explainvad.detection.backbones import FINAL, Backbones
from explainvad.detection.frames import spread_out, to_frame
from explainvad.detection.scorer import FrozenScorer, ScorerOptions
from explainvad.errors import ConfigError, TooFewImagesError
from explainvad.types import ImageScore, InspectionImage, Progress

MEMBERS = 8  # resampled lots
NOMINAL = (
    "its score depends on the other images of the lot, and its p-values are nominal: they hold only while normal and "
    "inspected images are exchangeable, which breaks where a defect is frequent"
)
Whole = Annotated[int, Field(ge=1)]


class MuScOptions(ScorerOptions):
    """Options of :class:`MuSc`."""

    backbone: str = Field(default="dinov2-small-reg", description="a frozen transformer")
    resolution: int = Field(default=448, ge=32, le=2048, description="px, of the working frame's shorter side")
    layers: tuple[int, ...] = Field(default=(2, 5, 8, 11), min_length=1, description="whose tokens are compared")
    neighbourhoods: tuple[Whole, ...] = Field(default=(1, 3, 5), min_length=1, description="r of LNAMD, odd")
    share: float = Field(default=0.3, gt=0, le=1, description="lowest distances that are averaged (MSM)")
    images: int = Field(default=24, ge=2, le=1000, description="most images of the lot that an image is compared with")
    likeness: tuple[Whole, ...] = Field(default=(), description="images, with itself, averaged by RsCIN; (1, 2, 3)")

    @field_validator("neighbourhoods")
    @classmethod
    def _have_a_middle(cls, sides: tuple[int, ...]) -> tuple[int, ...]:
        if any(r % 2 == 0 for r in sides):
            raise ValueError(f"expected odd sides, which have a patch in the middle, got {sides}")
        return sides


class MuSc(FrozenScorer[MuScOptions]):
    """``arrays``: of N images, grids (N, 2), sha256 uint8 (N, 32) and layer-l half (all tokens, d), row by row; with
    RsCIN also whole (N, d), mean last tokens of unit length, and scores (N,)."""

    name = "musc"
    family = "batched zero-shot"
    summary = "Distance of each patch to its likenesses in the other images of the lot"
    source = "Li et al., MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation, ICLR 2024"
    options_type = MuScOptions
    reads_lot = True

    def __init__(self, options: MuScOptions, backbones: Backbones, progress: Progress | None = None) -> None:
        super().__init__(options, backbones, progress)
        self.extractor = backbones.extractor(options.backbone, options.resolution)
        self.asked = (*options.layers, *((FINAL,) if options.likeness else ()))
        self.extractor.request(self.asked)

    @property
    def weights(self) -> str:
        """Of the backbone."""
        return self.extractor.weights

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Let the FIT images be the lot; inspection does without them. TooFewImagesError below 2 different ones."""
        self._take(images, "reference images")

    def with_lot(self, images: Sequence[InspectionImage]) -> Self:
        """A copy in which these images are the lot. TooFewImagesError below 2 different ones."""
        lot = copy(self)
        lot._take(images, "images of the lot")
        return lot

    @torch.no_grad()
    def _take(self, images: Sequence[InspectionImage], what: str) -> None:
        grids, hashes, whole = [], [], []
        tokens: list[list[Tensor]] = [[] for _ in self.options.layers]
        chosen = spread_out(len(images), self.options.images, least=2)
        for done, i in enumerate(chosen, start=1):
            image = images[i]
            grid, layers, mean = self._seen(image)
            grids.append(grid)
            hashes.append(_sha256(image))
            for kept, rows in zip(tokens, layers, strict=True):
                kept.append(rows.half())
            whole.append(mean)
            if self.progress:
                self.progress(f"{self.label}: reading the lot", done, len(chosen))
        if len({h.numpy().tobytes() for h in hashes}) < 2:
            raise TooFewImagesError(f"MuSc compares {what} with one another: expected 2 different ones, got fewer")
        self.arrays = {"grids": torch.tensor(grids), "sha256": torch.stack(hashes)}
        for layer, kept in zip(self.options.layers, tokens, strict=True):
            self.arrays[f"layer-{layer}"] = torch.cat(kept)
        self.facts = {
            "compared with": f"{len(chosen)} of {len(images)} {what}",
            **self.extractor.facts,
            "dependence": NOMINAL,
        }
        if self.options.likeness:
            self.arrays["whole"] = torch.stack(whole)
            self.arrays["scores"] = torch.tensor([float(self._map_of(i).max()) for i in range(len(chosen))])

    def score_one(self, image: InspectionImage) -> ImageScore:
        """Map and members on the grid of patches; an image of the lot is compared with the others only."""
        grid, tokens, whole = self._seen(image)
        others = self._others(_sha256(image))
        maps = self._mutual(tokens, grid, others, members=True).unflatten(1, grid)
        value = float(maps[0].max())
        if self.options.likeness:
            value = self._averaged(value, whole, others)
        return ImageScore(
            scorer=self.label,
            value=value,
            anomaly_map=to_frame(maps[0], image.height, image.width),
            members=maps[1:].amax((1, 2)).numpy(),
            member_maps=maps[1:].numpy(),
        )

    def _seen(self, image: InspectionImage) -> tuple[tuple[int, int], list[Tensor], Tensor]:
        """The grid, tokens (n, d) by layer, each layer normalised over the image, and the last layer's mean token."""
        levels = self.extractor.levels(image, self.asked)
        rows, cols = levels[0].shape[1:]
        tokens = [F.layer_norm(level, level.shape).flatten(1).T for level in levels[: len(self.options.layers)]]
        if any(len(layer) != rows * cols for layer in tokens):
            raise ConfigError(f"MuSc needs layers on one grid, those of {self.extractor.name} differ: take a plain ViT")
        return (rows, cols), [layer.contiguous() for layer in tokens], F.normalize(levels[-1].mean((1, 2)), dim=0)

    def _others(self, sha256: Tensor) -> list[int]:
        """Images of the lot with other content."""
        different: list[int] = (self.arrays["sha256"] != sha256).any(1).nonzero()[:, 0].tolist()
        return different

    def _map_of(self, i: int) -> Tensor:
        """Scores (n,) of the tokens of image i of the lot."""
        tokens = [self._tokens(layer, i).float() for layer in self.options.layers]
        return self._mutual(tokens, self.arrays["grids"][i].tolist(), self._others(self.arrays["sha256"][i]))[0]

    def _tokens(self, layer: int, i: int) -> Tensor:
        sizes = self.arrays["grids"].prod(1)
        start = int(sizes[:i].sum())
        return self.arrays[f"layer-{layer}"][start : start + int(sizes[i])]

    def _mutual(
        self, tokens: Sequence[Tensor], grid: Sequence[int], others: Sequence[int], members: bool = False
    ) -> Tensor:
        """Scores (1 + B, n) of an image's tokens (n, d) by layer; the first against all others, then resampled ones."""
        device = self.backbones.device
        dtype = torch.bfloat16 if self.backbones.bf16 else torch.float32
        draws = [torch.arange(len(others)), *_draws(len(others), MEMBERS if members else 0)]
        total = torch.zeros(len(draws), len(tokens[0]))
        for layer, own in zip(self.options.layers, tokens, strict=True):
            sides = self.options.neighbourhoods
            queries = [aggregated(own.to(device), grid, r).to(dtype) for r in sides]
            nearest = torch.empty(len(sides), len(others), len(own))
            for j, other in enumerate(others):
                shape, rows = self.arrays["grids"][other].tolist(), self._tokens(layer, other).to(device)
                for a, r in enumerate(sides):
                    cosine = queries[a] @ aggregated(rows.float(), shape, r).to(dtype).T
                    nearest[a, j] = (2 - 2 * cosine.amax(1).float()).clamp_min(0).sqrt().cpu()
            for b, drawn in enumerate(draws):
                total[b] += interval_mean(nearest[:, drawn], self.options.share).sum(0)
        return total / (len(tokens) * len(self.options.neighbourhoods))

    def _averaged(self, value: float, whole: Tensor, others: Sequence[int]) -> float:
        """RsCIN: mean over k of the scores of an image and of the k - 1 most like it, weighted by likeness."""
        likeness = self.arrays["whole"][others] @ whole
        order = likeness.argsort(descending=True)
        scores = torch.cat((torch.tensor([value]), self.arrays["scores"][others][order]))
        weights = torch.cat((torch.ones(1), likeness[order].clamp_min(0)))
        means = [(weights[:k] @ scores[:k]) / weights[:k].sum() for k in self.options.likeness]
        return float(torch.stack(means).mean())


def aggregated(tokens: Tensor, grid: Sequence[int], r: int) -> Tensor:
    """LNAMD: tokens (n, d) on a grid averaged over r x r neighbours, fewer at the border (where only the length, that
    is brought to one, feels the padding)."""
    if r > 1:
        channels_last = tokens.reshape(1, *grid, -1).permute(0, 3, 1, 2)
        pooled = F.avg_pool2d(channels_last, r, 1, r // 2)
        tokens = pooled[0].permute(1, 2, 0).flatten(0, 1)
    return F.normalize(tokens, dim=1)


def interval_mean(nearest: Tensor, share: float) -> Tensor:
    """MSM: mean of the lowest ``share`` (one at least) of distances (..., images, n) to each image: (..., n)."""
    count = max(1, int(nearest.shape[-2] * share))
    return nearest.topk(count, dim=-2, largest=False).values.mean(-2)


def _sha256(image: InspectionImage) -> Tensor:
    return torch.tensor(list(bytes.fromhex(image.sha256)), dtype=torch.uint8)


def _draws(count: int, members: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(members):
        yield torch.randint(count, (count,), generator=generator)
