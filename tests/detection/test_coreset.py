"""The fast greedy choice is the plain one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from explainvad.detection.coreset import greedy_k_centre


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plainly(rows: Tensor, count: int, first: int) -> list[int]:
    """Farthest point next, distances written out."""
    picked = [first]
    while len(picked) < count:
        distance = torch.stack([(rows - rows[p]).norm(dim=1) for p in picked]).min(0).values
        picked.append(int(distance.argmax()))
    return picked


def radius(rows: Tensor, picked: Tensor) -> float:
    return float(torch.cdist(rows, rows[picked]).min(1).values.max())


@pytest.mark.parametrize(("n", "d", "count"), [(60, 3, 59), (200, 16, 40), (300, 128, 25), (2, 5, 1)])
def test_picks_equal_a_plain_implementation(n: int, d: int, count: int) -> None:
    rows = torch.randn(n, d, generator=generator(1), dtype=torch.float64) + 3
    picked = greedy_k_centre(rows.float(), count, generator(2))
    assert picked.dtype == torch.int64
    assert picked.tolist() == plainly(rows, count, int(picked[0]))


def test_the_seed_point_is_a_member_and_drawn_at_random() -> None:
    rows = torch.randn(50, 4, generator=generator(1))
    firsts = {int(greedy_k_centre(rows, 5, generator(seed))[0]) for seed in range(60)}
    assert len(firsts) > 25
    for seed in range(5):
        picked = greedy_k_centre(rows, 50 - 1, generator(seed)).tolist()
        assert len(set(picked)) == 49


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_no_row_is_picked_twice_even_when_all_are_equal(offset: float) -> None:
    rows = torch.randn(4, 64, generator=generator(1)).repeat_interleave(25, 0) + offset
    picked = greedy_k_centre(rows, 60, generator()).tolist()
    assert len(set(picked)) == 60
    assert {p // 25 for p in picked[:4]} == {0, 1, 2, 3}  # each kind once before any twice


def test_asking_for_all_rows_or_more_gives_all() -> None:
    rows = torch.randn(7, 3)
    for count in (7, 8, 1000):
        assert greedy_k_centre(rows, count, generator()).tolist() == list(range(7))


def test_the_same_generator_gives_the_same_rows() -> None:
    rows = torch.randn(200, 300, generator=generator(1))
    assert torch.equal(greedy_k_centre(rows, 30, generator(3)), greedy_k_centre(rows, 30, generator(3)))


def test_the_projection_keeps_the_cover_tight() -> None:
    rows = torch.randn(400, 512, generator=generator(1)) * torch.logspace(0, -2, 512)
    picked = greedy_k_centre(rows, 60, generator(2))
    exact = torch.tensor(plainly(rows, 60, int(picked[0])))
    assert radius(rows, picked) <= 1.1 * radius(rows, exact)
    assert radius(rows, picked) < radius(rows, torch.randperm(400, generator=generator(3))[:60])


def test_rows_in_half_precision_and_far_from_the_origin() -> None:
    rows = torch.randn(100, 8, generator=generator(1))
    far = greedy_k_centre(rows + 1000, 20, generator(2))
    assert radius(rows, far) <= 1.05 * radius(rows, greedy_k_centre(rows, 20, generator(2)))
    assert len(greedy_k_centre(rows.half(), 20, generator(2)).unique()) == 20
