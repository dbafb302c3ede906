"""Indices find what brute force finds; how much they miss is what they say."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from explainvad.detection import patch_index
from explainvad.detection.patch_index import PatchIndex

ROWS, LONG = 3000, 300


@pytest.fixture(autouse=True)
def small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_index, "LEAST_ROWS", 500)
    monkeypatch.setattr(patch_index, "LIST_ROWS", 100)


def rows(count: int, d: int, seed: int) -> Tensor:
    """In clusters that are the same for any seed; most of the variance in few directions."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.Generator().manual_seed(99)
    spectrum = torch.arange(1, d + 1) ** -1.0
    centres = 3 * torch.randn(20, d, generator=same) * spectrum
    inner = torch.randn(count, d, generator=generator) * spectrum
    basis = torch.linalg.qr(torch.randn(d, d, generator=same))[0]
    return (centres[torch.randint(20, (count,), generator=generator)] + inner) @ basis + 5


def brute_force(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    distance, index = torch.cdist(queries.double(), bank.double()).sort(dim=1)
    return distance[:, :k], index[:, :k]


@pytest.fixture(scope="module", params=[(24, 1 << 10), (24, 10), (LONG, 1 << 10), (LONG, 10)])
def quantised(request: pytest.FixtureRequest) -> PatchIndex:
    """Of short and long rows, in lists without and with groups of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patch_index, "LEAST_ROWS", 500)
        patch.setattr(patch_index, "LIST_ROWS", 100)
        patch.setattr(patch_index, "PROBED", 5)  # of 11 groups
        d, many = request.param
        patch.setattr(patch_index, "MANY_LISTS", many)
        return PatchIndex(rows(ROWS, d, 1).half(), quantised=True)


def queries_for(index: PatchIndex, count: int = 200) -> Tensor:
    return rows(count, index.bank.shape[1], 2)


# --- Exact


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("count", "d", "k"), [(1, 3, 1), (40, 5, 40), (700, 64, 9), (300, 1536, 1)])
def test_small_banks_are_searched_exactly(count: int, d: int, k: int, half: bool) -> None:
    bank, queries = rows(count, d, 1), rows(50, d, 2)
    bank = bank.half() if half else bank
    index = PatchIndex(bank)
    distance, found = index.search(queries, k)
    exact = brute_force(queries, bank, k)
    assert found.dtype == torch.int64 and torch.equal(found, exact[1])
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance.double(), exact[0], rtol=1e-4, atol=0)
    assert not index.quantised and index.facts == {"search": f"exact over {count:,} rows"}


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = rows(200, 16, 1), rows(30, 16, 2)
    expected = PatchIndex(bank).search(queries, 5)
    for elements in (1, 50, 500, 3210):
        monkeypatch.setattr(patch_index, "AT_ONCE", elements)
        monkeypatch.setattr(patch_index, "CACHED", elements)
        for got, want in zip(PatchIndex(bank).search(queries, 5), expected, strict=True):
            torch.testing.assert_close(got, want)


def test_small_distances_keep_their_digits() -> None:
    bank = 100 + torch.randn(300, 64, generator=torch.Generator().manual_seed(1))
    near = bank.double() + 1e-3 / 8  # 64 coordinates: 1e-3 away
    distance, index = PatchIndex(bank).search(near.float())
    assert torch.equal(index[:, 0], torch.arange(300))
    torch.testing.assert_close(distance[:, 0], torch.full((300,), 1e-3), rtol=0.2, atol=0)  # float32 beside 100
    assert torch.equal(PatchIndex(bank).search(bank)[0], torch.zeros(300, 1))


def test_faiss_is_imported_only_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # importing it would fail
    PatchIndex(rows(100, 8, 1), quantised=True).search(rows(5, 8, 2))
    with pytest.raises(ImportError):
        PatchIndex(rows(600, 8, 1), quantised=True)


# --- Quantised


@pytest.mark.parametrize("k", [1, 9])
def test_distances_are_exact_and_few_neighbours_are_missed(quantised: PatchIndex, k: int) -> None:
    queries = queries_for(quantised)
    distance, index = quantised.search(queries, k)
    assert quantised.quantised and index.shape == distance.shape == (200, k)
    direct = (queries[:, None].double() - quantised.bank[index].double()).norm(dim=2)
    torch.testing.assert_close(distance.double(), direct, rtol=1e-5, atol=0)
    assert (distance.diff(dim=1) >= 0).all()
    assert all(len(set(row)) == k for row in index.tolist())
    exact = brute_force(queries, quantised.bank, k)[1]
    hits = (index[:, :, None] == exact[:, None]).any(2).float().mean()
    assert hits >= 0.97


def test_codes_alone_would_miss_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the comparison in full is good for: neighbours among the candidates, but not first by their codes."""
    index = PatchIndex(rows(ROWS, 24, 1).half(), quantised=True)
    queries = queries_for(index)
    exact = brute_force(queries, index.bank, 1)[1]
    assert (index.search(queries)[1] == exact).float().mean() > 0.97
    codes = index._codes
    assert codes is not None
    first = torch.from_numpy(codes.index.search(queries.numpy(), 1)[1])
    assert (first == exact).float().mean() < 0.8


def test_a_bank_above_the_limit_is_quantised_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_index, "EXACT_ROWS", 800)
    assert not PatchIndex(rows(800, 8, 1)).quantised
    assert PatchIndex(rows(801, 8, 1)).quantised
    assert not PatchIndex(rows(499, 8, 1), quantised=True).quantised  # too few for lists


