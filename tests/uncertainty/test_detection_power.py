"""Probability of detection by hand, against constrained fits, and over simulated defects."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit, logit
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from explainvad.types import DetectionPower
from explainvad.uncertainty.detection_power import CURVE_POINTS, detection_power

Array = NDArray[np.float64]
QUANTILE = 1.6448536269514722**2  # one-sided 95 % of a normal deviate


def fit(sizes: Array, hits: NDArray[np.bool_]) -> DetectionPower:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return detection_power(sizes, hits, level=0.05, kind="labelled")


def simulated(seed: int, n: int, slope: float = 3.5) -> tuple[Array, NDArray[np.bool_]]:
    """Defects of 2.5 to 80 px, of which those of 10 px are found half the time."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(2.5), np.log(80), n))
    return sizes, rng.random(n) < expit(slope * np.log(sizes / 10))


# --- By hand

# 10 of 20 defects of 10 px and 38 of 40 of 40 px: the line goes through both shares
TOY = np.repeat([10.0, 40.0], [20, 40]), np.repeat([True, False, True, False], [10, 10, 38, 2])


def test_two_sizes_by_hand() -> None:
    power = fit(*TOY)
    assert (power.n, power.hits, power.level, power.kind) == (60, 48, 0.05, "labelled")
    assert power.curve[0][:2] == pytest.approx((10, 0.5), rel=1e-9)
    assert power.curve[-1][:2] == pytest.approx((40, 0.95), rel=1e-9)
    assert power.a90 == pytest.approx(10 * 4 ** (np.log(9) / np.log(19)), rel=1e-9)


@pytest.mark.parametrize(("end", "hits", "n"), [(0, 10, 20), (-1, 38, 40)])
def test_the_band_at_two_sizes_is_that_of_each_share_alone(end: int, hits: int, n: int) -> None:
    def excess(p: float) -> float:
        return 2 * float(stats.binom.logpmf(hits, n, hits / n) - stats.binom.logpmf(hits, n, p)) - QUANTILE

    _, probability, lower, upper = fit(*TOY).curve[end]
    assert lower == pytest.approx(brentq(excess, 1e-9, probability), rel=1e-4)
    assert upper == pytest.approx(brentq(excess, probability, 1 - 1e-9), rel=1e-4)


# --- Against fits in which POD(a) = p is held fixed


def log_likelihood(sizes: Array, hits: NDArray[np.bool_], a: float, p: float) -> float:
    slope, offset = np.log(sizes / a)[:, None], np.full(len(sizes), logit(p))
    return float(GLM(hits.astype(float), slope, family=Binomial(), offset=offset).fit(tol=1e-12).llf)


def largest(sizes: Array, hits: NDArray[np.bool_]) -> float:
    line = np.stack([np.ones_like(sizes), np.log(sizes)], axis=1)
    return float(GLM(hits.astype(float), line, family=Binomial()).fit(tol=1e-12).llf)


@pytest.mark.parametrize(("seed", "n", "slope"), [(1, 40, 3.5), (2, 100, 2.0), (3, 200, 6.0), (4, 60, 4.0)])
def test_a90_95_is_the_last_size_that_the_likelihood_ratio_does_not_exclude(seed: int, n: int, slope: float) -> None:
    sizes, hits = simulated(seed, n, slope)
    power, best = fit(sizes, hits), largest(sizes, hits)
    assert power.a90 is not None and power.a90_95 is not None

    def excess(a: float) -> float:
        return 2 * (best - log_likelihood(sizes, hits, a, 0.9)) - QUANTILE

    assert excess(power.a90) == pytest.approx(-QUANTILE, abs=1e-6)
    last = brentq(excess, power.a90, sizes.max())
    assert np.log(power.a90_95 / power.a90) == pytest.approx(np.log(last / power.a90), rel=1e-3)


