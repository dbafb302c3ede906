"""Calibration measures against cases worked out by hand, enumeration of all outcomes, and torch-uncertainty."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from explainvad.evaluation.calibration import (
    Bins,
    ReliabilityBin,
    brier_score,
    expected_calibration_error,
    imprecise_bins,
    merged_probability,
    negative_log_likelihood,
    reliability_bins,
    squared_calibration_error,
)

# Two bins of width 1/2: predictions 0.7/3 and 2.5/3, shares 1/3 and 2/3
P = [0.1, 0.3, 0.3, 0.7, 0.9, 0.9]
Y = [False, False, True, True, True, False]


def sizes(bins: tuple[ReliabilityBin, ...]) -> list[int]:
    return [b.n for b in bins]


def made(seed: int, n: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Labels drawn with probabilities that the predictions understate."""
    rng = np.random.default_rng(seed)
    q = rng.beta(0.5, 0.6, n)
    return rng.random(n) < q, q**1.5


# --- Bins


def test_bins_of_equal_width_by_hand() -> None:
    low, high = reliability_bins(Y, P, 2, "width")
    assert (low.n, low.prediction, low.observed.estimate) == (3, pytest.approx(0.7 / 3), pytest.approx(1 / 3))
    assert (high.n, high.prediction, high.observed.estimate) == (3, pytest.approx(2.5 / 3), pytest.approx(2 / 3))


def test_an_edge_belongs_to_the_bin_above_it() -> None:
    for k in range(10):
        assert sizes(reliability_bins([True] * 2, [k / 10, k / 10 + 0.05], 10, "width")) == [2]
        assert sizes(reliability_bins([True] * 2, [k / 10, max(0, k / 10 - 0.05)], 10, "width")) == (
            [1, 1] if k else [2]
        )
    assert sizes(reliability_bins([True] * 2, [0.95, 1.0], 10, "width")) == [2]


def test_bins_of_equal_mass() -> None:
    p = np.random.default_rng(0).permutation(np.linspace(0.2, 0.4, 20))
    assert sizes(reliability_bins(p > 0.3, p, 4)) == [5, 5, 5, 5]
    assert sizes(reliability_bins(p > 0.3, p, 3)) == [7, 6, 7]
    assert [b.observed.estimate for b in reliability_bins(p > 0.3, p, 4)] == [0, 0, 1, 1]


def test_equal_predictions_share_a_bin_whatever_their_order() -> None:
    p, y = np.array([0.1, 0.2, 0.2, 0.2, 0.3, 0.9]), np.array([False, True, False, True, True, True])
    rng = np.random.default_rng(0)
    for order in [rng.permutation(6) for _ in range(30)]:
        bins = reliability_bins(y[order], p[order], 3)
        assert [(b.n, b.observed.estimate) for b in bins] == [(1, 0), (3, 2 / 3), (2, 1)]
    assert sizes(reliability_bins(y, np.full(6, 0.4), 3)) == [6]


def test_intervals_of_the_observed_share_are_exact() -> None:
    (none,) = reliability_bins([False] * 8, [0.2] * 8)
    assert (none.observed.lower, none.observed.upper) == (0, pytest.approx(1 - 0.025 ** (1 / 8)))
    assert none.observed.confidence == 0.95


def test_consistency_band_by_enumeration() -> None:
    p = np.array([0.05, 0.3, 0.5, 0.6, 0.9, 0.95])
    chance = np.zeros(7)
    for outcome in itertools.product([0, 1], repeat=6):
        chance[sum(outcome)] += np.prod(np.where(outcome, p, 1 - p))
    (one,) = reliability_bins([True] * 6, p, 1)
    low, high = (round(6 * share) for share in one.consistent)
    assert chance[:low].sum() <= 0.025 < chance[: low + 1].sum()
    assert chance[high + 1 :].sum() <= 0.025 < chance[high:].sum()


