"""Bounds on what a lot holds: equal to their definitions by brute force, and covering by exact sums."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from explainvad.uncertainty.conformal import p_values
from explainvad.uncertainty.lot_bounds import audit_sample_size, audit_upper_bound, defective_at_least
from explainvad.uncertainty.lot_statistics import benjamini_hochberg

Array = NDArray[np.float64]

# --- At least: closed testing


def simes_rejects(numerators: tuple[int, ...], n: int, level: Fraction) -> bool:
    """Simes' test of p = numerator / n in exact arithmetic."""
    m = len(numerators)
    return any(Fraction(k, n) <= j * level / m for j, k in enumerate(sorted(numerators), start=1))


def by_closed_testing(numerators: tuple[int, ...], n: int, level: Fraction) -> int:
    """Units less the largest set of them that closed testing does not reject, all subsets tried."""
    units = range(len(numerators))
    sets = [s for size in range(1, len(units) + 1) for s in combinations(units, size)]
    kept = [set(s) for s in sets if not simes_rejects(tuple(numerators[i] for i in s), n, level)]
    return len(units) - max((len(s) for s in map(set, sets) if any(s <= larger for larger in kept)), default=0)


@pytest.mark.parametrize(("n", "level"), [(80, Fraction(1, 20)), (160, Fraction(1, 20)), (40, Fraction(1, 10))])
def test_the_bound_is_that_of_closed_testing_over_all_subsets(n: int, level: Fraction) -> None:
    rng = np.random.default_rng(n)
    found = []
    for m in range(1, 9):
        for _ in range(30 if m < 7 else 6):
            # Mostly small numerators, so that j level / i is often met exactly
            numerators = tuple(
                int(k) for k in np.where(rng.random(m) < 0.7, rng.integers(1, 6, m), rng.integers(1, n, m))
            )
            expected = by_closed_testing(numerators, n, level)
            assert defective_at_least(np.array(numerators) / n, float(1 - level)) == expected, numerators
            found.append(expected)
    assert len(set(found)) >= 6  # bounds of all sizes came up


def test_the_bound_by_hand() -> None:
    # Of .01 .02 .03 .5 the three largest meet 2 * .05 / 3 with .03 and are rejected; the two largest are not
    assert defective_at_least([0.5, 0.03, 0.01, 0.02]) == 2
    assert defective_at_least([0.01, 0.03, 0.5, 0.9]) == 1
    assert defective_at_least([0.5, 0.03, 0.9, 0.8]) == 0
    assert defective_at_least([0.001] * 7) == 7
    assert defective_at_least([]) == 0


def test_equality_with_a_line_counts_despite_rounding() -> None:
    # 17 units at 17/500 meet 17 * 0.05 / 25 exactly, so 25 are rejected; of the 24 largest 16 * 0.05 / 24 is missed
    p = np.array([17 / 500] * 17 + [1.0] * 8)
    assert defective_at_least(p) == 1
    p[:17] = 18 / 500
    assert defective_at_least(p) == 0


def test_it_is_positive_exactly_when_the_list_is_not_empty() -> None:
    rng = np.random.default_rng(5)
    lots = rng.integers(1, 201, (500, 12)) / 200
    lots[::2, :3] /= 40
    bounds = np.array([defective_at_least(lot, 0.9) for lot in lots])
    listed = benjamini_hochberg(lots, 0.1).any(axis=1)
    assert 50 < listed.sum() < 450
    assert np.array_equal(bounds > 0, listed)


