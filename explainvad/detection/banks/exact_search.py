"""Exact nearest rows of a bank and of its blocks; where vectors are long, most rows are ruled out by a few components.

The stand-ins of :mod:`explainvad.detection.lower_bound` give a bound that is one product of short vectors, and close
where the components hold most of what tells patches apart. Without a basis the bound is the distance itself, up to
rounding. Only rows whose bound lies below the distance of the row with the least one can be nearer than that row; those
are compared directly, because the expanded square loses half of the digits of small distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.lower_bound import LowerBound
from explainvad.detection.matrix_products import fast_products

CHUNK_ELEMENTS = 1 << 23  # of the bounds held at a time: 32 MiB
PAIRS = 512  # of rows that are compared at a time
TILE = 32  # rows of one block whose least bound is looked at together
MANY = 48  # rows that are compared directly for a query
SLACK = 1e-5  # of squared lengths about the centre, for the rounding of bounds
COMPONENTS = 126  # with what they leave and the half norm, 128 columns
LEAST_ROWS, LEAST_LENGTH = 2048, 4 * (COMPONENTS + 2)  # of a bank and its vectors, for components to save time


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What lies nearest to each of Q queries; Euclidean distances."""

    distance: Tensor  # (Q,) to the nearest row
    index: Tensor  # int64 (Q,) of it
    by_block: Tensor  # (blocks, Q) to the nearest row of each block, never below ``distance``


class ExactSearch:
    """Nearest rows of ``bank`` (M, d), float16 or float32; ``edges[i]`` to ``edges[i + 1]`` is block i, not empty.

    ``basis`` (d, r) is orthonormal, or None. With one, distances to blocks are estimated: the bound, and what the
    nearest row's distance has beyond its own; and queries with more than MANY rows below their limit, such as patches
    unlike any in the bank, are searched without it.
    """

    def __init__(self, bank: Tensor, edges: Sequence[int], basis: Tensor | None = None) -> None:
        self.bank, self.edges = bank, edges
        rows = bank.float()
        self._centre = rows.mean(0)
        self._bound = None if basis is None else LowerBound(self._centre, basis)
        # Every block begins with a tile of its own: the tiles' least bounds then tell those of the blocks
        sizes = torch.tensor(edges).diff()
        tiles = (sizes + TILE - 1) // TILE
        self._tiles = [0, *tiles.cumsum(0).tolist()]
        moved = torch.tensor(self._tiles[:-1]) * TILE - torch.tensor(edges[:-1])
        row = torch.arange(len(bank))
        place = row + moved.repeat_interleave(sizes)
        short = self._shortened(rows)
        norm = short.square().sum(1)
        self._row = torch.zeros(self._tiles[-1] * TILE, dtype=torch.int64).index_copy_(0, place, row)
        # Less each row, and half of its squared length: a plain product with (q, 1) is faster than one and a sum
        self._tiled = short.new_zeros((len(self._row), short.shape[1] + 1))
        self._tiled[:, -1] = torch.inf
        self._tiled.index_copy_(0, place, torch.cat((-short, norm[:, None] / 2), dim=1))
        self._slack = SLACK * float(norm.max())

    @cached_property
    def _whole(self) -> ExactSearch:
        """The same without the basis, made when it is first needed."""
        return ExactSearch(self.bank, self.edges)

    def _shortened(self, rows: Tensor) -> Tensor:
        """Rows (n, d) about the centre; with a basis (n, r + 1), components and the length of what they leave."""
        return rows - self._centre if self._bound is None else self._bound.of(rows)

    def __call__(self, queries: Tensor) -> Found:
        """Find the nearest rows of queries (Q, d), float32."""
        chunk = max(1, CHUNK_ELEMENTS // len(self._tiled))
        parts = [self._search(part) for part in queries.split(chunk)]
        return Found(
            torch.cat([p.distance for p in parts]),
            torch.cat([p.index for p in parts]),
            torch.cat([p.by_block for p in parts], dim=1),
        )

    def _search(self, queries: Tensor) -> Found:
        short, each = self._shortened(queries), torch.arange(len(queries))
        norm = short.square().sum(1)
        with fast_products():
            # half of the squared bound, less half of the query's squared length
            bound = F.pad(short, (0, 1), value=1.0) @ self._tiled.T
        tiles = bound.view(len(queries), -1, TILE)
        least = tiles.amin(2)
        # The row with the least bound sets the limit
        tile = least.argmin(1)
        place = tile * TILE + tiles[each, tile].argmin(1)
        distance = distances(queries, None, self.bank, self._row[place])
        limit = (distance.square() - norm) / 2 + SLACK * norm + self._slack
        # Compare the others below it directly
        query, tile = torch.nonzero(least <= limit[:, None], as_tuple=True)
        near = bound.view(-1, TILE).index_select(0, query * tiles.shape[1] + tile)
        pair, within = torch.nonzero(near <= limit[query, None], as_tuple=True)
        query, other = query[pair], tile[pair] * TILE + within
        many = query.bincount(minlength=len(queries)) > MANY
        others = (other != place[query]) & ~many[query]
        query, other = query[others], other[others]
        apart = distances(queries, query, self.bank, self._row[other])
        distance.scatter_reduce_(0, query, apart, "amin")
        nearer = apart == distance[query]
        place[query[nearer]] = other[nearer]
        # Judge the blocks
        by_block = torch.stack([least[:, low:high].amin(1) for low, high in pairwise(self._tiles)])
        by_block = (2 * (by_block - bound[each, place]) + distance.square()).clamp_min_(0).sqrt_()
        found = Found(distance, self._row[place], torch.maximum(by_block, distance))
        if self._bound is not None and many.any():
            whole = self._whole(queries[many])
            found.distance[many], found.index[many], found.by_block[:, many] = (
                whole.distance,
                whole.index,
                whole.by_block,
            )
        return found


def distances(queries: Tensor, query: Tensor | None, bank: Tensor, row: Tensor) -> Tensor:
    """Euclidean distance (P,) of the pairs ``queries[query[i]]`` and ``bank[row[i]]``, a few at a time in the cache.

    Without ``query``, of ``queries[i]``.
    """
    apart = torch.empty(len(row))
    for start in range(0, len(row), PAIRS):
        part = slice(start, start + PAIRS)
        # index_select and a difference of one type take a third of the time that indexing and mixed types do
        asked = queries[part] if query is None else queries.index_select(0, query[part])
        difference = bank.index_select(0, row[part]).float().sub_(asked)
        torch.linalg.vector_norm(difference, dim=1, out=apart[part])
    return apart


def worth_it(bank: Tensor) -> bool:
    """Whether components save time in searching a bank (M, d)."""
    return len(bank) >= LEAST_ROWS and bank.shape[1] >= LEAST_LENGTH
