"""What is kept of each image for pixel metrics, and its sums over images at common thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from explainvad.evaluation.metrics.ranked import Ranked, rank_values, rank_weights
from explainvad.evaluation.metrics.regions import DefectMask, pointing_hit, region_shares, saturated_shares

Floats = NDArray[np.float64]
Kind = Literal["normal", "defect", "regions", "saturated"]

STAGES = 12_000  # of each curve between neighbouring thresholds: a rate grows by 1 / STAGES at most
_KINDS: tuple[Kind, ...] = ("normal", "defect", "regions", "saturated")
_RARE = 1e-6  # false positive rates down to this one are told apart by their ratio, below by their difference
_CANDIDATES = 2**21  # values among which thresholds are chosen


@dataclass(frozen=True, slots=True, eq=False)
class ImageCounts:
    """One image: ranked normal pixels, defect pixels, shares of regions and of saturated defects."""

    normal: Ranked
    defect: Ranked
    regions: Ranked
    saturated: Ranked
    n_regions: int
    n_defects: int  # annotated ones, for the saturated overlap
    pointing: float | None  # None without a defect
    deployed: tuple[int, int] | None  # defect and normal pixels above the deployed threshold

    @classmethod
    def count(
        cls,
        anomaly_map: NDArray[np.float32],
        gt_mask: NDArray[np.bool_],
        defects: Sequence[DefectMask],
        threshold: float | None,
        step: float,
    ) -> ImageCounts:
        """Rank the pixels of a map (H, W)."""
        shares, n_regions = region_shares(gt_mask)
        in_defect = anomaly_map[gt_mask]
        normal = anomaly_map[~gt_mask] if n_regions else anomaly_map.ravel()
        deployed = None
        if threshold is not None:
            deployed = int((in_defect > threshold).sum()), int((normal > threshold).sum())
        return cls(
            normal=rank_values(normal, step),
            defect=rank_values(in_defect, step / 4),
            regions=rank_weights(in_defect, shares, n_regions * step / 4),
            saturated=rank_weights(*saturated_shares(anomaly_map, defects), len(defects) * step / 4),
            n_regions=n_regions,
            n_defects=len(defects),
            pointing=pointing_hit(anomaly_map, gt_mask) if n_regions else None,
            deployed=deployed,
        )

    @property
    def size(self) -> int:
        """Values that are kept."""
        return sum(len(r.values) for r in (self.normal, self.defect, self.regions, self.saturated))

    def coarser(self, step: float) -> ImageCounts:
        """The same with fewer values."""
        return replace(
            self,
            normal=self.normal.coarser(step),
            defect=self.defect.coarser(step / 4),
            regions=self.regions.thinned(self.n_regions * step / 4) if self.n_regions else self.regions,
            saturated=self.saturated.thinned(self.n_defects * step / 4) if self.n_defects else self.saturated,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Least and largest value that a curve can have at each threshold, float64 (k,)."""

    least: Floats
    most: Floats

    @property
    def middle(self) -> Floats:
        """Half way between."""
        return (self.least + self.most) / 2

    def over(self, total: float) -> Band:
        """As a rate."""
        return Band(self.least / total, self.most / total)

    def through(self, function: Callable[[Floats], Floats]) -> Band:
        """Both bounds through an increasing function."""
        return Band(function(self.least), function(self.most))


def total_band(ranked: Sequence[Ranked], thresholds: NDArray[np.float32], weights: Sequence[float]) -> Band:
    """Sum over images of weight times count at each of ``thresholds`` (k,), descending."""
    least, most = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    ascending = np.ascontiguousarray(thresholds[::-1])
    for image, weight in zip(ranked, weights, strict=True):
        if len(image.values):
            low, high = image.bounds(ascending)
            least += weight * low
            most += weight * high
    return Band(least[::-1], most[::-1])