@pytest.mark.parametrize(
    ("p", "confidence"), [([0.1], 0.0), ([0.1], 1.0), ([1.1], 0.9), ([-0.1], 0.9), ([math.nan], 0.9)]
)
def test_it_refuses_what_is_no_probability(p: list[float], confidence: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        defective_at_least(p, confidence)


def test_a_lot_of_100_000_takes_well_below_a_second() -> None:
    p = np.random.default_rng(0).uniform(size=100_000)
    p[:5_000] /= 1e4
    start = time.perf_counter()
    assert 4_000 < defective_at_least(p) <= 5_000
    assert time.perf_counter() - start < 1


N_LOTS, N_CAL, N_UNITS = 10_000, 399, 20
OUTSIDE = 1e-6


def conformal_lots(n_bad: int, calibration_scale: float = 1.0) -> Array:
    """p-values (N_LOTS, N_UNITS), defective units first; each lot shares one calibration set of its own."""
    rng = np.random.default_rng([20250301, n_bad])
    calibration = np.sort(calibration_scale * rng.standard_normal((N_LOTS, N_CAL)), axis=1)
    units = rng.standard_normal((N_LOTS, N_UNITS))
    units[:, :n_bad] += 3.5
    return np.stack([p_values(c, u) for c, u in zip(calibration, units, strict=True)])


def too_high(bounds: NDArray[np.int_], n_bad: int) -> int:
    return int((bounds > n_bad).sum())


def most(rate: float) -> float:
    """A count of N_LOTS events of this probability is above it with probability 1e-6."""
    return float(stats.binom.isf(OUTSIDE, N_LOTS, rate))


@pytest.mark.parametrize("n_bad", [0, 1, 5, 12])
def test_the_bound_is_too_high_in_at_most_one_lot_of_twenty(n_bad: int) -> None:
    bounds = np.array([defective_at_least(lot) for lot in conformal_lots(n_bad)])
    assert too_high(bounds, n_bad) <= most(0.05)
    assert bounds.mean() >= 0.5 * n_bad  # and it says something
    if n_bad == 0:
        # Where level (n + 1) / m is an integer Simes' test is exact, so a bound that is too low shows as well
        assert too_high(bounds, 0) >= stats.binom.ppf(OUTSIDE, N_LOTS, 0.05)


def test_what_is_no_bound_fails_the_same_test() -> None:
    lots = conformal_lots(12)
    assert too_high((lots <= 0.05).sum(axis=1), 12) > most(0.05)
    assert too_high(benjamini_hochberg(lots, 0.05).sum(axis=1), 12) > most(0.05)
    # Calibrated on images that the model was fitted on, whose scores are smaller
    overfitted = np.array([defective_at_least(lot) for lot in conformal_lots(0, calibration_scale=0.8)])
    assert too_high(overfitted, 0) > most(0.05)


# --- At most: an audited sample


def tail(population: int, defectives: int, sampled: int, found: int) -> Fraction:
    """P(at most ``found`` defectives in the sample), by counting samples."""
    ways = (math.comb(defectives, k) * math.comb(population - defectives, sampled - k) for k in range(found + 1))
    return Fraction(sum(ways), math.comb(population, sampled)) if found <= sampled else Fraction(1)


CONFIDENCES = {0.8: Fraction(1, 5), 0.9: Fraction(1, 10), 0.95: Fraction(1, 20), 0.99: Fraction(1, 100)}


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("population", [1, 2, 7, 12, 20])
def test_the_audits_bound_is_the_largest_count_that_is_not_excluded(population: int, confidence: float) -> None:
    for sampled in range(population + 1):
        for found in range(sampled + 1):
            possible = range(found, population - sampled + found + 1)
            expected = max(d for d in possible if tail(population, d, sampled, found) > CONFIDENCES[confidence])
            assert audit_upper_bound(population, sampled, found, confidence) == expected, (sampled, found)


@pytest.mark.parametrize(("population", "sampled"), [(15, 4), (40, 12), (40, 40), (60, 1), (200, 45)])
def test_the_audits_bound_covers_whatever_the_population_holds(population: int, sampled: int) -> None:
    for confidence in (0.8, 0.95):
        bounds = np.array([audit_upper_bound(population, sampled, x, confidence) for x in range(sampled + 1)])
        for d in range(population + 1):
            probability = stats.hypergeom.pmf(np.arange(sampled + 1), population, d, sampled)
            assert probability[bounds >= d].sum() >= confidence - 1e-9, d


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("limit", [0.0, 0.01, 0.05, 0.07, 0.29, 0.58, 0.99])
def test_the_sample_is_the_smallest_that_keeps_the_limit(limit: float, confidence: float) -> None:
    for population in (1, 2, 3, 10, 20, 59, 100, 300):
        n = audit_sample_size(population, confidence, limit)
        # As AuditResult.reached judges it
        assert 1 <= n <= population
        assert audit_upper_bound(population, n, 0, confidence) / population <= limit
        assert audit_upper_bound(population, n - 1, 0, confidence) / population > limit


def test_auditors_know_these_numbers() -> None:
    assert audit_sample_size(10_000_000, 0.95, 0.05) == 59
    assert audit_sample_size(10_000_000, 0.95, 0.01) == 299
    assert audit_sample_size(100, 0.95, 0.05) == 39
    assert audit_sample_size(500, 0.95, 0.05) < 59
    # To exclude even one defective among 20 at 95 %, 19 must be seen: 1/20 <= 0.05 despite rounding
    assert audit_sample_size(20, 0.95, 0.0) == 19
    assert audit_upper_bound(20, 19, 0, 0.95) == 0
    assert audit_upper_bound(100_000, 0, 0, 0.95) == 100_000


@pytest.mark.parametrize(
    "call",
    [
        lambda: audit_sample_size(0, 0.95, 0.05),
        lambda: audit_sample_size(10, 0.95, 1.0),
        lambda: audit_sample_size(10, 0.95, -0.1),
        lambda: audit_sample_size(10, 1.0, 0.05),
        lambda: audit_upper_bound(10, 11, 0, 0.95),
        lambda: audit_upper_bound(10, 5, 6, 0.95),
        lambda: audit_upper_bound(10, 5, -1, 0.95),
        lambda: audit_upper_bound(0, 0, 0, 0.95),
        lambda: audit_upper_bound(10, 5, 0, 0.0),
    ],
)
def test_impossible_arguments_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        call()
