"""Risk-coverage curves against cases worked out by hand, all orders of ties, and the AUROC that AUGRC is made of."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from explainvad.evaluation.selective_risk import (
    augrc,
    augrc_difference,
    aurc,
    coverage_at_risk,
    measure_selective_risk,
    risk_at_coverage,
    selective_risks,
)

Floats = NDArray[np.float64]


def made(seed: int, n: int = 200, noise: float = 1.0) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Losses, an uncertainty that says something of them, and labels."""
    rng = np.random.default_rng(seed)
    hardness = rng.standard_normal(n)
    losses = (rng.random(n) < 1 / (1 + np.exp(1 - 2 * hardness))).astype(np.float64)
    return losses, hardness + noise * rng.standard_normal(n), rng.random(n) < 0.4


# --- The curve and its areas


def test_curve_by_hand() -> None:
    risks = selective_risks([1, 0, 1, 0], [2, 1, 4, 3])  # accepted in the order right, wrong, right, wrong
    assert risks == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert aurc(risks) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    # Generalised risk 0, 0, 1/4, 1/4, 1/2 at coverage 0, 1/4, ..., 1
    assert augrc(risks) == pytest.approx((0 + 1 / 8 + 1 / 4 + 3 / 8) / 4)


def test_a_loss_need_not_be_zero_or_one() -> None:
    assert selective_risks([3.0, 0.5], [1, 0]) == pytest.approx([0.5, 1.75])


def test_ties_are_averaged_over_all_their_orders() -> None:
    losses = np.array([1.0, 0.0, 0.0, 2.0, 1.0, 0.0])
    uncertainty = np.array([0, 0, 0, 7, 7, 9])
    orders = [
        [*first, *second, 5] for first in itertools.permutations([0, 1, 2]) for second in itertools.permutations([3, 4])
    ]
    every = np.array([np.cumsum(losses[order]) / np.arange(1, 7) for order in orders])
    risks = selective_risks(losses, uncertainty)
    assert risks == pytest.approx(every.mean(axis=0))
    assert aurc(risks) == pytest.approx(np.mean([aurc(curve) for curve in every]))
    assert augrc(risks) == pytest.approx(np.mean([augrc(curve) for curve in every]))


