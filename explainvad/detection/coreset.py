"""Greedy k-centre coreset: few rows that leave no row of the full set far from its nearest one.

Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach" (ICLR 2018), as
PatchCore uses it (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, alg. 1). The
greedy choice is at most twice as far from the worst row as the best possible choice.

The picks are those of the plain algorithm, made lazily. Distances to the nearest pick only fall, so while the
farthest of a block of candidates is no nearer than any row outside of it was when the block was taken, it is the
farthest of all. Picks are therefore made within the block, and the rows outside meet all of them later in one matrix
product, which the memory's bandwidth does not bound as it does a product with a single pick. Long rows meet them in
short first (``lower_bound``), and in full only where a pick may be nearer than the nearest before.
"""

from __future__ import annotations

import torch
from torch import Tensor

from explainvad.detection.lower_bound import DIMENSION, SLACK, LowerBound

BLOCK = 1024  # candidates
BURST = 32  # picks at most before looking whether they were still the farthest: a wait for the device
CHUNK_ELEMENTS = 1 << 19  # of the distances held at a time: 2 MiB, to stay in the cache
WIDE_ELEMENTS = 1 << 20  # of the rows widened to float32 at a time: 4 MiB
LONG = 4 * DIMENSION  # dimensions from which the bound is worth its while
GATHERED = 64  # products in one matrix product that cost as much as a single one by itself


def greedy_k_centre(rows: Tensor, count: int, generator: torch.Generator, projection: int | None = None) -> Tensor:
    """Pick ``count`` of (N, d) rows, float32 or float16; returns their indices, int64 (count,), in the order picked.

    The first is random. With ``projection``, and d larger than it, distances are taken in a random projection to that
    many dimensions, as the paper does (Johnson-Lindenstrauss), and the worst row ends up some 15 % farther off.
    Raises ValueError for rows that are not finite.
    """
    n, d = rows.shape
    if count >= n:
        return torch.arange(n, device=rows.device)
    if count < 1:
        raise ValueError(f"a coreset has at least one row, got count = {count}")
    space = _Space(_projected(rows, generator, projection) if projection and d > projection else rows)
    picked = torch.empty(count, dtype=torch.int64, device=rows.device)
    picked[0] = torch.randint(n, (1,), generator=generator).item()
    nearest = torch.full((n,), torch.inf, device=rows.device)  # squared distance to the nearest pick, -inf of a pick
    old, done = 0, 1
    while True:
        space.approach(nearest, picked[old:done])
        if done == count:
            return picked
        value, candidate = nearest.topk(min(BLOCK, n - 1) + 1)
        # no row outside of the block is farther than the last value
        places = _pick_within(space.between(candidate[:-1]), value[:-1], value[-1], count - done)
        old, done = done, done + len(places)
        picked[old:done] = candidate[places]


def _pick_within(between: Tensor, value: Tensor, cut: Tensor, most: int) -> Tensor:
    """Pick from candidates (m,), ``most`` at most, while the farthest is no nearer than ``cut``; returns their places.

    ``between`` (m, m) are squared distances among them, and ``value`` (m,) those to the nearest pick so far.
    """
    between.fill_diagonal_(-torch.inf)  # rounding must not let a row be picked twice
    places = torch.empty(most, dtype=torch.int64, device=value.device)
    farthest = torch.empty(most, device=value.device)
    done, burst = 0, 1
    while True:
        stop = min(done + burst, most)
        for i in range(done, stop):
            here = slice(i, i + 1)
            torch.max(value, 0, keepdim=True, out=(farthest[here], places[here]))
            torch.minimum(value, between.index_select(0, places[here])[0], out=value)
        # values only fall, so those that count come first; the very first always does
        kept = done + int((farthest[done:stop] >= cut).sum())
        if kept < stop or stop == most:
            return places[:kept]
        done, burst = stop, min(2 * burst, BURST)


class _Space:
    """Squared distances among rows (N, d), as ||x||^2 + ||c||^2 - 2 x.c about their mean."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.step = max(1, WIDE_ELEMENTS // rows.shape[1])
        # centring shrinks the norms, and with them the cancellation in the expansion
        self.mean = torch.stack([part.float().sum(0) for part in rows.split(self.step)]).sum(0) / len(rows)
        self.norm = torch.cat([(part.float() - self.mean).square().sum(1) for part in rows.split(self.step)])
        if not self.norm.isfinite().all():
            raise ValueError("rows of a coreset must be finite numbers, got inf or nan among them")
        self.short = LowerBound.fit(rows).of(rows) if rows.shape[1] >= LONG else None

    def between(self, index: Tensor) -> Tensor:
        """Distances (m, m) among some rows."""
        x = self.rows[index].float() - self.mean
        return torch.addmm(self.norm[index], x, x.T, alpha=-2).add_(self.norm[index, None])

    def approach(self, nearest: Tensor, picks: Tensor) -> None:
        """Lower ``nearest`` (N,) to the distance of the new picks where they are nearer."""
        centres = (self.rows[picks].float() - self.mean).T.contiguous()
        step = max(1, min(self.step, CHUNK_ELEMENTS // len(picks)))
        for start in range(0, len(nearest), step):
            part = slice(start, start + step)
            if self.short is None or not self._approach_few(nearest, part, picks, self.short):
                x = self.rows[part].float() - self.mean
                closest = torch.addmm(self.norm[picks], x, centres, alpha=-2).amin(1).add_(self.norm[part])
                torch.minimum(nearest[part], closest, out=nearest[part])
        nearest[picks] = -torch.inf

    def _approach_few(self, nearest: Tensor, part: slice, picks: Tensor, short: Tensor) -> bool:
        """The same for the rows in ``part`` where the bound lets few of them through; False where it does not."""
        short_norm = short[picks].square().sum(1)
        bound = torch.addmm(short_norm, short[part], short[picks].T, alpha=-2)
        few = bound.numel() // GATHERED
        slack = SLACK * self.norm[part] - short[part].square().sum(1)
        rows = torch.nonzero(bound.amin(1) < nearest[part] + slack)[:, 0]
        if len(rows) > few:
            return False
        # the pick with the least bound first: it rules most of the others out
        bound, slack = bound[rows], slack[rows]
        rows += part.start
        best = bound.argmin(1)
        self._meet(nearest, rows, picks[best])
        bound.scatter_(1, best[:, None], torch.inf)
        row, pick = torch.nonzero(bound < (nearest[rows] + slack)[:, None], as_tuple=True)
        if len(row) > few:
            return False
        self._meet(nearest, rows[row], picks[pick])
        return True

    def _meet(self, nearest: Tensor, rows: Tensor, picks: Tensor) -> None:
        """Lower ``nearest`` of each of ``rows`` to its distance from the pick beside it."""
        step = max(1, CHUNK_ELEMENTS // self.rows.shape[1])
        for row, pick in zip(rows.split(step), picks.split(step), strict=True):
            distance = (self.rows[row].float() - self.rows[pick].float()).square_().sum(1)
            nearest.scatter_reduce_(0, row, distance, "amin")


def _projected(rows: Tensor, generator: torch.Generator, projection: int) -> Tensor:
    """Rows (N, d) in ``projection`` dimensions, float32."""
    matrix = torch.randn(rows.shape[1], projection, generator=generator).to(rows.device)
    return torch.cat([part.float() @ matrix for part in rows.split(max(1, WIDE_ELEMENTS // rows.shape[1]))])