def test_effort_rises_until_the_recall_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = rows(ROWS, 24, 1)
    monkeypatch.setattr(patch_index, "EFFORTS", ((1, 1), (ROWS, 200), (2 * ROWS, 400)))
    tuned = PatchIndex(bank, quantised=True)
    assert "30 of 30 lists, 200 candidates" in tuned.facts["search"]
    monkeypatch.setattr(patch_index, "RECALL", 0.0)
    least = PatchIndex(bank, quantised=True)
    assert "1 of 30 lists, 1 candidates" in least.facts["search"]
    assert recall(least) < recall(tuned)


def test_a_large_bank_has_longer_lists_and_looks_through_as_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_index, "EFFORTS", ((900, 50),))
    text = PatchIndex(rows(ROWS, 24, 1), quantised=True).facts["search"]
    monkeypatch.setattr(patch_index, "MOST_LISTS", 10)
    fewer = PatchIndex(rows(ROWS, 24, 1), quantised=True).facts["search"]
    assert "9 of 30 lists" in text and "3 of 10 lists" in fewer


def recall(index: PatchIndex) -> float:
    return float(index.facts["recall"].split()[0])


@pytest.mark.parametrize("effort", [(1, 3), (1, 40)])
def test_the_recall_that_it_states_holds_for_new_queries(
    effort: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_index, "EFFORTS", (effort,))
    bank, queries = rows(ROWS, 24, 1), rows(1000, 24, 2)
    index = PatchIndex(bank, quantised=True, held_out=rows(600, 24, 3))
    exact = brute_force(queries, bank, 1)[1]
    measured = float((index.search(queries)[1] == exact).float().mean())
    assert 0.2 < measured < 0.97
    assert abs(recall(index) - measured) < 0.1  # 256 queries tell it to within 3 standard errors
    assert index.facts["recall"].endswith("for 256 held-out patches")
    # rows of the bank are left out of their own search, else all would be found
    itself = PatchIndex(bank, quantised=True)
    assert recall(itself) < 1 and itself.facts["recall"].endswith("for 256 of its rows, each without itself")


