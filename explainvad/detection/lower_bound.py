"""Short stand-ins for long rows, no two of which are farther apart than the rows they stand for.

With an orthonormal basis V and r = x - V V^T x, ||x - y||^2 = ||V^T x - V^T y||^2 + ||r_x - r_y||^2, and the last term
is at least (||r_x|| - ||r_y||)^2. Features of images vary in few directions, so that a bound in 64 of them rules nearly
all rows out before their full distance is computed: what is found this way is exact for any rows, and fast for these.
"""

from __future__ import annotations

import torch
from torch import Tensor

from explainvad.detection.matrix_products import fast_products

DIMENSION = 64  # of the basis, unless told otherwise; multiples of 16 suit the processor
SLACK = 1e-5  # of the squared norm: what rounding may add to a bound
SAMPLE = 4096  # rows that the basis is fitted to
ITERATIONS = 3  # of the subspace; any orthonormal basis gives a valid bound, a good one a tight bound
AT_ONCE = 1024  # rows, which are widened and centred, 6 MiB each where they are long


class LowerBound:
    """A basis fitted to rows (N, d): the directions in which they vary most, about a centre."""

    def __init__(self, mean: Tensor, basis: Tensor) -> None:
        self.mean, self.basis = mean, basis  # (d,), (d, r), float32

    @classmethod
    def fit(cls, rows: Tensor, dimension: int = DIMENSION, seed: int = 0) -> LowerBound:
        """From evenly spaced rows, any float type; d must be at least ``dimension``.

        The basis is about that of the largest principal components, by subspace iteration (Halko, Martinsson & Tropp,
        SIAM Review 2011).
        """
        sample = rows[torch.linspace(0, len(rows) - 1, min(SAMPLE, len(rows)), device=rows.device).long()].float()
        mean = sample.mean(0)
        sample -= mean  # it is a copy
        basis = torch.randn(rows.shape[1], dimension, generator=torch.Generator().manual_seed(seed)).to(sample)
        for _ in range(ITERATIONS):
            basis = torch.linalg.qr(sample.T @ (sample @ basis))[0]
        return cls(mean, basis.contiguous())

    def of(self, rows: Tensor) -> Tensor:
        """Rows (N, d) in short: float32 (N, r + 1), V^T (x - mean) and ||r_x||."""
        short = rows.new_empty((len(rows), self.basis.shape[1] + 1), dtype=torch.float32)
        for part, out in zip(rows.split(AT_ONCE), short.split(AT_ONCE), strict=True):
            x = part.float() - self.mean
            with fast_products():
                out[:, :-1] = x @ self.basis
            out[:, -1] = (
                (torch.linalg.vector_norm(x, dim=1).square() - out[:, :-1].square().sum(1)).clamp_min_(0).sqrt_()
            )
        return short
