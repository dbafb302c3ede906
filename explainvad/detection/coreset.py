"""Greedy k-centre coreset: few rows that leave no row of the full set far from its nearest one.

Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach" (ICLR 2018), as
PatchCore uses it (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, alg. 1). The
greedy choice is at most twice as far from the worst row as the best possible choice.
"""

from __future__ import annotations

import torch
from torch import Tensor


def greedy_k_centre(rows: Tensor, count: int, generator: torch.Generator, projection: int = 128) -> Tensor:
    """Pick ``count`` of (N, d) rows; returns their indices, int64 (count,), in the order of picking.

    Distances are taken in a random projection to ``projection`` dimensions where d is larger (Johnson-Lindenstrauss),
    and ||x - c||^2 is expanded to ||x||^2 + ||c||^2 - 2 x.c, so that a pick is one matrix-vector product.
    """
    n, d = rows.shape
    if count >= n:
        return torch.arange(n, device=rows.device)
    x = rows.float()
    if d > projection:
        matrix = torch.randn(d, projection, generator=generator).to(x) / projection**0.5
        x = x @ matrix
    # centring shrinks the norms, and with them the cancellation in the expansion
    x = x - x.mean(0)
    norm = x.square().sum(1)
    picked = torch.empty(count, dtype=torch.int64, device=x.device)
    picked[0] = torch.randint(n, (1,), generator=generator).item()
    nearest = torch.full((n,), torch.inf, device=x.device)
    for i in range(count):
        centre = picked[i]
        distance = norm + norm[centre] - 2 * (x @ x[centre])
        torch.minimum(nearest, distance, out=nearest)
        nearest[centre] = -torch.inf  # rounding must not let a centre be picked twice
        if i + 1 < count:
            picked[i + 1] = nearest.argmax()
    return picked
