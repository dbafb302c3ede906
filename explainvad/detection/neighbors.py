"""Exact nearest neighbours, in chunks, without a full distance matrix."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 20  # of the distance block held at a time: 4 MiB


def nearest(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance (Q,) and index (Q,) of the nearest of ``bank`` (M, d) for each of ``queries`` (Q, d).

    The neighbour is found by the expanded square, and its distance then computed directly, because the expansion
    loses half of the digits of small distances.
    """
    bank_norm = bank.square().sum(1)
    chunk = max(1, CHUNK_ELEMENTS // len(bank))
    index = torch.cat([torch.addmm(bank_norm, q, bank.T, alpha=-2).argmin(1) for q in queries.split(chunk)])
    return (queries - bank[index]).norm(dim=1), index
