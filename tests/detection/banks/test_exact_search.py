"""Exact nearest rows of a bank and its blocks, and components that rule rows out without missing a neighbour."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from explainvad.detection import matrix_products
from explainvad.detection.banks import exact_search
from explainvad.detection.banks.exact_search import COMPONENTS, SLACK, ExactSearch, distances, worth_it
from explainvad.detection.lower_bound import LowerBound
from explainvad.detection.matrix_products import fast_products

ROWS, LENGTH = 300, 40
EDGES = [0, 10, 11, 150, ROWS]


def spectrum(seed: int, count: int, decay: float = 1.0, shift: float = 3.0) -> Tensor:
    """Vectors whose components fall off as 1 / k^decay, in directions that depend on nothing, about ``shift``."""
    turn = torch.linalg.qr(torch.randn(LENGTH, LENGTH, generator=torch.Generator().manual_seed(99))).Q
    x = torch.randn(count, LENGTH, generator=torch.Generator().manual_seed(seed))
    return (x / torch.arange(1, LENGTH + 1) ** decay) @ turn + shift


def search(bank: Tensor, components: int = 8) -> ExactSearch:
    """A search through so many components; without them for 0."""
    basis = LowerBound.fit(bank, components).basis if components else None
    return ExactSearch(bank, EDGES, basis)


def apart(queries: Tensor, bank: Tensor) -> Tensor:
    return (queries[:, None].double() - bank[None].double()).norm(dim=2)


def nearest_of_blocks(queries: Tensor, bank: Tensor) -> Tensor:
    return torch.stack([apart(queries, bank)[:, low:high].amin(1) for low, high in pairwise(EDGES)]).float()


@given(
    seed=st.integers(0, 2**32 - 1),
    decay=st.floats(0, 2),
    shift=st.sampled_from([0.0, 3.0]),
    far=st.sampled_from([0.0, 1.0, 30.0]),
    components=st.sampled_from([0, 1, 8]),
    many=st.sampled_from([0, 3, 48]),
    chunk=st.sampled_from([1000, 1 << 21]),
)
def test_no_neighbour_is_missed_whatever_the_spectrum(
    seed: int, decay: float, shift: float, far: float, components: int, many: int, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_search, "MANY", many)
        patch.setattr(exact_search, "CHUNK_ELEMENTS", chunk)
        bank = spectrum(seed, ROWS, decay, shift)
        queries = torch.cat((spectrum(seed + 1, 20, decay, shift), spectrum(seed + 2, 5, decay, shift + far), bank[:5]))
        found = search(bank, components)(queries)
    expected = apart(queries, bank)
    torch.testing.assert_close(found.distance, expected.amin(1).float(), rtol=1e-5, atol=1e-6)
    own = expected[torch.arange(30), found.index].float()
    torch.testing.assert_close(own, found.distance, rtol=1e-5, atol=1e-6)
    assert (found.by_block >= found.distance).all()
    if components == 0:
        torch.testing.assert_close(found.by_block, nearest_of_blocks(queries, bank), rtol=1e-3, atol=1e-3)


def test_a_row_of_the_bank_lies_at_no_distance_from_it_however_long_it_is() -> None:
    bank = spectrum(0, ROWS, shift=1000)
    found = ExactSearch(bank, EDGES)(bank)
    assert torch.equal(found.distance, torch.zeros(ROWS)) and torch.equal(found.index, torch.arange(ROWS))


def test_a_row_that_rounding_hides_is_found() -> None:
    # their squared distances from the query, 1e-4, are lost beside the squared length of 1e4
    bank = torch.tensor([[100.0, 1.0001e-2], [100.0, -1e-2], [-100.0, 0.0]])
    found = ExactSearch(bank, [0, 3])(torch.tensor([[100.0, 0.0]]))
    assert found.index.tolist() == [1]
    assert found.distance.item() == pytest.approx(1e-2, rel=1e-6)


def test_rows_all_alike_are_not_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = counted(monkeypatch)
    bank = torch.ones(ROWS, 4).index_put_((torch.tensor([7]),), torch.zeros(4))
    found = ExactSearch(bank, EDGES)(torch.ones(3, 4))
    assert not found.distance.any() and 7 not in found.index.tolist()
    assert compared == [3, 0]


def test_a_half_precision_bank_is_searched_as_it_is_kept() -> None:
    bank = torch.tensor([[1.0001, 0.0], [5.0, 5.0]]).half()
    found = ExactSearch(bank, [0, 2])(torch.tensor([[1.0001, 0.0]]))
    assert found.distance.item() == pytest.approx(float(1.0001 - bank[0, 0].float()), rel=1e-3)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs are compared directly, call by call."""
    compared = []

    def counting(queries: Tensor, query: Tensor, bank: Tensor, row: Tensor) -> Tensor:
        compared.append(len(row))
        return distances(queries, query, bank, row)

    monkeypatch.setattr(exact_search, "distances", counting)
    return compared


