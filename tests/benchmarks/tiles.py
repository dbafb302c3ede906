"""The public magnetic tiles as the benchmarks split them: by runs of near frame numbers, never by file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

RUN_GAP = 100  # frame numbers; pictures further apart are of different runs
N_FIT = 400


def runs(paths: list[Path]) -> list[list[Path]]:
    """Group pictures into runs of near frame numbers."""
    by_frame = sorted(paths, key=frame_number)
    groups = [[by_frame[0]]]
    for path in by_frame[1:]:
        if frame_number(path) - frame_number(groups[-1][-1]) > RUN_GAP:
            groups.append([])
        groups[-1].append(path)
    return groups


def frame_number(path: Path) -> int:
    """``exp3_num_1855.jpg`` is frame 1855."""
    found = re.search(r"num_(\d+)", path.name)
    assert found, path
    return int(found.group(1))


def split_good(good: list[Path], seed: int, n_fit: int = N_FIT) -> tuple[list[Path], list[Path]]:
    """About ``n_fit`` pictures to fit on and the rest, by whole runs in random order."""
    groups = runs(good)
    fit: list[Path] = []
    rest: list[Path] = []
    for g in np.random.default_rng(seed).permutation(len(groups)):
        group = groups[int(g)]
        (fit if len(fit) + len(group) <= n_fit else rest).extend(group)
    return sorted(fit, key=frame_number), sorted(rest, key=frame_number)