@pytest.mark.parametrize("p", [0.01, 0.3, 0.98])
def test_consistency_band_of_one_prediction_is_binomial(p: float) -> None:
    (one,) = reliability_bins([True] * 40, [p] * 40)
    assert one.consistent == pytest.approx((stats.binom.ppf(0.025, 40, p) / 40, stats.binom.isf(0.025, 40, p) / 40))


def test_certain_predictions_leave_no_room() -> None:
    assert [b.consistent for b in reliability_bins([False, True], [0.0, 1.0], 2)] == [(0, 0), (1, 1)]


# --- Calibration error


def test_expected_calibration_error_by_hand() -> None:
    # 3/6 * |0.7/3 - 1/3| + 3/6 * |2.5/3 - 2/3|
    assert expected_calibration_error(reliability_bins(Y, P, 2, "width")) == pytest.approx(0.05 + 0.25 / 3)
    # bins of 1 and 3 images: (1 * 0.9 + 3 * 0.2) / 4
    assert expected_calibration_error(
        reliability_bins([True, True, True, True], [0.1, 0.8, 0.8, 0.8], 2, "width")
    ) == pytest.approx(1.5 / 4)


def test_squared_error_is_unbiased_by_enumeration() -> None:
    # Predictions vary within the bin and depend on the label: P(defect) = 0.3 at 0.2 and 0.9 at 0.5
    joint = {(0.2, True): 0.6 * 0.3, (0.2, False): 0.6 * 0.7, (0.5, True): 0.4 * 0.9, (0.5, False): 0.4 * 0.1}
    gap = 0.6 * (0.2 - 0.3) + 0.4 * (0.5 - 0.9)
    mean = plain = 0.0
    for draws in itertools.product(joint, repeat=4):
        chance = math.prod(joint[draw] for draw in draws)
        p, y = zip(*draws, strict=True)
        estimate = squared_calibration_error(list(y), list(p), 1)
        assert estimate is not None
        mean += chance * estimate
        plain += chance * (np.mean(p) - np.mean(y)) ** 2
    assert mean == pytest.approx(gap**2)
    assert plain > gap**2 + 0.01  # what is not debiased


def test_squared_error_is_the_published_one_where_a_bin_has_one_prediction() -> None:
    y = np.array([True] * 3 + [False] * 7 + [True] * 4 + [False])
    p = np.array([0.2] * 10 + [0.7] * 5)
    first, second = (0.3 - 0.2) ** 2 - 0.3 * 0.7 / 9, (0.8 - 0.7) ** 2 - 0.8 * 0.2 / 4
    assert squared_calibration_error(y, p, 10, "width") == pytest.approx((10 * first + 5 * second) / 15)
    assert first < 0  # perfect calibration must be able to come out below zero


def test_a_bin_of_one_image_bears_no_evidence() -> None:
    y, p = [True, False, True], [0.2, 0.2, 0.9]
    assert squared_calibration_error(y, p, 10, "width") == pytest.approx((0.2 - 1) * (0.2 - 0))
    assert squared_calibration_error([True, False], [0.2, 0.9], 10, "width") is None


# --- Scores


def test_brier_score_by_hand() -> None:
    # Two bins of width 1/2: (0.3, share 1/2) twice, (0.8, share 1) once; base rate 2/3
    s = brier_score([False, True, True], [0.2, 0.4, 0.8], 2, "width")
    assert s.score == pytest.approx((0.04 + 0.36 + 0.04) / 3)
    assert s.reliability == pytest.approx((2 * 0.04 + 0.04) / 3)
    assert s.resolution == pytest.approx((2 / 36 + 1 / 9) / 3)
    assert s.uncertainty == pytest.approx(2 / 9)
    assert s.within_bin == pytest.approx((0.02 - 2 * 0.1) / 3)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=30),
    n_bins=st.integers(1, 12),
    bins=st.sampled_from(["width", "mass"]),
)
def test_brier_terms_add_up(rows: list[tuple[bool, float]], n_bins: int, bins: Bins) -> None:
    y, p = zip(*rows, strict=True)
    s = brier_score(list(y), list(p), n_bins, bins)
    assert s.reliability - s.resolution + s.uncertainty + s.within_bin == pytest.approx(s.score, abs=1e-12)


