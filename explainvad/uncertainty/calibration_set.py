"""What the CAL images of one cell promise: p-values, thresholds and probabilities of new images of that cell.

A cell is a product, a camera or a cavity. Within it the guarantees hold by themselves, not only on average over all
cells (Mondrian conformal prediction; Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005, ch. 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.types import ImageScore, ProbabilityBound
from explainvad.uncertainty.conformal import p_values, threshold
from explainvad.uncertainty.probability import MIN_DEFECTS, VennAbers, probability_bound
from explainvad.uncertainty.scales import Scales, Scored

ClusterMass = Callable[[NDArray[np.float32], float], float]  # largest component mass of a fused map at a threshold
_CAL_COLUMNS = ("fused", "epistemic", "map_maximum", "cluster_mass", "deviation")
_COLUMNS = (*_CAL_COLUMNS, "defects", "synthetic")


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSet:
    """One value per CAL image (n,) and quantity; fused scores of labelled (DEF) and of synthetic defects."""

    fused: NDArray[np.float64]
    by_scorer: Mapping[str, NDArray[np.float64]]
    epistemic: NDArray[np.float64]  # its part within scorers, which drives deferral
    map_maximum: NDArray[np.float64]
    cluster_mass: NDArray[np.float64]
    deviation: NDArray[np.float64]
    defects: NDArray[np.float64]  # empty without labelled defects
    synthetic: NDArray[np.float64]
    venn_abers: VennAbers | None  # of the labelled defects, else of the synthetic ones, where there are enough

    @classmethod
    def fit(
        cls,
        scales: Scales,
        cal: Iterable[Scored],
        cluster_mass: ClusterMass,
        defects: Sequence[float] = (),
        synthetic: Sequence[float] = (),
    ) -> CalibrationSet:
        """Fit to the scored CAL images of a cell, read once, in order, and to fused scores of defects."""
        columns: dict[str, list[float]] = {n: [] for n in _CAL_COLUMNS}
        by_scorer: dict[str, list[float]] = {n: [] for n in scales.fusion.ranks}
        for scores, acquired in cal:
            fused_map = scales.fusion.map(scores)
            columns["fused"].append(scales.fusion.score(scores))
            columns["epistemic"].append(float(scales.doubt(scores).within))
            columns["map_maximum"].append(float(fused_map.max()))
            columns["cluster_mass"].append(cluster_mass(fused_map, scales.cluster_threshold))
            columns["deviation"].append(scales.gates.deviation(acquired))
            for s in scores:
                by_scorer[s.scorer].append(s.value)
        return cls.restore({"by_scorer": by_scorer, "defects": defects, "synthetic": synthetic, **columns})

    @property
    def n(self) -> int:
        """Number of CAL images."""
        return len(self.fused)

    def gamma(self, asked: float) -> float:
        """The deferral level in force: the asked one, or 1 / (n + 1) where CAL is too small for it."""
        return max(asked, 1.0 / (self.n + 1))

    def p_value(self, score: float) -> float:
        """p = (1 + #{CAL: fused score >= score}) / (n + 1)."""
        return float(p_values(self.fused, score))

    def scorer_p_values(self, scores: Sequence[ImageScore]) -> dict[str, float]:
        """The same for each scorer's own value."""
        return {s.scorer: float(p_values(self.by_scorer[s.scorer], s.value)) for s in scores}

    def region_p_value(self, mass: float) -> float:
        """p = (1 + #{CAL: largest cluster mass >= mass}) / (n + 1)."""
        return float(p_values(self.cluster_mass, mass))

    def pixel_threshold(self, alpha: float) -> float:
        """P(any pixel of the fused map above it | normal) <= alpha."""
        return threshold(self.map_maximum, alpha)

    def defect_p_value(self, score: float) -> float | None:
        """p1 = (1 + #{DEF: T_j <= T}) / (n_d + 1); None without labelled defects."""
        return float(p_values(-self.defects, -score)) if len(self.defects) else None

    def detected(self, alpha: float) -> int:
        """Number of labelled defects with p <= alpha; they took no part in setting that threshold."""
        return int((p_values(self.fused, self.defects) <= alpha).sum())

    def probability(self, score: float, prior: float) -> ProbabilityBound:
        """What may be said of P(defect): Venn-Abers where enough defects are known, else a bound from the p-value."""
        if self.venn_abers is not None:
            return self.venn_abers.bound(score, prior)
        return probability_bound(self.p_value(score), prior)

    def state(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for the bundle's manifest."""
        return {
            "by_scorer": {n: v.tolist() for n, v in self.by_scorer.items()},
            **{n: getattr(self, n).tolist() for n in _COLUMNS},
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> CalibrationSet:
        """The inverse of :meth:`state`."""
        columns = {n: np.array(state[n], dtype=np.float64) for n in _COLUMNS}
        known = "defects" if len(columns["defects"]) else "synthetic"
        venn_abers = None
        if len(columns[known]) >= MIN_DEFECTS:
            venn_abers = VennAbers.fit(columns["fused"], columns[known], synthetic=known == "synthetic")
        by_scorer = {n: np.array(v, dtype=np.float64) for n, v in state["by_scorer"].items()}
        return cls(by_scorer=by_scorer, venn_abers=venn_abers, **columns)
