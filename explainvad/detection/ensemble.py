"""The scorers of a profile, fitted and asked together; what they share, they compute once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from explainvad.detection.descriptors import LocalDescriptors
from explainvad.detection.memory_bank import MemoryBank
from explainvad.detection.reconstruction.masked import MaskedReconstruction
from explainvad.errors import UsageError
from explainvad.types import ImageScore, InspectionImage, Progress, ScorerCard

# What the profile lacks of the full ensemble; every line is printed in the report
MISSING = {
    "embedded": (
        "CLIP scorer: not used, the embedded profile has no weights for it",
        "pretrained backbone: not used, the memory bank compares fixed local descriptors",
        "SAM refinement: not used, regions are cut by the calibrated threshold",
        "language model: not used, sentences are written from measured facts",
    )
}


def resolve_device(device: str) -> str:
    """``auto`` is the GPU where there is one, else the CPU. UsageError for a GPU that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {device} was asked for, but {torch.cuda.device_count()} GPUs are here: use auto or cpu"
        )
    return device


class EmbeddedEnsemble:
    """Profile ``embedded``: masked reconstruction, and a memory bank on local descriptors. Needs no weights."""

    profile = "embedded"

    def __init__(self, reconstruction: MaskedReconstruction, bank: MemoryBank) -> None:
        self.reconstruction, self.bank = reconstruction, bank

    @classmethod
    def build(
        cls,
        *,
        resolution: int,
        steps: int,
        batch: int,
        bank_resolution: int,
        bank_rows: int,
        device: str,
        progress: Progress | None = None,
    ) -> EmbeddedEnsemble:
        """Unfitted scorers."""
        device = resolve_device(device)
        return cls(
            MaskedReconstruction(resolution, steps, batch, device=device, progress=progress),
            MemoryBank(LocalDescriptors(bank_resolution), bank_rows),
        )

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Fit both scorers on the FIT images."""
        self.reconstruction.fit(images, seed)
        self.bank.fit(images, seed)

    def score(self, image: InspectionImage) -> list[ImageScore]:
        """Both scorers' scores of one image."""
        return [*self.reconstruction.score([image]), *self.bank.score([image])]

    def cards(self) -> tuple[ScorerCard, ...]:
        """For the report's model card."""
        return self.reconstruction.card(), self.bank.card()

    def state(self) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, Any]]:
        """Arrays and settings by scorer."""
        states = {scorer.name: scorer.state() for scorer in (self.reconstruction, self.bank)}
        return {n: arrays for n, (arrays, _) in states.items()}, {n: settings for n, (_, settings) in states.items()}

    @classmethod
    def restore(
        cls, arrays: Mapping[str, dict[str, NDArray[Any]]], settings: Mapping[str, Any], device: str
    ) -> EmbeddedEnsemble:
        """Rebuild the fitted scorers."""
        r, b = MaskedReconstruction.name, MemoryBank.name
        return cls(
            MaskedReconstruction.restore(arrays[r], settings[r], resolve_device(device)),
            MemoryBank.restore(arrays[b], settings[b], LocalDescriptors(settings[b]["resolution"])),
        )
