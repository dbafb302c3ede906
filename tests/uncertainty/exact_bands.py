"""Exact bands for counts of events that should happen at most at some rate; left with probability 1e-6."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from explainvad.uncertainty.conformal import significant_ranks

OUTSIDE = 1e-6


def band(n: int, m: int, level: float) -> tuple[float, float]:
    """Smallest and largest likely count of p <= level among m normal images, with n calibration images."""
    k = significant_ranks(n, level)
    events = stats.betabinom(m, k, n + 1 - k)
    return float(events.ppf(OUTSIDE / 2)), float(events.isf(OUTSIDE / 2))


def holds(flags: NDArray[np.bool_], n: int, level: float) -> bool:
    """Whether the rate is what continuous scores must have: neither above the level nor wastefully below."""
    low, high = band(n, len(flags), level)
    return low <= int(flags.sum()) <= high


def is_bounded(flags: NDArray[np.bool_], n: int, level: float) -> bool:
    """Whether the rate is not above the level."""
    return int(flags.sum()) <= band(n, len(flags), level)[1]
