"""The draw of an audit is uniform, and the same for everyone."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import combinations, product

import pytest
from scipy import stats

from explainvad.uncertainty.audit import draw_sample

HEADS = [hashlib.sha256(b"head %d" % i).hexdigest() for i in range(20_000)]


def test_the_draw_is_the_same_on_every_machine_and_in_every_release() -> None:
    """The expected ones come from SeedSequence and PCG64 written out in plain Python, without numpy."""
    assert draw_sample("9f2c" * 16, 1, 4201, 6) == (1635, 2381, 2778, 3045, 3379, 3430)
    assert draw_sample("9f2c" * 16, 2, 4201, 6) == (2993, 3475, 3760, 3944, 4099, 4155)


@pytest.mark.parametrize("population", [1, 2, 59, 1000])
def test_a_sample_holds_so_many_different_indices_in_order(population: int) -> None:
    for size in {1, (population + 1) // 2, population}:
        drawn = draw_sample(HEADS[0], 1, population, size)
        assert len(drawn) == len(set(drawn)) == size
        assert list(drawn) == sorted(drawn) and set(drawn) <= set(range(population))
        assert all(type(index) is int for index in drawn)


def chi_square(counts: Counter[object], cells: list[object]) -> float:
    """Pearson's statistic against equal frequencies, as its p-value."""
    assert set(counts) <= set(cells)
    return float(stats.chisquare([counts[cell] for cell in cells]).pvalue)


def test_over_heads_every_subset_is_equally_likely() -> None:
    for size in (1, 2, 4):
        counts = Counter[object](draw_sample(head, 1, 5, size) for head in HEADS)
        assert chi_square(counts, list(combinations(range(5), size))) > 1e-6


def test_the_draws_of_one_head_are_independent_of_each_other() -> None:
    counts = Counter[object]((draw_sample(head, 1, 4, 2), draw_sample(head, 2, 4, 2)) for head in HEADS)
    pairs = list(combinations(range(4), 2))
    assert chi_square(counts, list(product(pairs, pairs))) > 1e-6


@pytest.mark.parametrize("size", [0, 8])
def test_a_sample_must_fit_its_population(size: int) -> None:
    with pytest.raises(ValueError, match=rf"size must lie in \[1, 7\], got {size}"):
        draw_sample(HEADS[0], 1, 7, size)
