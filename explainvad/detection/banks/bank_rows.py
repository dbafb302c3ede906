"""Which patches become rows of a bank: a coreset of all, one of each image, or what an older bank does not cover."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from explainvad.detection.banks.searches import Search
from explainvad.detection.coreset import greedy_k_centre
from explainvad.detection.neighbors import nearest
from explainvad.detection.streaming_coreset import StreamingCoreset

CHUNK_ELEMENTS = 1 << 21  # of distances held at a time: 8 MiB

Parts = Iterable[tuple[Tensor, Tensor]]  # of an image: patches (n, d), and their origins (n, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Rows of a bank, where each comes from, and how many patches they were chosen from."""

    rows: Tensor  # float16 (M, d)
    origin: Tensor  # int64 (M, 3): image, row, column
    seen: int
    left: Tensor | None = (
        None  # float16 (N, d): patches of the last image that are no rows, like those to be searched for
    )

    def __getitem__(self, picked: Tensor) -> Chosen:
        return Chosen(self.rows[picked], self.origin[picked], self.seen, self.left)


def of_all(parts: Parts, share: float, most: int, generator: torch.Generator) -> Chosen:
    """A coreset of all patches: their ``share``, or ``most``."""
    coreset = StreamingCoreset(share, generator, max_rows=most)
    for patches, owner in parts:
        coreset.add(patches, owner)
    rows, origin = coreset.result()
    # compared by their cells, of which views of one image may share some
    kept = {tuple(cell) for cell in origin[origin[:, 0] == owner[-1, 0]].tolist()} if len(owner) else set()
    left = patches[[tuple(cell) not in kept for cell in owner.tolist()]].half()
    return Chosen(rows, origin, coreset.seen, left if len(left) else None)


def of_each(parts: Parts, most: int, generator: torch.Generator) -> Chosen:
    """A coreset of each image's own patches, ``most`` rows."""
    rows, origins, seen = [], [], 0
    for patches, origin in parts:
        picked = greedy_k_centre(patches, min(most, len(patches)), generator)
        rows.append(patches[picked].half())
        origins.append(origin[picked])
        seen += len(patches)
    return Chosen(torch.cat(rows), torch.cat(origins), seen)


def beyond(parts: Parts, search: Search, radius: float, share: float) -> Chosen:
    """Of each image, the patches farthest from the bank and from what was taken, while farther than ``radius``.

    A ``share`` of its patches at most.
    """
    taken = [torch.empty(0, search.bank.shape[1])]
    origins = [torch.empty(0, 3, dtype=torch.int64)]
    seen = 0
    for patches, origin in parts:
        patches = patches.half().float()  # as they will be searched
        distance = search(patches).distance
        if len(taken) > 1:
            distance = torch.minimum(distance, nearest(patches, torch.cat(taken))[0])
        for _ in range(max(1, round(share * len(patches)))):
            farthest = distance.argmax()
            if distance[farthest] <= radius:
                break
            taken.append(patches[farthest, None])
            origins.append(origin[farthest, None])
            torch.minimum(distance, (patches - patches[farthest]).norm(dim=1), out=distance)
        seen += len(patches)
    return Chosen(torch.cat(taken).half(), torch.cat(origins), seen)


def nearest_pair(rows: Tensor) -> float:
    """The smallest distance between two of (M, d) rows; 0 where there is only one."""
    if len(rows) < 2:
        return 0.0
    smallest = torch.inf
    for start in range(0, len(rows), chunk := max(1, CHUNK_ELEMENTS // len(rows))):
        distance = torch.cdist(rows[start : start + chunk], rows)
        distance[torch.arange(len(distance)), start + torch.arange(len(distance))] = torch.inf
        smallest = min(smallest, float(distance.min()))
    return smallest
