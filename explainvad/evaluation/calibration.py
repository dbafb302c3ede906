"""Whether probabilities mean what they say: calibration of P(defect).

Labels are True where there is a defect; probabilities are of a defect, in [0, 1]. Nothing here is folded to the
confidence of the likelier class, in which errors of opposite sign cancel. Results hold plain values only, so that
``dataclasses.asdict`` makes them JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explainvad.types import Interval
from explainvad.uncertainty.lot_statistics import clopper_pearson

Floats = NDArray[np.float64]
Bins = Literal["width", "mass"]  # of equal width, or of equal numbers of images

LIKELY = 0.95  # of a band


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
        for members in bin_members(p, n_bins, bins)
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
    several = [p[members] - y[members] for members in bin_members(p, n_bins, bins) if len(members) > 1]
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
    for members in bin_members(p, n_bins, bins):
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
    for members in bin_members(merged_probability(low, high), n_bins, bins):
        bottom, top = float(low[members].mean()), float(high[members].mean())
        observed = clopper_pearson(int(y[members].sum()), len(members))
        inside = bottom <= observed.estimate <= top
        compatible = observed.lower <= top and bottom <= observed.upper
        found.append(ImpreciseBin(len(members), bottom, top, observed, inside, compatible))
    return tuple(found)


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


def bin_members(values: Floats, n_bins: int, bins: Bins = "mass") -> list[NDArray[np.intp]]:
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