def test_the_band_is_what_the_likelihood_ratio_does_not_exclude() -> None:
    sizes, hits = simulated(5, 80)
    best = largest(sizes, hits)
    for a, _, lower, upper in fit(sizes, hits).curve[:: CURVE_POINTS // 7]:
        for end in (lower, upper):
            assert 2 * (best - log_likelihood(sizes, hits, a, end)) == pytest.approx(QUANTILE, rel=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_rises_within_its_band_over_the_sizes_seen(seed: int) -> None:
    sizes, hits = simulated(seed, 120)
    power = fit(sizes, hits)
    a, probability, lower, upper = np.array(power.curve).T
    assert len(a) == CURVE_POINTS and (a[0], a[-1]) == pytest.approx((sizes.min(), sizes.max()))
    assert (np.diff(a) > 0).all() and (np.diff(probability) > 0).all()
    assert (np.diff(lower) > 0).all() and (np.diff(upper) > 0).all()
    assert ((lower > 0) & (lower < probability) & (probability < upper) & (upper < 1)).all()
    # The band and a90/95 are one bound
    assert power.a90 is not None and power.a90_95 is not None
    assert np.interp(np.log(power.a90), np.log(a), logit(probability)) == pytest.approx(logit(0.9))
    assert np.interp(np.log(power.a90_95), np.log(a), logit(lower)) == pytest.approx(logit(0.9), abs=5e-3)


@pytest.mark.parametrize("factor", [2.0, 0.4])
def test_another_unit_of_length_scales_the_sizes_only(factor: float) -> None:
    sizes, hits = simulated(6, 100)
    power, scaled = fit(sizes, hits), fit(factor * sizes[::-1], hits[::-1])
    assert power.a90 is not None and power.a90_95 is not None
    assert scaled.a90 == pytest.approx(factor * power.a90, rel=1e-9)
    assert scaled.a90_95 == pytest.approx(factor * power.a90_95, rel=1e-9)
    assert np.array(scaled.curve) == pytest.approx(np.array(power.curve) * [factor, 1, 1, 1], rel=1e-9)


# --- What it promises

RUNS = 300


@pytest.mark.thorough
def test_a90_95_is_seldom_below_the_true_a90() -> None:
    true = 10 * 9 ** (1 / 3.5)
    powers = [fit(*simulated(1000 + seed, 60)) for seed in range(RUNS)]
    bounds_below, estimates_below = (
        sum(size is not None and size < true for size in sizes)
        for sizes in ([power.a90_95 for power in powers], [power.a90 for power in powers])
    )
    # One in twenty as n grows, somewhat more often here; the estimate bounds nothing
    most = stats.binom.isf(1e-6, RUNS, 0.05)
    assert stats.binom.ppf(1e-6, RUNS, 0.05) <= bounds_below <= most < estimates_below


# --- What the data cannot give is not given


def sorted_defects(hits: str) -> tuple[Array, NDArray[np.bool_]]:
    """Defects of 1, 2, ... px, found where there is an ``x``."""
    return np.arange(1.0, len(hits) + 1), np.array([c == "x" for c in hits])


UNDETERMINED = {
    "none": "",
    "all hits": "x" * 59,
    "all misses": "." * 30,
    "19 defects": ".........x.xxxxxxxx",
    "2 hits": "." * 17 + "x.x",
    "2 misses": ".x." + "x" * 17,
    "separated": "." * 10 + "x" * 10,
    "smaller ones found": "xxxxxxxxx.x.........",
    "separated, smaller ones found": "x" * 10 + "." * 10,
    "size does not matter": "x..x" * 10,
}


@pytest.mark.parametrize("hits", UNDETERMINED.values(), ids=UNDETERMINED.keys())
def test_undetermined(hits: str) -> None:
    power = fit(*sorted_defects(hits))
    assert (power.curve, power.a90, power.a90_95) == ((), None, None)
    assert (power.n, power.hits) == (len(hits), hits.count("x"))


@pytest.mark.parametrize("hits", [".........x.xxxxxxxxx", "." * 16 + "xx.x", ".x.." + "x" * 16])
def test_the_smallest_data_that_give_a_curve(hits: str) -> None:
    assert len(fit(*sorted_defects(hits)).curve) == CURVE_POINTS


def test_touching_sizes_are_separated_and_one_size_gives_no_curve() -> None:
    sizes, hits = np.repeat([1.0, 2.0, 2.0, 3.0], 10), np.repeat([False, False, True, True], 10)
    assert fit(sizes, hits).curve == ()
    assert fit(np.ones(40), hits).curve == ()
    assert fit(np.append(sizes, [1.0, 3.0]), np.append(hits, [True, False])).curve != ()


@pytest.mark.parametrize("apart", [1e-9, 1e-12, 2e-13, 1e-13, 2e-14])
def test_an_overlap_by_a_hair_is_none(apart: float) -> None:
    sizes = 10 * (1 + np.concatenate([np.full(10, -0.5), np.array([-2, -1, 1, 2]) * apart, np.full(10, 0.5)]))
    hits = np.array([False] * 10 + [False, True, False, True] + [True] * 10)
    assert fit(sizes, hits).curve == ()


def test_nothing_is_extrapolated() -> None:
    sizes, hits = simulated(7, 150)
    small = fit(sizes[sizes < 10], hits[sizes < 10])
    assert small.curve[-1][1] < 0.9 and small.a90 is None and small.a90_95 is None
    wide = fit(*simulated(81, 40))
    assert wide.curve[-1][2] < 0.9 < wide.curve[-1][1] and wide.a90 is not None and wide.a90_95 is None
    # The smallest size seen is found more often than nine times out of ten, but that is not certain
    rng = np.random.default_rng(5)
    sizes = np.exp(rng.uniform(np.log(20), np.log(80), 150))
    easy = fit(sizes, rng.random(150) < expit(2 * np.log(sizes / 6)))
    assert easy.curve[0][2] < 0.9 < easy.curve[0][1]
    assert easy.a90 is None and easy.a90_95 is not None and sizes.min() < easy.a90_95 < sizes.max()


def test_a_line_that_need_not_rise_bounds_no_size() -> None:
    rng = np.random.default_rng(24)
    sizes = np.arange(1.0, 61)
    power = fit(sizes, rng.random(60) < 0.82 + 0.14 * (sizes > 30))
    assert power.a90 is not None and power.curve[-1][2] > 0.9 and power.a90_95 is None


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_sizes_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="sizes must be positive and finite, got"):
        detection_power(np.append(np.arange(1.0, 30.0), bad), np.ones(30), level=0.05, kind="labelled")


@given(
    st.lists(st.tuples(st.sampled_from([1e-9, 1.0, 1.0 + 1e-12, 2.0, 3.0, 40.0, 1e300]), st.booleans()), max_size=60),
    st.floats(-2, 2),
)
def test_no_data_raise_or_warn(data: list[tuple[float, bool]], tilt: float) -> None:
    sizes = np.array([size for size, _ in data])
    hits = np.array([hit or np.log(size) > 10 * tilt for size, hit in data], dtype=bool)
    power = fit(sizes, hits)
    assert power.n == len(data) and len(power.curve) in (0, CURVE_POINTS)
    if power.curve:
        assert np.isfinite(np.array(power.curve)).all()


def test_the_module_does_not_load_statsmodels() -> None:
    code = "import sys, explainvad.uncertainty.detection_power; assert 'statsmodels' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
