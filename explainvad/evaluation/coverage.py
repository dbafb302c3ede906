"""Whether levels mean what they say: p-values of normal images against alpha, and verdicts by kind and size of defect.

Results hold plain values only, so that ``dataclasses.asdict`` makes them JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from explainvad.evaluation.calibration import LIKELY, bin_members
from explainvad.types import Interval
from explainvad.uncertainty.conformal import significant_ranks
from explainvad.uncertainty.lot_statistics import clopper_pearson

OUTSIDE = 1e-6  # of the outer band


@dataclass(frozen=True, slots=True, eq=False)
class EmpiricalLevel:
    """How many normal images have p <= ``alpha``, as shares of them.

    ``rate`` with its interval is that of this calibration set; the bands are over calibration sets and images.
    """

    alpha: float
    nominal: float  # floor(alpha (n_cal + 1)) / (n_cal + 1), what continuous scores attain
    rate: Interval
    likely: tuple[float, float]  # 95 %
    possible: tuple[float, float]  # all but 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class GroupRate:
    """The share of one group for which something holds, with its exact interval."""

    group: str
    n: int
    rate: Interval


def empirical_level(p_values_of_normals: ArrayLike, alphas: Iterable[float], n_cal: int) -> tuple[EmpiricalLevel, ...]:
    """Compare the shares of normal images with p <= alpha with what ``n_cal`` calibration images promise.

    For continuous scores of normal images that are drawn independently, from the distribution of the calibration
    images, the count is beta-binomial (m, k, n_cal + 1 - k), k = floor(alpha (n_cal + 1)): all m p-values share one
    calibration set, which alone can move the rate. Ties lower it. Raises ValueError unless the p-values, (m,) with
    m >= 1, lie in (0, 1] and the alphas in (0, 1).
    """
    p = np.asarray(p_values_of_normals, dtype=np.float64)
    levels = tuple(alphas)
    if p.ndim != 1 or p.size == 0 or not ((p > 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be (m,) in (0, 1] with m >= 1, got shape {p.shape}: {p}")
    if not all(0 < alpha < 1 for alpha in levels):
        raise ValueError(f"alphas must lie in (0, 1), got {levels}")
    found = []
    for alpha in levels:
        k = significant_ranks(n_cal, alpha)
        rate = clopper_pearson(int((p <= alpha).sum()), len(p))
        likely, possible = (_band(len(p), k, n_cal, tail) for tail in (1 - LIKELY, OUTSIDE))
        found.append(EmpiricalLevel(alpha, k / (n_cal + 1), rate, likely, possible))
    return tuple(found)


def conditional_coverage(groups: Sequence[str], flags: ArrayLike) -> tuple[GroupRate, ...]:
    """The share of each group's images that are flagged, groups in the order of their first image; 95 % intervals.

    ``groups`` names the group of each image (its defect type), ``flags`` bool (n,) says what is counted: accepted
    gives P(accept | type), not rejected gives P(not rejected | type). A bound that holds over all defects need not
    hold for one type. The intervals are per group, not for all groups at once.
    """
    counted = np.asarray(flags)
    if counted.dtype != np.bool_ or counted.shape != (len(groups),):
        raise ValueError(
            f"flags must be bool ({len(groups)},), one for each group, got {counted.dtype} {counted.shape}"
        )
    names = np.asarray(groups)
    return tuple(
        GroupRate(group, int(here.sum()), clopper_pearson(int(counted[here].sum()), int(here.sum())))
        for group in dict.fromkeys(groups)
        for here in [names == group]
    )


def coverage_by_size(areas_px: ArrayLike, flags: ArrayLike, n_bins: int = 4) -> tuple[GroupRate, ...]:
    """:func:`conditional_coverage` for quantiles of the defects' area in px, smallest first; equal areas stay together.

    ``areas_px`` (n,) whole numbers; a group is named by its smallest and largest area, "12 to 80 px".
    """
    areas, counted = np.asarray(areas_px), np.asarray(flags)
    order = np.argsort(areas, kind="stable")
    names = np.empty(len(areas), dtype=object)
    for members in bin_members(areas, n_bins):
        names[members] = f"{areas[members].min():.0f} to {areas[members].max():.0f} px"
    return conditional_coverage(list(names[order]), counted[order])


def _band(m: int, k: int, n_cal: int, outside: float) -> tuple[float, float]:
    """Shares of m images that are left with probability ``outside`` at most, half of it at each end."""
    if k == 0:
        return 0.0, 0.0
    count = stats.betabinom(m, k, n_cal + 1 - k)
    return float(count.ppf(outside / 2)) / m, float(count.isf(outside / 2)) / m
