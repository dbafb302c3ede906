"""How much of an image lies at or above any threshold, from counts at few of them, with bounds that always hold.

Of a map of n values the counts at some thresholds are kept, close at the top and ever wider apart below: next to count
c they grow by c * STEP at most. At a threshold that is kept the count is exact; between two of them it lies within
their counts. The relative error of a count is so STEP / 2 at most, whatever the distribution of the values, their
range or the order of the images, and nothing has to be known of other images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP = 4e-4  # largest gap between kept counts, as a share of the count

_COUNT_FROM = 2**18  # values: fewer are sorted as fast
_SORTED = 32  # times 1 / step: so many topmost values are sorted, where gaps are too small to be met by counting
_HALF = 16  # bits
_MOST = 2**40  # values of an image

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Kept thresholds (m,) float32, ascending, with the weight of all values at or above each.

    The weights are pixel counts (uint32), or shares of regions (float32). ``at[0]`` is the weight of all. From the
    threshold number ``exact`` upwards every distinct value is kept, at least the largest.
    """

    values: NDArray[np.float32]
    at: NDArray[Any]
    exact: int

    @property
    def total(self) -> float:
        """Weight of all values."""
        return float(self.at[0]) if len(self.at) else 0.0

    @property
    def whole(self) -> bool:
        """Whether every distinct value is kept."""
        return self.exact == 0

    @property
    def exact_from(self) -> float:
        """From here upwards every distinct value is kept."""
        return -np.inf if self.whole else float(self.values[min(self.exact, len(self.values) - 1)])

    def bounds(self, thresholds: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Least and largest weight that can lie at or above each of ``thresholds`` (k,), ascending; float64 (k,)."""
        passed = np.searchsorted(thresholds, self.values, side="right")
        first = np.cumsum(np.bincount(passed, minlength=len(thresholds) + 1))[:-1]  # kept below each threshold
        least = np.append(self.at, 0).astype(np.float64)[first]
        if self.whole:
            return least, least
        most = np.append(self.total, self.at)[first]
        known = (np.append(self.values, np.float32(np.nan))[first] == thresholds) | (first > self.exact)
        return least, np.where(known, least, most)

    def thinned(self, width: float) -> Ranked:
        """The same with at most one threshold for each interval of weights that is ``width`` wide.

        The weight between two of them is then uncertain by less than twice the width, but for what lies at one value.
        """
        return self._one_of_each(np.floor(self.at / width))

    def coarser(self, step: float) -> Ranked:
        """The same with gaps of up to ``step`` as a share of the count, for whole counts."""
        return self._one_of_each(_stage(self.at, step))

    def _one_of_each(self, stage: NDArray[Any]) -> Ranked:
        """The smallest threshold in each stage of weight, and those above which the next one is passed over."""
        kept = np.diff(stage, prepend=-1) != 0
        kept[:-1] |= stage[:-1] - stage[1:] > 1
        kept[-1:] = True  # the largest value
        dropped = np.flatnonzero(~kept[self.exact :])
        exact = self.exact + dropped[-1] + 1 if len(dropped) else self.exact
        return Ranked(self.values[kept], self.at[kept], int(np.count_nonzero(kept[:exact])))


def rank_values(values: NDArray[np.float32], step: float = STEP) -> Ranked:
    """Rank finite values (n,), each of weight 1. Up to 1 / step values, and all topmost ones, are kept exactly."""
    keys = _keys(values)
    counted = _by_counting(keys, step) if values.size >= _COUNT_FROM else None
    return counted or _by_sorting(keys, step)


def _by_sorting(keys: NDArray[np.int32], step: float) -> Ranked:
    n = keys.size
    ordered = np.sort(keys)
    ranks = _ranks(n, step)
    kept = ordered[n - ranks][::-1]
    kept = kept[np.diff(kept, prepend=kept[:1] - 1) != 0]
    at, above = (n - np.searchsorted(ordered, kept, side=side) for side in ("left", "right"))
    if np.array_equal(above, np.append(at[1:], 0)[: len(at)]):
        return Ranked(_from_keys(kept), at.astype(np.uint32), exact=0)
    # Part equal values from what lies between them and the next one that is kept
    exact = int(np.searchsorted(kept, ordered[n - int(1 / step)]))
    several = (at - above > 1)[:exact] & (kept[:exact] < kept[1 : exact + 1] - 1)
    kept, at = np.append(kept, kept[:exact][several] + 1), np.append(at, above[:exact][several])
    order = np.argsort(kept)
    return Ranked(_from_keys(kept[order]), at[order].astype(np.uint32), exact + int(several.sum()))


def _by_counting(keys: NDArray[np.int32], step: float) -> Ranked | None:
    """Count in bins between float32 numbers, finer where there are more values; None where these are too uneven.

    Sorting takes four times as long. The upper halves of the keys are counted first; each of these bins is then parted
    by as many of the lower bits as its count needs. Only the topmost values are sorted.
    """
    high = ((keys >> _HALF) + (1 << _HALF - 1)).astype(np.uint16)
    mass = np.bincount(high, minlength=1 << _HALF)
    above = keys.size - np.cumsum(mass)
    top = int(np.flatnonzero(above + mass >= min(keys.size, _SORTED / step))[-1])

    # Part each bin below the topmost ones, so that a part holds an eighth of the gap or less if its values lie evenly
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.ceil(np.log2(mass / (step / 8 * above)))
    bits = np.clip(np.nan_to_num(wanted, posinf=0, neginf=0), 0, _HALF).astype(np.uint16)
    bits[top:] = 0
    parts = np.where(mass > 0, 1 << bits.astype(np.int32), 0)
    first = (np.cumsum(parts) - parts).astype(np.int32)
    part = (keys & ((1 << _HALF) - 1)).astype(np.uint16) >> (_HALF - bits)[high]
    count = np.bincount(first[high] + part, minlength=int(parts.sum()))

    # Counts are exact at the lower edge of each part
    bin_of = np.repeat(np.arange(1 << _HALF, dtype=np.int64), parts)
    edge = (bin_of - (1 << _HALF - 1) << _HALF) + (np.arange(len(bin_of)) - first[bin_of] << (_HALF - bits)[bin_of])
    held = (count > 0) & (bin_of < top)
    edges, at = _from_keys(edge[held].astype(np.int32)), np.cumsum(count[::-1])[::-1][held].astype(np.uint32)
    topmost = _by_sorting(keys[high >= top], step)
    below = np.append(at[1:], topmost.at[:1])
    if (at - below > 0.5 * step * below).any():
        return None
    bulk = Ranked(edges, at, len(edges)).coarser(step / 2)
    exact = len(bulk.values) + topmost.exact
    return Ranked(np.append(bulk.values, topmost.values), np.append(bulk.at, topmost.at), exact)


def rank_weights(values: NDArray[np.float32], weights: Floats, width: float) -> Ranked:
    """Rank finite values (n,) with positive weights (n,), thinned to ``width``."""
    order = np.argsort(_keys(values), kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    from_top = np.cumsum(weights[order][::-1])[::-1].astype(np.float32)
    value, at = ordered[starts], from_top[starts]
    few = Ranked(value, at, exact=0).thinned(width)
    if few.whole:
        return few
    # Part heavy values from what lies between them and the next one that is kept
    heavy = np.flatnonzero(at[:-1] - at[1:] > width)
    value = np.append(value, np.nextafter(value[heavy], np.float32(np.inf)))
    value, first = np.unique(value, return_index=True)
    return Ranked(value, np.append(at, at[heavy + 1])[first], len(value) - 1).thinned(width)


def _stage(ranks: NDArray[Any], step: float) -> NDArray[np.int64]:
    """Number the ranks so that those of one number are the same, or no further apart than ``step`` of them."""
    exact = 1 / step
    with np.errstate(divide="ignore"):
        wide = exact + np.log(np.maximum(ranks, exact) * step) / np.log1p(step)
    return np.where(ranks <= exact, ranks, wide).astype(np.int64)


def _ranks(n: int, step: float) -> NDArray[np.int64]:
    """Ranks 1..n to keep: all up to 1 / step, then by the factor 1 + step, and n."""
    ranks = _endless_ranks(step)
    return np.append(ranks[: np.searchsorted(ranks, n)], [n] if n else []).astype(np.int64)


@lru_cache(maxsize=16)
def _endless_ranks(step: float) -> NDArray[np.int64]:
    """As :func:`_ranks`, for as many pixels as no image has."""
    exact = int(1 / step)
    n_wide = int(np.log(_MOST / exact) / np.log1p(step))
    wide = np.floor(exact * (1 + step) ** np.arange(1, n_wide + 1)).astype(np.int64)
    ranks = np.concatenate([np.arange(1, exact + 1), wide])
    ranks = ranks[np.diff(ranks, prepend=0) > 0]
    ranks.setflags(write=False)  # shared by all callers
    return ranks


def _keys(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """Map float32 to int32 of the same order: negative ones have all bits but the sign turned over."""
    bits = (values + np.float32(0)).view(np.int32)  # the sum turns -0 into +0
    return np.asarray(bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF)))


def _from_keys(keys: NDArray[np.int32]) -> NDArray[np.float32]:
    return np.asarray((keys ^ ((keys >> 31) & np.int32(0x7FFFFFFF))).view(np.float32))