def test_distances_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_search, "PAIRS", 2)
    queries, bank = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.0], [0.0, 0.0]])
    pairs = torch.tensor([[0, 0], [1, 1], [1, 2]]).T
    assert distances(queries, pairs[0], bank, pairs[1]).tolist() == [1.0, 4.0, 5.0]
    assert queries.tolist() == [[0, 0], [3, 4]]


def test_few_rows_are_compared_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = spectrum(0, ROWS, decay=1.5), spectrum(1, 50, decay=1.5)
    compared = counted(monkeypatch)
    search(bank)(queries)
    assert compared[0] == 50 and compared[1] < 4 * 50


def test_the_nearest_of_two_rows_alike_in_the_components() -> None:
    # one component, along the first axis; what decides lies along the second and third
    bank = torch.cat((torch.eye(3)[[0]] * torch.linspace(-50, 50, ROWS - 2)[:, None], torch.zeros(2, 3)))
    bank[-2], bank[-1] = torch.tensor([0.2, 0.0, 4.0]), torch.tensor([0.2, 4.0, 0.0])
    found = search(bank, components=1)(torch.tensor([[0.2, 4.1, 0.0], [0.2, 0.0, 4.1]]))
    assert found.index.tolist() == [ROWS - 1, ROWS - 2]


def test_distances_to_blocks_are_near_the_true_ones() -> None:
    bank, queries = spectrum(0, ROWS), spectrum(1, 200)
    found = search(bank)(queries)
    expected = nearest_of_blocks(queries, bank)
    assert float((found.by_block / expected - 1).abs().mean()) < 0.03
    # the block of the nearest row is as far as that row
    own = torch.tensor([sum(edge <= i for edge in EDGES) - 1 for i in found.index.tolist()])
    torch.testing.assert_close(found.by_block[own, torch.arange(200)], found.distance, rtol=0.02, atol=1e-4)


def test_where_many_rows_may_be_nearer_blocks_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_search, "MANY", 0)
    bank, queries = spectrum(0, ROWS), spectrum(1, 20)
    found = search(bank)(queries)
    torch.testing.assert_close(found.by_block, nearest_of_blocks(queries, bank), rtol=1e-3, atol=1e-3)


def test_the_basis_is_orthonormal_and_holds_most_of_the_variance() -> None:
    rows = torch.randn(500, 300, generator=torch.Generator().manual_seed(0)) / torch.arange(1, 301) + 5
    basis = LowerBound.fit(rows.half(), COMPONENTS).basis
    assert basis.shape == (300, COMPONENTS)
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), rtol=0, atol=1e-5)
    x = rows - rows.mean(0)
    best = torch.linalg.svdvals(x)[: basis.shape[1]].square().sum()
    assert float((x @ basis).square().sum() / best) > 0.999


def test_short_vectors_and_small_banks_are_not_worth_it() -> None:
    assert worth_it(torch.empty(2048, 512))
    assert not worth_it(torch.empty(2047, 512)) and not worth_it(torch.empty(2048, 511))


def test_fast_products_leave_no_trace() -> None:
    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    with pytest.raises(KeyError), fast_products():
        raise KeyError
    assert products.fp32_precision == before


def test_fast_products_are_as_precise_as_float32() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(300, 700, generator=g), torch.randn(700, 300, generator=g)
    with fast_products():
        product = a @ b
    torch.testing.assert_close(product.double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)


def test_where_they_are_not_products_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    for exact in (False, True):
        monkeypatch.setattr(matrix_products, "_onednn_is_exact", lambda exact=exact: exact)
        with fast_products():
            assert products.fp32_precision == ("bf16" if exact else before)


def test_rounding_to_bfloat16_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    multiply = torch.Tensor.__matmul__

    def rounded(a: Tensor, b: Tensor) -> Tensor:
        return multiply(a.bfloat16(), b.bfloat16()).float() if a.dtype == torch.float32 else multiply(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert matrix_products._onednn_is_exact.__wrapped__() is False


def test_bounds_hold_however_they_are_rounded() -> None:
    """The computed bound of every pair stays below its true distance and the slack."""
    bank, queries = spectrum(0, ROWS, decay=2), spectrum(1, 100, decay=2)
    through = search(bank)
    short = through._shortened(queries)
    tiled = through._tiled[through._tiled[:, -1].isfinite()]
    rows, bound = -tiled[:, :-1], torch.nn.functional.pad(short, (0, 1), value=1.0) @ tiled.T
    excess = 2 * bound + short.square().sum(1)[:, None] - apart(queries, bank).float().square()
    allowed = 2 * SLACK * (short.square().sum(1)[:, None] + rows.square().sum(1).max())
    assert (excess <= allowed).all()
    assert float((excess / allowed).max()) < 0.5  # with room to spare
