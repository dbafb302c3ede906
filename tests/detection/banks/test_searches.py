"""Which search a bank gets, and that it is the same one after loading."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from explainvad.detection import patch_index
from explainvad.detection.banks import exact_search, searches
from explainvad.detection.banks.exact_search import ExactSearch
from explainvad.detection.banks.searches import QuantisedSearch, make_search, prepare_search
from explainvad.detection.patch_index import PatchIndex

BANK = torch.randn(600, 24, generator=torch.Generator().manual_seed(0)).half()
EDGES = [0, 100, 600]


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Components and quantisation at sizes that a test can have."""
    monkeypatch.setattr(exact_search, "COMPONENTS", 5)
    monkeypatch.setattr(exact_search, "LEAST_ROWS", 550)
    monkeypatch.setattr(exact_search, "LEAST_LENGTH", 24)
    monkeypatch.setattr(searches, "EXACT_ROWS", 599)
    monkeypatch.setattr(patch_index, "EXACT_ROWS", 599)
    monkeypatch.setattr(patch_index, "LEAST_ROWS", 500)


@pytest.mark.parametrize(
    ("rows", "exact", "quantised", "kind", "components"),
    [
        (500, False, False, ExactSearch, False),
        (599, False, False, ExactSearch, True),
        (600, False, False, QuantisedSearch, False),
        (600, True, False, ExactSearch, True),
        (600, True, True, ExactSearch, True),
        (500, False, True, QuantisedSearch, False),
        (499, False, True, ExactSearch, False),
        (500, True, True, ExactSearch, False),
    ],
)
@pytest.mark.usefixtures("_small")
def test_the_search_of_a_bank(rows: int, exact: bool, quantised: bool, kind: type, components: bool) -> None:
    arrays, facts = prepare_search(BANK[:rows], exact=exact, quantised=quantised, seed=0)
    search = make_search(arrays, facts, [0, 100, rows])
    assert type(search) is kind and ("basis" in arrays) is components
    assert torch.equal(arrays["bank"], BANK[:rows])
    if kind is not QuantisedSearch:
        assert facts == {"search": f"exact over {rows} rows"}
        found = search(BANK[:20].float())
        assert found.index.tolist() == list(range(20)) and not found.distance.any()


@pytest.mark.usefixtures("_small")
def test_a_part_of_a_bank_is_searched_with_the_basis_of_the_whole() -> None:
    arrays, facts = prepare_search(BANK, exact=True, quantised=False, seed=0)
    part = arrays | {"bank": arrays["bank"][40:]}
    found = make_search(part, facts, [0, 60, 560])(BANK[:40].float())
    expected = torch.cdist(BANK[:40].double(), BANK[40:].double())
    torch.testing.assert_close(found.distance, expected.amin(1).float(), rtol=1e-4, atol=1e-5)
    few = make_search(arrays | {"bank": arrays["bank"][:30]}, facts, [0, 30])
    assert isinstance(few, ExactSearch) and few._bound is None


class Index:
    """Finds the three nearest rows only."""

    def __init__(self, bank: Tensor) -> None:
        self.bank = bank

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        nearest = torch.cdist(queries, self.bank).topk(min(k, 3), largest=False)
        return nearest.values, nearest.indices


def test_a_block_without_a_candidate_is_as_far_as_the_last_candidate() -> None:
    bank = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    search = QuantisedSearch(cast(PatchIndex, Index(bank)), [0, 2, 3, 4])
    found = search(torch.tensor([[0.25]]))
    assert found.distance.tolist() == [0.25] and found.index.tolist() == [0]
    assert found.by_block[:, 0].tolist() == [0.25, 1.75, 1.75]
