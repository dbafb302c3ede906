"""Levels of p-values and rates by group: exact bands, and cases worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from explainvad.evaluation.coverage import conditional_coverage, coverage_by_size, empirical_level
from explainvad.uncertainty.conformal import p_values

# --- Levels of p-values


def beta_binomial(m: int, a: int, b: int) -> NDArray[np.float64]:
    x = np.arange(m + 1)
    choose = special.gammaln(m + 1) - special.gammaln(x + 1) - special.gammaln(m - x + 1)
    return np.exp(choose + special.betaln(x + a, m - x + b) - special.betaln(a, b))


@pytest.mark.parametrize(("alpha", "k"), [(0.05, 1), (0.1, 2), (0.12, 2), (0.5, 10), (0.95, 19)])
def test_bands_of_the_level_are_beta_binomial(alpha: float, k: int) -> None:
    m = 60
    (level,) = empirical_level(np.ones(m), [alpha], 19)
    assert level.nominal == pytest.approx(k / 20)
    chance = beta_binomial(m, k, 20 - k)
    for band, outside in ((level.likely, 0.05), (level.possible, 1e-6)):
        low, high = (round(m * share) for share in band)
        assert band == (pytest.approx(low / m), pytest.approx(high / m))
        assert chance[:low].sum() <= outside / 2 < chance[: low + 1].sum()
        assert chance[high + 1 :].sum() <= outside / 2 < chance[high:].sum()


def test_counts_of_the_level_include_equality() -> None:
    at, below = empirical_level([0.05, 0.1, 0.1, 0.3], [0.1, 0.0999], 19)
    assert (at.rate.estimate, below.rate.estimate) == (0.75, 0.25)
    assert (at.alpha, below.nominal) == (0.1, 0.05)


def test_a_level_below_the_smallest_p_value_allows_nothing() -> None:
    (level,) = empirical_level([0.5, 1.0], [0.04], 19)
    assert (level.nominal, level.likely, level.possible) == (0, (0, 0), (0, 0))


def test_valid_p_values_stay_in_the_band_and_others_leave_it() -> None:
    rng = np.random.default_rng(2)
    cal, test = rng.standard_normal(199), rng.standard_normal(2000)
    alphas = [0.01, 0.05, 0.2]
    for level in empirical_level(p_values(cal, test), alphas, 199):
        assert level.possible[0] <= level.rate.estimate <= level.possible[1]
    for level in empirical_level(p_values(cal, test + 2.0), alphas, 199):
        assert level.rate.estimate > level.possible[1]


@pytest.mark.parametrize("p", [[], [0.0], [1.1], [math.nan], [[0.5]]])
def test_p_values_are_checked(p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"p-values must be \(m,\) in \(0, 1\]"):
        empirical_level(p, [0.05], 19)


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
def test_alphas_are_checked(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alphas must lie in \(0, 1\)"):
        empirical_level([0.5], [0.05, alpha], 19)


# --- Rates by group


def test_conditional_coverage_by_hand() -> None:
    first, second = conditional_coverage(["scratch", "dent", "scratch", "scratch"], [True, False, True, False])
    assert (first.group, first.n, first.rate.estimate) == ("scratch", 3, pytest.approx(2 / 3))
    assert (second.group, second.n, second.rate.estimate) == ("dent", 1, 0)
    assert (second.rate.lower, second.rate.upper) == (0, pytest.approx(0.975))
    assert (first.rate.lower, first.rate.upper) == pytest.approx(
        (stats.beta.ppf(0.025, 2, 2), stats.beta.ppf(0.975, 3, 1))
    )
    assert conditional_coverage([], np.array([], dtype=np.bool_)) == ()


@pytest.mark.parametrize("flags", [[1, 0], [True], [[True, False]]])
def test_flags_are_checked(flags: list[bool]) -> None:
    with pytest.raises(ValueError, match=r"flags must be bool \(2,\)"):
        conditional_coverage(["a", "b"], flags)


def test_coverage_by_size_by_hand() -> None:
    areas = [900, 3, 40, 100, 40, 12]
    flags = [True, False, True, True, False, False]
    rates = coverage_by_size(areas, flags, 3)
    assert [(r.group, r.n, r.rate.estimate) for r in rates] == [
        ("3 to 12 px", 2, 0),
        ("40 to 40 px", 2, 0.5),
        ("100 to 900 px", 2, 1),
    ]


def test_results_are_json() -> None:
    flags = np.arange(100) % 3 == 0
    results = [
        *empirical_level(np.full(9, 0.5), [0.05, 0.5], 30),
        *conditional_coverage(["a"] * 100, flags),
        *coverage_by_size(np.arange(100), flags),
    ]
    assert len(results) == 7
    assert all(json.dumps(asdict(r), allow_nan=False) for r in results)
