"""What all scorers on pretrained backbones have in common: options, learnt arrays, a card, and one way to score.

A scorer is a small file with its paper in the docstring. It keeps everything that it learnt in ``arrays``
(what a bundle stores) and everything the report says of that in ``facts``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from explainvad.errors import NotFittedError
from explainvad.types import ImageScore, InspectionImage, Progress, ScorerCard

if TYPE_CHECKING:
    from explainvad.detection.backbones import Backbones


class ScorerOptions(BaseModel):
    """What the configuration may say of a scorer; each scorer adds its own. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(default="", max_length=64, pattern=r"^[\w.-]*$", description="its name in records and reports")


Options = TypeVar("Options", bound=ScorerOptions)


class FrozenScorer(ABC, Generic[Options]):
    """A scorer on frozen backbones (or on pixels). ``fit`` or ``load`` before ``score``, or NotFittedError."""

    name: ClassVar[str]  # in the registry
    family: ClassVar[str]  # of the survey arXiv 2507.15905
    summary: ClassVar[str]  # one sentence for the report
    source: ClassVar[str]  # the paper
    options_type: ClassVar[type[ScorerOptions]]
    few_images: ClassVar[bool] = False  # whether `without` works: it can be calibrated by leaving images out
    extendable: bool = False  # whether `extended` works
    reads_lot: ClassVar[bool] = False  # whether a score depends on the other images of a lot (MuSc alone)

    def __init__(self, options: Options, backbones: Backbones, progress: Progress | None = None) -> None:
        self.options, self.backbones, self.progress = options, backbones, progress
        self.arrays: dict[str, Tensor] = {}  # on the CPU
        self.facts: dict[str, str] = {}
        # of one that asks CLIP, once fitted: separation of its prompts, the least that counts, and on how many images
        self.separation: tuple[float, float, int] | None = None
        self.separate = False  # set before `fit`: every image contributes by itself, so that `without` can take it away

    @property
    def label(self) -> str:
        """The name under which scores are recorded: the label, or else the scorer's own name."""
        return self.options.label or self.name

    @property
    @abstractmethod
    def weights(self) -> str:
        """Where its weights come from, for the report."""

    @abstractmethod
    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Learn what is normal. The same images, seed and machine give the same arrays."""

    @abstractmethod
    def score_one(self, image: InspectionImage) -> ImageScore:
        """Score one image in its own frame."""

    def score(self, images: Sequence[InspectionImage]) -> list[ImageScore]:
        """Score images one by one: a score never depends on its neighbours in ``images``."""
        self.fitted()
        with torch.inference_mode():
            return [self.score_one(image) for image in images]

    def fitted(self) -> dict[str, Tensor]:
        """The learnt arrays. Raises NotFittedError before ``fit`` and ``load``."""
        if not self.arrays:
            raise NotFittedError(f"the {self.label} scorer was used before fit: call fit, or load a bundle")
        return self.arrays

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        """Arrays and facts from which :meth:`load` makes the same scorer."""
        return {name: array.cpu().numpy() for name, array in self.fitted().items()}, dict(self.facts)

    def load(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> None:
        """The inverse of :meth:`state`, on the same options and backbones."""
        self.arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.facts = dict(facts)

    def without(self, images: Sequence[int]) -> Self:
        """The scorer as it would be without some of the images it was fitted to (indices); needs ``separate``.

        A score against fewer images must never be smaller, so that leave-one-out calibration is valid.
        """
        raise NotImplementedError(f"{self.name} cannot leave images out: it takes part in split calibration only")

    def with_lot(self, images: Sequence[InspectionImage]) -> Self:
        """The scorer that inspects a lot; the same one unless it reads the lot itself."""
        return self

    def extended(self, images: Sequence[InspectionImage], seed: int) -> Self:
        """A copy that knows further normal images too, without a fit from scratch."""
        grown = copy(self)
        grown.arrays, grown.facts = dict(self.arrays), dict(self.facts)
        grown.extend(images, seed)
        return grown

    def extend(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Take further normal images in."""
        raise NotImplementedError(f"{self.name} cannot be extended: fit it again on all images")

    def latency(self, image: InspectionImage) -> tuple[float, float, int] | None:
        """Seconds of a search through its bank and of the backbone's pass, and the bank's rows; None without one."""
        return None

    def card(self) -> ScorerCard:
        """For the report's model card."""
        return ScorerCard(
            name=self.label,
            family=self.family,
            summary=self.summary,
            source=self.source,
            weights=self.weights,
            facts=dict(self.facts),
        )
