"""Calibration by leaving one out: a new point meets all reference points, each of these met all the others.

Where taking reference points away never lowers a score, P(p <= alpha | normal) <= alpha. Of any n + 1 points, each
in its turn the new one, no more than k then have p <= k / (n + 1), whatever the points are; this is exact and
needs no random numbers. Over random points the rate is bounded by its binomial distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from exact_bands import OUTSIDE
from made_scores import Scored, image_scores
from numpy.typing import NDArray
from scipy import stats

from explainvad.attribution.regions import cluster_mass
from explainvad.uncertainty.calibrator import Calibrator
from explainvad.uncertainty.conformal import p_values

Array = NDArray[np.float64]
Scorer = Callable[[Array], Array]  # distances to all others (..., m), in any order -> score (...)
N, ROUNDS = 24, 12_000
RANKS = (1, 2, 5, 12)  # p <= k / (N + 1)


def nearest(distances: Array) -> Array:
    """Distance to the nearest reference point."""
    return distances.min(axis=-1)


def three_nearest(distances: Array) -> Array:
    """Mean distance of the three nearest; of two, there is no third: it is infinitely far away."""
    padded = np.concatenate([distances, np.full((*distances.shape[:-1], 3), np.inf)], axis=-1)
    return np.sort(padded, axis=-1)[..., :3].mean(axis=-1)


def typical(distances: Array) -> Array:
    """Median distance: it may fall when a reference point is taken away."""
    return np.median(distances, axis=-1)


def between(points: Array) -> Array:
    """Distances (..., m, m) between points (..., m, d)."""
    return np.asarray(np.linalg.norm(points[..., :, None, :] - points[..., None, :, :], axis=-1))


def without_self(distances: Array) -> Array:
    """Distances (..., m, m) without those of a point to itself: (..., m, m - 1)."""
    m = distances.shape[-1]
    return distances[..., ~np.eye(m, dtype=bool)].reshape(*distances.shape[:-1], m - 1)


def ranks_of_the_new(distances: Array, scorer: Scorer) -> NDArray[np.int64]:
    """(n + 1) p of the last of n + 1 points, calibrated on the others by leaving one out; distances (..., m, m)."""
    left_out = scorer(without_self(distances[..., :-1, :-1]))
    new = scorer(distances[..., -1, :-1])
    return np.asarray(1 + (left_out >= new[..., None]).sum(axis=-1))


def in_turn(distances: Array, scorer: Scorer) -> list[int]:
    """The same of each of n + 1 points as the new one."""
    orders = (np.r_[np.delete(np.arange(len(distances)), i), i] for i in range(len(distances)))
    return [int(ranks_of_the_new(distances[np.ix_(order, order)], scorer)) for order in orders]


# --- Any points, each in its turn the new one


def point_sets() -> list[Array]:
    """Points on lines and in spaces, some drawn with ties, some with twins, some with an outlier."""
    rng = np.random.default_rng(20)
    sets: list[Array] = [np.arange(4.0)[:, None], 2.0 ** np.arange(8.0)[:, None], np.zeros((5, 1))]
    for m in range(3, 12):
        for _ in range(15):
            sets.append(rng.standard_normal((m, 1 + m % 3)))
            sets.append(rng.integers(0, 4, (m, 2)).astype(float))
            sets.append(np.exp(2 * rng.standard_normal((m, 2))))
    return sets


@pytest.mark.parametrize("scorer", [nearest, three_nearest])
def test_of_any_points_in_turn_no_more_than_k_have_the_k_smallest_p_values(scorer: Scorer) -> None:
    reached = 0
    for points in point_sets():
        found = in_turn(between(points), scorer)
        for k in range(1, len(points) + 1):
            count = sum(rank <= k for rank in found)
            assert count <= k
            reached += count == k < len(points)
    assert reached > 100  # the bound is met, so that no smaller one holds


def test_negative_control_a_score_that_may_fall_when_points_are_taken_away() -> None:
    found = [(len(points), in_turn(between(points), typical)) for points in point_sets()]
    assert any(sum(rank <= k for rank in ranks) > k for m, ranks in found for k in range(1, m))


@pytest.mark.parametrize("scorer", [nearest, three_nearest])
def test_taking_points_away_never_lowers_the_score(scorer: Scorer) -> None:
    rng = np.random.default_rng(21)
    for _ in range(200):
        distances = rng.exponential(size=9)
        scores = [float(scorer(distances[:m])) for m in range(9, 0, -1)]
        assert all(a <= b for a, b in pairwise(scores))


# --- Random points


def rounds(dimension: int, seed: int) -> list[Array]:
    """Distances between N + 1 normal points, ROUNDS times, in portions that fit the memory."""
    rng = np.random.default_rng(seed)
    return [between(rng.standard_normal((ROUNDS // 12, N + 1, dimension))) for _ in range(12)]


@pytest.mark.parametrize("dimension", [2, 5, 12])
def test_the_rate_of_small_p_values_is_bounded_and_not_wasted(dimension: int) -> None:
    ranks = np.concatenate([ranks_of_the_new(d, nearest) for d in rounds(dimension, dimension)])
    for k in RANKS:
        alpha, count = k / (N + 1), int((ranks <= k).sum())
        assert count <= stats.binom.isf(OUTSIDE, ROUNDS, alpha)
        assert count >= stats.binom.ppf(OUTSIDE, ROUNDS, 0.75 * alpha)


def test_negative_control_calibration_points_in_their_own_bank() -> None:
    (distances, *_) = rounds(5, 5)
    own = distances[..., :-1, :-1].min(axis=-1)  # 0 throughout: the nearest point to each is itself
    new = distances[..., -1, :-1].min(axis=-1)
    ranks = 1 + (own >= new[:, None]).sum(axis=-1)
    assert (ranks == 1).sum() > stats.binom.isf(OUTSIDE, len(ranks), 1 / (N + 1))
    assert (ranks == 1).all()


def test_defects_are_found_by_few_points() -> None:
    rng = np.random.default_rng(22)
    points = rng.standard_normal((500, N + 1, 5))
    points[:, -1] += 2.5  # in each of 5 coordinates
    assert (ranks_of_the_new(between(points), nearest) == 1).mean() > 0.9


# --- The calibrator


def test_where_norm_and_cal_are_one_the_p_value_of_a_single_scorer_is_still_that_of_its_rank() -> None:
    # Scales then depend on the calibration scores; but a fused score rises with its only scorer, so ranks stay
    rng = np.random.default_rng(23)
    same = 0
    for _ in range(150):
        distances = between(rng.standard_normal((N + 1, 5)))
        left_out, new = nearest(without_self(distances[:-1, :-1])), float(nearest(distances[-1, :-1]))
        scored: list[Scored] = [(image_scores({"bank": value}), {"exposure": 0.0}) for value in left_out]
        calibrator = Calibrator.fit(scored, {"": scored}, cluster_mass)
        verdict = calibrator.verdict(
            image_scores({"bank": new}), {"exposure": 0.0}, alpha=0.05, beta=0.1, gamma=0.05, prior=0.05
        )
        expected = float(p_values(left_out, new))
        assert verdict.p_value == expected if expected <= 0.8 else verdict.p_value >= expected
        same += verdict.p_value == expected
    assert same > 100
