"""Which search a bank gets: exact as long as it is not large, quantised beyond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from explainvad.detection.banks.exact_search import COMPONENTS, ExactSearch, Found, worth_it
from explainvad.detection.lower_bound import LowerBound
from explainvad.detection.patch_index import EXACT_ROWS, PatchIndex

CANDIDATES = 8  # nearest rows that a quantised search asks for; of each several times as many are compared


class Search(Protocol):
    """A bank whose rows are dealt to consecutive blocks."""

    bank: Tensor  # (M, d)

    def __call__(self, queries: Tensor) -> Found:
        """Find the nearest rows of queries (Q, d), float32."""
        ...


class QuantisedSearch:
    """By a :class:`PatchIndex`; blocks are judged by the CANDIDATES nearest rows that it finds.

    A block with no row among them is taken to be as far as the last of them: it lies no nearer, so members understate
    how much they miss it.
    """

    def __init__(self, index: PatchIndex, edges: Sequence[int]) -> None:
        self.bank, self._index, self._blocks = index.bank, index, len(edges) - 1
        sizes = torch.tensor([high - low for low, high in pairwise(edges)])
        self._block = torch.arange(self._blocks).repeat_interleave(sizes)  # of each row

    def __call__(self, queries: Tensor) -> Found:
        """Find the nearest rows of queries (Q, d), float32."""
        distance, index = self._index.search(queries, min(CANDIDATES, len(self.bank)))
        by_block = distance[:, -1].repeat(self._blocks, 1)
        by_block.scatter_reduce_(0, self._block[index.T], distance.T, "amin")
        return Found(distance[:, 0], index[:, 0], by_block)


def prepare_search(
    bank: Tensor, *, exact: bool, quantised: bool, seed: int, held_out: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The arrays, the bank (M, d) among them, and facts from which :func:`make_search` makes its search.

    A bank of more than EXACT_ROWS rows is searched by its codes, with ``quantised`` already one that is large enough
    for codes to save time; with ``exact`` none is. ``held_out`` (N, d) are patches like those to be searched for.
    """
    if not exact and (quantised or len(bank) > EXACT_ROWS):
        arrays, facts = PatchIndex(bank, quantised=quantised, seed=seed, held_out=held_out).state()
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, facts
    facts = {"search": f"exact over {len(bank):,} rows"}
    if not worth_it(bank):
        return {"bank": bank}, facts
    return {"bank": bank, "basis": LowerBound.fit(bank, COMPONENTS, seed).basis}, facts


def make_search(arrays: Mapping[str, Tensor], facts: Mapping[str, str], edges: Sequence[int]) -> Search:
    """The search over arrays that :func:`prepare_search` gave, or over some of their rows; ``edges`` of the blocks."""
    if "codes" in arrays:
        index = PatchIndex.restore({name: array.numpy() for name, array in arrays.items()}, facts)
        return QuantisedSearch(index, edges)
    return ExactSearch(arrays["bank"], edges, arrays.get("basis") if worth_it(arrays["bank"]) else None)
