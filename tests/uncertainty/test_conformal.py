"""p-values by enumeration, and the one threshold rule that agrees with them to the last bit."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from explainvad.errors import TooFewImagesError
from explainvad.uncertainty.conformal import (
    conditional_alpha,
    images_needed,
    p_values,
    require_images,
    significant_ranks,
    threshold,
)

# What a user types, and what arithmetic makes of it: 1 - 0.95 > 0.05, 1 - 0.9 < 0.1, 0.1 * 3 > 0.3
TYPED = (0.001, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.29, 0.3, 0.35, 0.5, 0.57, 0.9)
COMPUTED = (1 - 0.95, 1 - 0.9, 1 - 0.8, 0.1 * 3, 0.7 * 0.1, 1 / 3, 1 / 7, 1 / 49)
ALPHAS = TYPED + COMPUTED + tuple(float(np.nextafter(a, side)) for a in TYPED for side in (0.0, 1.0))


def each_against_the_rest(scores: list[float]) -> NDArray[np.float64]:
    return np.array([float(p_values(scores[:i] + scores[i + 1 :], s)) for i, s in enumerate(scores)])


@pytest.mark.parametrize("n", range(1, 13))
def test_distinct_scores_have_exactly_the_uniform_p_values(n: int) -> None:
    scores = np.random.default_rng(n).standard_normal(n + 1).tolist()
    assert sorted(each_against_the_rest(scores)) == [k / (n + 1) for k in range(1, n + 2)]


@given(st.lists(st.integers(0, 4).map(float), min_size=2, max_size=25))
def test_ties_never_make_p_values_too_small(scores: list[float]) -> None:
    p = each_against_the_rest(scores)
    for k in range(1, len(scores) + 1):
        assert (p <= k / len(scores)).sum() <= k


def test_p_values_by_hand_and_of_any_shape() -> None:
    calibration = [3.0, 1.0, 2.0, 2.0]
    assert p_values(calibration, [[0.5, 1.0], [2.0, 2.5], [3.0, 9.0]]).tolist() == [[1.0, 1.0], [0.8, 0.4], [0.4, 0.2]]
    assert float(p_values([], 1.0)) == 1.0


@given(st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=30), st.lists(st.integers(-60, 60), min_size=2))
def test_p_values_fall_with_the_score_and_know_only_ranks(calibration: list[float], scores: list[int]) -> None:
    ordered = sorted(float(s) for s in scores)
    p = p_values(calibration, ordered)
    assert all(a >= b for a, b in pairwise(p))
    assert ((p >= 1 / (len(calibration) + 1)) & (p <= 1)).all()
    assert np.array_equal(p, p_values(calibration[::-1], ordered))
    assert np.array_equal(p, p_values(np.exp(np.array(calibration) / 10), np.exp(np.array(ordered) / 10)))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_significant_ranks_counts_the_p_values_that_pass(alpha: float) -> None:
    for n in range(0, 420):
        assert significant_ranks(n, alpha) == sum(k / (n + 1) <= alpha for k in range(1, n + 2))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_above_the_threshold_is_the_same_as_p_at_most_alpha(alpha: float) -> None:
    for n in (*range(images_needed(alpha), 130), 199, 299, 399, 499, 999, 1000, 1999):
        if n < images_needed(alpha):
            continue
        calibration = np.arange(float(n))
        scores = np.arange(-1.0, n + 1, 0.5)  # between the calibration scores, and equal to them
        assert np.array_equal(scores > threshold(calibration, alpha), p_values(calibration, scores) <= alpha), n


@given(st.integers(1, 300), st.data())
def test_the_threshold_rule_holds_at_every_attainable_level(n: int, data: st.DataObject) -> None:
    level = data.draw(st.integers(1, n)) / (n + 1)
    alpha = data.draw(st.sampled_from([level, float(np.nextafter(level, 0)), float(np.nextafter(level, 1))]))
    calibration = np.array(data.draw(st.lists(st.integers(0, 40), min_size=n, max_size=n)), dtype=float)
    if n < images_needed(alpha):
        with pytest.raises(TooFewImagesError):
            threshold(calibration, alpha)
    else:
        scores = np.arange(-0.5, 41, 0.5)
        assert np.array_equal(scores > threshold(calibration, alpha), p_values(calibration, scores) <= alpha)


@pytest.mark.parametrize(
    ("alpha", "n"),
    [(0.05, 19), (0.1, 9), (0.01, 99), (0.02, 49), (0.001, 999), (1 / 3, 2), (0.5, 1), (0.9, 1), (0.03, 33)],
)
def test_images_needed_by_hand(alpha: float, n: int) -> None:
    assert images_needed(alpha) == n
    assert threshold(range(n), alpha) == n - significant_ranks(n, alpha)
    with pytest.raises(TooFewImagesError):
        threshold(range(n - 1), alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_images_needed_are_the_fewest_that_allow_a_rejection(alpha: float) -> None:
    n = images_needed(alpha)
    assert significant_ranks(n, alpha) >= 1
    assert n == 1 or significant_ranks(n - 1, alpha) == 0


def test_the_largest_of_19_is_the_threshold_at_5_percent() -> None:
    assert threshold([*range(19)], 0.05) == 18
    assert threshold([*range(39)], 0.05) == 37
    assert threshold([*range(38)], 0.05) == 37  # 38 images are no better than 19 can be: 1 of 39


def test_a_refusal_names_what_is_needed_and_its_advice_helps() -> None:
    with pytest.raises(TooFewImagesError, match=r"at least 19 calibration images, got 18: .* p-value is 0\.0526"):
        require_images(18, 0.05, "a verdict")
    for n in range(1, 300):
        with pytest.raises(TooFewImagesError) as caught:
            require_images(n, 0.9 / (n + 1), "a verdict")
        advised = re.search(r"alpha >= ([\d.e-]+)\.$", str(caught.value))
        assert advised is not None
        require_images(n, float(advised[1]), "a verdict")


@pytest.mark.parametrize(("n", "percent"), [(50, 9.1), (100, 8.9), (200, 7.7), (1000, 6.2)])
def test_the_calibration_conditional_bound_at_5_percent(n: int, percent: float) -> None:
    assert round(100 * conditional_alpha(n, 0.05), 1) == percent


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (59, 1 / 60), (99, 0.1), (400, 0.02)])
def test_the_conditional_bound_is_the_order_statistic_of_uniforms(n: int, alpha: float) -> None:
    # The k-th smallest of n uniforms is below b exactly when k or more of them are
    k = math.floor(alpha * (n + 1) + 1e-9)
    assert stats.binom.sf(k - 1, n, conditional_alpha(n, alpha)) == pytest.approx(0.95, abs=1e-9)


def test_the_maximum_of_59_normals_is_a_95_95_limit() -> None:
    assert conditional_alpha(59, 1 / 60) <= 0.05 < conditional_alpha(58, 1 / 59)
    assert conditional_alpha(18, 0.05) == 0.0  # nothing can be rejected
