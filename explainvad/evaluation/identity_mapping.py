"""The identity-mapping stress test: small transformer autoencoders by bottleneck and masks, and two remedies.

An autoencoder that copies its input rebuilds defects as well (the survey arXiv 2507.15905, section 4). Each trial is
``vit-ae`` with other options; of each is known how far defects planted in good test images stand out of what it cannot
rebuild (:func:`signatures.identity_mapping`), and how well it finds the labelled defects, with its resamples, so that
trials can be compared draw by draw.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from explainvad.detection.backbones import Backbones
from explainvad.detection.scorer import FrozenScorer
from explainvad.detection.signatures import identity_mapping, planted
from explainvad.detection.synthesis.whole import with_defect
from explainvad.evaluation.differences import interval_of
from explainvad.evaluation.experiments import AUPRO, AUROC, GOOD, Arm, Comparison, ExperimentData, fit_and_score
from explainvad.evaluation.metrics.resampling import Resampling
from explainvad.types import Interval

BOTTLENECKS = (2, 6, 16, 48)  # numbers of a patch of 4 x 4 px, which has 48
MASK_RATIOS = (0.0, 0.5, 0.75)
MEMORY = 64  # items
STEPS, LONG = 1500, 8000  # of training
PAIRS = 8  # good test images that a defect is planted in
_PLANTED = 11  # part of the seeds of the defects
_SIZES = {
    "resolution": 64,
    "side": 32,
    "patch": 4,
    "width": 64,
    "depth": 1,
    "decoder_depth": 1,
    "batch": 8,
    "rounds": 1,
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One autoencoder; ``remedy`` is "none", "query" (UniAD's) or "memory" (MemAE's), beside bottleneck and masks."""

    bottleneck: int
    mask_ratio: float
    remedy: str = "none"
    steps: int = STEPS

    @property
    def name(self) -> str:
        """In tables and figures."""
        masks = f", {self.mask_ratio:.0%} masked" if self.mask_ratio else ""
        remedy = f", {self.remedy}" if self.remedy != "none" else ""
        steps = f", {self.steps:,} steps" if self.steps != STEPS else ""
        return f"{self.bottleneck} numbers{masks}{remedy}{steps}"

    @property
    def arm(self) -> Arm:
        """As a registered scorer."""
        remedies: dict[str, dict[str, Any]] = {"none": {}, "query": {"query": True}, "memory": {"memory": MEMORY}}
        chosen = {"bottleneck": self.bottleneck, "mask_ratio": self.mask_ratio, "steps": self.steps}
        return Arm(self.name, "vit-ae", {**_SIZES, **chosen, **remedies[self.remedy]})


GRID = tuple(Trial(bottleneck, ratio) for bottleneck in BOTTLENECKS for ratio in MASK_RATIOS)
REMEDIES = tuple(Trial(BOTTLENECKS[-1], 0.0, remedy) for remedy in ("query", "memory"))
# copying takes time to learn
LONGER = (
    *(Trial(bottleneck, 0.0, steps=LONG) for bottleneck in BOTTLENECKS[1:]),
    Trial(BOTTLENECKS[-1], 0.0, "memory", LONG),
)


@dataclass(frozen=True, slots=True, eq=False)
class StressTest:
    """k trials with what was measured of each; draws hold the sample's own value first, then its resamples."""

    trials: tuple[Trial, ...]
    residual: NDArray[np.float64]  # (k,), the training loss at the end
    ratio: NDArray[np.float64]  # (k,), variance at planted defects in that of what is normal
    draws: dict[str, NDArray[np.float64]]  # by metric (k, 1 + n)

    @classmethod
    def measure(
        cls, data: ExperimentData, trials: Sequence[Trial], kinds: Collection[str], n_resamples: int = 200
    ) -> Self:
        """Train every trial on the good images, and test it on the others and on ``kinds`` of defects."""
        backbones, group = Backbones(bf16=False), "defects"
        scored = fit_and_score([trial.arm for trial in trials], data, backbones)
        comparison = Comparison(data, scored, {group: tuple(kinds)}, n_resamples)
        draws = {metric: [comparison.draws(s.arm, group, metric) for s in scored] for metric in (AUROC, AUPRO)}
        return cls(
            trials=tuple(trials),
            residual=np.array([float(s.scorer.facts["loss when trained"]) for s in scored]),
            ratio=np.array([variance_ratio(s.scorer, data) for s in scored]),
            draws={metric: np.array(rows) for metric, rows in draws.items() if all(row is not None for row in rows)},
        )

    def interval(self, metric: str, trial: int) -> Interval | None:
        """A metric of the trial of that number."""
        return _interval(self.draws[metric][trial])

    def difference(self, metric: str, one: int, other: int) -> Interval | None:
        """What one trial has over another, on the same resampled images."""
        return _interval(self.draws[metric][one] - self.draws[metric][other])

    def save(self, path: Path) -> None:
        """Write one compressed ``.npz``."""
        arrays: dict[str, Any] = {
            "numbers": np.array([(t.bottleneck, t.mask_ratio, t.steps) for t in self.trials]),
            "remedies": np.array([t.remedy for t in self.trials]),
            "residual": self.residual,
            "ratio": self.ratio,
            **{f"draws.{metric}": rows.astype(np.float32) for metric, rows in self.draws.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            trials = tuple(
                Trial(int(bottleneck), float(ratio), str(remedy), int(steps))
                for (bottleneck, ratio, steps), remedy in zip(data["numbers"], data["remedies"], strict=True)
            )
            draws = {
                key.removeprefix("draws."): data[key].astype(np.float64)
                for key in data.files
                if key.startswith("draws.")
            }
            return cls(trials, data["residual"], data["ratio"], draws)


def _interval(draws: NDArray[np.float64]) -> Interval | None:
    return interval_of(Resampling().measured(float(draws[0]), draws[1:]))


def variance_ratio(scorer: FrozenScorer[Any], data: ExperimentData) -> float:
    """The signature of a fitted scorer, on defects planted in good test images; at least LEAST_PAIRS of them."""
    good = [data.test[i] for i in np.flatnonzero(data.kinds == GOOD)[:PAIRS].tolist()]
    bad = [with_defect(image, good[(i + 1) % len(good)], _PLANTED, i)[0] for i, image in enumerate(good)]
    normal_maps, defect_maps = ([s.anomaly_map for s in scorer.score(images)] for images in (good, bad))
    masks = [planted(image.pixels, copy.pixels) for image, copy in zip(good, bad, strict=True)]
    return identity_mapping(normal_maps, defect_maps, masks).value
