"""Exact nearest neighbours, in chunks, without a full distance matrix."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22  # of the distance block held at a time: 16 MiB; smaller ones take up to a fifth longer
BLOCK = 512  # rows; the place of a minimum is looked for in one block of them only


def nearest(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance (Q,) and index (Q,) of the nearest of ``bank`` (M, d) for each of ``queries`` (Q, d).

    The neighbour is found by the expanded square, and its distance then computed directly, because the expansion
    loses half of the digits of small distances.
    """
    distance, index, _ = nearest_by_block(queries, bank, [*range(0, len(bank), BLOCK), len(bank)])
    return distance, index


def nearest_by_block(queries: Tensor, bank: Tensor, edges: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and the distance (blocks, Q) to the nearest row of each block bank[edges[i]:edges[i + 1]].

    Blocks must not be empty. Distances to blocks come from the expansion, so they agree with the direct ones to some
    1e-3 where rows coincide, and to about 1e-6 elsewhere, for vectors of unit length.
    """
    bank_norm = bank.square().sum(1)
    query_norm = queries.square().sum(1)
    chunk = max(1, CHUNK_ELEMENTS // len(bank))
    index = torch.empty(len(queries), dtype=torch.int64)
    squared = torch.empty(len(edges) - 1, len(queries))
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        partial = torch.addmm(bank_norm, queries[part], bank.T, alpha=-2)
        for i, (low, high) in enumerate(pairwise(edges)):
            squared[i, part] = partial[:, low:high].amin(1)
        # the search for the place of the minimum is slow, so it is made in the nearest block only
        block = squared[:, part].argmin(0)
        for i in block.unique().tolist():
            rows = torch.nonzero(block == i)[:, 0]
            index[start + rows] = edges[i] + partial[rows, edges[i] : edges[i + 1]].argmin(1)
    distance = (queries - bank[index]).norm(dim=1)
    return distance, index, (squared + query_norm).clamp_min_(0).sqrt_()
