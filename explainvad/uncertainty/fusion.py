"""Fuse first, conformalise last: one score and one map from scorers with different units.

Ranks against NORM make scorers comparable; the Cauchy combination adds them (Liu & Xie, "Cauchy Combination
Test", JASA 2020). The sum is only a score: it becomes a p-value by its rank in CAL, which is exact whatever the
dependence between scorers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explainvad.errors import NotFittedError
from explainvad.types import ImageScore

# One scorer that finds an image very ordinary must not cancel another's alarm: cot(0.9 pi) = -3.1, while
# cot(pi) is minus infinity.
LARGEST_RANK = 0.9
SMALLEST_LOG_RANK = -600.0  # exp(-600) is far beyond any tail and still a normal number
TAIL_INDEX = 2.0  # of the power law beyond the NORM maximum
MAP_QUANTILES = (0.9, 0.995)  # EfficientAD's q_a and q_b (Batzner et al., WACV 2024)


@dataclass(frozen=True, slots=True, eq=False)
class TailRank:
    """Survival rank of a score among NORM scores, continuous and strictly decreasing beyond their maximum.

    Between order statistics log u is interpolated; at the i-th largest of n values u = (i + 1) / (n + 1), the
    conformal rank. Above the maximum u = u_max (1 + e / scale)^-2 for an excess e, with half the standard deviation of
    the scores as scale: a power law, by which 1 / u, what the Cauchy combination adds up, grows as the square of the
    standardised excess. The extension changes power, never validity; docs/tail_extension.md compares it with others.
    """

    ordered: NDArray[np.float64]  # ascending, without repetitions
    log_rank: NDArray[np.float64]
    scale: float

    @classmethod
    def fit(cls, scores: NDArray[np.float64]) -> TailRank:
        """Fit to NORM scores (n,), n >= 2."""
        ordered = np.sort(np.asarray(scores, dtype=np.float64))
        n = len(ordered)
        if n < 2:
            raise ValueError(f"a rank needs at least 2 NORM scores, got {n}")
        # of the differences from the smallest, which are exact zeros where all are equal
        scale = float(np.std(ordered - ordered[0])) / 2 or 1.0
        values, first = np.unique(ordered, return_index=True)
        return cls(values, np.log((n - first + 1.0) / (n + 1.0)), scale)

    def log(self, score: float) -> float:
        """log u, in [SMALLEST_LOG_RANK, 0]."""
        excess = max(0.0, score - float(self.ordered[-1])) / self.scale
        tail = TAIL_INDEX * float(np.log1p(excess))
        return max(SMALLEST_LOG_RANK, float(np.interp(score, self.ordered, self.log_rank)) - tail)


@dataclass(frozen=True, slots=True, eq=False)
class Fusion:
    """Equal-weight Cauchy combination of ranks, and the mean of maps scaled by quantiles of normal pixels."""

    ranks: Mapping[str, TailRank]
    map_offset: Mapping[str, float]
    map_scale: Mapping[str, float]

    @classmethod
    def fit(cls, scores: Mapping[str, NDArray[np.float64]], map_quantiles: Mapping[str, tuple[float, float]]) -> Fusion:
        """Fit to NORM: image scores (n,) and the (q_a, q_b) pixel quantiles of the maps of each scorer."""
        ranks = {name: TailRank.fit(values) for name, values in scores.items()}
        offset = {name: a for name, (a, _) in map_quantiles.items()}
        scale = {name: max(b - a, 1e-12) for name, (a, b) in map_quantiles.items()}
        return cls(ranks, offset, scale)

    def log_ranks(self, scores: Sequence[ImageScore]) -> dict[str, float]:
        """log u_k of each scorer."""
        if {s.scorer for s in scores} != set(self.ranks):
            got = sorted(s.scorer for s in scores)
            raise NotFittedError(f"fusion was fitted to the scorers {sorted(self.ranks)}, got scores of {got}")
        return {s.scorer: self.ranks[s.scorer].log(s.value) for s in scores}

    def score(self, scores: Sequence[ImageScore]) -> float:
        """Fused score in decades: -log10 of u_T, where u_T = 1/2 - arctan(T) / pi and T = mean of cot(pi u_k)."""
        u = np.minimum(np.exp(list(self.log_ranks(scores).values())), LARGEST_RANK)
        t = float(np.mean(1.0 / np.tan(np.pi * u)))
        # arctan2(1, t) / pi equals 1/2 - arctan(t) / pi and keeps its digits in the tail
        return float(-np.log10(np.arctan2(1.0, t) / np.pi))

    def contributions(self, scores: Sequence[ImageScore]) -> dict[str, NDArray[np.float32]]:
        """Each scorer's additive part of the fused map, float32 (H, W)."""
        return self._parts({s.scorer: s.anomaly_map for s in scores})

    def map(self, scores: Sequence[ImageScore]) -> NDArray[np.float32]:
        """Fused map, float32 (H, W): about 0 on ordinary pixels and 1 where one in 200 normal pixels lies."""
        return self.fuse_maps({s.scorer: s.anomaly_map for s in scores})

    def fuse_maps(self, maps: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """The same from maps by scorer, all of one shape."""
        return np.asarray(np.sum(list(self._parts(maps).values()), axis=0), dtype=np.float32)

    def _parts(self, maps: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        k = len(maps)
        return {
            name: (m - np.float32(self.map_offset[name])) / np.float32(k * self.map_scale[name])
            for name, m in maps.items()
        }
