"""Nearest neighbours are those that brute force finds, in any chunks."""

from __future__ import annotations

import pytest
import torch

from explainvad.detection import neighbors
from explainvad.detection.neighbors import nearest


@pytest.mark.parametrize(("queries", "bank", "d"), [(50, 80, 3), (1, 200, 64), (130, 1, 16), (90, 90, 256)])
def test_nearest_equals_brute_force(queries: int, bank: int, d: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, b = torch.randn(queries, d, generator=generator), torch.randn(bank, d, generator=generator)
    distance, index = nearest(q, b)
    exact = torch.cdist(q.double(), b.double()).min(1)
    assert torch.equal(index, exact.indices)
    torch.testing.assert_close(distance.double(), exact.values, rtol=1e-5, atol=1e-6)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    q, b = torch.randn(37, 8), torch.randn(20, 8)
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
