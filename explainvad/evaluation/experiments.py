"""Named scorers against one another on one labelled data set: fitted to good images alone, scored on the same others.

An :class:`Arm` is a registered scorer with options. All arms see the same images, so that what one has over another is
the difference within images: its interval comes from one bootstrap for both (:mod:`metrics.resampling`), and is far
narrower than the two intervals side by side suggest. Nothing is fitted, scaled or thresholded on test images.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.config import validated
from explainvad.detection.backbones import Backbones
from explainvad.detection.registry import scorer_type
from explainvad.detection.scorer import FrozenScorer
from explainvad.errors import LotError, WeightsError
from explainvad.evaluation.datasets.load import load_dataset
from explainvad.evaluation.datasets.masks import read_truth
from explainvad.evaluation.differences import compared, interval_of, paired_difference
from explainvad.evaluation.metrics.images import image_auroc, image_metrics
from explainvad.evaluation.metrics.pixels import PixelMetrics
from explainvad.evaluation.metrics.resampling import Measured, Resampling
from explainvad.evaluation.splitting import for_fitting
from explainvad.lazy_images import LazyImages
from explainvad.lot import LotFile, display_name
from explainvad.types import InspectionImage, Interval

GOOD = "good"
AUROC, AUPRO = "AUROC", "AUPRO"
METRICS = (AUROC, AUPRO)
FPR_LIMIT = 0.30  # of AUPRO


@dataclass(frozen=True, slots=True)
class Arm:
    """A registered scorer by name, with its options, under a name of its own in tables and figures."""

    name: str
    scorer: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, backbones: Backbones) -> FrozenScorer[Any]:
        """The scorer, not fitted. Raises ConfigError for wrong options and WeightsError for missing weights."""
        kind = scorer_type(self.scorer)
        return kind(validated(kind.options_type, dict(self.options), self.name), backbones)


@dataclass(frozen=True, slots=True, eq=False)
class ExperimentData:
    """Good images to fit on, and n others to test on; a mask (H, W) is None for a defect that nobody drew."""

    fit: Sequence[InspectionImage]
    test: Sequence[InspectionImage]
    kinds: NDArray[np.str_]  # (n,), GOOD or the type of defect
    masks: Sequence[NDArray[np.bool_] | None]
    skipped: tuple[str, ...] = ()  # files that cannot be read, and copies, with their reasons

    @classmethod
    def load(
        cls,
        root: Path,
        seed: int = 0,
        most_fit: int | None = None,
        most_each: int | None = None,
        category: str | None = None,
    ) -> ExperimentData:
        """Read a labelled folder; of more images than ``most_fit``, or ``most_each`` of a kind, some are drawn.

        A folder of several categories needs one of them by name. A flat folder's good images are split as
        ``explainvad evaluate`` splits them. Raises LotError, also where no image can be used.
        """
        dataset = load_dataset(root, category)
        rng = np.random.default_rng(seed)
        fitting = dataset.train or for_fitting(dataset, None, seed)
        used = set(fitting)
        others = [item for item in dataset.test if item.path not in used]
        items = [
            item
            for kind in sorted({item.defect or "" for item in others})
            for item in _drawn([i for i in others if (i.defect or "") == kind], most_each, rng)
        ]
        fit = LazyImages(
            LotFile(f"fit-{i:05d}", display_name(path.name), path, root)
            for i, path in enumerate(_drawn(list(fitting), most_fit, rng))
        )
        files = [LotFile(f"test-{i:05d}", item.file, item.path, root) for i, item in enumerate(items)]
        test = LazyImages(files)
        if not len(fit) or not len(test):
            raise LotError(
                f"{root} has too few usable images, {len(fit)} to fit on and {len(test)} to test on: some are needed"
            )
        skipped = tuple(f"{file}: {why}" for images in (fit, test) for file, why in images.skipped)
        known = {file.path for file in test.files}
        items = [item for item in items if item.path in known]
        masks = [read_truth(item, (i.height, i.width)) for item, i in zip(items, test, strict=True)]
        return cls(fit, test, np.array([item.defect or GOOD for item in items]), masks, skipped)

    def indices(self, kinds: Collection[str]) -> NDArray[np.intp]:
        """Of the good images and of those with these defects."""
        return np.flatnonzero(np.isin(self.kinds, [GOOD, *kinds]))


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What a fitted arm says of the n test images, with its costs; maps are float32 (H, W), 4 bytes a pixel."""

    arm: str
    scorer: FrozenScorer[Any]
    values: NDArray[np.float64]  # (n,)
    maps: Sequence[NDArray[np.float32]]
    fit_seconds: float
    seconds: NDArray[np.float64]  # (n,); where arms share a backbone, the first of them pays for its forward pass

    @property
    def megabytes(self) -> float:
        """Of the arrays that a bundle would keep of it, without the backbone's weights."""
        return sum(array.nbytes for array in self.scorer.state()[0].values()) / 1e6


def fit_and_score(arms: Sequence[Arm], data: ExperimentData, backbones: Backbones, seed: int = 0) -> tuple[Scored, ...]:
    """Fit all arms to the good images, then score the others one by one. Raises ConfigError and WeightsError."""
    scorers, fit_seconds = [], []
    for arm in arms:
        scorer = arm.build(backbones)
        started = time.perf_counter()
        scorer.fit(data.fit, seed)
        scorers.append(scorer)
        fit_seconds.append(time.perf_counter() - started)
    values, seconds = np.zeros((2, len(arms), len(data.test)))
    maps: list[list[NDArray[np.float32]]] = [[] for _ in arms]
    for i, image in enumerate(data.test):
        for a, scorer in enumerate(scorers):
            started = time.perf_counter()
            score = scorer.score([image])[0]
            seconds[a, i] = time.perf_counter() - started
            values[a, i] = score.value
            maps[a].append(score.anomaly_map)
    rows = zip(arms, scorers, values, maps, fit_seconds, seconds, strict=True)
    return tuple(Scored(arm.name, *row) for arm, *row in rows)


