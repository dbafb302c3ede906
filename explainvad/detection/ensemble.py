"""The scorers of a profile, fitted and asked together; what they share, they compute once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from numpy.typing import NDArray

from explainvad.detection.backbone.adaptation import adapt
from explainvad.detection.backbone.embedded import EmbeddedBackbone
from explainvad.detection.memory_bank import MemoryBank
from explainvad.detection.reconstruction.features import FeatureReconstruction
from explainvad.errors import UsageError
from explainvad.types import ImageScore, InspectionImage, Progress, Scorer, ScorerCard

MISSING = (
    "CLIP scorer: not used, the embedded profile has no weights for it",
    "large pretrained backbone: not used, features are those of the small one that ships with the package",
)
MISSING_OF_FEW = (
    "reconstruction scorer: not used, too few reference images to train it and to calibrate it on others",
    "adaptation of the backbone: not done, for the same reason",
)


def resolve_device(device: str) -> str:
    """``auto`` is the GPU where there is one, else the CPU. UsageError for a GPU that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {device} was asked for, but {torch.cuda.device_count()} GPUs are here: use auto or cpu"
        )
    return device


class Ensemble(Protocol):
    """Fitted scorers, asked together."""

    @property
    def reads_lot(self) -> bool:
        """Whether a score depends on the other images of a lot."""
        ...

    @property
    def scorers(self) -> Sequence[Scorer]:
        """Its members, fitted."""
        ...

    @property
    def batch(self) -> int:
        """How many images are best seen together."""
        ...

    def see(self, images: Sequence[InspectionImage]) -> None:
        """Let the backbones see images together before they are scored one by one."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What a fuller ensemble has and this one lacks; every line is printed in the report."""
        ...

    def score(self, image: InspectionImage) -> list[ImageScore]:
        """The scorers' scores of one image."""
        ...

    def without(self, images: Sequence[int]) -> Self:
        """The ensemble of few images as it would be without some of them (indices)."""
        ...

    def for_lot(self, images: Sequence[InspectionImage]) -> Self:
        """The ensemble that inspects a lot; the same one unless a scorer reads the lot itself."""
        ...

    def extended(self, images: Sequence[InspectionImage]) -> Self:
        """The ensemble that knows further normal images too. UsageError where that takes a new fit."""
        ...

    def cards(self) -> tuple[ScorerCard, ...]:
        """For the report's model card."""
        ...

    def state(self) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, Any]]:
        """Arrays by component, and settings, from which the ensemble is restored."""
        ...


class EmbeddedEnsemble:
    """Profile ``embedded``: feature reconstruction and a memory bank on the backbone that ships with the package."""

    reads_lot = False
    batch = 1

    def __init__(
        self, backbone: EmbeddedBackbone, bank: MemoryBank, reconstruction: FeatureReconstruction | None
    ) -> None:
        self.backbone, self.bank, self.reconstruction = backbone, bank, reconstruction

    @classmethod
    def fit(
        cls,
        images: Sequence[InspectionImage],
        seed: int,
        *,
        resolution: int,
        adaptation_steps: int,
        adaptation_minutes: float,
        reconstruction_steps: int,
        bank_rows: int,
        device: str,
        few: bool = False,
        progress: Progress | None = None,
    ) -> Self:
        """Adapt the shipped backbone to the FIT images, then fit both scorers to what it makes of them.

        ``few`` images can be calibrated by leaving each out of the memory bank; what is trained on all of
        them, adaptation and reconstruction, cannot take part in that.
        """
        backbone = EmbeddedBackbone.shipped(resolution, resolve_device(device))
        bank = MemoryBank(backbone, bank_rows, separate=few)
        if few:
            bank.fit(images, seed)
            return cls(backbone, bank, None)
        if adaptation_steps:
            backbone = bank.backbone = adapt(
                backbone, images, steps=adaptation_steps, minutes=adaptation_minutes, seed=seed, progress=progress
            )
        reconstruction = FeatureReconstruction(backbone, reconstruction_steps, progress=progress)
        reconstruction.fit(images, seed)
        bank.fit(images, seed)
        return cls(backbone, bank, reconstruction)

    def without(self, images: Sequence[int]) -> Self:
        """The ensemble of ``few`` images as it would be without some of them."""
        return type(self)(self.backbone, self.bank.without(images), self.reconstruction)

    def see(self, images: Sequence[InspectionImage]) -> None:
        """The backbone sees images one by one."""

    def for_lot(self, images: Sequence[InspectionImage]) -> Self:
        """The same: no score depends on the lot."""
        return self

    def extended(self, images: Sequence[InspectionImage]) -> Self:
        """Not possible: the backbone was adapted to the images that it was fitted to."""
        raise UsageError("a model of the profile embedded cannot be extended: fit it again on all images")

    @property
    def missing(self) -> tuple[str, ...]:
        """What the full ensemble has and this one lacks; every line is printed in the report."""
        return MISSING if self.reconstruction else (*MISSING, *MISSING_OF_FEW)

    @property
    def scorers(self) -> tuple[FeatureReconstruction | MemoryBank, ...]:
        """Reconstruction where there is one, and memory bank."""
        return (self.reconstruction, self.bank) if self.reconstruction else (self.bank,)

    def score(self, image: InspectionImage) -> list[ImageScore]:
        """The scorers' scores of one image; they share the backbone's forward pass."""
        return [score for scorer in self.scorers for score in scorer.score([image])]

    def cards(self) -> tuple[ScorerCard, ...]:
        """For the report's model card."""
        return tuple(scorer.card() for scorer in self.scorers)

    def state(self) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, Any]]:
        """Arrays and settings by component."""
        states = {"backbone": self.backbone.state(), **{scorer.name: scorer.state() for scorer in self.scorers}}
        return {n: arrays for n, (arrays, _) in states.items()}, {n: settings for n, (_, settings) in states.items()}

    @classmethod
    def restore(cls, arrays: Mapping[str, dict[str, NDArray[Any]]], settings: Mapping[str, Any], device: str) -> Self:
        """Rebuild the fitted scorers on one backbone."""
        r, b = FeatureReconstruction.name, MemoryBank.name
        backbone = EmbeddedBackbone.restore(arrays["backbone"], settings["backbone"], resolve_device(device))
        return cls(
            backbone,
            MemoryBank.restore(arrays[b], settings[b], backbone),
            FeatureReconstruction.restore(arrays[r], settings[r], backbone) if r in settings else None,
        )