def test_no_within_bin_term_where_each_bin_has_one_prediction() -> None:
    y, _ = made(1, 60)
    assert brier_score(y, np.repeat([0.1, 0.6, 0.7], 20), 10, "width").within_bin == pytest.approx(0, abs=1e-15)


def test_negative_log_likelihood_by_hand() -> None:
    assert negative_log_likelihood([True, False], [0.25, 0.5]) == pytest.approx((math.log(4) + math.log(2)) / 2)
    assert negative_log_likelihood([False, True], [1.0, 1.0]) == pytest.approx(-math.log(1e-6) / 2, abs=1e-6)
    assert negative_log_likelihood([True], [0.0], clip=0.01) == pytest.approx(math.log(100))


# --- Interval-valued probabilities


def test_merged_probability_has_equal_regret_for_both_labels() -> None:
    low, high = np.array([0.0, 0.2, 0.2, 0.9]), np.array([0.1, 0.2, 0.5, 1.0])
    p = merged_probability(low, high)
    assert p == pytest.approx([0.1 / 1.1, 0.2, 0.5 / 1.3, 1 / 1.1])
    assert np.log(high / p) == pytest.approx(np.log((1 - low) / (1 - p)))
    assert merged_probability(0.0, 0.0) == 0 and merged_probability(1.0, 1.0) == 1


def test_imprecise_bins_by_hand() -> None:
    y = [True, *[False] * 3, *[True] * 20, True, True, False]
    lower = [0.18, 0.19, 0.21, 0.22, *[0.5] * 20, *[0.93] * 3]
    upper = [0.28, 0.29, 0.31, 0.32, *[0.6] * 20, *[0.97] * 3]
    low, middle, high = imprecise_bins(y, lower, upper, 10, "width")
    assert (low.n, low.lower, low.upper) == (4, pytest.approx(0.2), pytest.approx(0.3))
    assert (low.observed.estimate, low.inside, low.compatible) == (0.25, True, True)
    assert (middle.observed.estimate, middle.inside, middle.compatible) == (1, False, False)  # 20 of 20 against 0.6
    assert (high.observed.estimate, high.inside, high.compatible) == (pytest.approx(2 / 3), False, True)  # chance


@pytest.mark.parametrize(("share", "inside"), [(0.25, True), (0.5, True), (0.0, False), (0.75, False)])
def test_bounds_include_their_ends(share: float, inside: bool) -> None:
    (one,) = imprecise_bins([i < 4 * share for i in range(4)], [0.25] * 4, [0.5] * 4, 1)
    assert one.inside is inside


def test_too_high_bounds_are_refuted_too() -> None:
    (one,) = imprecise_bins([False] * 20, [0.5] * 20, [0.6] * 20)
    assert not one.inside and not one.compatible


def test_crossed_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lower must not exceed upper, got 0.4 > 0.3 at index 1"):
        imprecise_bins([True, False], [0.1, 0.4], [0.2, 0.3])


# --- All of it


def test_perfect_and_poor_predictions() -> None:
    rng = np.random.default_rng(3)
    q = rng.beta(1, 1, 5000)
    y = rng.random(5000) < q
    good, poor = (
        [expected_calibration_error(reliability_bins(y, p)), squared_calibration_error(y, p)] for p in (q, q**3)
    )
    assert good == pytest.approx([0, 0], abs=0.025)
    assert poor == pytest.approx([0.25, np.mean((q - q**3) ** 2)], abs=0.025)


