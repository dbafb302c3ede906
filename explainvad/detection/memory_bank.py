"""Memory-bank scorer: how far each patch lies from every patch seen on normal images.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (PatchCore, CVPR 2022): features averaged over
their 3 x 3 neighbourhood, a greedy k-centre coreset M, and for a test patch m_test the distance to its nearest
m* in M. The features come from whatever backbone it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from explainvad.detection.coreset import greedy_k_centre
from explainvad.detection.frames import gaussian_blur, to_frame, top_mean
from explainvad.detection.neighbors import nearest
from explainvad.errors import NotFittedError
from explainvad.types import ImageScore, InspectionImage, ScorerCard

MAX_CANDIDATES = 60_000  # rows that enter the coreset search; above, a random part of them does
MAX_ROWS = 4_000
SHARE = 0.1  # of the candidates, as in PatchCore-10 %
TOP = 0.004  # share of patches whose mean distance is the image's score


class Backbone(Protocol):
    """A frozen feature extractor."""

    name: str
    weights: str

    def features(self, image: InspectionImage) -> Tensor:
        """Features (d, rows, cols) of a grid of patches over the whole image."""
        ...


class MemoryBank:
    """PatchCore-style memory bank; the unit of its score is the distance in feature space."""

    name = "memory_bank"

    def __init__(self, backbone: Backbone, sigma: float = 0.7, rows: int = MAX_ROWS) -> None:
        self.backbone, self.sigma, self.rows = backbone, sigma, rows
        self.bank: Tensor | None = None
        self.origin: Tensor | None = None  # (M, 3): image, row and column of each bank row
        self.facts: dict[str, str] = {}

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Fill the bank. Each image contributes at most its share of MAX_CANDIDATES, drawn at random."""
        generator = torch.Generator().manual_seed(seed)
        share = max(1, MAX_CANDIDATES // len(images))
        features, origins, seen = [], [], 0
        for i, image in enumerate(images):
            grid = self._patches(image)
            rows = grid.flatten(1).T
            seen += len(rows)
            keep = torch.randperm(len(rows), generator=generator)[:share].sort().values
            features.append(rows[keep])
            place = torch.stack((keep // grid.shape[2], keep % grid.shape[2]), dim=1)
            origins.append(torch.cat((torch.full((len(keep), 1), i), place), dim=1))
        candidates, origin = torch.cat(features), torch.cat(origins)
        picked = greedy_k_centre(candidates, min(self.rows, max(1, round(SHARE * len(candidates)))), generator)
        self.bank, self.origin = candidates[picked].contiguous(), origin[picked].to(torch.int32)
        self.facts = {"bank": f"{len(picked):,} rows of {seen:,} patches from {len(images)} images"}

    @torch.inference_mode()
    def _patches(self, image: InspectionImage) -> Tensor:
        """Locally aware features (d, rows, cols): mean over the 3 x 3 neighbourhood, border not padded with zeros."""
        features = self.backbone.features(image)[None]
        return F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)[0]

    def score(self, images: Sequence[InspectionImage]) -> list[ImageScore]:
        """Score each image on its own. ``evidence``: ``neighbour`` int32 (rows, cols, 3), image and cell of each m*."""
        return [self._score(image) for image in images]

    @torch.inference_mode()
    def _score(self, image: InspectionImage) -> ImageScore:
        if self.bank is None or self.origin is None:
            raise NotFittedError(f"the {self.name} scorer was asked to score before fit: call fit, or load a bundle")
        grid = self._patches(image)
        distance, index = nearest(grid.flatten(1).T, self.bank)
        smooth = gaussian_blur(distance.reshape(grid.shape[1:]), self.sigma)
        return ImageScore(
            scorer=self.name,
            value=top_mean(smooth, TOP),
            anomaly_map=to_frame(smooth, image.height, image.width),
            evidence={"neighbour": self.origin[index].reshape(*grid.shape[1:], 3).numpy()},
        )

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and settings from which :meth:`restore` makes the same scorer."""
        if self.bank is None or self.origin is None:
            raise NotFittedError("an empty memory bank cannot be saved: call fit first")
        settings: dict[str, Any] = {"sigma": self.sigma, "rows": self.rows, "facts": dict(self.facts)}
        return {"bank": self.bank.numpy(), "origin": self.origin.numpy()}, settings

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any], backbone: Backbone) -> MemoryBank:
        """Rebuild a fitted bank on the same backbone."""
        scorer = cls(backbone, sigma=settings["sigma"], rows=settings["rows"])
        scorer.bank, scorer.origin, scorer.facts = (
            torch.from_numpy(arrays["bank"]),
            torch.from_numpy(arrays["origin"]),
            dict(settings["facts"]),
        )
        return scorer

    def card(self) -> ScorerCard:
        """For the report's model card."""
        return ScorerCard(
            name=self.name,
            family="memory bank",
            summary="Distance of each patch to the nearest patch of a coreset of normal patches",
            source="Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022",
            weights=self.backbone.weights,
            facts={"features": self.backbone.name, **self.facts},
        )
