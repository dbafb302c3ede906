"""Disjoint splits of the reference images, by part and never by file.

Two pictures of one part are not exchangeable with pictures of different parts: if one trains the scorers and the
other calibrates them, calibration scores come out too small and false rejects too many. Nor do several pictures of
one part multiply n: CAL takes one of each (the "subsampling once" of Dunn, Wasserman & Ramdas, "Distribution-Free
Prediction Sets for Two-Layer Hierarchical Models", JASA 2022), which keeps the p-value of a new part's picture exact.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from explainvad.errors import ConfigError, TooFewImagesError

FRACTIONS = {"FIT": 0.4, "NORM": 0.1, "CAL": 0.5}
SMALLEST = {"FIT": 8, "NORM": 8}  # CAL's smallest size follows from alpha


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of the images of each split, ascending, and how they were grouped. ``cal`` has one image a group."""

    fit: tuple[int, ...]
    norm: tuple[int, ...]
    cal: tuple[int, ...]
    n_groups: int
    grouping: str

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Split:
        """From what JSON made of the fields."""
        fit, norm, cal = (tuple(state[name]) for name in ("fit", "norm", "cal"))
        return cls(fit, norm, cal, state["n_groups"], state["grouping"])


def group_labels(files: Sequence[str], rule: str | None) -> tuple[list[str], str]:
    """The group of each file, and the rule in words.

    ``rule`` is a CSV file with the columns ``file,group``, or a regular expression that is searched in the file's
    path and whose groups (or whole match) name the part. None: every file is its own group.
    Raises ConfigError when the rule does not cover a file.
    """
    if rule is None:
        return list(files), "every image its own group"
    if Path(rule).suffix.lower() == ".csv":
        try:
            with Path(rule).open(newline="", encoding="utf-8-sig") as stream:
                rows = {(row.get("file", ""), row.get("group", "")) for row in csv.DictReader(stream)}
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"the group table {rule} cannot be read: {error}") from error
        table = dict(rows)
        if len(table) < len(rows):
            twice = sorted(file for file, group in rows if table[file] != group)[0]
            raise ConfigError(f"the group table {Path(rule).name} puts {twice} into two groups: give it one")
        missing = [f for f in files if not table.get(f) and not table.get(Path(f).name)]
        if missing:
            raise ConfigError(
                f"the group table {Path(rule).name} needs the columns file,group and a row for every image; "
                f"{len(missing)} have none, the first is {missing[0]}"
            )
        return [table.get(f) or table[Path(f).name] for f in files], f"by the table {Path(rule).name}"
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ConfigError(f"--group expects a CSV file or a regular expression, got {rule!r}: {error}") from error
    labels = []
    for file in files:
        match = pattern.search(file)
        if match is None:
            raise ConfigError(f"--group {rule!r} does not match {file}: give a pattern that finds a part in every name")
        labels.append("|".join(g or "" for g in match.groups()) if match.groups() else match.group())
    return labels, f"by the pattern {rule}"


def grouped_split(labels: Sequence[str], grouping: str, seed: int, cal_needed: int) -> Split:
    """Deal whole groups, in random order: first what each split cannot do without, then FRACTIONS of the images.

    ``cal_needed`` counts groups, because CAL keeps one image of each group that it is dealt, drawn at random.
    Raises TooFewImagesError, naming the numbers, when a split cannot get what it needs.
    """
    groups: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(label, []).append(i)
    rng = np.random.default_rng(seed)
    members = list(groups.values())
    needed = {**SMALLEST, "CAL": cal_needed}
    dealt: dict[str, list[list[int]]] = {name: [] for name in FRACTIONS}
    images = dict.fromkeys(FRACTIONS, 0)

    def counted(name: str) -> int:
        return len(dealt[name]) if name == "CAL" else images[name]

    def supplied(name: str) -> tuple[bool, float]:
        enough = counted(name) >= needed[name]
        return enough, images[name] / FRACTIONS[name] if enough else counted(name) / needed[name]

    for g in rng.permutation(len(groups)):
        name = min(FRACTIONS, key=supplied)
        dealt[name].append(members[g])
        images[name] += len(members[g])
    if any(counted(name) < needed[name] for name in needed):
        raise TooFewImagesError(
            f"{len(labels)} reference images in {len(groups)} groups are too few: needed are at least "
            + ", ".join(f"{needed[n]} for {n}" for n in needed)
            + f" ({sum(needed.values())} together; CAL counts groups, FIT and NORM images); got "
            + ", ".join(f"{counted(n)} for {n}" for n in needed)
            + ". Add reference images, or ask for a larger alpha."
        )
    fit, norm = (tuple(sorted(i for group in dealt[name] for i in group)) for name in ("FIT", "NORM"))
    cal = tuple(sorted(int(rng.choice(group)) for group in dealt["CAL"]))
    return Split(fit, norm, cal, len(groups), grouping)
