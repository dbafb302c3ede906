"""Disagreement between scorers is counted, agreement is not."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainvad.uncertainty.decomposition import decompose
from explainvad.uncertainty.probability import probability_bound

p_values = st.floats(1e-260, 1)


@given(p_values, st.integers(1, 4))
def test_scorers_that_agree_have_no_epistemic_part(p: float, k: int) -> None:
    assert decompose([p] * k)[1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("p", [(0.001, 0.9), (0.05, 0.01), (1e-250, 0.2), (0.3, 0.3, 0.01)])
def test_scorers_that_disagree_have_one(p: tuple[float, ...]) -> None:
    assert decompose(p)[1] > 0.001


@given(st.lists(p_values, min_size=1, max_size=6))
def test_the_parts_are_never_negative_and_at_most_one_bit_together(p: list[float]) -> None:
    aleatoric, epistemic = decompose(p)
    assert min(aleatoric, epistemic) >= 0
    assert aleatoric + epistemic <= 1 + 1e-12


@given(st.lists(p_values, min_size=2, max_size=4))
def test_the_order_of_the_scorers_does_not_matter(p: list[float]) -> None:
    assert len({decompose(q)[0] for q in permutations(p)}) == len({decompose(q)[1] for q in permutations(p)}) == 1


def test_the_decomposition_by_hand() -> None:
    # p > 1/e carries no evidence: 1/2 at even odds, one bit of doubt and no disagreement
    assert decompose([0.5, 0.9]) == (1.0, 0.0)
    low, high = 0.5, probability_bound(0.001, 0.5).upper

    def entropy(p: float) -> float:
        return -p * math.log2(p) - (1 - p) * math.log2(1 - p)

    aleatoric, epistemic = decompose([0.9, 0.001])
    assert aleatoric == pytest.approx((entropy(low) + entropy(high)) / 2)
    assert epistemic == pytest.approx(entropy((low + high) / 2) - aleatoric)


def test_more_disagreement_is_a_larger_part() -> None:
    parts = [decompose([0.5, p])[1] for p in (0.3, 0.1, 0.01, 0.001, 1e-6)]
    assert parts == sorted(parts) and parts[0] < parts[-1]
