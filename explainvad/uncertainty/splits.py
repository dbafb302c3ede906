"""Disjoint splits of the reference images, by part and never by file.

Two pictures of one part are not exchangeable with pictures of different parts: if one trains the scorers and the
other calibrates them, calibration scores come out too small and false rejects too many. Nor do several pictures of
one part multiply n: CAL takes one of each (the "subsampling once" of Dunn, Wasserman & Ramdas, "Distribution-Free
Prediction Sets for Two-Layer Hierarchical Models", JASA 2022), which keeps the p-value of a new part's picture exact.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from explainvad.errors import TooFewImagesError

FRACTIONS = {"FIT": 0.4, "NORM": 0.1, "CAL": 0.5}
SMALLEST = {"FIT": 8, "NORM": 8}  # CAL's smallest size follows from alpha
FEW_GROUPS = 60  # below, half of them would calibrate too coarsely: all fit, and each is judged by the others
SPLIT, LEAVE_ONE_OUT = "split", "leave-one-out"


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of the images of each split, ascending, and how they were grouped.

    ``cal`` has, by cell, one image of each group. In the scheme ``leave-one-out`` the splits are not disjoint: all
    images are in FIT and NORM, and ``parts`` tells which of them must be left out together.
    """

    fit: tuple[int, ...]
    norm: tuple[int, ...]
    cal: Mapping[str, tuple[int, ...]]
    n_groups: int
    grouping: str
    scheme: str = SPLIT
    parts: tuple[int, ...] = ()  # number of each image's group, in leave-one-out

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Split:
        """From what JSON made of the fields."""
        cal = {cell: tuple(indices) for cell, indices in state["cal"].items()}
        fit, norm, parts = (tuple(state[name]) for name in ("fit", "norm", "parts"))
        return cls(fit, norm, cal, state["n_groups"], state["grouping"], state["scheme"], parts)


def grouped_split(
    labels: Sequence[str], grouping: str, seed: int, cal_needed: int, cells: Sequence[str] | None = None
) -> Split:
    """Deal whole groups, in random order: first what each split cannot do without, then FRACTIONS of the images.

    ``cal_needed`` counts groups of each cell, because CAL keeps one image of each group that it is dealt, drawn at
    random, and cells are calibrated by themselves. Groups that were seen in the same cells are dealt together, so that
    every split has its share of each cell; what a split needs counts over all of them.
    Raises TooFewImagesError, naming the numbers, when a split cannot get what it needs.
    """
    cells = cells or [""] * len(labels)
    groups: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(label, []).append(i)
    strata: dict[tuple[str, ...], list[list[int]]] = {}
    for members in groups.values():
        strata.setdefault(tuple(sorted({cells[i] for i in members})), []).append(members)
    n_groups = Counter(cell for seen_in, stratum in strata.items() for cell in seen_in for _ in stratum)
    rng = np.random.default_rng(seed)
    dealt: dict[str, list[list[int]]] = {name: [] for name in FRACTIONS}
    for seen_in, stratum in sorted(strata.items()):
        share = sum(len(members) for members in stratum) / len(labels)
        wanted = {name: math.ceil(share * n) for name, n in SMALLEST.items()}
        wanted["CAL"] = math.ceil(cal_needed * max(len(stratum) / n_groups[cell] for cell in seen_in))
        for name, part in _deal(stratum, wanted, rng).items():
            dealt[name] += part
    fit, norm = (tuple(sorted(i for group in dealt[name] for i in group)) for name in ("FIT", "NORM"))
    cal = _one_of_each(dealt["CAL"], cells, rng)
    needed = SMALLEST | {"CAL": cal_needed}
    for cell in sorted(n_groups) or [""]:
        got = {"FIT": len(fit), "NORM": len(norm), "CAL": len(cal.get(cell, ()))}
        if any(got[name] < needed[name] for name in needed):
            counted = f"{sum(needed.values())} together; CAL counts groups, FIT and NORM images"
            if cell:
                counted = f"CAL counts groups of {cell}, FIT and NORM images of all cells"
            raise TooFewImagesError(
                f"{cells.count(cell)} reference images in {n_groups[cell]} groups{f' of {cell}' if cell else ''} are "
                "too few: needed are at least "
                + ", ".join(f"{needed[n]} for {n}" for n in needed)
                + f" ({counted}); got "
                + ", ".join(f"{got[n]} for {n}" for n in got)
                + ". Add reference images, or ask for a larger alpha."
            )
    return Split(fit, norm, cal, len(groups), grouping)


def leave_one_out_split(
    labels: Sequence[str], grouping: str, seed: int, cal_needed: int, cells: Sequence[str] | None = None
) -> Split:
    """All images in FIT and in NORM; CAL has one image of each group, by cell, to be judged without its group.

    Raises TooFewImagesError when a cell has fewer than ``cal_needed`` groups.
    """
    cells = cells or [""] * len(labels)
    names = list(dict.fromkeys(labels))
    parts = tuple(names.index(label) for label in labels)
    groups = [[i for i, part in enumerate(parts) if part == number] for number in range(len(names))]
    cal = _one_of_each(groups, cells, np.random.default_rng(seed))
    for cell, indices in cal.items():
        if len(indices) < cal_needed:
            raise TooFewImagesError(
                f"{len(indices)} reference images of different parts{f' in {cell}' if cell else ''} are too few: "
                f"needed are at least {cal_needed}. Add reference images, or ask for a larger alpha."
            )
    everything = tuple(range(len(labels)))
    return Split(everything, everything, cal, len(groups), grouping, LEAVE_ONE_OUT, parts)


def one_of_each(labels: Sequence[str], seed: int) -> list[int]:
    """Indices, ascending, of one image of each group, drawn at random."""
    groups: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(label, []).append(i)
    return list(_one_of_each(list(groups.values()), [""] * len(labels), np.random.default_rng(seed)).get("", ()))


def _one_of_each(
    groups: Sequence[Sequence[int]], cells: Sequence[str], rng: np.random.Generator
) -> dict[str, tuple[int, ...]]:
    """By cell: one image of each group, ascending."""
    chosen: dict[str, list[int]] = {}
    for group in groups:
        for cell in sorted({cells[i] for i in group}):
            chosen.setdefault(cell, []).append(int(rng.choice([i for i in group if cells[i] == cell])))
    return {cell: tuple(sorted(indices)) for cell, indices in sorted(chosen.items())}


def _deal(
    groups: Sequence[list[int]], wanted: Mapping[str, int], rng: np.random.Generator
) -> dict[str, list[list[int]]]:
    dealt: dict[str, list[list[int]]] = {name: [] for name in FRACTIONS}
    images = dict.fromkeys(FRACTIONS, 0)

    def supplied(name: str) -> tuple[bool, float]:
        counted = len(dealt[name]) if name == "CAL" else images[name]
        enough = counted >= wanted[name]
        return enough, images[name] / FRACTIONS[name] if enough else counted / wanted[name]

    for g in rng.permutation(len(groups)):
        name = min(FRACTIONS, key=supplied)
        dealt[name].append(groups[g])
        images[name] += len(groups[g])
    return dealt
