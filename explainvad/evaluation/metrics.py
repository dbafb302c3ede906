"""How well scores and maps separate defects from normal parts, at the images' native resolution.

Labels and masks are True where there is a defect; a larger score is more anomalous. A metric that the data cannot
define (only one class, no masks) is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from explainvad.types import Interval

_EIGHT_CONNECTED = np.ones((3, 3), dtype=np.int8)


def image_auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve of n images in [0, 1]: P(defect scores above good), ties counted half.

    ``labels`` is bool (n,), ``scores`` finite float (n,). None unless both classes occur.
    """
    y, s = _labelled_scores(labels, scores)
    return float(roc_auc_score(y, s)) if 0 < y.sum() < y.size else None


def image_aupr(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Average precision of n images in [0, 1], the step-wise area under precision over recall.

    Its chance level is the share of defects, so it compares only data sets with equal shares.
    Arguments and None as in :func:`image_auroc`.
    """
    y, s = _labelled_scores(labels, scores)
    return float(average_precision_score(y, s)) if 0 < y.sum() < y.size else None


def bootstrap_interval(
    metric: Callable[[NDArray[np.bool_], NDArray[np.float64]], float | None],
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Percentile bootstrap over images, within each class (Efron and Tibshirani 1993, chapter 13).

    It covers the choice of test images, not that of training images or seeds. Where the classes separate
    perfectly it has no width, which must not be read as certainty. ``metric`` takes labels and scores as
    :func:`image_auroc` does. None where the metric is.
    """
    y, s = _labelled_scores(labels, scores)
    estimate = metric(y, s)
    if estimate is None:
        return None
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(y), np.flatnonzero(~y)]
    values = []
    for _ in range(n_resamples):
        drawn = np.concatenate([rng.choice(members, members.size) for members in classes])
        values.append(metric(y[drawn], s[drawn]))
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(np.array(values, dtype=np.float64), [tail, 1 - tail])
    return Interval(estimate, float(lower), float(upper), confidence)


def region_hit(mask_found: NDArray[np.bool_], mask_gt: NDArray[np.bool_]) -> bool:
    """Whether what was found shares a pixel with the true defect; both bool (H, W).

    A mask of the whole image always hits: read it beside :func:`iou`.
    """
    _require_masks(mask_found, mask_gt)
    return bool((mask_found & mask_gt).any())


def iou(mask_found: NDArray[np.bool_], mask_gt: NDArray[np.bool_]) -> float | None:
    """Intersection over union in [0, 1] of two bool (H, W) masks; None where both are empty."""
    _require_masks(mask_found, mask_gt)
    union = np.count_nonzero(mask_found | mask_gt)
    return np.count_nonzero(mask_found & mask_gt) / union if union else None


@dataclass(frozen=True, slots=True)
class PixelScores:
    """Pixel metrics of a data set, and what they rest on.

    ``auroc`` is None unless normal and defect pixels occur, and so is each ``aupro``, keyed by its FPR limit.
    """

    auroc: float | None
    aupro: Mapping[float, float | None]
    n_images: int
    n_regions: int
    n_normal_pixels: int
    n_defect_pixels: int


