"""Nearest rows of a bank of any size: exact as long as it is small, by short codes and exact re-ranking beyond.

Jégou, Douze & Schmid, "Product Quantization for Nearest Neighbor Search" (TPAMI 2011), as faiss has it (Douze et al.,
"The Faiss library", 2024): rows are dealt to lists around centroids, and a query looks through the codes of few lists,
in any bank of about as many rows: from 10^5 to 10^7 rows a search takes less than twice as long. The best ones are
then compared in full: distances are exact and only neighbours can be missed; how many are is measured.

Codes have 4 bits for each dimension of what a row differs by from its list's centroid (André, Kermarrec & Le Scouarnec,
"Quicker ADC", TPAMI 2021). Of long rows, the stand-ins are coded (``lower_bound``), and choose which of the candidates
are compared in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explainvad.detection.lower_bound import DIMENSION, LowerBound

EXACT_ROWS = 100_000  # up to which a bank is searched exactly
LEAST_ROWS = 2048  # below which it is in any case
LIST_ROWS = 1024  # in a list, on average, up to
MOST_LISTS = 1 << 14  # then they grow, so that finding the nearest ones takes no longer either
EACH_TRAINED = 64  # rows a list that its centroid is fitted to
ROUNDS = 8  # of k-means
LONG = 3 * DIMENSION  # dimensions from which rows are coded by their stand-ins
# Rows looked through and candidates compared: the first that finds RECALL of the neighbours is taken, else the last.
# Candidates come before rows: the more lists, the coarser faiss's 8 bits for distances within and between them.
EFFORTS = (
    *((1 << 12, 32), (1 << 13, 32), (1 << 13, 64), (1 << 13, 128), (1 << 13, 256)),
    *((1 << 14, 512), (1 << 15, 512), (1 << 16, 512), (1 << 17, 512)),
)
RECALL = 0.99
HELD_OUT = 512  # queries that choose the effort and measure it, half of them each
TRUST = 0.99  # in stand-ins, which half precision rounds
CACHED = 1 << 17  # elements of rows that are compared at a time: 512 KiB
AT_ONCE = 1 << 21  # elements of rows, or of distances, that are held in float32 at a time
LOOKED_AT = 1 << 13  # lists of all queries that are looked through at a time; each takes a table of some 5 KiB
# More lists are in groups, GROUPS times the root of their number, and the nearest ones are sought in PROBED groups
MANY_LISTS, GROUPS, PROBED = 1 << 10, 2, 20


class PatchIndex:
    """Finds the nearest rows of ``bank`` (M, d), float32 or float16; ``quantised`` does without waiting for EXACT_ROWS.

    ``held_out`` (N, d) are rows like those that will be asked for; without them, rows of the bank are asked for the
    nearest other one, which in a coreset is harder. ``facts`` say what was found. Deterministic.
    """

    def __init__(self, bank: Tensor, *, quantised: bool = False, seed: int = 0, held_out: Tensor | None = None) -> None:
        self.bank = bank
        self.facts = {"search": f"exact over {len(bank):,} rows"}
        self._codes: _Codes | None = None
        if len(bank) >= LEAST_ROWS and (quantised or len(bank) > EXACT_ROWS):
            self._codes = _Codes.train(bank, seed)
            self._tune(held_out)

    @property
    def quantised(self) -> bool:
        """Whether neighbours may be missed."""
        return self._codes is not None

    def search(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Euclidean distance, float32 (Q, k), and index, int64 (Q, k), of the k nearest rows, nearest first."""
        if not 1 <= k <= len(self.bank):
            raise ValueError(f"k must be from 1 to the {len(self.bank):,} rows of the bank, got {k}")
        queries = queries.float()
        if self._codes is None:
            return _exhaustive(queries, self.bank, k)
        distance, index = self._codes.search(queries, k)
        # Lists may hold fewer than k rows between them
        short = torch.nonzero(distance[:, -1].isinf())[:, 0]
        if len(short):
            distance[short], index[short] = _exhaustive(queries[short], self.bank, k)
        return distance, index

    def _tune(self, held_out: Tensor | None) -> None:
        """Choose the effort on half of the queries, and measure the recall on the others."""
        assert self._codes is not None
        asked = self.bank if held_out is None else held_out
        place = torch.linspace(0, len(asked) - 1, min(HELD_OUT, len(asked))).long()
        queries = asked[place].float()
        # a row of the bank finds itself first, a held-out one does not
        k, itself = (2, place) if held_out is None else (1, torch.full_like(place, -1))
        least = _nearest_other(*_exhaustive(queries, self.bank, k), itself)
        for rows, compared in EFFORTS:
            self._codes.work(rows, compared)
            found = _nearest_other(*self.search(queries, k), itself) <= least * (1 + 1e-5)
            if found[::2].float().mean() >= RECALL:
                break
        self.facts = {
            "search": self._codes.text,
            "recall": f"{found[1::2].float().mean():.3f} of nearest rows found, for {len(found[1::2])} "
            + ("of its rows, each without itself" if held_out is None else "held-out patches"),
        }

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        """Plain arrays and facts from which :meth:`restore` makes the same index."""
        arrays = {"bank": self.bank.numpy()}
        return arrays | (self._codes.state() if self._codes else {}), dict(self.facts)

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> Self:
        """The inverse of :meth:`state`; nothing is trained anew."""
        index = cls.__new__(cls)
        index.bank, index.facts = torch.from_numpy(arrays["bank"]), dict(facts)
        index._codes = _Codes.restore(index.bank, arrays) if "codes" in arrays else None
        return index