def test_rows_that_few_lists_hold_are_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """More neighbours are asked for than the lists searched have."""
    monkeypatch.setattr(patch_index, "EFFORTS", ((1, 1),))
    bank, queries = rows(600, 16, 1), rows(20, 16, 2)
    index = PatchIndex(bank, quantised=True)
    distance, found = index.search(queries, 400)
    exact = brute_force(queries, bank, 400)
    assert torch.equal(found, exact[1])
    torch.testing.assert_close(distance.double(), exact[0], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("count", "groups"), [(30, 0), (31, 11)])
def test_more_lists_are_in_groups(count: int, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is looked at of them decides: with one group fewer of the nearest rows are found than with all."""
    import faiss

    monkeypatch.setattr(patch_index, "MANY_LISTS", 30)
    index = PatchIndex(rows(100 * count, 24, 1).half(), quantised=True)
    assert index._codes is not None
    quantiser = faiss.downcast_index(index._codes.index.quantizer)
    assert getattr(quantiser, "nlist", 0) == groups
    if groups:
        index._codes.index.nprobe = 4
        queries = queries_for(index)
        exact = brute_force(queries, index.bank, 1)[1]
        found = []
        for quantiser.nprobe in (1, groups):
            found.append(float((index.search(queries)[1] == exact).float().mean()))
        assert found[0] < found[1]


def test_many_queries_are_searched_in_parts(quantised: PatchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = queries_for(quantised)
    whole = quantised.search(queries, 3)
    monkeypatch.setattr(patch_index, "LOOKED_AT", 37)
    for got, want in zip(quantised.search(queries, 3), whole, strict=True):
        assert torch.equal(got, want)


def test_a_query_far_from_all_is_compared_too(quantised: PatchIndex) -> None:
    far = queries_for(quantised, 5) + 300
    distance, index = quantised.search(far)
    exact = brute_force(far, quantised.bank, 1)[0]
    assert (index >= 0).all() and (distance.double() <= 1.02 * exact).all()


# --- State


def test_state_restores_the_same_index(quantised: PatchIndex) -> None:
    arrays, facts = quantised.state()
    assert {array.dtype.name for array in arrays.values()} <= {"uint8", "int64", "float16", "float32"}
    again = PatchIndex.restore({name: array.copy() for name, array in arrays.items()}, facts)
    assert again.facts == quantised.facts and again.quantised
    for k in (1, 7):
        for got, want in zip(again.search(queries_for(again), k), quantised.search(queries_for(again), k), strict=True):
            assert torch.equal(got, want)


def test_state_of_an_exact_one_is_the_bank() -> None:
    index = PatchIndex(rows(60, 8, 1))
    arrays, facts = index.state()
    again = PatchIndex.restore(arrays, facts)
    assert list(arrays) == ["bank"] and torch.equal(again.bank, index.bank) and not again.quantised


@pytest.mark.parametrize("many", [1 << 10, 3])
def test_the_same_seed_gives_the_same_bytes(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_index, "MANY_LISTS", many)
    bank = rows(1000, LONG, 1).half()

    def arrays(seed: int) -> dict[str, bytes]:
        return {name: array.tobytes() for name, array in PatchIndex(bank, quantised=True, seed=seed).state()[0].items()}

    assert arrays(3) == arrays(3)
    assert arrays(3)["codes"] != arrays(4)["codes"]


def test_threads_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    before, during = faiss.omp_get_max_threads(), []
    set_threads = faiss.omp_set_num_threads
    monkeypatch.setattr(faiss, "omp_set_num_threads", lambda n: (during.append(n), set_threads(n)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: before + 1)
    PatchIndex(rows(600, 8, 1), quantised=True).search(rows(5, 8, 2))
    assert set(during) == {before, before + 1}  # torch's number while faiss works
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("k", [0, 61])
def test_refusals(k: int) -> None:
    with pytest.raises(ValueError, match=f"from 1 to the 60 rows of the bank, got {k}"):
        PatchIndex(rows(60, 8, 1)).search(rows(5, 8, 2), k)
