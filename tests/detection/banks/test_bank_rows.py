"""Which patches become rows of a bank; the rest of it is seen through whole banks in test_patch_bank.py."""

from __future__ import annotations

import pytest
import torch

from explainvad.detection.banks import bank_rows
from explainvad.detection.banks.bank_rows import beyond, nearest_pair, of_each
from explainvad.detection.banks.exact_search import ExactSearch


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_the_nearest_pair(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_rows, "CHUNK_ELEMENTS", chunk)
    assert nearest_pair(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 6.0]])) == pytest.approx(2.0)
    assert nearest_pair(torch.tensor([[1.0, 2.0]])) == 0.0


def test_the_farthest_are_taken_first_and_what_they_cover_is_not() -> None:
    old = ExactSearch(torch.tensor([[0.0], [2.0]]), [0, 2])
    patches = torch.tensor([[1.0], [9.0], [10.0], [-5.0], [6.0], [3.5]])
    origin = torch.arange(6)[:, None].expand(6, 3)
    parts = [(patches, origin), (torch.tensor([[9.5], [4.5]]), origin[:2] + 10)]
    # 10 covers 9, and 6 covers 4.5; 1 and 3.5 lie within 2 of the bank
    chosen = beyond(parts, old, radius=2.0, share=0.5)
    assert chosen.rows[:, 0].tolist() == [10, -5, 6]
    assert chosen.origin[:, 0].tolist() == [2, 3, 4] and chosen.seen == 8
    assert beyond(parts, old, radius=2.0, share=0.1).rows[:, 0].tolist() == [10, 4.5]  # one of each image


def test_of_each_image_only_its_own_patches_count() -> None:
    parts = [(torch.randn(9, 2), torch.full((9, 3), i)) for i in range(3)]
    chosen = of_each(parts, 4, torch.Generator().manual_seed(0))
    assert chosen.origin[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4 and chosen.seen == 27
    assert len(of_each(parts, 100, torch.Generator()).rows) == 27
