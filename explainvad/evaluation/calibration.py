"""Whether probabilities and levels mean what they say: calibration of P(defect), of p-values, and by kind of defect.

Labels are True where there is a defect; probabilities are of a defect, in [0, 1]. Nothing here is folded to the
confidence of the likelier class, in which errors of opposite sign cancel. Results hold plain values only, so that
``dataclasses.asdict`` makes them JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from explainvad.types import Interval
from explainvad.uncertainty.conformal import significant_ranks
from explainvad.uncertainty.lot_statistics import clopper_pearson

Floats = NDArray[np.float64]
Bins = Literal["width", "mass"]  # of equal width, or of equal numbers of images

LIKELY, OUTSIDE = 0.95, 1e-6  # of the inner band, and outside the outer one


@dataclass(frozen=True, slots=True, eq=False)
class ReliabilityBin:
    """One point of a reliability diagram.

    ``consistent`` holds 95 % or more of the shares that these predictions would show, were each of them right.
    """

    n: int
    prediction: float  # mean
    observed: Interval  # share of defects, Clopper-Pearson
    consistent: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class ImpreciseBin:
    """One bin of interval-valued probabilities.

    ``inside``: the observed share lies between the mean bounds. ``compatible``: its interval reaches between them,
    so that the data do not speak against the bounds.
    """

    n: int
    lower: float  # mean
    upper: float
    observed: Interval
    inside: bool
    compatible: bool


@dataclass(frozen=True, slots=True, eq=False)
class BrierScore:
    """score = reliability - resolution + uncertainty + within_bin, exactly."""

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bin: float


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


def reliability_bins(
    labels: ArrayLike, probabilities: ArrayLike, n_bins: int = 10, bins: Bins = "mass"
) -> tuple[ReliabilityBin, ...]:
    """Bins of a reliability diagram by ascending prediction, without empty ones; intervals of 95 %.

    ``labels`` bool (n,), ``probabilities`` float (n,). Equal predictions share a bin, so bins of equal mass may
    be fewer and uneven. The consistency band is the exact form, given the predictions, of the resampled bars of
    Bröcker and Smith ("Increasing the reliability of reliability diagrams", 2007): the number of defects
    among independent images is Poisson-binomial. Both intervals are per bin: of ten, some may well miss.

    Raises ValueError for an empty sample, other shapes or values outside [0, 1].
    """
    y, p = _labelled(labels, probabilities)
    return tuple(
        ReliabilityBin(
            n=len(members),
            prediction=float(p[members].mean()),
            observed=clopper_pearson(int(y[members].sum()), len(members)),
            consistent=_consistent_shares(p[members]),
        )
        for members in _members(p, n_bins, bins)
    )


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Mean over images of |observed share - mean prediction| of their bin, in [0, 1].

    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning" (2015). Chance
    makes it positive for perfect predictions too, the more so the fewer images a bin has; see
    :func:`squared_calibration_error`. Errors that cancel within a bin are not seen.
    """
    return sum(b.n * abs(b.observed.estimate - b.prediction) for b in bins) / sum(b.n for b in bins)


def squared_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, n_bins: int = 10, bins: Bins = "mass"
) -> float | None:
    """Debiased estimate of the mean over images of (P(defect | bin) - mean prediction of the bin)^2.

    The estimator of Kumar, Liang and Ma, "Verified uncertainty calibration" (2019), written as the mean of
    (p_i - y_i)(p_j - y_j) over the pairs i != j of a bin: the same where a bin has one prediction, and also right
    where predictions vary within it. Unbiased for fixed bins and independent images, so it may be negative; its
    root, where that exists, is in units of probability. A bin of one image bears no evidence and is left out.
    None if there is no other.
    """
    y, p = _labelled(labels, probabilities)
    several = [p[members] - y[members] for members in _members(p, n_bins, bins) if len(members) > 1]
    if not several:
        return None
    products = sum((e.sum() ** 2 - (e**2).sum()) / (len(e) - 1) for e in several)
    return float(products / sum(map(len, several)))


def brier_score(labels: ArrayLike, probabilities: ArrayLike, n_bins: int = 10, bins: Bins = "mass") -> BrierScore:
    """Mean squared error of the probabilities and its parts (Murphy, "A new vector partition", 1973).

    The three parts miss what happens within bins: the variance of the predictions less twice their covariance
    with the labels (Stephenson, Coelho and Jolliffe, "Two extra components in the Brier score decomposition",
    2008). It is 0 where each bin holds one prediction. Arguments and errors as in :func:`reliability_bins`.
    """
    y, p = _labelled(labels, probabilities)
    prediction, share = np.empty_like(p), np.empty_like(p)  # of the image's bin
    for members in _members(p, n_bins, bins):
        prediction[members], share[members] = p[members].mean(), y[members].mean()
    base_rate = float(y.mean())
    return BrierScore(
        score=float(np.mean((p - y) ** 2)),
        reliability=float(np.mean((prediction - share) ** 2)),
        resolution=float(np.mean((share - base_rate) ** 2)),
        uncertainty=base_rate * (1 - base_rate),
        within_bin=float(np.mean((p - prediction) ** 2 - 2 * (p - prediction) * (y - share))),
    )