def test_results_are_json() -> None:
    y, p = made(4, 100)
    results = [
        *reliability_bins(y, p),
        brier_score(y, p),
        *imprecise_bins(y, p * 0.9, p),
    ]
    assert [json.loads(json.dumps(asdict(r), allow_nan=False))["n"] for r in results[:10]] == [10] * 10
    assert all(json.dumps(asdict(r), allow_nan=False) for r in results)
    assert type(expected_calibration_error(reliability_bins(y, p))) is float
    assert type(negative_log_likelihood(y, p)) is float
    assert type(squared_calibration_error(y, p)) is float


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        (np.array([], dtype=np.bool_), [], r"n >= 1"),
        ([1, 0], [0.1, 0.2], r"labels must be bool \(n,\)"),
        ([True], [0.1, 0.2], r"got bool \(1,\) and \(2,\)"),
        ([[True]], [[0.1]], r"got bool \(1, 1\)"),
        ([True, False], [0.1, 1.2], r"lie in \[0, 1\], got 0.1 to 1.2"),
        ([True, False], [-0.1, 0.2], r"lie in \[0, 1\]"),
        ([True], [math.nan], r"lie in \[0, 1\]"),
    ],
)
def test_arguments_are_checked(labels: list[bool], probabilities: list[float], message: str) -> None:
    for measure in (reliability_bins, squared_calibration_error, brier_score, negative_log_likelihood):
        with pytest.raises(ValueError, match=message):
            measure(np.array(labels), probabilities)


# --- Cross-checks with torch-uncertainty, here together because its import takes seconds


@pytest.fixture(scope="module")
def metrics() -> ModuleType:
    pytest.importorskip("torch_uncertainty")
    from torch_uncertainty.metrics import classification

    return classification


def measured(metric: object, p: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    import torch

    metric.update(torch.from_numpy(p), torch.from_numpy(y).long())  # type: ignore[attr-defined]
    return float(metric.compute())  # type: ignore[attr-defined]


def test_brier_score_and_calibration_error_agree(metrics: ModuleType) -> None:
    y, p = made(5, 300)
    assert brier_score(y, p).score == pytest.approx(measured(metrics.BrierScore(num_classes=1), p, y), rel=1e-5)
    for n_bins in (5, 10, 15):
        theirs = measured(metrics.CalibrationError(task="binary", num_bins=n_bins), p, y)
        assert expected_calibration_error(reliability_bins(y, p, n_bins, "width")) == pytest.approx(theirs, abs=1e-6)


def test_negative_control_folding_to_the_likelier_class_hides_a_gap(metrics: ModuleType) -> None:
    # 0.3 where 1 in 10 is defective and 0.7 where 5 in 10 are: both 0.2 too high. Folded, "90 % right" and
    # "50 % right" share the confidence 0.7 and cancel
    p = np.repeat([0.3, 0.7], 100)
    y = np.concatenate([np.arange(100) < 10, np.arange(100) < 50])
    folded = measured(metrics.AdaptiveCalibrationError(task="binary", num_bins=1), p, y)
    assert expected_calibration_error(reliability_bins(y, p)) == pytest.approx(0.2)
    assert squared_calibration_error(y, p) == pytest.approx(0.04, abs=0.002)
    assert folded == pytest.approx(0, abs=1e-6)


def test_risk_coverage_areas_agree(metrics: ModuleType) -> None:
    from explainvad.evaluation import selective_risk

    y, p = made(6, 211)
    losses = ((p > 0.5) != y).astype(np.float64)
    risks = selective_risk.selective_risks(losses, -np.abs(p - 0.5))
    n = len(p)
    # They integrate by trapezoids from coverage 1 / n on, and divide by its length; shares, as here
    first, last = risks[0], risks[-1]
    theirs = measured(metrics.AURC(), p, y) * (1 - 1 / n) + (first + last) / (2 * n)
    assert selective_risk.aurc(risks) == pytest.approx(theirs, rel=1e-5)
    theirs = measured(metrics.AUGRC(), p, y) * (1 - 1 / n) + first / n / (2 * n)
    assert selective_risk.augrc(risks) == pytest.approx(theirs, rel=1e-5)
    assert selective_risk.risk_at_coverage(risks) == pytest.approx(measured(metrics.RiskAt80Cov(), p, y), rel=1e-5)
    assert selective_risk.coverage_at_risk(risks) == pytest.approx(measured(metrics.CovAt5Risk(), p, y), rel=1e-5)
