"""Memory-bank scorer: how far each patch lies from every patch seen on normal images.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (PatchCore, CVPR 2022): a greedy k-centre coreset
M of normal features, and for a test patch m_test the distance to its nearest m* in M. Two additions: a patch's place
in the image is part of its feature, and the distance is judged against what is usual at that place, measured on
the reference images with their own patches left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from explainvad.detection.coreset import greedy_k_centre
from explainvad.detection.frames import gaussian_blur, to_frame, top_mean
from explainvad.detection.neighbors import nearest
from explainvad.errors import NotFittedError
from explainvad.types import ImageScore, InspectionImage, ScorerCard

MAX_CANDIDATES = 40_000  # rows that enter the coreset search; above, a random part of them does
PLACE_WEIGHT = 0.1  # distance, in the features' unit, that the whole height of an image counts for
PLACES = 24  # cells a side of the grid on which usual distances are kept
SPREAD_FLOOR = 0.5  # of the mean spread, added to the spread at a place
LEFT_OUT = 24  # reference images, at most, that measure the usual distance
SIGMA = 0.7  # patches, blur of the map
TOP = 0.004  # share of patches whose mean distance is the image's score


class Backbone(Protocol):
    """A frozen feature extractor."""

    name: str
    weights: str

    @property
    def facts(self) -> Mapping[str, str]:
        """What the model card says of it."""
        ...

    def features(self, image: InspectionImage) -> Tensor:
        """Features (d, rows, cols) of a grid of patches over the whole image, all of about the same length."""
        ...


class MemoryBank:
    """PatchCore-style memory bank; the unit of its score is deviations of the distance usual at a place."""

    name = "memory_bank"

    def __init__(self, backbone: Backbone, rows: int) -> None:
        self.backbone, self.rows = backbone, rows
        # bank (M, d + 2); usual (2, PLACES, PLACES); origin (M, 3)
        self.arrays: dict[str, Tensor] = {}
        self.facts: dict[str, str] = {}

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Fill the bank; an image contributes its share of MAX_CANDIDATES, drawn at random."""
        generator = torch.Generator().manual_seed(seed)
        share = max(1, MAX_CANDIDATES // len(images))
        features, origins, places, seen = [], [], [], 0
        for i, image in enumerate(images):
            grid = self.backbone.features(image)
            seen += grid[0].numel()
            keep = torch.randperm(grid[0].numel(), generator=generator)[:share].sort().values
            features.append(self._with_place(grid)[keep])
            place = torch.stack((keep // grid.shape[2], keep % grid.shape[2]), dim=1)
            origins.append(torch.cat((torch.full((len(keep), 1), i), place), dim=1))
            places.append(place * PLACES // torch.tensor(grid.shape[1:]))
        candidates, origin = torch.cat(features), torch.cat(origins)
        # features this short are compared as they are
        picked = greedy_k_centre(candidates, min(self.rows, len(candidates)), generator, candidates.shape[1])
        bank, origin = candidates[picked].contiguous(), origin[picked].to(torch.int32)
        usual = _usual_distance(bank, origin[:, 0], features[:LEFT_OUT], places)
        self.arrays = {"bank": bank, "usual": usual, "origin": origin}
        self.facts = {"bank": f"{len(picked):,} rows of {seen:,} patches from {len(images)} images"}

    @staticmethod
    def _with_place(grid: Tensor) -> Tensor:
        """(d, rows, cols) -> (rows * cols, d + 2): features and the place, PLACE_WEIGHT to the image's height."""
        d, rows, cols = grid.shape
        y = (PLACE_WEIGHT * (torch.arange(rows) + 0.5) / rows)[:, None].expand(rows, cols)
        x = (PLACE_WEIGHT * (torch.arange(cols) + 0.5) / rows)[None].expand(rows, cols)
        return torch.cat((grid, y[None], x[None])).reshape(d + 2, -1).T

    def score(self, images: Sequence[InspectionImage]) -> list[ImageScore]:
        """Score each image on its own; ``evidence``: neighbour int32 (rows, cols, 3), image and cell of each m*."""
        return [self._score(image) for image in images]

    @torch.inference_mode()
    def _score(self, image: InspectionImage) -> ImageScore:
        a = self._fitted()
        grid = self.backbone.features(image)
        distance, index = nearest(self._with_place(grid), a["bank"])
        mean, spread = F.interpolate(a["usual"][None], size=grid.shape[1:], mode="bilinear", align_corners=False)[0]
        smooth = gaussian_blur((distance.reshape(grid.shape[1:]) - mean) / spread, SIGMA)
        return ImageScore(
            scorer=self.name,
            value=top_mean(smooth, TOP),
            anomaly_map=to_frame(smooth, image.height, image.width),
            evidence={"neighbour": a["origin"][index].reshape(*grid.shape[1:], 3).numpy()},
        )

    def _fitted(self) -> dict[str, Tensor]:
        if not self.arrays:
            raise NotFittedError(f"the {self.name} scorer was used before fit: call fit, or load a bundle")
        return self.arrays

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and settings from which :meth:`restore` makes the same scorer."""
        settings = {"rows": self.rows, "facts": dict(self.facts)}
        return {k: v.numpy() for k, v in self._fitted().items()}, settings

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any], backbone: Backbone) -> Self:
        """Rebuild a fitted bank on the same backbone."""
        scorer = cls(backbone, settings["rows"])
        scorer.arrays = {k: torch.from_numpy(v) for k, v in arrays.items()}
        scorer.facts = dict(settings["facts"])
        return scorer

    def card(self) -> ScorerCard:
        """For the report's model card."""
        return ScorerCard(
            name=self.name,
            family="memory bank",
            summary="Distance of each patch to the nearest normal patch of a coreset, in deviations usual at its place",
            source="Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022",
            weights=self.backbone.weights,
            facts={"features": self.backbone.name, **self.backbone.facts, **self.facts},
        )


def _usual_distance(bank: Tensor, owner: Tensor, features: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """Mean and spread (2, PLACES, PLACES) of the distance that normal patches have at a place.

    ``features[i]`` are patches of image i at ``places[i]``, and meet rows of other images only (``owner`` != i). Cells
    are smoothed over their neighbours; parts that lie anywhere make the grid even, which is right for them.
    """
    count, total, square = torch.zeros(3, PLACES * PLACES).unbind()
    for i, (patches, place) in enumerate(zip(features, places, strict=False)):
        foreign = bank[owner != i]
        if not len(foreign):  # a single reference image: nothing to compare it with
            foreign = bank
        distance, _ = nearest(patches, foreign)
        cell = place[:, 0] * PLACES + place[:, 1]
        for moment, value in ((count, torch.ones_like(distance)), (total, distance), (square, distance.square())):
            moment.index_add_(0, cell, value)
    count, total, square = (gaussian_blur(m.reshape(PLACES, PLACES), 1.0) for m in (count, total, square))
    # a cell that no patch fell into takes the overall figures
    overall = count.sum()
    weight = 1e-3 * overall / count.numel()
    count, total, square = (m + weight * m.sum() / overall for m in (count, total, square))
    mean = total / count
    spread = (square / count - mean.square()).clamp_min(0).sqrt()
    return torch.stack((mean, spread + SPREAD_FLOOR * spread.mean() + 1e-6))
