"""Nearest neighbours are those that brute force finds, in any chunks."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from explainvad.detection import neighbors
from explainvad.detection.neighbors import BLOCK, nearest, nearest_by_block


@pytest.mark.parametrize(
    ("queries", "bank", "d"),
    [(50, 80, 3), (1, 200, 64), (130, 1, 16), (90, 90, 256), (40, 1200, 6), (9, BLOCK, 4), (9, BLOCK + 1, 4)],
)
def test_nearest_equals_brute_force(queries: int, bank: int, d: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, b = torch.randn(queries, d, generator=generator), torch.randn(bank, d, generator=generator)
    distance, index = nearest(q, b)
    exact = torch.cdist(q.double(), b.double()).min(1)
    assert torch.equal(index, exact.indices)
    torch.testing.assert_close(distance.double(), exact.values, rtol=1e-5, atol=1e-6)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    q, b = torch.randn(37, 8, generator=generator), torch.randn(20, 8, generator=generator)
    distance, index = nearest(q, b)
    for elements in (1, 20, 100, 259, 10_000):
        monkeypatch.setattr(neighbors, "CHUNK_ELEMENTS", elements)
        chunked = nearest(q, b)
        assert torch.equal(chunked[1], index)
        torch.testing.assert_close(chunked[0], distance)


def test_small_distances_keep_their_digits() -> None:
    bank = torch.nn.functional.normalize(torch.randn(300, 64, generator=torch.Generator().manual_seed(1)), dim=1)
    near = bank + 1e-4 / 8  # 64 coordinates: 1e-4 away
    distance, index = nearest(near, bank)
    assert torch.equal(index, torch.arange(300))
    torch.testing.assert_close(distance, torch.full((300,), 1e-4), rtol=1e-2, atol=0)
    assert torch.equal(nearest(bank, bank)[0], torch.zeros(300))


# --- By block


def unit_rows(count: int, seed: int, d: int = 16) -> Tensor:
    rows = torch.randn(count, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


RAGGED = [[0, 60], [0, 1, 60], [0, 59, 60], [0, 7, 8, 30, 31, 60], list(range(61))]


@pytest.mark.parametrize("edges", RAGGED)
@pytest.mark.parametrize("chunk", [60, 250, 1 << 20])
def test_distances_to_blocks_equal_brute_force(edges: list[int], chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "CHUNK_ELEMENTS", chunk)
    queries, bank = unit_rows(33, 0), unit_rows(60, 1)
    distance, index, by_block = nearest_by_block(queries, bank, edges)
    exact = torch.cdist(queries.double(), bank.double())
    assert torch.equal(index, exact.argmin(1))
    torch.testing.assert_close(distance.double(), exact.min(1).values, rtol=1e-5, atol=1e-6)
    assert by_block.shape == (len(edges) - 1, 33)
    for block, (low, high) in zip(by_block, pairwise(edges), strict=True):
        torch.testing.assert_close(block.double(), exact[:, low:high].min(1).values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_block.amin(0), distance, rtol=1e-5, atol=1e-5)


def test_a_row_that_coincides_is_at_no_distance_from_its_block() -> None:
    bank = unit_rows(50, 3)
    distance, index, by_block = nearest_by_block(bank, bank, [0, 20, 50])
    assert torch.equal(index, torch.arange(50)) and torch.equal(distance, torch.zeros(50))
    own = torch.where(index < 20, by_block[0], by_block[1])
    assert own.isfinite().all() and own.max() <= 1e-3  # the square root of rounding, never of a negative number
    assert torch.where(index < 20, by_block[1], by_block[0]).min() > 0.1