def runnable(arms: Sequence[Arm], backbones: Backbones) -> tuple[list[Arm], list[str]]:
    """The arms whose weights are there, and a sentence for each that cannot be run. Raises ConfigError."""
    found, lacking = [], []
    for arm in arms:
        try:
            arm.build(backbones)
        except WeightsError as error:
            lacking.append(f"{arm.name} was not run: {error}")
        else:
            found.append(arm)
    return found, lacking


def weights_or_random(name: str, backbones: Backbones) -> str:
    """The backbone where its weights are in the store, and else the same network untrained."""
    try:
        backbones.store.weights(name)
    except WeightsError:
        return f"{name}:random"
    return name


@dataclass(frozen=True, eq=False)
class Comparison:
    """Arms on groups of defects, ``groups`` by name, each against all good images; intervals are at 95 %."""

    data: ExperimentData
    scored: Sequence[Scored]
    groups: Mapping[str, Collection[str]]
    n_resamples: int = 1000
    seed: int = 0

    @cached_property
    def present(self) -> tuple[str, ...]:
        """The groups of which there are images."""
        return tuple(g for g, kinds in self.groups.items() if np.isin(self.data.kinds, list(kinds)).any())

    @cached_property
    def _measured(self) -> dict[tuple[str, str, str], Measured | None]:
        how = Resampling(self.n_resamples, self.seed)
        found: dict[tuple[str, str, str], Measured | None] = {}
        for group in self.present:
            chosen = self.data.indices(self.groups[group])
            defective = self.data.kinds[chosen] != GOOD
            for s in self.scored:
                found[s.arm, group, AUROC] = image_metrics(defective, s.values[chosen], resampling=how).auroc
                found[s.arm, group, AUPRO] = self._aupro(s, chosen, how)
        return found

    def _aupro(self, scored: Scored, chosen: NDArray[np.intp], how: Resampling) -> Measured | None:
        """None where a defect has no mask."""
        pixels = PixelMetrics()
        for i in chosen:
            if (mask := self.data.masks[i]) is None:
                return None
            pixels.update(scored.maps[i], mask)
        return pixels.compute((FPR_LIMIT,), how).aupro[FPR_LIMIT]

    def interval(self, arm: str, group: str, metric: str) -> Interval | None:
        """A metric of one arm; None where the data cannot define it."""
        return interval_of(self._measured.get((arm, group, metric)))

    def draws(self, arm: str, group: str, metric: str) -> NDArray[np.float64] | None:
        """The metric of the images themselves, then of their resamples, (1 + n,); None where it is not defined."""
        measured = self._measured.get((arm, group, metric))
        if measured is None or measured.resampled is None:
            return None
        return np.concatenate([[measured.estimate], measured.resampled])

    def difference(self, arm: str, other: str, group: str, metric: str) -> Interval | None:
        """What ``arm`` has over ``other``, on the same resampled images."""
        one, two = (self._measured.get((name, group, metric)) for name in (arm, other))
        return paired_difference(one, two, Resampling(self.n_resamples, self.seed))

    def sentence(self, arm: str, other: str, group: str, metric: str) -> str:
        """What ``arm`` has over ``other``, in words that claim no more than the interval shows."""
        one, two = (self.interval(name, group, metric) for name in (arm, other))
        found = self.difference(arm, other, group, metric)
        return compared(f"{metric} on {group} defects", (arm, one), (other, two), found)

    def rows(self) -> list[dict[str, Any]]:
        """All metrics as plain values, for a table."""
        return [
            {"arm": arm, "group": group, "metric": metric, "estimate": i.estimate, "lower": i.lower, "upper": i.upper}
            for arm, group, metric in self._measured
            if (i := self.interval(arm, group, metric)) is not None
        ]

    def by_kind(self) -> dict[str, dict[str, float | None]]:
        """AUROC of each kind of defect against all good images, by arm."""
        kinds = [kind for group in self.present for kind in self.groups[group] if kind in self.data.kinds]
        table: dict[str, dict[str, float | None]] = {}
        for s in self.scored:
            table[s.arm] = {}
            for kind in kinds:
                chosen = self.data.indices([kind])
                defective = self.data.kinds[chosen] != GOOD
                table[s.arm][kind] = image_auroc(defective, s.values[chosen])
        return table


def groups_of(data: ExperimentData, logical: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Structural and logical defects of a data set, by the names of the logical kinds."""
    kinds = tuple(dict.fromkeys(kind for kind in data.kinds.tolist() if kind != GOOD))
    return {
        "structural": tuple(kind for kind in kinds if kind not in logical),
        "logical": tuple(kind for kind in kinds if kind in logical),
    }


def _drawn(values: list[Any], most: int | None, rng: np.random.Generator) -> list[Any]:
    """All of the values, or so many drawn at random, in their order."""
    if most is None or len(values) <= most:
        return values
    return [values[i] for i in np.sort(rng.choice(len(values), most, replace=False))]