class PixelMetrics:
    """Pixel AUROC and AUPRO of a stream of anomaly maps, in bounded memory and without a known score range.

    The per-region overlap (PRO) at a threshold is the detected share of each connected (8-neighbour) region of
    the ground truth, averaged over the regions of all images: small defects count as much as large ones.
    AUPRO is its area over the false positive rate of all normal pixels, from 0 to a limit, divided by that
    limit (Bergmann et al., IJCV 129, 2021).

    Every distinct map value is a threshold until there are more than ``n_thresholds``; then neighbours are
    joined by dropping the lowest bit of the float32 pattern, as often as needed, which keeps the order and at
    least half of ``n_thresholds``. Joined values count as ties. The thresholds so settle where the values are,
    and the result depends neither on their range nor on the order of the images.
    Memory: 28 bytes a threshold (3.5 MiB by default), and a few copies of one map.
    """

    def __init__(self, n_thresholds: int = 2**17) -> None:
        if n_thresholds < 2:
            raise ValueError(f"n_thresholds must be at least 2, got {n_thresholds}")
        self._n_thresholds = n_thresholds
        self._dropped_bits = 0
        self._keys = np.empty(0, dtype=np.uint32)  # ascending
        self._tallies = np.empty((3, 0))  # per key: normal pixels, defect pixels, shares of regions
        self._n_images = 0
        self._n_regions = 0

    def update(self, anomaly_map: NDArray[np.float32], gt_mask: NDArray[np.bool_]) -> None:
        """Add one image: finite float32 (H, W) and bool (H, W), all False for a good image.

        A defect image whose mask is not known must be left out: its pixels are of unknown class.
        """
        if anomaly_map.dtype != np.float32 or anomaly_map.ndim != 2 or not np.isfinite(anomaly_map).all():
            raise ValueError(f"anomaly_map must be finite float32 (H, W), got {anomaly_map.dtype} {anomaly_map.shape}")
        if gt_mask.dtype != np.bool_ or gt_mask.shape != anomaly_map.shape:
            raise ValueError(
                f"gt_mask must be bool with the map's shape (H, W) = {anomaly_map.shape}, "
                f"got {gt_mask.dtype} {gt_mask.shape}"
            )
        keys = _ordered_bits(anomaly_map) >> np.uint32(self._dropped_bits)

        # Give each defect pixel its share of its region
        regions, n_regions = ndimage.label(gt_mask, structure=_EIGHT_CONNECTED)
        region_of = regions[gt_mask]
        share = 1 / np.bincount(region_of)[region_of]

        # Merge both classes into the tallies
        normal, n_normal = np.unique(keys[~gt_mask], return_counts=True)
        normal_tally = np.stack([n_normal, np.zeros(normal.size), np.zeros(normal.size)])
        defect_tally = np.stack([np.zeros(share.size), np.ones(share.size), share])
        self._merge(
            np.concatenate([self._keys, normal, keys[gt_mask]]),
            np.concatenate([self._tallies, normal_tally, defect_tally], axis=1),
        )
        while self._keys.size > self._n_thresholds:
            self._dropped_bits += 1
            self._merge(self._keys >> np.uint32(1), self._tallies)
        self._n_images += 1
        self._n_regions += n_regions

    def compute(self, fpr_limits: Sequence[float] = (0.30, 0.05)) -> PixelScores:
        """Evaluate what was added so far; ``fpr_limits`` in (0, 1]."""
        if not all(0 < limit <= 1 for limit in fpr_limits):
            raise ValueError(f"fpr_limits must lie in (0, 1], got {tuple(fpr_limits)}")
        n_normal, n_defect, _ = self._tallies.sum(axis=1)
        auroc = None
        aupro: dict[float, float | None] = dict.fromkeys(fpr_limits)
        if n_normal and n_defect:
            # Lower the threshold from above the largest value to the smallest
            passed = np.cumsum(self._tallies[:, ::-1], axis=1)
            totals = np.array([[n_normal], [n_defect], [self._n_regions]])
            fpr, tpr, pro = np.pad(passed / totals, ((0, 0), (1, 0)))
            auroc = _area_to(1.0, fpr, tpr)
            aupro = {limit: _area_to(limit, fpr, pro) for limit in fpr_limits}
        return PixelScores(auroc, aupro, self._n_images, self._n_regions, int(n_normal), int(n_defect))

    def _merge(self, keys: NDArray[np.uint32], tallies: NDArray[np.float64]) -> None:
        self._keys, position = np.unique(keys, return_inverse=True)
        self._tallies = np.stack([np.bincount(position, tally, self._keys.size) for tally in tallies])


def _ordered_bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Map float32 to uint32 of the same order: flip the sign bit, and all bits of negative values."""
    bits = (values + np.float32(0)).view(np.uint32)  # the sum turns -0 into +0
    sign = np.uint32(1 << 31)
    return np.where(bits & sign, ~bits, bits | sign)


def _area_to(limit: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Mean of y over x from 0 to ``limit`` in (0, 1]: trapezoids, cut at the limit. x ascends from 0 to 1."""
    end = int(np.searchsorted(x, limit))  # the first point at or beyond the limit: x[end - 1] < limit <= x[end]
    y_limit = y[end - 1] + (y[end] - y[end - 1]) * (limit - x[end - 1]) / (x[end] - x[end - 1])
    area = np.trapezoid([*y[:end], y_limit], [*x[:end], limit])
    return float(np.clip(area / limit, 0, 1))  # summed shares of a region may exceed 1 by rounding


def _labelled_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if y.size == 0:
        y = y.astype(np.bool_)  # an empty list has no type of its own
    if y.dtype != np.bool_ or y.ndim != 1 or s.shape != y.shape or not np.isfinite(s).all():
        raise ValueError(
            f"labels must be bool (n,) and scores finite float (n,), got {y.dtype} {y.shape} and {s.shape}"
        )
    return y, s


def _require_masks(mask_found: NDArray[np.bool_], mask_gt: NDArray[np.bool_]) -> None:
    if mask_found.dtype != np.bool_ or mask_gt.dtype != np.bool_ or mask_found.shape != mask_gt.shape:
        raise ValueError(
            f"masks must be bool of one shape (H, W), got {mask_found.dtype} {mask_found.shape} "
            f"and {mask_gt.dtype} {mask_gt.shape}"
        )
