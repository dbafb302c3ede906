"""Scorers on pretrained backbones, fitted and asked together: the profiles standard, zero-shot, edge and custom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from numpy.typing import NDArray

from explainvad.config import InspectionConfig
from explainvad.detection.backbones import Backbones
from explainvad.detection.registry import build
from explainvad.detection.scorer import FrozenScorer
from explainvad.errors import UsageError
from explainvad.types import ImageScore, InspectionImage, ScorerCard

GPU_BATCH = 32  # images
COMPONENT = "scorer-"  # before the label: a bundle's component, whatever a scorer is called


class PretrainedEnsemble:
    """Any list of registered scorers on one pool of backbones."""

    def __init__(
        self,
        config: InspectionConfig,
        backbones: Backbones,
        scorers: Sequence[FrozenScorer[Any]],
        left_out: Sequence[str],
    ) -> None:
        self.config, self.backbones, self.scorers, self.left_out = config, backbones, tuple(scorers), tuple(left_out)

    @classmethod
    def fit(
        cls,
        images: Sequence[InspectionImage],
        config: InspectionConfig,
        backbones: Backbones,
        scorers: Sequence[FrozenScorer[Any]],
        *,
        few: bool = False,
    ) -> Self:
        """Fit every scorer to the FIT images; of ``few`` images, those only that can leave images out.

        Raises UsageError when no scorer is left.
        """
        fitting = [scorer for scorer in scorers if scorer.few_images] if few else scorers
        left_out = [
            f"{scorer.label} scorer: not used, too few reference images to fit it and to calibrate it on others"
            for scorer in scorers
            if scorer not in fitting
        ]
        if not fitting:
            raise UsageError(
                f"{len(images)} reference images are too few for {', '.join(s.label for s in scorers)}: photograph 60 "
                "or more parts, or use scorers that can leave images out (memory banks, WinCLIP)"
            )
        for scorer in fitting:
            scorer.separate = few
            scorer.fit(images, config.seed)
        return cls(config, backbones, fitting, left_out)

    @property
    def reads_lot(self) -> bool:
        """Whether a score depends on the other images of a lot."""
        return any(scorer.reads_lot for scorer in self.scorers)

    @property
    def batch(self) -> int:
        """A GPU wants many images at once; on a CPU they only take memory."""
        return GPU_BATCH if self.backbones.device.startswith("cuda") else 1

    def see(self, images: Sequence[InspectionImage]) -> None:
        """Let the backbones see images together before they are scored one by one."""
        self.backbones.see(images)

    def _with(self, scorers: Sequence[FrozenScorer[Any]]) -> Self:
        return type(self)(self.config, self.backbones, scorers, self.left_out)

    def without(self, images: Sequence[int]) -> Self:
        """The ensemble of few images as it would be without some of them."""
        return self._with([scorer.without(images) for scorer in self.scorers])

    def for_lot(self, images: Sequence[InspectionImage]) -> Self:
        """The ensemble that inspects a lot; the same one unless a scorer reads the lot itself."""
        return self._with([scorer.with_lot(images) for scorer in self.scorers]) if self.reads_lot else self

    def extended(self, images: Sequence[InspectionImage]) -> Self:
        """The ensemble whose memory banks hold further normal images too. UsageError where it has no bank."""
        if not any(scorer.extendable for scorer in self.scorers):
            raise UsageError(f"{', '.join(s.label for s in self.scorers)} cannot be extended: fit again on all images")
        seed = self.config.seed
        return self._with([s.extended(images, seed) if s.extendable else s for s in self.scorers])

    @property
    def missing(self) -> tuple[str, ...]:
        """What the full ensemble has and this one lacks; every line is printed in the report."""
        names = [scorer.name for scorer in self.scorers]
        clip = () if "winclip" in names else ("CLIP scorer: not used, it is not part of this ensemble",)
        lot = tuple(
            f"{scorer.label} scores the lot against itself: its p-values, and those of the fused score, hold only "
            "while most of the lot is normal, and an image's score depends on the others"
            for scorer in self.scorers
            if scorer.reads_lot
        )
        return (*lot, *self.left_out, *clip)

    def score(self, image: InspectionImage) -> list[ImageScore]:
        """The scorers' scores of one image; those on one backbone and resolution share its forward pass."""
        return [score for scorer in self.scorers for score in scorer.score([image])]

    def cards(self) -> tuple[ScorerCard, ...]:
        """For the report's model card."""
        return tuple(scorer.card() for scorer in self.scorers)

    def state(self) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, Any]]:
        """Arrays by scorer, and what :meth:`restore` needs beside them."""
        states = {scorer.label: scorer.state() for scorer in self.scorers}
        settings = {
            "facts": {label: facts for label, (_, facts) in states.items()},
            "left_out": self.left_out,
            "few": any(scorer.separate for scorer in self.scorers),
            "bf16": self.backbones.bf16,
            "weights": self.backbones.used(),
        }
        return {COMPONENT + label: arrays for label, (arrays, _) in states.items()}, settings

    @classmethod
    def restore(
        cls,
        arrays: Mapping[str, dict[str, NDArray[Any]]],
        settings: Mapping[str, Any],
        config: InspectionConfig,
        backbones: Backbones,
    ) -> Self:
        """Rebuild the fitted scorers. WeightsError when weights are missing, or are not those of the fit."""
        backbones.require(settings["weights"])
        scorers = [scorer for scorer in build(config, backbones) if scorer.label in settings["facts"]]
        for scorer in scorers:
            scorer.separate = settings["few"]
            scorer.load(arrays[COMPONENT + scorer.label], settings["facts"][scorer.label])
        return cls(config, backbones, scorers, settings["left_out"])
