"""How well one score per image separates defects from normal parts.

Labels are True where there is a defect; a larger score is more anomalous. A metric that the data cannot define (only
one class) is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explainvad.evaluation.metrics.curves import average_precision, f1, f1_max, mean_height
from explainvad.evaluation.metrics.deployed import DeployedThreshold
from explainvad.evaluation.metrics.resampling import Measured, Resampling

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Image metrics of a data set; each is None unless both classes occur.

    ``f1_max`` is the best over all thresholds, chosen with the labels; ``f1_deployed`` that of the deployed one, also
    None where there is none.
    """

    auroc: Measured | None
    aupr: Measured | None
    f1_max: Measured | None
    f1_deployed: Measured | None


def image_auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve of n images in [0, 1]: P(defect scores above good), ties counted half.

    ``labels`` is bool (n,), ``scores`` finite float (n,). None unless both classes occur.
    """
    y, s = _labelled_scores(labels, scores)
    return float(_auroc(*_counts(y, s, _once(y)))[0]) if 0 < y.sum() < y.size else None


def image_aupr(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Average precision of n images in [0, 1], the step-wise area under precision over recall.

    Its chance level is the share of defects, so it compares only data sets with equal shares.
    Arguments and None as in :func:`image_auroc`.
    """
    y, s = _labelled_scores(labels, scores)
    return float(average_precision(*_counts(y, s, _once(y)))[0]) if 0 < y.sum() < y.size else None


def image_metrics(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    threshold: DeployedThreshold | None = None,
    sha256: Sequence[str] = (),
    resampling: Resampling | None = None,
) -> ImageScores:
    """All metrics of n images, with intervals; arguments as in :func:`image_auroc`.

    ``threshold`` needs the ``sha256`` (n,) of the images' files. Raises LotError if it was set on one of them, and
    TypeError for a number without a provenance.
    """
    y, s = _labelled_scores(labels, scores)
    if threshold is not None:
        if not isinstance(threshold, DeployedThreshold):
            raise TypeError(f"threshold must be a DeployedThreshold, which says what it was set on, got {threshold!r}")
        for number, digest in zip(range(len(y)), (*sha256, *[None] * len(y)), strict=False):
            threshold.refuse(digest, f"test image {number}")
    if not 0 < y.sum() < y.size:
        return ImageScores(None, None, None, None)
    how = resampling or Resampling()
    weights = np.concatenate([_once(y), how.weights(y)])  # the first row is the sample itself
    tp, fp = _counts(y, s, weights)

    def measured(values: Floats) -> Measured:
        return how.measured(float(values[0]), values[1:] if how.n else None)

    deployed = None
    if threshold is not None:
        above = s > threshold.value
        deployed = measured(f1(weights @ (above & y), weights @ (above & ~y), tp[:, -1]))
    return ImageScores(
        measured(_auroc(tp, fp)), measured(average_precision(tp, fp)), measured(f1_max(tp, fp)), deployed
    )


def _counts(y: NDArray[np.bool_], s: Floats, weights: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Defects and good images at or above each distinct score, descending, in each resample: float64 (b, k)."""
    order = np.argsort(-s, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(s[order]) != 0, True))
    drawn = weights[:, order].astype(np.float64)
    return np.cumsum(drawn * y[order], axis=1)[:, ends], np.cumsum(drawn * ~y[order], axis=1)[:, ends]


def _auroc(tp: Floats, fp: Floats) -> Floats:
    return mean_height(fp / fp[..., -1:], tp / tp[..., -1:], 1.0)


def _once(y: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.ones((1, len(y)), dtype=np.float32)


def _labelled_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if y.size == 0:
        y = y.astype(np.bool_)  # an empty list has no type of its own
    if y.dtype != np.bool_ or y.ndim != 1 or s.shape != y.shape or not np.isfinite(s).all():
        raise ValueError(
            f"labels must be bool (n,) and scores finite float (n,), got {y.dtype} {y.shape} and {s.shape}"
        )
    return y, s
