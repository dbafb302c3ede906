"""Ranks are continuous and monotone, alarms survive calm scorers, and map parts add up."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_scores import image_scores, scored_image

from explainvad.errors import NotFittedError
from explainvad.uncertainty.fusion import LARGEST_RANK, SMALLEST_LOG_RANK, Fusion, TailRank

NORM = {"a": np.arange(20.0), "b": 1000 * np.arange(20.0) ** 2}
FUSION = Fusion.fit(NORM, {"a": (1.0, 3.0), "b": (0.0, 10.0)})

numbers = st.floats(-1e6, 1e6)
norms = st.lists(numbers, min_size=2, max_size=40)


def fused(a: float, b: float) -> float:
    return FUSION.score(image_scores({"a": a, "b": b}))


def test_the_rank_at_a_norm_score_is_its_conformal_rank() -> None:
    rank = TailRank.fit(np.array([5.0, 3.0, 8.0, 1.0]))
    assert [math.exp(rank.log(s)) for s in (8, 5, 3, 1)] == pytest.approx([2 / 5, 3 / 5, 4 / 5, 1.0])
    assert rank.log(-100.0) == 0.0
    assert rank.log(4.0) == pytest.approx((rank.log(3.0) + rank.log(5.0)) / 2)


def test_ties_in_norm_count_all_that_are_as_large() -> None:
    rank = TailRank.fit(np.array([1.0, 2.0, 2.0, 2.0, 7.0]))
    assert [math.exp(rank.log(s)) for s in (7, 2, 1)] == pytest.approx([2 / 6, 5 / 6, 1.0])


def test_beyond_the_maximum_the_rank_falls_by_a_power_law() -> None:
    # The mean of these scores is 5, their variance (4 * 9 + 4 * 1) / 8 = 5
    rank = TailRank.fit(np.array([2.0, 2.0, 4.0, 4.0, 6.0, 6.0, 8.0, 8.0]))
    assert rank.scale == pytest.approx(math.sqrt(5) / 2)
    for excess, share in ((0, 1), (1, 4), (2, 9), (9, 100), (999, 10**6)):
        assert rank.log(8.0 + excess * rank.scale) == pytest.approx(math.log(3 / 9) - math.log(share))


@given(norms)
def test_ranks_are_continuous_at_the_norm_maximum_and_fall_strictly_beyond(scores: list[float]) -> None:
    rank, top = TailRank.fit(np.array(scores)), max(scores)
    assert rank.log(top) == rank.log_rank[-1]
    assume(rank.scale > 1e-9 * abs(top))  # else a step of half a scale is lost in rounding
    assert rank.log(float(np.nextafter(top, np.inf))) == pytest.approx(rank.log(top), abs=1e-6)
    beyond = [rank.log(top + step * rank.scale) for step in (0, 0.5, 1, 10, 100, 500)]
    assert all(a > b for a, b in pairwise(beyond))


@given(norms, st.lists(numbers, min_size=2))
def test_ranks_never_rise_with_the_score(scores: list[float], asked: list[float]) -> None:
    rank = TailRank.fit(np.array(scores))
    logs = [rank.log(s) for s in sorted(asked)]
    assert all(SMALLEST_LOG_RANK <= b <= a <= 0 for a, b in pairwise(logs))


@given(norms, norms, numbers, numbers, st.floats(0, 1e6))
def test_the_fused_score_never_falls_when_one_score_rises(
    a: list[float], b: list[float], score_a: float, score_b: float, rise: float
) -> None:
    fusion = Fusion.fit({"a": np.array(a), "b": np.array(b)}, {"a": (0.0, 1.0), "b": (0.0, 1.0)})
    before = fusion.score(image_scores({"a": score_a, "b": score_b}))
    for after in ({"a": score_a + rise, "b": score_b}, {"a": score_a, "b": score_b + rise}):
        assert fusion.score(image_scores(after)) >= before * (1 - 1e-12)


def test_the_fused_score_is_the_decades_of_the_rank_that_the_scorers_share() -> None:
    for i in range(3, 20):
        assert fused(NORM["a"][i], NORM["b"][i]) == pytest.approx(-math.log10((20 - i + 1) / 21))


def test_the_cauchy_combination_by_hand() -> None:
    u = 2 / 21, 11 / 21  # ranks of the largest score of a, and of the tenth largest of b
    t = sum(1 / math.tan(math.pi * x) for x in u) / 2
    assert fused(19.0, NORM["b"][10]) == pytest.approx(-math.log10(0.5 - math.atan(t) / math.pi))


def test_a_calm_scorer_cannot_cancel_an_alarm() -> None:
    assert fused(40.0, -1e300) == fused(40.0, NORM["b"][1])  # calmer than LARGEST_RANK changes nothing
    assert fused(40.0, -1e300) > fused(19.0, NORM["b"][19])  # and both at their NORM maxima are less
    # At worst the alarm's rank doubles, but for the calm scorer's own term
    alarm = math.exp(FUSION.ranks["a"].log(40.0))
    t = (1 / math.tan(math.pi * alarm) + 1 / math.tan(math.pi * LARGEST_RANK)) / 2
    assert fused(40.0, -1e300) == pytest.approx(-math.log10(0.5 - math.atan(t) / math.pi), rel=1e-6)


def test_huge_scores_stay_finite_and_ordered() -> None:
    scores = [fused(10.0**e, 0.0) for e in range(2, 308, 3)]
    assert np.isfinite(scores).all()
    assert all(a <= b for a, b in pairwise(scores))
    near = [fused(20.0 + 5 * e, 0.0) for e in range(100)]
    assert all(a < b for a, b in pairwise(near))
    assert fused(1e300, 1e300) > fused(1e300, 0.0)


def test_two_norm_scores_are_enough_and_one_is_not() -> None:
    rank = TailRank.fit(np.array([1.0, 3.0]))
    assert [math.exp(rank.log(s)) for s in (3, 1)] == pytest.approx([2 / 3, 1.0])
    assert rank.log(5.0) < rank.log(3.0)
    with pytest.raises(ValueError, match="at least 2 NORM scores, got 1"):
        TailRank.fit(np.array([1.0]))


def test_constant_norm_scores_still_rank() -> None:
    score = 699050.8372872456  # the mean of three of it differs from it in the last digits
    rank = TailRank.fit(np.full(3, score))
    assert rank.scale == 1.0
    assert rank.log(score - 1) == rank.log(score) == 0.0
    assert rank.log(score + 1) == pytest.approx(-2 * math.log(2))


def test_two_alarms_of_many_deviations_add_as_squares() -> None:
    # 1 / u is nearly pi times the cotangent, and grows as the square of the excess
    scale = {name: rank.scale for name, rank in FUSION.ranks.items()}
    far = [fused(19.0 + 300 * scale["a"], 0.0), fused(0.0, NORM["b"][-1] + 400 * scale["b"])]
    both = fused(19.0 + 300 * scale["a"], NORM["b"][-1] + 400 * scale["b"])
    assert 10**both == pytest.approx(10 ** far[0] + 10 ** far[1], rel=1e-3)
    assert both == pytest.approx(fused(19.0 + 500 * scale["a"], 0.0), abs=1e-2)


@pytest.mark.parametrize("values", [{"a": 1.0}, {"a": 1.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}, {}])
def test_scores_of_other_scorers_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(NotFittedError, match=r"fitted to the scorers \['a', 'b'\], got scores of"):
        FUSION.score(image_scores(values))


def test_the_order_of_the_scorers_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    scores, _ = scored_image(rng)
    fusion = Fusion.fit({s.scorer: np.array([1.0, 2.0]) for s in scores}, {s.scorer: (0.0, 2.0) for s in scores})
    assert fusion.score(scores) == fusion.score(scores[::-1])
    np.testing.assert_allclose(fusion.map(scores), fusion.map(scores[::-1]), rtol=1e-6)


def test_the_map_is_the_mean_of_the_scaled_maps_and_its_parts_add_up() -> None:
    maps = {"a": np.array([[1.0, 3.0], [5.0, 0.0]]), "b": np.array([[0.0, 10.0], [0.0, 5.0]])}
    scores = image_scores({"a": 0.0, "b": 0.0}, maps)
    parts = FUSION.contributions(scores)
    np.testing.assert_allclose(parts["a"], [[0.0, 0.5], [1.0, -0.25]])
    np.testing.assert_allclose(parts["b"], [[0.0, 0.5], [0.0, 0.25]])
    fused_map = FUSION.map(scores)
    assert fused_map.dtype == parts["a"].dtype == np.float32
    assert np.array_equal(fused_map, parts["a"] + parts["b"])


def test_a_map_without_spread_does_not_divide_by_zero() -> None:
    fusion = Fusion.fit({"a": np.array([1.0, 2.0])}, {"a": (1.0, 1.0)})
    assert np.isfinite(fusion.map(image_scores({"a": 1.0}, {"a": np.array([[1.0, 2.0]])}))).all()