def negative_log_likelihood(labels: ArrayLike, probabilities: ArrayLike, clip: float = 1e-6) -> float:
    """Mean of -ln P(the true label), in nats; probabilities are first clipped to [clip, 1 - clip].

    Without clipping one certain and wrong image would make it infinite; by default it costs 13.8 nats.
    """
    y, p = _labelled(labels, probabilities)
    p = np.clip(p, clip, 1 - clip)
    return float(-np.mean(np.log(np.where(y, p, 1 - p))))


def merged_probability(lower: ArrayLike, upper: ArrayLike) -> Floats:
    """upper / (1 - lower + upper): the one probability for an interval that is minimax for log loss.

    Vovk, Petej and Fedorova, "Large-scale probabilistic predictors with and without guarantees of validity" (2015),
    section 4. Bounds of one shape, 0 <= lower <= upper <= 1; the result lies between them.
    """
    low, high = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    return np.asarray(high / (1 - low + high))


def imprecise_bins(
    labels: ArrayLike, lower: ArrayLike, upper: ArrayLike, n_bins: int = 10, bins: Bins = "mass"
) -> tuple[ImpreciseBin, ...]:
    """Compare the observed shares with interval-valued probabilities, in bins of the merged probability.

    ``lower`` and ``upper`` float (n,). Of a Venn-Abers pair one, which depends on the label, is perfectly calibrated
    for images exchangeable with the calibration images. So the share of a large bin should lie between the mean
    bounds, or close to them; that of a small one may miss them by chance. Order, intervals and errors as in
    :func:`reliability_bins`; ValueError also where lower > upper.
    """
    y, low, high = _labelled(labels, lower, upper)
    if (low > high).any():
        i = int(np.argmax(low > high))
        raise ValueError(f"lower must not exceed upper, got {low[i]} > {high[i]} at index {i}")
    found = []
    for members in _members(merged_probability(low, high), n_bins, bins):
        bottom, top = float(low[members].mean()), float(high[members].mean())
        observed = clopper_pearson(int(y[members].sum()), len(members))
        inside = bottom <= observed.estimate <= top
        compatible = observed.lower <= top and bottom <= observed.upper
        found.append(ImpreciseBin(len(members), bottom, top, observed, inside, compatible))
    return tuple(found)


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
    for members in _members(areas, n_bins):
        names[members] = f"{areas[members].min():.0f} to {areas[members].max():.0f} px"
    return conditional_coverage(list(names[order]), counted[order])


def _labelled(labels: ArrayLike, *probabilities: ArrayLike) -> tuple[Floats, ...]:
    """Labels as 0 and 1, and the probabilities, all checked."""
    y = np.asarray(labels)
    values = [np.asarray(p, dtype=np.float64) for p in probabilities]
    if y.dtype != np.bool_ or y.ndim != 1 or y.size == 0 or any(p.shape != y.shape for p in values):
        raise ValueError(
            f"labels must be bool (n,) and probabilities float (n,) with n >= 1, "
            f"got {y.dtype} {y.shape} and {', '.join(str(p.shape) for p in values)}"
        )
    if not all(((p >= 0) & (p <= 1)).all() for p in values):
        raise ValueError(
            f"probabilities must lie in [0, 1], got {min(map(np.min, values))} to {max(map(np.max, values))}"
        )
    return y.astype(np.float64), *values


def _members(values: Floats, n_bins: int, bins: Bins = "mass") -> list[NDArray[np.intp]]:
    """The images of each bin that is not empty, in ascending order of the bins."""
    if bins == "width":
        numbers = np.searchsorted(np.arange(1, n_bins) / n_bins, values, side="right")  # an edge begins the bin above
    else:
        # By middle ranks, which equal values share
        ordered = np.sort(values)
        first, end = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
        numbers = (first + end) * n_bins // (2 * len(values))
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]


def _consistent_shares(p: Floats) -> tuple[float, float]:
    """Central band of the share of defects among independent images with these probabilities."""
    pmf = np.ones(1)
    for each in p:
        pmf = np.convolve(pmf, [1 - each, each])
    cdf, tail = np.cumsum(pmf), (1 - LIKELY) / 2
    low = np.searchsorted(cdf, tail, side="right")  # P(fewer) <= tail
    high = np.searchsorted(cdf, 1 - tail)  # P(more) <= tail
    return float(low / len(p)), float(high / len(p))


def _band(m: int, k: int, n_cal: int, outside: float) -> tuple[float, float]:
    """Shares of m images that are left with probability ``outside`` at most, half of it at each end."""
    if k == 0:
        return 0.0, 0.0
    count = stats.betabinom(m, k, n_cal + 1 - k)
    return float(count.ppf(outside / 2)) / m, float(count.isf(outside / 2)) / m
