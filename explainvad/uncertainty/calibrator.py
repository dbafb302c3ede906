"""Calibration as a whole: what NORM fixes, what CAL promises, and the verdict on a new image.

NORM images set scales (score ranks, map scales, cluster threshold, gate scales); CAL images, seen by nothing
before, turn the resulting numbers into p-values and thresholds. A new image meets exactly what a CAL image met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.types import CalibrationFacts, ImageScore, Verdict
from explainvad.uncertainty.acquisition import AcquisitionGates
from explainvad.uncertainty.conformal import conditional_alpha, p_values, require_images, threshold
from explainvad.uncertainty.decomposition import decompose
from explainvad.uncertainty.fusion import MAP_QUANTILES, Fusion, TailRank
from explainvad.uncertainty.probability import probability_bound
from explainvad.uncertainty.selective import decide
from explainvad.uncertainty.splits import Split

PIXEL_STRIDE = 3  # every third row and column of a NORM map enters the pixel quantiles
CLUSTER_QUANTILE = 0.999  # of NORM pixels of the fused map: where regions are cut out
_CAL_COLUMNS = ("fused", "epistemic", "map_maximum", "cluster_mass", "deviation")
_COLUMNS = (*_CAL_COLUMNS, "defects")

Scored = tuple[Sequence[ImageScore], Mapping[str, float]]  # an image's scores and acquisition features


@dataclass(frozen=True, slots=True, eq=False)
class Calibrator:
    """Fitted calibration. The arrays hold one value per CAL image."""

    fusion: Fusion
    gates: AcquisitionGates
    cluster_threshold: float
    fused: NDArray[np.float64]
    by_scorer: Mapping[str, NDArray[np.float64]]
    epistemic: NDArray[np.float64]
    map_maximum: NDArray[np.float64]
    cluster_mass: NDArray[np.float64]
    deviation: NDArray[np.float64]
    defects: NDArray[np.float64]  # fused scores of DEF; empty without labelled defects

    @classmethod
    def fit(
        cls,
        norm: Iterable[Scored],
        cal: Iterable[Scored],
        defects: Iterable[Sequence[ImageScore]],
        cluster_mass: Callable[[NDArray[np.float32], float], float],
    ) -> Calibrator:
        """Fit to the scored NORM and CAL images, and to labelled defects where there are any.

        All are read once, in order, so they may score lazily. ``cluster_mass(map, threshold)`` gives the largest
        component mass of a fused map.
        """
        values: dict[str, list[float]] = {}
        pixels: dict[str, list[NDArray[np.float32]]] = {}
        features: dict[str, list[float]] = {}
        for scores, acquired in norm:
            for s in scores:
                values.setdefault(s.scorer, []).append(s.value)
                pixels.setdefault(s.scorer, []).append(s.anomaly_map[::PIXEL_STRIDE, ::PIXEL_STRIDE])
            for name, value in acquired.items():
                features.setdefault(name, []).append(value)
        quantiles = {
            name: tuple(float(q) for q in np.quantile(np.concatenate([m.ravel() for m in maps]), MAP_QUANTILES))
            for name, maps in pixels.items()
        }
        fusion = Fusion.fit({n: np.array(v) for n, v in values.items()}, quantiles)  # type: ignore[arg-type]
        # The cluster threshold is a quantile of the fused map over the same pixels
        images = (dict(zip(pixels, maps, strict=True)) for maps in zip(*pixels.values(), strict=True))
        fused_pixels = np.concatenate([fusion.fuse_maps(maps).ravel() for maps in images])
        cluster_threshold = float(np.quantile(fused_pixels, CLUSTER_QUANTILE))
        gates = AcquisitionGates.fit({n: np.array(v) for n, v in features.items()})
        columns: dict[str, list[float]] = {n: [] for n in _CAL_COLUMNS}
        by_scorer: dict[str, list[float]] = {n: [] for n in fusion.ranks}
        for scores, acquired in cal:
            fused_map = fusion.map(scores)
            columns["fused"].append(fusion.score(scores))
            columns["epistemic"].append(_decompose(fusion, scores)[1])
            columns["map_maximum"].append(float(fused_map.max()))
            columns["cluster_mass"].append(cluster_mass(fused_map, cluster_threshold))
            columns["deviation"].append(gates.deviation(acquired))
            for s in scores:
                by_scorer[s.scorer].append(s.value)
        return cls(
            fusion=fusion,
            gates=gates,
            cluster_threshold=cluster_threshold,
            by_scorer={n: np.array(v) for n, v in by_scorer.items()},
            defects=np.array([fusion.score(scores) for scores in defects], dtype=np.float64),
            **{n: np.array(v) for n, v in columns.items()},
        )

    @property
    def n(self) -> int:
        """Number of CAL images."""
        return len(self.fused)

    def gamma(self, asked: float) -> float:
        """The deferral level in force: the asked one, or 1 / (n + 1) where CAL is too small for it."""
        return max(asked, 1.0 / (self.n + 1))

    def region_p_value(self, mass: float) -> float:
        """p = (1 + #{CAL: largest cluster mass >= mass}) / (n + 1)."""
        return float(p_values(self.cluster_mass, mass))

    def pixel_threshold(self, alpha: float) -> float:
        """P(any pixel of the fused map above it | normal) <= alpha."""
        return threshold(self.map_maximum, alpha)

    def defect_p_value(self, score: float) -> float | None:
        """p1 = (1 + #{DEF: T_j <= T}) / (n_d + 1); None without labelled defects."""
        return float(p_values(-self.defects, -score)) if len(self.defects) else None

    def verdict(
        self,
        scores: Sequence[ImageScore],
        acquired: Mapping[str, float],
        *,
        alpha: float,
        beta: float,
        gamma: float,
        prior: float,
    ) -> Verdict:
        """Judge one image at level ``alpha``; TooFewImagesError when CAL (or DEF, for ``beta``) is too small for it."""
        require_images(self.n, alpha, "a verdict")
        if len(self.defects):
            require_images(len(self.defects), beta, "accepting (on labelled defects)")
        score = self.fusion.score(scores)
        p = float(p_values(self.fused, score))
        aleatoric, epistemic = _decompose(self.fusion, scores)
        gamma = self.gamma(gamma)
        epistemic_limit = threshold(self.epistemic, gamma)
        gates = self.gates.results(acquired, threshold(self.deviation, gamma))
        p1 = self.defect_p_value(score)
        decision, reasons = decide(p, alpha, gates, epistemic, epistemic_limit, p1, beta if p1 is not None else None)
        return Verdict(
            decision=decision,
            score=score,
            p_value=p,
            alpha=alpha,
            probability=probability_bound(p, prior),
            aleatoric=aleatoric,
            epistemic=epistemic,
            epistemic_limit=epistemic_limit,
            scorer_p_values={s.scorer: float(p_values(self.by_scorer[s.scorer], s.value)) for s in scores},
            gates=gates,
            reasons=reasons,
            defect_p_value=p1,
            beta=beta if p1 is not None else None,
        )

    def facts(self, split: Split, *, alpha: float, beta: float, gamma: float) -> CalibrationFacts:
        """What the report prints of the calibration at level ``alpha``."""
        require_images(self.n, alpha, "a verdict")
        return CalibrationFacts(
            n_fit=len(split.fit),
            n_norm=len(split.norm),
            n_cal=self.n,
            n_groups=split.n_groups,
            grouping=split.grouping,
            alpha=alpha,
            smallest_p=1.0 / (self.n + 1),
            conditional_alpha=conditional_alpha(self.n, alpha),
            scores=tuple(float(v) for v in np.sort(self.fused)),
            score_threshold=threshold(self.fused, alpha),
            pixel_threshold=self.pixel_threshold(alpha),
            cluster_threshold=self.cluster_threshold,
            gamma=self.gamma(gamma),
            n_def=len(self.defects),
            beta=beta if len(self.defects) else None,
        )

    def state(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for the bundle's manifest."""
        return {
            "ranks": {
                n: {"ordered": r.ordered.tolist(), "log_rank": r.log_rank.tolist(), "scale": r.scale}
                for n, r in self.fusion.ranks.items()
            },
            "map_offset": dict(self.fusion.map_offset),
            "map_scale": dict(self.fusion.map_scale),
            "gate_centre": dict(self.gates.centre),
            "gate_scale": dict(self.gates.scale),
            "cluster_threshold": self.cluster_threshold,
            "by_scorer": {n: v.tolist() for n, v in self.by_scorer.items()},
            **{n: getattr(self, n).tolist() for n in _COLUMNS},
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Calibrator:
        """The inverse of :meth:`state`."""
        ranks = {
            n: TailRank(np.array(r["ordered"]), np.array(r["log_rank"]), r["scale"]) for n, r in state["ranks"].items()
        }
        return cls(
            fusion=Fusion(ranks, state["map_offset"], state["map_scale"]),
            gates=AcquisitionGates(state["gate_centre"], state["gate_scale"]),
            cluster_threshold=state["cluster_threshold"],
            by_scorer={n: np.array(v) for n, v in state["by_scorer"].items()},
            **{n: np.array(state[n]) for n in _COLUMNS},
        )


def _decompose(fusion: Fusion, scores: Sequence[ImageScore]) -> tuple[float, float]:
    """(aleatoric, epistemic) from the scorers' ranks in NORM: one fixed function for CAL and new images alike."""
    return decompose([float(np.exp(u)) for u in fusion.log_ranks(scores).values()])
