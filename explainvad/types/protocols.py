"""What the stages of the flow have in common, whoever implements them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from explainvad.types.attributions import PixelFunction, PromptedRegion
from explainvad.types.images import ImageScore, InspectionImage
from explainvad.types.records import Region, RegionFacts
from explainvad.types.reports import ScorerCard

Progress = Callable[[str, int, int], None]  # what is done, how many, of how many


class Scorer(Protocol):
    """One member of the ensemble. ``fit`` before ``score``, or NotFittedError."""

    @property
    def name(self) -> str:
        """What the registry calls it."""
        ...

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Learn what is normal."""

    def score(self, images: Sequence[InspectionImage]) -> list[ImageScore]:
        """Score images one by one: a score never depends on its neighbours in ``images``."""
        ...

    def card(self) -> ScorerCard:
        """Describe the fitted scorer for the report."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """A scorer that can say what it does to pixels, so that gradients, attention and occlusion can be taken of it."""

    def pixel_function(
        self,
        image: InspectionImage,
        score: ImageScore,
        baseline: InspectionImage,
        at: tuple[float, float] | None = None,
    ) -> PixelFunction:
        """The scorer's number at its most anomalous place, or ``at`` (y, x) in shares of the image's sides.

        ``score`` is what it said of the image; ``baseline`` is a picture of the same size to compare with. Raises
        NotExplainableError where its network cannot be asked.
        """
        ...


@runtime_checkable
class Prompted(Protocol):
    """A scorer that compares images with words."""

    def prompted_region(
        self, image: InspectionImage, score: ImageScore, at: tuple[float, float] | None = None
    ) -> PromptedRegion:
        """Its most anomalous place, or that ``at`` (y, x) in shares of the image's sides, beside its phrases."""
        ...


class Attributor(Protocol):
    """Turns evidence into regions."""

    def regions(
        self, image: InspectionImage, fused_map: NDArray[np.float32], scores: Sequence[ImageScore]
    ) -> tuple[Region, ...]:
        """Cut regions out of a fused map (float32 (H, W)), heaviest first."""
        ...


class Describer(Protocol):
    """Writes sentences about a region. Every sentence is verified afterwards, whoever wrote it."""

    author: str

    def describe(self, image: InspectionImage, region: Region, facts: RegionFacts) -> tuple[str, ...]:
        """Return sentences, plain text, in reading order."""
        ...
