"""Curves over common thresholds, and the same curves over resampled images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from explainvad.evaluation.metrics.curves import (
    area_error,
    area_weights,
    average_precision,
    average_precision_error,
    f1,
    f1_max,
    f1_max_error,
    mean_height,
)
from explainvad.evaluation.metrics.pixel_counts import (
    Band,
    ImageCounts,
    Kind,
    common_thresholds,
    dense,
    false_positive_stage,
    rate_stage,
    total_band,
)
from explainvad.evaluation.metrics.ranked import Ranked
from explainvad.evaluation.metrics.resampling import Measured, Resampling

_RESAMPLED_STAGES = 2**10  # of each curve between the thresholds that resampled curves have
_ROWS = 64  # resamples at a time

Floats = NDArray[np.float64]


class PixelCurves:
    """All curves of images of which at least one pixel is normal and one is not.

    Estimates come from all common thresholds; a resampled curve is a weighted sum of its images' counts at fewer
    ones.
    """

    def __init__(self, images: Sequence[ImageCounts], how: Resampling, pimo_bounds: tuple[float, float]) -> None:
        self._images = images
        self._how = how
        self._pimo = float(np.log(pimo_bounds[0])), float(np.log(pimo_bounds[1]))
        self._thresholds, self._single = common_thresholds(images)
        self._is_defect = np.array([image.n_regions > 0 for image in images])
        self._weights = how.weights(self._is_defect)
        self._bands: dict[Kind, Band] = {}
        self._sums: dict[Kind, NDArray[np.float32]] = {}  # of resamples, (n, few thresholds)

    def overlap(self, kind: Kind, limit: float) -> Measured:
        """Mean over false positive rates from 0 to ``limit`` of a share that is found: of pixels, regions, defects."""
        x = self._false_positives.over(self._false_positives.most[-1])
        y = self._band(kind).over(self._band(kind).most[-1])
        estimate = float(mean_height(x.middle, y.middle, limit))
        error = area_error((x.least, x.most), (y.least, y.most), self._single, 0.0, limit)

        def resampled(fp: Floats, of: Callable[[Kind], Floats]) -> Floats:
            found = of(kind)
            return mean_height(fp / fp[:, -1:], found / found[:, -1:], limit)

        return self._measured(estimate, resampled, error)

    def aupr(self) -> Measured:
        """Average precision of pixels."""
        tp, fp = self._band("defect"), self._false_positives
        error = average_precision_error((tp.least, tp.most), (fp.least, fp.most), self._single)
        estimate = float(average_precision(tp.middle, fp.middle))
        return self._measured(estimate, lambda fp, of: average_precision(of("defect"), fp), error)

    def f1_max(self) -> Measured:
        """Largest F1 of pixels."""
        tp, fp = self._band("defect"), self._false_positives
        error = f1_max_error((tp.least, tp.most), (fp.least, fp.most), self._single)
        return self._measured(float(f1_max(tp.middle, fp.middle)), lambda fp, of: f1_max(of("defect"), fp), error)

    def f1_deployed(self) -> Measured:
        """F1 of pixels at the deployed threshold, which was counted at exactly."""
        above = np.array([image.deployed for image in self._images], dtype=np.float64)
        n_defect = np.array([image.defect.total for image in self._images])
        estimate = float(f1(above[:, 0].sum(), above[:, 1].sum(), n_defect.sum()))
        w = self._weights
        return self._how.measured(estimate, f1(w @ above[:, 0], w @ above[:, 1], w @ n_defect) if len(w) else None)

    def pointing(self) -> Measured:
        """Pointing game over the images with a defect."""
        hits = np.array([image.pointing or 0.0 for image in self._images])
        w = self._weights[:, self._is_defect]
        resampled = w @ hits[self._is_defect] / w.sum(axis=1) if len(w) else None
        return self._how.measured(float(hits[self._is_defect].mean()), resampled)

    def aupimo(self) -> tuple[Measured | None, tuple[float | None, ...]]:
        """AUPIMO, and that of each image; None without good images, or with too few of their pixels."""
        nothing = None, (None,) * len(self._images)
        if self._is_defect.all():
            return nothing
        good = [image.normal for image in self._images if not image.n_regions]
        shared = total_band(good, self._thresholds, [1 / (len(good) * r.total) for r in good])
        if not self._resolved(shared.middle):
            return nothing
        x = shared.through(_log)
        weights = area_weights(x.middle, *self._pimo)
        within = weights != 0
        counted, weights = self._thresholds[within], weights[within]
        values = [
            float(np.clip(weights @ dense([image.defect], counted)[0] / image.defect.total, 0, 1))
            if image.n_regions
            else None
            for image in self._images
        ]
        estimate = float(np.mean([v for v in values if v is not None]))
        found = [image.defect for image in self._images if image.n_regions]
        y = total_band(found, self._thresholds, [1 / (len(found) * r.total) for r in found])
        error = area_error((x.least, x.most), (y.least, y.most), self._single, *self._pimo)
        return self._how.measured(estimate, self._resampled_aupimo(good, found), error), tuple(values)

    def _resampled_aupimo(self, good: Sequence[Ranked], found: Sequence[Ranked]) -> Floats | None:
        """Both the shared false positive rates and the images that are averaged are those of the resample."""
        if not self._how.n:
            return None
        rates, recalls = (
            dense(each, self._few_thresholds) / np.array([[r.total] for r in each], dtype=np.float32)
            for each in (good, found)
        )
        values: list[Floats] = []
        for rows in self._row_blocks():
            drawn = self._weights[rows]
            shared = (drawn[:, ~self._is_defect] @ rates).astype(np.float64) / len(good)
            by_image = area_weights(_log(shared), *self._pimo).astype(np.float32) @ recalls.T
            mean = (drawn[:, self._is_defect] * by_image).sum(axis=1) / len(found)
            values.append(np.where(self._resolved(shared), np.clip(mean, 0, 1), np.nan).astype(np.float64))
        return np.concatenate(values)

    def _resolved(self, shared: Floats) -> NDArray[np.bool_]:
        """Whether some false positive rate, other than 0, is within the bounds of AUPIMO or below them."""
        return np.asarray(((shared > 0) & (shared < np.exp(self._pimo[1]))).any(axis=-1))

    def _measured(
        self, estimate: float, resampled: Callable[[Floats, Callable[[Kind], Floats]], Floats], error: float
    ) -> Measured:
        values = None
        if self._how.n:
            blocks = self._row_blocks()
            values = np.concatenate([resampled(self._drawn("normal", b), partial(self._drawn, rows=b)) for b in blocks])
        return self._how.measured(estimate, values, error)

    def _drawn(self, kind: Kind, rows: slice) -> Floats:
        """Counts of some resamples at each of the few thresholds."""
        if kind not in self._sums:
            counts = dense([getattr(image, kind) for image in self._images], self._few_thresholds)
            self._sums[kind] = self._weights @ counts
        return self._sums[kind][rows].astype(np.float64)

    def _row_blocks(self) -> Iterator[slice]:
        return (slice(first, first + _ROWS) for first in range(0, self._how.n, _ROWS))

    def _band(self, kind: Kind) -> Band:
        if kind not in self._bands:
            ranked = [getattr(image, kind) for image in self._images]
            self._bands[kind] = total_band(ranked, self._thresholds, [1.0] * len(ranked))
        return self._bands[kind]

    @property
    def _false_positives(self) -> Band:
        return self._band("normal")

    @cached_property
    def _few_thresholds(self) -> NDArray[np.float32]:
        """Those of the thresholds between which the curves of all images change visibly, the first and the last one."""
        fp = self._false_positives.middle
        changes = np.diff(false_positive_stage(fp / fp[-1], 2 * _RESAMPLED_STAGES)) != 0
        kinds: tuple[Kind, ...] = ("defect", "regions", "saturated")
        for y in (self._band(kind).middle for kind in kinds):
            if y[-1]:
                changes |= np.diff(rate_stage(y / y[-1], _RESAMPLED_STAGES)) != 0
        few: NDArray[np.float32] = self._thresholds[np.append(changes, True) | np.append(True, changes)]
        return few


def _log(rate: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(rate))
