"""The share of defective units from that of flagged ones: its formula by hand, its coverage by exact sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from explainvad.errors import TooFewImagesError
from explainvad.types import Interval
from explainvad.uncertainty.conformal import p_values, significant_ranks
from explainvad.uncertainty.lot_bounds import rogan_gladen
from explainvad.uncertainty.lot_statistics import clopper_pearson

Array = NDArray[np.float64]
OUTSIDE = 1e-6


def test_the_estimate_by_hand() -> None:
    # (0.20 - 0.05) / (0.80 - 0.05)
    i = rogan_gladen(200, 1000, 80, 100, 999, 0.05)
    assert i.estimate == pytest.approx(0.2)
    assert i.confidence == 0.95
    assert 0.1 < i.lower < 0.2 < i.upper < 0.31
    # Fewer than false alarms alone would make, and more than sensitivity allows
    assert rogan_gladen(0, 1000, 80, 100, 999, 0.05).estimate == 0
    assert rogan_gladen(900, 1000, 80, 100, 999, 0.05).estimate == 1


def test_the_limits_are_those_of_the_three_intervals() -> None:
    i = rogan_gladen(30, 100, 18, 20, 59, 0.05, confidence=0.9)
    apparent, sensitivity = clopper_pearson(30, 100, 29 / 30), clopper_pearson(18, 20, 29 / 30)
    # p <= 0.05 with 59 images: above the 3rd largest; the rate above it is the 3rd smallest of 59 uniforms
    fewest, many = stats.beta(3, 57).ppf([1 / 60, 59 / 60])
    assert stats.binom.sf(2, 59, many) == pytest.approx(59 / 60)
    assert i.lower == pytest.approx((apparent.lower - many) / (sensitivity.upper - many))
    assert i.upper == pytest.approx((apparent.upper - fewest) / (sensitivity.lower - fewest))


def test_flags_that_cannot_be_told_from_false_alarms_say_nothing() -> None:
    def limits(i: Interval) -> tuple[float, float]:
        return i.lower, i.upper

    # No defect of 100 is found: Se may be 0, so any share agrees with few flags
    assert limits(rogan_gladen(3, 100, 0, 100, 999, 0.05)) == (0, 1)
    assert rogan_gladen(3, 100, 0, 100, 999, 0.05).estimate == 1
    # And Se is below F for certain, so flags are no evidence of defects however many they are
    assert limits(rogan_gladen(100, 100, 0, 100, 999, 0.5)) == (0, 1)
    # Found no more often than 1 in 20, which is F as well
    assert rogan_gladen(5, 20, 1, 20, 19, 0.05).estimate == rogan_gladen(5, 20, 1, 20, 19, 0.05).upper == 1
    # One side alone: of 3 defects 2 are found; Se may be near 0 or near 1, and then many flags are many defects
    lower, upper = limits(rogan_gladen(70, 100, 2, 3, 99, 0.05))
    assert upper == 1 and lower > 0.4


def test_too_few_calibration_images_are_named() -> None:
    with pytest.raises(TooFewImagesError, match="at least 19"):
        rogan_gladen(0, 10, 5, 10, 18, 0.05)


@pytest.mark.parametrize(
    ("positives", "inspected", "detected", "n_defects", "confidence"),
    [(5, 4, 5, 10, 0.95), (-1, 4, 5, 10, 0.95), (5, 10, 5, 0, 0.95), (5, 10, 11, 10, 0.95), (5, 10, 5, 10, 0.0)],
)
def test_impossible_counts_are_refused(
    positives: int, inspected: int, detected: int, n_defects: int, confidence: float
) -> None:
    with pytest.raises(ValueError):
        rogan_gladen(positives, inspected, detected, n_defects, 99, ALPHA, confidence)


cached = cache(rogan_gladen)
M, N_DEF, ALPHA = 24, 10, 0.05


def naive(positives: int, inspected: int, detected: int, n_defects: int, n_cal: int, alpha: float) -> Interval:
    """The same, but Se taken for its estimate and F for alpha."""
    a, se = clopper_pearson(positives, inspected), detected / n_defects
    lower, upper = (
        np.clip((x - alpha) / (se - alpha), 0, 1) if se > alpha else d for x, d in ((a.lower, 0), (a.upper, 1))
    )
    return Interval(math.nan, lower, upper, 0.95)


def flag_counts(n_bad: int | None, share: float, sensitivity: float, rates: Array) -> Array:
    """P(x of M units are flagged), shape (rates, M + 1), for a process or for a lot with so many defectives."""
    if n_bad is None:
        return stats.binom.pmf(np.arange(M + 1), M, (share * sensitivity + (1 - share) * rates)[:, None])
    bad = stats.binom.pmf(np.arange(n_bad + 1), n_bad, sensitivity)
    good = stats.binom.pmf(np.arange(M - n_bad + 1), M - n_bad, rates[:, None])
    return np.stack([np.convolve(bad, row) for row in good])


@pytest.fixture(scope="module", params=[19, 59, 399])
def n_cal(request: pytest.FixtureRequest) -> int:
    return request.param


def coverage(limits: tuple[Array, Array], n_cal: int, sensitivity: float, share: float, n_bad: int | None) -> float:
    """P(the interval holds ``share``) over calibration sets, labelled defects and lots, summed exactly."""
    # A polynomial in F of degree M, so Gauss-Jacobi quadrature over F ~ Beta(k, n + 1 - k) is exact
    k = significant_ranks(n_cal, ALPHA)
    nodes, weights = special.roots_jacobi(M // 2 + 1, n_cal - k, k - 1)
    positives = weights / weights.sum() @ flag_counts(n_bad, share, sensitivity, (1 + nodes) / 2)
    detected = stats.binom.pmf(np.arange(N_DEF + 1), N_DEF, sensitivity)
    holds = (limits[0] <= share) & (share <= limits[1])
    return float(positives @ holds @ detected)


def all_limits(interval: Callable[..., Interval], n_cal: int) -> tuple[Array, Array]:
    """Lower and upper limits of every outcome, each of shape (positives, detected)."""
    outcomes = [interval(x, M, d, N_DEF, n_cal, ALPHA) for x, d in product(range(M + 1), range(N_DEF + 1))]
    lower, upper = np.reshape([[i.lower, i.upper] for i in outcomes], (M + 1, N_DEF + 1, 2)).transpose(2, 0, 1)
    return lower, upper


def test_the_interval_covers_the_process_and_the_lot(n_cal: int) -> None:
    limits = all_limits(cached, n_cal)
    assert (limits[0] <= limits[1]).all()
    truths = list(product([0.02, 0.2, 0.6, 0.95, 1.0], [0.0, 0.03, 0.1, 0.5, 0.9, 1.0]))
    of_process = [coverage(limits, n_cal, se, share, None) for se, share in truths]
    of_lot = [coverage(limits, n_cal, se, round(share * M) / M, round(share * M)) for se, share in truths]
    assert min(of_process + of_lot) >= 0.95
    assert min(of_process) > 0.98  # conservative, as documented


def test_without_the_uncertainty_of_its_parts_it_does_not_cover(n_cal: int) -> None:
    limits = all_limits(naive, n_cal)
    assert min(coverage(limits, n_cal, se, 0.5, None) for se in (0.2, 0.6, 0.95)) < 0.9


def test_it_covers_the_share_in_lots_that_are_judged_by_conformal_p_values() -> None:
    n_lots, n_calibration, n_defects, m = 2_000, 99, 40, 150
    rng = np.random.default_rng(11)
    covered, informative = 0, 0
    for _ in range(n_lots):
        calibration = rng.standard_normal(n_calibration)
        n_bad = int(rng.binomial(m, 0.15))
        units = np.concatenate([rng.normal(2.5, 1, n_bad), rng.standard_normal(m - n_bad)])
        positives = int((p_values(calibration, units) <= ALPHA).sum())
        detected = int((p_values(calibration, rng.normal(2.5, 1, n_defects)) <= ALPHA).sum())
        i = cached(positives, m, detected, n_defects, n_calibration, ALPHA)
        covered += i.lower <= n_bad / m <= i.upper
        informative += i.upper < 0.5
    assert covered >= stats.binom.ppf(OUTSIDE, n_lots, 0.95)
    assert informative > 0.8 * n_lots
