"""Coreset of more rows than fit in memory: merge-and-reduce over greedy k-centre.

Rows fill a buffer; a full buffer is reduced to a coreset, and two coresets of equal height in the tree are merged and
reduced to one of the next (Bentley & Saxe, J. Algorithms 1980; Har-Peled & Mazumdar, STOC 2004). Let OPT be the least
radius that as many centres can have over all rows. Of any part of the rows, a greedy choice leaves none further away
than 2 OPT, since one more pick would make two that share an optimal centre. So a row is at most 2 (h + 2) OPT from a
kept one in a tree of height h, where the greedy choice from all rows at once guarantees 2 OPT.
"""

from __future__ import annotations

import torch
from torch import Tensor

from explainvad.detection.coreset import greedy_k_centre

MAX_ROWS = 16_384  # kept, unless told otherwise: 48 MiB at 1,536 dimensions
BUFFER_ROWS = 65_536  # held before they are reduced: 192 MiB at 1,536 dimensions

Coreset = tuple[Tensor, Tensor]  # rows float16 (K, d), owners int64 (K, t)


class StreamingCoreset:
    """Takes rows in parts and keeps few of them, in half precision, with what tells them apart.

    ``share``: of all rows seen, in (0, 1], that the result keeps, ``max_rows`` at most. Where all rows fit into the
    buffer, the result is the greedy choice from all.
    """

    def __init__(self, share: float, generator: torch.Generator, *, max_rows: int = MAX_ROWS) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"the share of rows to keep must be in (0, 1], got {share}")
        if max_rows < 1:
            raise ValueError(f"a coreset has at least one row, got max_rows = {max_rows}")
        self.share, self.max_rows = share, max_rows
        self.seen = 0  # rows
        self._generator = generator
        self._capacity = max(BUFFER_ROWS, 2 * max_rows)
        self._buffer: Coreset | None = None
        self._filled = 0
        self._tree: dict[int, Coreset] = {}  # by height, as the digits of a binary number

    def add(self, rows: Tensor, owner: Tensor) -> None:
        """Take rows (N, d) in, and their ``owner``, int64 (N, t), such as image and cell.

        Raises ValueError for rows that half precision cannot hold.
        """
        if len(rows) != len(owner):
            raise ValueError(f"every row needs its owner: got {len(rows)} rows and {len(owner)} owners")
        halves = _halved(rows)
        if self._buffer is None:
            self._buffer = (
                torch.empty(self._capacity, rows.shape[1], dtype=torch.float16),
                torch.empty(self._capacity, owner.shape[1], dtype=torch.int64),
            )
        self.seen += len(rows)
        taken = 0
        while taken < len(rows):
            room = slice(self._filled, min(self._filled + len(rows) - taken, self._capacity))
            part = slice(taken, taken + room.stop - room.start)
            self._buffer[0][room], self._buffer[1][room] = halves[part], owner[part]
            self._filled, taken = room.stop, part.stop
            if self._filled == self._capacity:
                self._filled = 0
                self._plant(self._reduced(self._buffer, self.max_rows), 0)

    def result(self) -> Coreset:
        """The kept rows, float16 (K, d), and their owners, int64 (K, t). More rows may be added afterwards."""
        return self._reduced(_together(self._parts()), self._kept())

    def _parts(self) -> list[Coreset]:
        parts = list(self._tree.values())
        if self._buffer is not None and self._filled:
            parts.append((self._buffer[0][: self._filled], self._buffer[1][: self._filled]))
        if not parts:
            raise ValueError("a coreset needs rows, but none were added: call add before result")
        return parts

    def _kept(self) -> int:
        held = sum(len(rows) for rows, _ in self._parts())
        return max(1, min(held, self.max_rows, round(self.share * self.seen)))

    def _plant(self, coreset: Coreset, height: int) -> None:
        """Put a coreset into the tree; merging goes on like the carry when one is added to a binary number."""
        while height in self._tree:
            coreset = self._reduced(_together([self._tree.pop(height), coreset]), self.max_rows)
            height += 1
        self._tree[height] = coreset

    def _reduced(self, coreset: Coreset, count: int) -> Coreset:
        rows, owner = coreset
        picked = greedy_k_centre(rows, count, self._generator)
        return rows[picked], owner[picked]


def _halved(rows: Tensor) -> Tensor:
    halves = rows.to("cpu", torch.float16)
    if not halves.isfinite().all():
        raise ValueError(f"rows must be finite and within ±65,504, got one of {float(rows.abs().max()):g}: scale them")
    return halves


def _together(parts: list[Coreset]) -> Coreset:
    if len(parts) == 1:
        return parts[0]
    return torch.cat([rows for rows, _ in parts]), torch.cat([owner for _, owner in parts])
