"""How large a defect must be to be found: probability of detection (POD) from hits and misses.

POD is a logit line in the logarithm of the size, after MIL-HDBK-1823A, "Nondestructive Evaluation System Reliability
Assessment", 2009. It speaks of defects like those that it was fitted to, imaged and judged as they were.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import chi2

from explainvad.types import DetectionPower

MIN_DEFECTS = 20
MIN_OF_EACH = 3  # hits, and misses
TARGET = 0.90  # the POD that gives a90 its name
CONFIDENCE = 0.95  # one-sided: of a90/95, and of either end of the band
CURVE_POINTS = 50
DIRECTIONS = 720  # in which the region's edge is sought; they find a90/95 to 1e-3 of its distance from a90 or better
NEWTON_STEPS = 15
LARGEST_CONDITION = 1e12  # of the information matrix

Array = NDArray[np.float64]


def detection_power(sizes: ArrayLike, hits: ArrayLike, *, level: float, kind: str) -> DetectionPower:
    """Fit POD to defects of ``sizes`` (n,), px, > 0; ``hits`` (n,), bool, tells which were found at ``level``.

    logit POD(a) = b0 + b1 ln a by maximum likelihood. Band and a90/95 come from the likelihood-ratio region: the lines
    with 2 (l_max - l) <= 2.71, the 0.90 quantile of chi-square with one degree of freedom. At each size the band
    reaches from the lowest to the highest of these lines; a90/95 is the largest size at which one of them is at 0.90.
    If defects are found independently of each other and their POD is such a line, a90/95 and either end of the band, at
    one size chosen beforehand, hold with 95 % confidence as n grows. At n = 40 to 100 simulated defects a90/95 held in
    92 to 93 % of cases, at n = 300 in 94 %.

    Nothing is extrapolated: the curve spans the observed sizes, and a90 or a90/95 is None where it lies outside them.
    a90/95 is also None when the region holds a line that does not rise: the size was not shown to matter. The curve is
    empty and both are None with fewer than MIN_DEFECTS defects or MIN_OF_EACH hits or misses, where the sizes of hits
    and misses do not overlap (no maximum exists), and where larger defects are found less often. When all n are hits,
    the POD averaged over defects like these is still at least 0.05 ** (1 / n) with 95 % confidence, 0.95 for n = 59.

    Raises ValueError unless all sizes are positive and finite.
    """
    size, hit = np.asarray(sizes, dtype=np.float64), np.asarray(hits, dtype=np.bool_)
    if not ((size > 0) & (size < np.inf)).all():
        raise ValueError(f"sizes must be positive and finite, got {size.min():g} to {size.max():g}")
    undetermined = DetectionPower(len(hit), int(hit.sum()), level, (), None, None, kind)
    log_size = np.log(size)
    if not _overlap(log_size, hit):
        return undetermined
    centre, spread = log_size.mean(), log_size.std()
    x = (log_size - centre) / spread
    line = _fitted_line(x, hit)
    if line is None or line[1] <= 0:
        return undetermined

    def observed(at: float) -> float | None:
        return float(np.exp(centre + spread * at)) if x.min() <= at <= x.max() else None

    region = _region(x, hit, line)
    grid = np.linspace(x.min(), x.max(), CURVE_POINTS)
    lines = region[0] + region[1] * grid[:, None]
    points = (np.exp(centre + spread * grid), *expit([line[0] + line[1] * grid, lines.min(axis=1), lines.max(axis=1)]))
    return replace(
        undetermined,
        curve=tuple(zip(*(column.tolist() for column in points), strict=True)),
        a90=observed(float(_at_target(line))),
        a90_95=observed(float(_at_target(region).max())) if (region[1] > 0).all() else None,
    )


def _overlap(x: Array, hit: NDArray[np.bool_]) -> bool:
    """Whether there are enough hits and misses, and some hit is smaller than some miss.

    Otherwise no line that rises maximises the likelihood (Albert & Anderson, "On the existence of maximum likelihood
    estimates in logistic regression models", Biometrika 1984).
    """
    found, missed = x[hit], x[~hit]
    enough = len(x) >= MIN_DEFECTS and min(len(found), len(missed)) >= MIN_OF_EACH
    return bool(enough and found.min() < missed.max())


def _fitted_line(x: Array, hit: NDArray[np.bool_]) -> Array | None:
    """(b0, b1) of maximum likelihood, or None when it cannot be found in floating point."""
    # Imported here because it is slow to, and few runs fit a curve
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    design = np.stack([np.ones_like(x), x])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        line = np.asarray(GLM(hit.astype(np.float64), design.T, family=Binomial()).fit(tol=1e-12).params)
    # Where sizes overlap by a hair the slope runs away, reported success or not, and the information collapses
    return line if np.linalg.cond(_information(line, design)) < LARGEST_CONDITION else None


def _information(line: Array, design: Array) -> Array:
    """Fisher's, (2, 2), of (b0, b1)."""
    predictor = line @ design
    return np.asarray((design * expit(predictor) * expit(-predictor)) @ design.T)


def _region(x: Array, hit: NDArray[np.bool_], line: Array) -> Array:
    """(b0, b1) along the edge of the likelihood-ratio region about ``line``, (2, DIRECTIONS)."""
    design = np.stack([np.ones_like(x), x])
    towards = np.where(hit, 1.0, -1.0)
    best = line @ design
    likelihood = -np.logaddexp(0.0, -towards * best).sum()
    quantile = chi2.ppf(2.0 * CONFIDENCE - 1.0, 1)
    # Rays of equal length in the metric of Fisher's information, in which the region is nearly a circle
    root = np.linalg.cholesky(_information(line, design))
    angle = np.linspace(0.0, 2.0 * np.pi, DIRECTIONS, endpoint=False)
    rays = np.linalg.solve(root.T, np.stack([np.cos(angle), np.sin(angle)]))
    steps = rays.T @ design
    reach = np.full(DIRECTIONS, np.sqrt(quantile))
    # The likelihood is concave along a ray, so Newton's steps pass the edge at most once and then fall back to it
    for _ in range(NEWTON_STEPS):
        predictor = best + reach[:, None] * steps
        deviance = 2.0 * (likelihood + np.logaddexp(0.0, -towards * predictor).sum(axis=1))
        reach -= (deviance - quantile) / (2.0 * (steps * (expit(predictor) - hit)).sum(axis=1))
    return np.asarray(line[:, None] + reach * rays)


def _at_target(line: Array) -> Array:
    """Where lines (2, ...) of positive slope are at the target POD."""
    return np.asarray((logit(TARGET) - line[0]) / line[1])