def test_a_constant_uncertainty_is_random_deferral() -> None:
    losses, _, _ = made(1)
    risks = selective_risks(losses, np.zeros(len(losses)))
    assert risks == pytest.approx(np.full(len(losses), losses.mean()))
    assert aurc(risks) == pytest.approx(losses.mean())
    assert augrc(risks) == pytest.approx(losses.mean() / 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
def test_augrc_is_what_the_auroc_of_errors_makes_it(rows: list[tuple[bool, int]]) -> None:
    wrong, uncertainty = (np.array(column) for column in zip(*rows, strict=True))
    assume(0 < wrong.sum() < wrong.size)
    e = wrong.mean()
    expected = (1 - roc_auc_score(wrong, uncertainty)) * e * (1 - e) + e**2 / 2
    assert augrc(selective_risks(wrong, uncertainty)) == pytest.approx(expected)


def test_best_and_worst_order() -> None:
    losses = np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    assert augrc(selective_risks(losses, losses)) == pytest.approx(0.2**2 / 2)
    assert augrc(selective_risks(losses, -losses)) == pytest.approx(0.2 - 0.2**2 / 2)


def test_no_error_no_risk() -> None:
    risks = selective_risks(np.zeros(5), np.arange(5))
    assert (aurc(risks), augrc(risks), risk_at_coverage(risks), coverage_at_risk(risks)) == (0, 0, 0, 1)


# --- Working points


def test_risk_at_coverage_takes_the_smallest_that_is_enough() -> None:
    for n in range(1, 200):
        k = next(k for k in range(1, n + 1) if 5 * k >= 4 * n)
        assert risk_at_coverage(np.arange(1.0, n + 1)) == k
        assert risk_at_coverage(np.arange(1.0, n + 1), 1.0) == n
    assert risk_at_coverage(np.arange(1.0, 101), 0.07) == 7  # although 0.07 * 100 > 7 in floating point


def test_coverage_at_risk_takes_the_largest() -> None:
    assert coverage_at_risk(np.array([0.0, 0.2, 0.04, 0.06])) == 0.75  # the curve comes back below
    assert coverage_at_risk(np.array([0.0, 0.2, 0.05, 0.06])) == 0.75
    assert coverage_at_risk(np.array([0.0, 0.2, 0.051, 0.06])) == 0.25
    assert coverage_at_risk(np.array([0.2, 0.1])) == 0
    assert coverage_at_risk(np.array([0.2, 0.1]), 0.1) == 1
    one_in_twenty = selective_risks([1] + [0] * 19, np.zeros(20))  # 0.05 by a sum of twentieths
    assert coverage_at_risk(one_in_twenty) == 1


# --- Bootstrap


def test_measures_are_those_of_the_curve() -> None:
    losses, uncertainty, labels = made(2)
    risks = selective_risks(losses, uncertainty)
    m = measure_selective_risk(losses, uncertainty, labels)
    assert (m.n, m.risk) == (200, losses.mean())
    assert m.aurc.estimate == aurc(risks)
    assert m.augrc.estimate == augrc(risks)
    assert m.risk_at_coverage.estimate == risk_at_coverage(risks, 0.8)
    assert m.coverage_at_risk.estimate == coverage_at_risk(risks, 0.05)
    at_coverage = m.risk_at_coverage
    assert m.curve[79] == (0.8, at_coverage.estimate, at_coverage.lower, at_coverage.upper)
    for interval in (m.aurc, m.augrc, m.risk_at_coverage):
        assert interval.lower < interval.estimate < interval.upper
        assert interval.confidence == 0.95


@pytest.mark.parametrize(("n", "points"), [(7, 7), (100, 100), (250, 100)])
def test_kept_points_lie_on_the_curve(n: int, points: int) -> None:
    losses, uncertainty, labels = made(3, n)
    risks = selective_risks(losses, uncertainty)
    with warnings.catch_warnings(action="error"):
        curve = np.array(measure_selective_risk(losses, uncertainty, labels, n_resamples=50).curve)
    assert curve.shape == (points, 4)
    coverage, risk, lower, upper = curve.T
    assert (np.diff(coverage) > 0).all() and coverage[-1] == 1
    assert coverage[0] == math.ceil(n / 100) / n
    assert risk == pytest.approx(risks[np.round(coverage * n).astype(int) - 1])
    assert (lower <= upper).all()


def test_intervals_are_those_of_resampled_images() -> None:
    # At full coverage the resampled risk is a binomial share
    losses = np.repeat([1.0, 0.0], [300, 700])
    m = measure_selective_risk(losses, np.zeros(1000), np.ones(1000), n_resamples=4000)
    _, _, lower, upper = m.curve[-1]
    expected = stats.binom.ppf([0.025, 0.975], 1000, 0.3) / 1000
    assert [lower, upper] == pytest.approx(expected, abs=0.003)
    assert [m.aurc.lower, m.aurc.upper] == pytest.approx(expected, abs=0.003)
    assert [m.augrc.lower, m.augrc.upper] == pytest.approx(expected / 2, abs=0.0015)


def test_images_are_drawn_within_each_label() -> None:
    labels = np.repeat(["good", "scratch", "dent"], [50, 10, 20])
    losses = (labels == "scratch").astype(np.float64)  # so each resample has ten errors
    stratified, pooled = (
        measure_selective_risk(losses, np.zeros(80), of, n_resamples=200) for of in (labels, losses * 0)
    )
    assert (stratified.augrc.lower, stratified.augrc.upper) == pytest.approx((1 / 16, 1 / 16))
    assert pooled.augrc.upper > pooled.augrc.lower + 0.02


def test_resamples_depend_on_the_seed_alone() -> None:
    sample = made(4, 60)
    first, same, other = (measure_selective_risk(*sample, n_resamples=40, seed=seed) for seed in (0, 0, 1))
    assert asdict(first) == asdict(same) != asdict(other)


# --- Comparing two uncertainties


def test_difference_is_that_of_the_two_areas() -> None:
    losses, first, labels = made(5)
    second = np.random.default_rng(5).standard_normal(200)
    areas = [augrc(selective_risks(losses, u)) for u in (first, second)]
    forth, back = augrc_difference(losses, first, second, labels), augrc_difference(losses, second, first, labels)
    assert forth.estimate == pytest.approx(areas[0] - areas[1])
    assert (back.estimate, back.lower, back.upper) == pytest.approx((-forth.estimate, -forth.upper, -forth.lower))


def test_an_informative_uncertainty_beats_random_deferral() -> None:
    losses, uncertainty, labels = made(6)
    gain = augrc_difference(losses, uncertainty, np.zeros(200), labels)
    assert gain.estimate == pytest.approx(augrc(selective_risks(losses, uncertainty)) - losses.mean() / 2)
    assert gain.upper < 0
    noise = augrc_difference(losses, np.random.default_rng(6).random(200), np.zeros(200), labels)
    assert noise.lower < 0 < noise.upper


def test_both_are_measured_on_the_same_resamples() -> None:
    losses, uncertainty, labels = made(7)
    same = augrc_difference(losses, uncertainty, np.exp(uncertainty), labels)
    assert (same.estimate, same.lower, same.upper) == (0, 0, 0)
    # A nearly equal uncertainty differs by far less than either's own interval
    near = augrc_difference(losses, uncertainty, uncertainty + 0.05 * np.random.default_rng(7).random(200), labels)
    own = measure_selective_risk(losses, uncertainty, labels).augrc
    assert 0 < near.upper - near.lower < 0.2 * (own.upper - own.lower)


# --- Values and arguments


def test_results_are_json() -> None:
    losses, uncertainty, labels = made(8, 50)
    m = measure_selective_risk(losses, uncertainty, labels, n_resamples=20)
    read = json.loads(json.dumps(asdict(m), allow_nan=False))
    assert read["augrc"]["estimate"] == m.augrc.estimate
    assert json.dumps(asdict(augrc_difference(losses, uncertainty, losses, labels, n_resamples=20)), allow_nan=False)


@pytest.mark.parametrize(
    ("losses", "uncertainty", "message"),
    [
        ([], [], r"n >= 1"),
        ([0, 1], [0.5], r"got \(2,\) and \(1,\)"),
        ([[0]], [[0]], r"must be \(n,\)"),
        ([-1, 0], [0, 1], "losses must be finite and >= 0"),
        ([math.nan, 0], [0, 1], "losses must be finite"),
        ([0, 1], [0, math.inf], "uncertainty finite"),
    ],
)
def test_arguments_are_checked(losses: list[float], uncertainty: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        selective_risks(losses, uncertainty)


def test_labels_are_checked() -> None:
    with pytest.raises(ValueError, match=r"labels must be \(2,\), got \(3,\)"):
        measure_selective_risk([0, 1], [0, 1], [True, False, True])