class _Codes:
    """Lists of codes in faiss, of rows or of their stand-ins."""

    def __init__(self, bank: Tensor, bound: LowerBound | None) -> None:
        self.bank, self.bound, self.compared = bank, bound, 0
        self.index: Any = None
        self.stand_ins = bank if bound is None else bound.of(bank).to(bank.dtype)

    @classmethod
    def train(cls, bank: Tensor, seed: int) -> _Codes:
        """Fit lists and codes to evenly spaced rows, and code all."""
        codes = cls(bank, LowerBound.fit(bank) if bank.shape[1] >= LONG else None)
        n, d = codes.stand_ins.shape
        lists = min(max(1, n // LIST_ROWS), MOST_LISTS)
        sample = torch.linspace(0, n - 1, min(n, max(lists * EACH_TRAINED, 1 << 14))).long()
        with _faiss() as faiss:
            codes.index = _empty_index(faiss, d, lists, seed)
            codes.index.train(codes.stand_ins[sample].float().numpy())
            for part in codes.stand_ins.split(AT_ONCE // d):
                codes.index.add(part.float().numpy())
        return codes

    def work(self, rows: int, compared: int) -> None:
        """Look through as many lists as hold about so many rows, and compare so many candidates."""
        lists = round(rows * self.index.nlist / len(self.bank))
        self.index.nprobe, self.compared = min(max(1, lists), self.index.nlist), compared

    @property
    def text(self) -> str:
        """For the model card."""
        coded = f"4 bits for each of {self.index.d} dimensions"
        return (
            f"{coded}, {self.index.nprobe} of {self.index.nlist:,} lists, {self.compared} candidates compared exactly"
        )

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distance and index (Q, k) of the nearest that the codes lead to; inf and -1 where there are fewer."""
        short = queries.contiguous() if self.bound is None else self.bound.of(queries)
        count = max(self.compared, 4 * k)
        with _faiss():
            parts = [
                self.index.search(part.numpy(), count)[1]
                for part in short.split(max(1, LOOKED_AT // self.index.nprobe))
            ]
        index = torch.from_numpy(np.concatenate(parts))
        distance = _apart(short, self.stand_ins, index, index >= 0)
        if self.bound is not None:
            # In full the k best ones, and others only where the stand-in is no farther than those are in full
            place = distance.topk(k, largest=False)[1]
            best = index.gather(1, place)
            whole = _apart(queries, self.bank, best, best >= 0)
            others = (TRUST * distance < whole.amax(1, keepdim=True)).scatter_(1, place, False)
            distance = _apart(queries, self.bank, index, others).scatter_(1, place, whole)
        return _best(distance, index, k)

    def state(self) -> dict[str, NDArray[Any]]:
        """Plain arrays."""
        with _faiss() as faiss:
            arrays = {"codes": faiss.serialize_index(self.index), "compared": np.array([self.compared])}
        if self.bound is not None:
            arrays |= {"mean": self.bound.mean.numpy(), "basis": self.bound.basis.numpy()}
        return arrays

    @classmethod
    def restore(cls, bank: Tensor, arrays: Mapping[str, NDArray[Any]]) -> _Codes:
        """The inverse of :meth:`state`."""
        bound = None
        if "basis" in arrays:
            bound = LowerBound(torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["basis"]))
        codes = cls(bank, bound)
        codes.compared = int(arrays["compared"][0])
        with _faiss() as faiss:
            codes.index = faiss.deserialize_index(arrays["codes"])
        return codes


def _empty_index(faiss: Any, d: int, lists: int, seed: int) -> Any:
    """Lists around centroids, and 4 bits for each dimension of what a row differs by from its own; to be trained."""
    groups = round(GROUPS * lists**0.5) if lists > MANY_LISTS else 0
    index = faiss.index_factory(d, f"IVF{lists}{f'(IVF{groups},Flat)' if groups else ''},PQ{d}x4fsr")
    clusterings = [index.cp, index.pq.cp]
    if groups:
        index.quantizer_trains_alone = "\2"  # on the centroids, once they are found
        quantiser = faiss.downcast_index(index.quantizer)
        quantiser.nprobe = PROBED
        quantiser.set_direct_map_type(faiss.DirectMap.Array)  # a list's centroid is asked for by its number
        clusterings.append(quantiser.cp)
    for clustering in clusterings:
        clustering.seed, clustering.niter = seed, ROUNDS
        clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, 1 << 16
    return index


def _exhaustive(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of all rows, found by the expanded square in parts of the bank and then compared directly."""
    spare = min(len(bank), 2 * k)  # rounding of the expansion reorders near ties
    mean = bank[:: max(1, len(bank) // 1024)].float().mean(0)  # shorter vectors lose fewer digits
    centred = queries - mean
    best = torch.empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(bank), step := max(1, AT_ONCE // max(len(queries), bank.shape[1]))):
        rows = bank[start : start + step].float() - mean
        squared = torch.addmm(rows.square().sum(1), centred, rows.T, alpha=-2)
        value, place = squared.topk(min(spare, len(rows)), largest=False)
        best, index = torch.cat((best, value), dim=1), torch.cat((index, place + start), dim=1)
        best, order = best.topk(min(spare, best.shape[1]), largest=False)
        index = index.gather(1, order)
    return _best(_apart(queries, bank, index, index >= 0), index, k)


def _apart(queries: Tensor, bank: Tensor, index: Tensor, wanted: Tensor) -> Tensor:
    """Distances (Q, c) of the rows at ``index`` (Q, c), computed directly; inf where they are not ``wanted``."""
    distance = torch.full(index.shape, torch.inf)
    if wanted.all():  # as is common, and no query need be repeated for each of its rows
        step = max(1, CACHED // (index.shape[1] * bank.shape[1]))
        for asked, rows, out in zip(queries.split(step), index.split(step), distance.split(step), strict=True):
            difference = bank.index_select(0, rows.flatten()).view(*rows.shape, -1).float().sub_(asked[:, None])
            torch.linalg.vector_norm(difference, dim=2, out=out)
        return distance
    query, place = torch.nonzero(wanted, as_tuple=True)
    row = index[query, place]
    squared = torch.empty(len(row))
    for part in torch.arange(len(row)).split(max(1, CACHED // bank.shape[1])):
        squared[part] = (
            bank.index_select(0, row[part]).float().sub_(queries.index_select(0, query[part])).square_().sum(1)
        )
    distance[query, place] = squared.sqrt_()
    return distance


def _best(distance: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k least of distances (Q, c) and their indices, nearest first."""
    distance, place = distance.topk(k, largest=False)
    return distance, index.gather(1, place)


def _nearest_other(distance: Tensor, index: Tensor, itself: Tensor) -> Tensor:
    """Distance (Q,) of the nearest row that is not the query itself, of the nearest found (Q, 1 or 2)."""
    return torch.where(index[:, 0] == itself, distance[:, -1], distance[:, 0])


@contextmanager
def _faiss() -> Iterator[Any]:
    """faiss, on as many threads as torch has; its setting is as it was afterwards. Imported when it is needed."""
    import faiss  # type: ignore[import-untyped,unused-ignore]

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)
