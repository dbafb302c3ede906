"""Areas under curves and the like, from what lies at or above descending thresholds.

``tp`` and ``fp`` are weights of defects and of normal things at or above k descending thresholds, ascending along the
last axis (..., k); any axes before are resamples. A curve runs from (0, 0), above all values, to its last point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bounds = tuple[Floats, Floats]  # least and largest values (k,) at each threshold


def area_weights(x: Floats, start: float, end: float) -> Floats:
    """Weights (..., k) that turn y (..., k) into its mean over x from ``start`` to ``end``, by trapezoids cut there.

    x ascends, and may begin with -inf (a rate of 0 on a logarithmic axis): from there to the first finite point y is
    held. Before the first point y counts as 0, behind the last one it is held.
    """
    low, high = x[..., :-1], x[..., 1:]
    left, right = np.clip(low, start, end), np.clip(high, start, end)
    length = right - left
    with np.errstate(invalid="ignore", divide="ignore"):
        to_right = length * ((left + right) / 2 - low) / (high - low)
    to_right = np.where((length > 0) & np.isfinite(low), to_right, 0.0)
    weights: Floats = np.zeros(x.shape)
    weights[..., 1:] += to_right
    weights[..., :-1] += length - to_right
    weights[..., -1] += np.maximum(0.0, end - np.maximum(x[..., -1], start))
    return np.asarray(weights / (end - start), dtype=np.float64)


def mean_height(x: Floats, y: Floats, limit: float) -> Floats:
    """Mean of y over x from 0 to ``limit``, in [0, 1]: the area under the curve from (0, 0), divided by the limit."""
    x, y = _from_origin(x), _from_origin(y)
    # summed shares may exceed 1 by rounding
    return np.asarray(np.clip((area_weights(x, 0.0, limit) * y).sum(axis=-1), 0.0, 1.0))


def area_error(x: Bounds, y: Bounds, single: NDArray[np.bool_], start: float, end: float) -> float:
    """How far the mean height of the middle of ``x`` and ``y`` can be from that of any curve within the bounds.

    Each step of a curve that is not ``single`` (k,) joins several thresholds, between which it may rise at once at
    either end; that which is holds one, and is a straight line. The first step begins above all values.
    """
    (x_least, x_most), (y_least, y_most) = x, y
    first = -np.inf if start != 0 else 0.0  # on a logarithmic axis, or not

    def mean(x: Floats, y: Floats, corner_x: Floats, corner_y: Floats) -> float:
        """Of the polygon through corners (k,) and points (k,), in turns."""
        path_x, path_y = (np.stack([a, b], axis=-1).ravel() for a, b in ((corner_x, x), (corner_y, y)))
        return float((area_weights(path_x, start, end) * path_y).sum())

    def before(values: Floats, at_first: float) -> Floats:
        return np.append(at_first, values[:-1])

    low_y = before(y_most, 0.0)
    highest = mean(x_least, y_most, before(x_least, first), np.where(single, low_y, y_most))
    low_x, low_y = before(x_most, first), before(y_least, 0.0)
    lowest = mean(x_most, y_least, np.where(single, low_x, x_most), low_y)
    points_x, points_y = (x_least + x_most) / 2, (y_least + y_most) / 2
    middle = mean(points_x, points_y, before(points_x, first), before(points_y, 0.0))
    return max(0.0, highest - middle, middle - lowest)


def average_precision(tp: Floats, fp: Floats) -> Floats:
    """Step-wise area under precision over recall, in [0, 1]: the precision at each step, weighted by its recall."""
    gained = np.diff(_from_origin(tp), axis=-1)
    with np.errstate(invalid="ignore"):
        precision = np.where(tp > 0, tp / (tp + fp), 0.0)
    return np.asarray((gained * precision).sum(axis=-1) / tp[..., -1])


def average_precision_error(tp: Bounds, fp: Bounds, single: NDArray[np.bool_]) -> float:
    """How far :func:`average_precision` of the middle can be from that of any curve within the bounds.

    It grows when defects move up or normal things move down; so the best and the worst curve are known. ``single``
    (k,) as in :func:`area_error`.
    """
    (tp_least, tp_most), (fp_least, fp_most) = tp, fp

    def precision(tp: Floats, fp: Floats) -> Floats:
        return np.divide(tp, tp + fp, out=np.zeros_like(tp), where=tp > 0)

    # Within a step that joins thresholds all defects come first, or last: then their precision rises, ever slower
    best = precision(tp_most, np.where(single, fp_least, _from_origin(fp_least)[:-1]))
    worst = precision(tp_least, fp_most)
    worst = np.where(single, worst, (worst + precision(_from_origin(tp_least)[:-1], fp_most)) / 2)
    highest = (np.diff(_from_origin(tp_most)) * best).sum() / tp_most[-1]
    lowest = (np.diff(_from_origin(tp_least)) * worst).sum() / tp_most[-1]
    middle = float(average_precision((tp_least + tp_most) / 2, (fp_least + fp_most) / 2))
    return float(max(highest - middle, middle - lowest, 0.0))


def f1(tp: Floats, fp: Floats, n_defect: Floats | float) -> Floats:
    """2 tp / (tp + fp + n_defect), in [0, 1]: the harmonic mean of precision and recall at each threshold."""
    return np.asarray(2 * tp / (tp + fp + n_defect))


def f1_max(tp: Floats, fp: Floats) -> Floats:
    """Largest F1 over all thresholds, which knows the labels: a bound for any threshold, not what one reaches."""
    return np.asarray(f1(tp, fp, tp[..., -1:]).max(axis=-1))


def f1_max_error(tp: Bounds, fp: Bounds, single: NDArray[np.bool_]) -> float:
    """How far :func:`f1_max` of the middle can be from that of any curve within the bounds; ``single`` as above."""
    (tp_least, tp_most), (fp_least, fp_most) = tp, fp
    found = float(f1_max((tp_least + tp_most) / 2, (fp_least + fp_most) / 2))
    highest = f1(tp_most, np.where(single, fp_least, _from_origin(fp_least)[:-1]), tp_most[-1]).max()
    lowest = f1(tp_least, fp_most, tp_most[-1]).max()
    return float(max(highest - found, found - lowest, 0.0))


def _from_origin(values: Floats) -> Floats:
    return np.concatenate([np.zeros_like(values[..., :1]), values], axis=-1)
