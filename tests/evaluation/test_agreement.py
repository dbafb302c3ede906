"""Kappas against published tables, a variance by differentiation, and the cases where they are not defined."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from explainvad.evaluation.agreement import cohen_kappa, fleiss_kappa
from explainvad.types import Decision, Interval


def judged(table: list[list[int]]) -> tuple[list[str], list[str]]:
    """Labels of two judges with this contingency table."""
    pairs = [(f"c{i}", f"c{j}") for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def kappa_of(p: NDArray[np.float64]) -> float:
    expected = p.sum(axis=0) @ p.sum(axis=1)
    return float((np.trace(p) - expected) / (1 - expected))


def delta_method_error(table: list[list[int]]) -> float:
    """Standard error of kappa for multinomial counts, by numerical differentiation."""
    n = np.sum(table)
    p = np.array(table) / n
    gradient = np.empty_like(p)
    for cell in np.ndindex(p.shape):
        step = np.zeros_like(p)
        step[cell] = 1e-6
        gradient[cell] = (kappa_of(p + step) - kappa_of(p - step)) / 2e-6
    return float(np.sqrt(((p * gradient**2).sum() - (p * gradient).sum() ** 2) / n))


def present(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


# --- Two judges


def test_cohen_by_hand() -> None:
    # 35 of 50 agree; expected 1/2 * 3/5 + 1/2 * 2/5 = 1/2
    kappa = present(cohen_kappa(*judged([[20, 5], [10, 15]])))
    assert kappa.estimate == pytest.approx(0.4)
    assert kappa.confidence == 0.95


@pytest.mark.parametrize("table", [[[20, 5], [10, 15]], [[30, 4, 1], [6, 25, 3], [0, 9, 22]], [[3, 20], [25, 2]]])
def test_cohen_interval_is_that_of_the_delta_method(table: list[list[int]]) -> None:
    first, second = judged(table)
    kappa, wide = present(cohen_kappa(first, second)), present(cohen_kappa(first, second, 0.99))
    error = delta_method_error(table)
    assert kappa.estimate == pytest.approx(cohen_kappa_score(first, second))
    assert kappa.upper - kappa.estimate == pytest.approx(stats.norm.isf(0.025) * error, rel=1e-5)
    assert kappa.estimate - kappa.lower == pytest.approx(stats.norm.isf(0.025) * error, rel=1e-5)
    assert wide.upper - wide.estimate == pytest.approx(stats.norm.isf(0.005) * error, rel=1e-5)


def test_any_labels_will_do() -> None:
    system = [Decision.REJECT, Decision.DEFER, Decision.REJECT, Decision.NOT_FLAGGED, Decision.REJECT]
    reviewer = [Decision.REJECT, Decision.DEFER, Decision.DEFER, Decision.NOT_FLAGGED, Decision.NOT_FLAGGED]
    codes = {Decision.REJECT: 5, Decision.DEFER: 2, Decision.NOT_FLAGGED: 9}
    by_name = present(cohen_kappa(system, reviewer))
    by_code = present(cohen_kappa([codes[d] for d in system], [codes[d] for d in reviewer]))
    assert asdict(by_name) == pytest.approx(asdict(by_code))
    assert by_name.estimate == pytest.approx((3 / 5 - (3 + 2 + 2) / 25) / (1 - (3 + 2 + 2) / 25))


def test_intervals_are_cut_where_kappa_ends() -> None:
    assert present(cohen_kappa(*judged([[3, 1], [0, 3]]))).upper == 1
    assert present(cohen_kappa(*judged([[0, 3], [3, 1]]))).lower == -1


def test_full_agreement_and_a_judge_who_never_varies_have_no_width() -> None:
    for first, second, value in (("abba", "abba", 1), ("aaaa", "abba", 0), ("ab", "ba", -1)):
        with warnings.catch_warnings(action="error"):
            kappa = present(cohen_kappa(list(first), list(second)))
        assert (kappa.estimate, kappa.lower, kappa.upper) == pytest.approx((value, value, value))


def test_cohen_is_not_defined_for_a_single_category() -> None:
    assert cohen_kappa(["good"] * 5, ["good"] * 5) is None


@pytest.mark.parametrize(("first", "second"), [([], []), (["a"], ["a", "b"]), ([["a"]], [["a"]])])
def test_cohen_checks_its_arguments(first: list[str], second: list[str]) -> None:
    with pytest.raises(ValueError, match=r"must be \(n,\) with n >= 1"):
        cohen_kappa(first, second)


# --- Several judges

# Ten subjects, fourteen raters, five categories: kappa 0.210
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def test_fleiss_of_a_known_table() -> None:
    ratings = [np.repeat(list("abcde"), row) for row in FLEISS]
    kappa = present(fleiss_kappa(ratings))
    assert kappa.estimate == pytest.approx(0.210, abs=5e-4)
    assert kappa.lower < kappa.estimate < kappa.upper


def test_fleiss_by_hand() -> None:
    # Agreement 3/4; shares 5/8 and 3/8, expected 34/64
    kappa = present(fleiss_kappa([["a", "a"], ["a", "b"], ["b", "b"], ["a", "a"]]))
    assert kappa.estimate == pytest.approx((3 / 4 - 34 / 64) / (30 / 64))


def test_the_order_of_the_judges_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    ratings = rng.integers(0, 3, (30, 4))
    assert asdict(present(fleiss_kappa(ratings))) == asdict(present(fleiss_kappa(rng.permuted(ratings, axis=1))))


def test_fleiss_interval_is_that_of_resampled_items() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(150) < 0.4
    ratings = truth[:, None] ^ (rng.random((150, 3)) < 0.15)
    kappa, wide = present(fleiss_kappa(ratings)), present(fleiss_kappa(ratings, 0.99))
    # The jackknife is another estimate of the same standard error
    left_out = [present(fleiss_kappa(np.delete(ratings, i, axis=0), n_resamples=1)).estimate for i in range(150)]
    error = np.sqrt(149 / 150 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert kappa.upper - kappa.lower == pytest.approx(2 * stats.norm.isf(0.025) * error, rel=0.12)
    assert wide.upper - wide.lower == pytest.approx(2 * stats.norm.isf(0.005) * error, rel=0.15)


def test_resamples_depend_on_the_seed_alone() -> None:
    ratings = np.random.default_rng(3).integers(0, 2, (25, 3))
    first, same, other = (present(fleiss_kappa(ratings, n_resamples=50, seed=seed)) for seed in (0, 0, 1))
    assert asdict(first) == asdict(same) != asdict(other)


def test_resamples_of_one_category_are_left_out() -> None:
    with np.errstate(all="raise"):
        kappa = present(fleiss_kappa([["a", "a"]] * 4 + [["b", "b"]]))  # a third of the resamples lack the b
    assert (kappa.estimate, kappa.lower, kappa.upper) == (1, 1, 1)


def test_fleiss_is_not_defined_for_a_single_category() -> None:
    assert fleiss_kappa([["good"] * 3] * 5) is None


@pytest.mark.parametrize("ratings", [[], ["a", "b"], [["a"], ["b"]], np.empty((0, 3), dtype=str)])
def test_fleiss_checks_its_arguments(ratings: list[str]) -> None:
    with pytest.raises(ValueError, match=r"ratings must be \(n, m\)"):
        fleiss_kappa(ratings)


def test_results_are_json() -> None:
    for kappa in (cohen_kappa(list("abba"), list("abbb")), fleiss_kappa([list("ab"), list("bb"), list("aa")])):
        assert json.loads(json.dumps(asdict(present(kappa)), allow_nan=False))["confidence"] == 0.95
