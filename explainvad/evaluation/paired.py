"""Metrics of resampled images, one row of numbers a metric, so that two scorers can be compared draw by draw.

Bootstrap over images, within good and defect ones (Efron and Tibshirani, "An introduction to the bootstrap", 1993,
chapter 13): an image is drawn with all its pixels. The difference of two scorers' rows, made with the same weights, has
its own distribution. Where classes separate perfectly an interval has no width, which must not be read as certainty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from explainvad.types import Interval

CONFIDENCE = 0.95
FPR_LIMIT = 0.30  # of AUPRO
STAGES = 120  # false positive rates at which PRO is measured, up to the limit

Draws = NDArray[np.float64]  # (1 + n,): of the sample itself, and of its resamples

_EIGHT_CONNECTED = np.ones((3, 3), dtype=np.int8)


def resamples(defective: NDArray[np.bool_], n: int, seed: int) -> NDArray[np.float64]:
    """How often each image (m,) counts: (1 + n, m), the first row once each, the others drawn within each class."""
    rng = np.random.default_rng(seed)
    weights = np.ones((1 + n, len(defective)))
    for members in (np.flatnonzero(defective), np.flatnonzero(~defective)):
        if len(members):
            weights[1:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), n)
    return weights


def auroc_draws(defective: NDArray[np.bool_], scores: NDArray[np.float64], weights: NDArray[np.float64]) -> Draws:
    """Area under the ROC curve: P(defect scores above good), ties counted half. ValueError where a class is missing."""
    bad, good = scores[defective], scores[~defective]
    if not len(bad) or not len(good):
        raise ValueError(f"AUROC needs good and defect images, got {len(good)} and {len(bad)}")
    above = (bad[:, None] > good) + 0.5 * (bad[:, None] == good)
    of_bad, of_good = weights[:, defective], weights[:, ~defective]
    won: Draws = np.einsum("bi,ij,bj->b", of_bad, above, of_good, optimize=True)
    won /= of_bad.sum(1) * of_good.sum(1)
    return won


def aupro_draws(
    maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]], weights: NDArray[np.float64]
) -> Draws | None:
    """Area under per-region overlap over the false positive rate, up to FPR_LIMIT, divided by it.

    Bergmann et al., IJCV 129, 2021; see :class:`metrics.PixelMetrics`, whose value with every threshold this
    approximates with STAGES of them, quantiles of the normal pixels. None without normal or without defect pixels.
    """
    normal = [a[~m] for a, m in zip(maps, masks, strict=True)]
    regions = [ndimage.label(m, structure=_EIGHT_CONNECTED) for m in masks]
    count = np.array([n for _, n in regions], dtype=np.float64)
    pixels = np.array([len(values) for values in normal], dtype=np.float64)
    if not count.sum() or not pixels.sum():
        return None
    # Resampled rates reach the limit at other thresholds: measure beyond it
    rates = np.linspace(0, min(1.0, 2 * FPR_LIMIT), 2 * STAGES + 1)
    thresholds = np.quantile(np.concatenate(normal), 1 - rates, method="higher")

    false, overlap = np.zeros((2, len(maps), len(rates)))
    for i, (anomaly_map, values, (labels, n)) in enumerate(zip(maps, normal, regions, strict=True)):
        false[i] = len(values) - np.searchsorted(np.sort(values), thresholds, side="left")
        for region in range(1, n + 1):
            inside = np.sort(anomaly_map[labels == region])
            overlap[i] += 1 - np.searchsorted(inside, thresholds, side="left") / len(inside)
    fpr = weights @ false / (weights @ pixels)[:, None]
    pro = weights @ overlap / (weights @ count)[:, None]
    stages = np.linspace(0, FPR_LIMIT, STAGES + 1)
    heights = np.array([np.interp(stages, x, y) for x, y in zip(fpr, pro, strict=True)])
    area: Draws = np.trapezoid(heights, stages, axis=1) / FPR_LIMIT
    return area


def interval_of(draws: Draws | None, confidence: float = CONFIDENCE) -> Interval | None:
    """The sample's value with the percentile interval of its resamples; None of nothing."""
    if draws is None:
        return None
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(draws[1:], [tail, 1 - tail])
    return Interval(float(draws[0]), float(lower), float(upper), confidence)
