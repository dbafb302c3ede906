"""Disagreement between scorers, and between the members of one, is counted; agreement is not."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainvad.uncertainty.decomposition import Decomposition, decompose
from explainvad.uncertainty.probability import probability_bound

log_ranks = st.floats(-600, 0)
families = st.lists(st.lists(log_ranks, min_size=1, max_size=5), min_size=1, max_size=4)


def parts(*of_families: list[float]) -> tuple[float, float, float]:
    """(aleatoric, within, between)."""
    d = decompose(of_families)
    return float(d.aleatoric), float(d.within), float(d.between)


def single(*p_values: float) -> Decomposition:
    """Of families with one member each."""
    return decompose([[math.log(p)] for p in p_values])


def entropy(p: float) -> float:
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)


def probability(log_rank: float) -> float:
    """What a rank stands for, by another way: its p-value's upper bound at even odds; 1 below the smallest number."""
    return probability_bound(math.exp(log_rank), 0.5).upper


# --- By hand


def test_the_decomposition_by_hand() -> None:
    # p > 1/e carries no evidence: 1/2 at even odds, one bit of doubt and no disagreement
    assert parts([math.log(0.5)], [math.log(0.9)]) == (1.0, 0.0, 0.0)
    low, high = 0.5, probability_bound(0.001, 0.5).upper
    assert high == pytest.approx(1 / (1 + math.e * 0.001 * math.log(1000)))
    d = single(0.9, 0.001)
    assert d.aleatoric == pytest.approx((entropy(low) + entropy(high)) / 2)
    assert d.within == 0
    assert d.between == pytest.approx(entropy((low + high) / 2) - d.aleatoric)


def test_two_families_with_members_by_hand() -> None:
    # L = -1 stands for 1/2; L = -400 for 1, without any doubt; L = -ln 1000 for 0.98
    high = 1 / (1 + math.e * 0.001 * math.log(1000))
    aleatoric, within, between = parts([-1.0, -400.0, -400.0, -400.0], [-math.log(1000), -1.0])
    first, second = 7 / 8, (high + 1 / 2) / 2  # means of the families
    assert aleatoric == pytest.approx((1 / 4 + (entropy(high) + 1) / 2) / 2)
    assert within == pytest.approx((entropy(first) - 1 / 4 + entropy(second) - (entropy(high) + 1) / 2) / 2)
    assert between == pytest.approx(entropy((first + second) / 2) - (entropy(first) + entropy(second)) / 2)


def test_a_familys_weight_does_not_grow_with_its_members() -> None:
    few, many = parts([-50.0], [-1.0]), parts([-50.0] * 9, [-1.0])
    assert few == pytest.approx(many, abs=1e-15)


# --- Whatever the ranks


@given(families)
def test_the_parts_add_up_to_the_entropy_of_the_mean(of_families: list[list[float]]) -> None:
    mean = math.fsum(math.fsum(map(probability, ranks)) / len(ranks) for ranks in of_families) / len(of_families)
    assert math.fsum(parts(*of_families)) == pytest.approx(entropy(mean), abs=1e-12)


@given(families)
def test_the_parts_are_never_negative_and_at_most_one_bit_together(of_families: list[list[float]]) -> None:
    d = decompose(of_families)
    assert min(d.aleatoric, d.within, d.between) >= 0
    assert d.epistemic == d.within + d.between
    assert d.aleatoric + d.epistemic <= 1 + 1e-12


@given(log_ranks, st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_scorers_that_agree_have_no_epistemic_part(log_rank: float, sizes: list[int]) -> None:
    assert decompose([[log_rank] * size for size in sizes]).epistemic == pytest.approx(0, abs=1e-12)


@given(st.lists(log_ranks, min_size=1, max_size=6))
def test_one_member_for_each_family_leaves_nothing_within(ranks: list[float]) -> None:
    assert decompose([[rank] for rank in ranks]).within == 0


@given(st.lists(log_ranks, min_size=1, max_size=5), st.integers(1, 4))
def test_identical_families_leave_nothing_between(ranks: list[float], count: int) -> None:
    d = decompose([ranks] * count)
    assert d.between == pytest.approx(0, abs=1e-12)
    assert [d.aleatoric, d.within] == pytest.approx(list(parts(ranks)[:2]), abs=1e-12)


@given(st.lists(log_ranks, min_size=2, max_size=4))
def test_the_same_ranks_disagree_as_much_within_one_family_as_between_many(ranks: list[float]) -> None:
    aleatoric, within, between = parts(ranks)
    assert between == 0
    assert parts(*([rank] for rank in ranks)) == pytest.approx((aleatoric, 0, within), abs=1e-12)


@given(st.lists(st.lists(log_ranks, min_size=2, max_size=3), min_size=2, max_size=3))
def test_the_order_of_scorers_and_members_does_not_matter(of_families: list[list[float]]) -> None:
    expected = parts(*of_families)
    for order in permutations(of_families):
        assert parts(*order) == pytest.approx(expected, abs=1e-12)
    assert parts(*(ranks[::-1] for ranks in of_families)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("p", [(0.001, 0.9), (0.05, 0.01), (1e-250, 0.2), (0.3, 0.3, 0.01)])
def test_scorers_or_members_that_disagree_have_an_epistemic_part(p: tuple[float, ...]) -> None:
    assert single(*p).between > 0.001 and single(*p).within == 0
    members = decompose([[math.log(x) for x in p]])
    assert members.within > 0.001 and members.between == 0


def test_more_disagreement_is_a_larger_part() -> None:
    between = [float(single(0.5, p).between) for p in (0.3, 0.1, 0.01, 0.001, 1e-6)]
    assert between == sorted(between) and between[0] < between[-1]
    within = [parts([-1.0, -1.0 - step])[1] for step in range(10)]
    assert within == sorted(within) and within[0] == 0 < within[1]


# --- Maps


def test_each_cell_of_a_map_is_decomposed_by_itself() -> None:
    rng = np.random.default_rng(0)
    maps = [-(10 ** rng.uniform(-2, 2.7, (members, 3, 4))) for members in (5, 1, 2)]
    d = decompose(maps)
    assert d.aleatoric.shape == d.within.shape == d.between.shape == d.epistemic.shape == (3, 4)
    for y, x in np.ndindex(3, 4):
        expected = parts(*(m[:, y, x].tolist() for m in maps))
        assert (d.aleatoric[y, x], d.within[y, x], d.between[y, x]) == pytest.approx(expected, abs=1e-12)
    assert d.within.min() > 0 and d.between.min() > 0


def test_the_smallest_ranks_neither_overflow_nor_lose_their_meaning() -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        ranks = -np.arange(601.0)
        d = decompose([ranks[None], np.full((1, 601), -1.0)])
    for part in (d.aleatoric, d.within, d.between):
        assert np.isfinite(part).all()
    assert not d.within.any()
    assert d.aleatoric[-1] == pytest.approx(0.5)  # one scorer is sure, the other knows nothing
    assert d.between[-1] == pytest.approx(entropy(0.75) - 0.5)
    assert np.all(np.diff(d.between) >= 0)
