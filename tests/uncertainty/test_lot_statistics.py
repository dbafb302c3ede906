"""Intervals cover, and the Benjamini-Hochberg list keeps its false discovery rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from explainvad.uncertainty.lot_statistics import benjamini_hochberg, clopper_pearson

# --- Clopper-Pearson


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("n", [1, 2, 7, 59, 120])
def test_clopper_pearson_covers_whatever_the_proportion(n: int, confidence: float) -> None:
    intervals = [clopper_pearson(k, n, confidence) for k in range(n + 1)]
    for p in [0.0, 0.001, 0.01, 0.05, 0.2, 0.37, 0.5, 0.8, 0.99, 1.0]:
        # P(the interval of a binomial(n, p) count holds p), summed over all counts
        covered = np.array([i.lower <= p <= i.upper for i in intervals])
        assert stats.binom.pmf(np.arange(n + 1), n, p)[covered].sum() >= confidence - 1e-12


def test_clopper_pearson_is_no_wider_than_its_level_asks() -> None:
    # At each limit, a count as far as k or farther has probability 2.5 %, no less
    i = clopper_pearson(13, 100)
    assert stats.binom.sf(12, 100, i.lower) == pytest.approx(0.025, abs=1e-9)
    assert stats.binom.cdf(13, 100, i.upper) == pytest.approx(0.025, abs=1e-9)
    assert (i.estimate, i.confidence) == (0.13, 0.95)


def test_clopper_pearson_at_the_ends_has_a_closed_form() -> None:
    none, every = clopper_pearson(0, 20), clopper_pearson(20, 20)
    assert none.lower == 0 and none.upper == pytest.approx(1 - 0.025 ** (1 / 20))
    assert every.upper == 1 and every.lower == pytest.approx(0.025 ** (1 / 20))


@pytest.mark.parametrize(("clean", "rate"), [(59, 0.05), (299, 0.01)])
def test_a_clean_audit_sample_bounds_the_rate_as_auditors_know_it(clean: int, rate: float) -> None:
    assert clopper_pearson(0, clean, 0.90).upper <= rate < clopper_pearson(0, clean - 1, 0.90).upper


@pytest.mark.parametrize(("k", "n", "confidence"), [(-1, 5, 0.9), (6, 5, 0.9), (0, 0, 0.9), (1, 5, 1.0), (1, 5, 0.0)])
def test_clopper_pearson_refuses_impossible_arguments(k: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError):
        clopper_pearson(k, n, confidence)


# --- Benjamini-Hochberg


def test_benjamini_hochberg_by_hand() -> None:
    # Lines q i / m at q = 0.05, m = 10: .005 .010 .015 .020 .025 ... The 4th p-value is the last below its own line,
    # so it carries the third, which is above its line, with it.
    p = [0.9, 0.004, 0.0195, 0.009, 0.3, 0.016, 0.4, 0.5, 0.6, 0.028]
    expected = [False, True, True, True, False, True, False, False, False, False]
    assert benjamini_hochberg(p, 0.05).tolist() == expected


def test_equality_with_the_line_is_a_discovery_despite_rounding() -> None:
    # 17 parts at p = 17/500 and m = 25: 17/500 = 0.05 * 17 / 25 exactly, but not in floating point
    p = np.array([17 / 500] * 17 + [1.0] * 8)
    assert benjamini_hochberg(p, 0.05).sum() == 17
    p[:17] = 18 / 500
    assert benjamini_hochberg(p, 0.05).sum() == 0


def test_rows_are_lots_of_their_own() -> None:
    p = np.random.default_rng(0).uniform(0, 0.2, (6, 9))
    together = benjamini_hochberg(p, 0.1)
    assert 0 < together.sum() < together.size
    assert np.array_equal(together, [benjamini_hochberg(row, 0.1) for row in p])


def test_too_few_calibration_images_list_nothing() -> None:
    # m / (q (n + 1)) = 200 / (0.1 * 100) = 20 parts at the smallest p-value are needed
    p = np.ones(200)
    p[:19] = 1 / 100
    assert benjamini_hochberg(p, 0.1).sum() == 0
    p[19] = 1 / 100
    assert benjamini_hochberg(p, 0.1).sum() == 20


@pytest.mark.parametrize(("p", "q"), [([0.1], 0.0), ([0.1], 1.0), ([1.1], 0.1), ([-0.1], 0.1), ([math.nan], 0.1)])
def test_benjamini_hochberg_refuses_what_is_no_probability(p: list[float], q: float) -> None:
    with pytest.raises(ValueError):
        benjamini_hochberg(p, q)


def test_an_empty_lot_has_an_empty_list() -> None:
    assert benjamini_hochberg([], 0.1).tolist() == []


N_LOTS, N_CAL, N_GOOD, N_BAD, Q = 10_000, 199, 16, 4, 0.10
BAND = math.sqrt(math.log(1e6) / (2 * N_LOTS))  # Hoeffding: a rate in [0, 1] leaves it with probability < 1e-6


@pytest.fixture(scope="module")
def conformal_lots() -> NDArray[np.float64]:
    """p-values (N_LOTS, N_GOOD + N_BAD), good parts first; each lot has one calibration set of its own."""
    rng = np.random.default_rng(20240607)
    calibration = np.sort(rng.standard_normal((N_LOTS, N_CAL)), axis=1)
    parts = rng.standard_normal((N_LOTS, N_GOOD + N_BAD))
    parts[:, N_GOOD:] += 3.0
    n_at_least = np.stack([N_CAL - np.searchsorted(c, t) for c, t in zip(calibration, parts, strict=True)])
    p: NDArray[np.float64] = (1 + n_at_least) / (N_CAL + 1)
    return p


def false_discovery_rate(listed: NDArray[np.bool_]) -> float:
    return float(np.mean(listed[:, :N_GOOD].sum(axis=1) / np.maximum(listed.sum(axis=1), 1)))


def test_false_discovery_rate_of_conformal_p_values(conformal_lots: NDArray[np.float64]) -> None:
    listed = benjamini_hochberg(conformal_lots, Q)
    rate = false_discovery_rate(listed)
    assert rate <= Q + BAND
    # Where q (n + 1) / m is an integer the bound q m0 / m is met, so a list that is too short shows as well
    assert (Q * (N_CAL + 1) / (N_GOOD + N_BAD)).is_integer()
    assert abs(rate - Q * N_GOOD / (N_GOOD + N_BAD)) <= BAND
    assert listed[:, N_GOOD:].mean() > 0.5


def test_without_correction_the_false_discovery_rate_is_exceeded(conformal_lots: NDArray[np.float64]) -> None:
    assert false_discovery_rate(conformal_lots <= Q) > Q + BAND