def dense(ranked: Sequence[Ranked], thresholds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Counts of each image at each of ``thresholds``, half way between their bounds: float32 (n, k)."""
    counts = np.zeros((len(ranked), len(thresholds)), dtype=np.float32)
    ascending = np.ascontiguousarray(thresholds[::-1])
    for row, image in zip(counts, ranked, strict=True):
        if len(image.values):
            least, most = image.bounds(ascending)
            row[::-1] = (least + most) / 2
    return counts


def common_thresholds(images: Sequence[ImageCounts]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Thresholds (k,), descending, that follow all curves, and for each whether its step from the last holds one value.

    They are every kept value, or where there are too many, enough of them: between neighbours a rate of defect pixels
    or regions grows by 1 / STAGES at most, and the false positive rate by a STAGES-th on a scale that is logarithmic
    down to _RARE, but for what jumps at a single value, which is then parted from the values above it. The first and
    the last threshold are the largest and the smallest value of all.
    """
    kinds = [[r for i in images if len((r := getattr(i, kind)).values)] for kind in _KINDS]
    ranked = [r for each in kinds for r in each]
    if sum(len(r.values) for r in ranked) <= 5 * STAGES:
        every = np.unique(np.concatenate([r.values for r in ranked]))[::-1]
        return every, _neighbours(every) | (every >= max(r.exact_from for r in ranked))
    ends = [np.array([min(r.values[0] for r in ranked), max(r.values[-1] for r in ranked)])]
    for kind, each in zip(_KINDS, kinds, strict=True):
        ends.append(_ends(each, [1.0] * len(each), false_positive_stage if kind == "normal" else rate_stage))
    # So that the means over images of their rates are followed too
    ends.append(_ends(kinds[1], [1 / r.total for r in kinds[1]], rate_stage))
    chosen = np.unique(np.concatenate(ends))[::-1]
    return chosen, _neighbours(chosen)


def _neighbours(thresholds: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether no number lies between a threshold and the one before; above the first no value lies."""
    return np.append(True, thresholds[:-1] == np.nextafter(thresholds[1:], np.float32(np.inf)))


def false_positive_stage(rate: Floats, stages: int = STAGES) -> NDArray[np.int64]:
    """Number rates in [0, 1] by ``stages`` steps, of equal ratios above _RARE."""
    share_of_rare = 1 / (1 - np.log(_RARE))
    wide = 1 + np.log(np.maximum(rate / _RARE, 1.0))
    return np.asarray(np.where(rate < _RARE, rate / _RARE, wide) * share_of_rare * stages, dtype=np.int64)


def rate_stage(rate: Floats, stages: int = STAGES) -> NDArray[np.int64]:
    """Number rates in [0, 1] by ``stages`` equal steps."""
    return (rate * stages).astype(np.int64)


def _ends(
    ranked: Sequence[Ranked], weights: Sequence[float], stage: Callable[[Floats], NDArray[np.int64]]
) -> NDArray[np.float32]:
    """The values at which the weighted sum of counts enters another stage, and those just before.

    Before a value that alone leads through several stages lies the next larger number there is.
    """
    if not ranked:
        return np.empty(0, np.float32)
    stride = -(-sum(len(r.values) for r in ranked) // _CANDIDATES)
    value = np.concatenate([r.values[::-1][::stride] for r in ranked])
    counts = [w * r.at[::-1][::stride].astype(np.float64) for r, w in zip(ranked, weights, strict=True)]
    gain = np.concatenate([np.diff(count, prepend=0.0) for count in counts])
    order = np.argsort(-value, kind="stable")
    value, passed = value[order], np.cumsum(gain[order])
    last = np.flatnonzero(np.append(np.diff(value) != 0, True))  # of equal values
    value, stages = value[last], stage(passed[last] / passed[-1])
    rise = np.diff(stages, prepend=0)
    entered = np.flatnonzero(rise)
    alone = np.nextafter(value[rise > 1], np.float32(np.inf))
    return np.concatenate([value[entered], value[np.maximum(entered - 1, 0)], alone])
