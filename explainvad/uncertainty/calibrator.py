"""Calibration as a whole: scales from NORM, a calibration set for each cell, and the verdict on a new image.

CAL images, seen by nothing before, turn numbers into p-values and thresholds. A new image meets exactly what a CAL
image of its cell met.

With few reference images (scheme ``leave-one-out``) the scorers are fitted to all of them, each calibration score is
that of an image against the others, and a new image is scored against all. For a scorer whose score can only rise
when reference images are taken away this is the jackknife-minmax of Barber, Candès, Ramdas & Tibshirani ("Predictive
inference with the jackknife+", Ann. Statist. 2021, theorem 3), or a more cautious version of it: P(p <= alpha | normal)
<= alpha, where cross-conformal p-values promise no more than 2 alpha.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from explainvad.types import CalibrationFacts, DetectionPower, ImageScore, Verdict
from explainvad.uncertainty.calibration_set import CalibrationSet, ClusterMass
from explainvad.uncertainty.conformal import conditional_alpha, require_images, threshold
from explainvad.uncertainty.detection_power import detection_power
from explainvad.uncertainty.lot_statistics import clopper_pearson
from explainvad.uncertainty.scales import Scales, Scored
from explainvad.uncertainty.selective import decide
from explainvad.uncertainty.splits import SPLIT, Split


@dataclass(frozen=True, slots=True, eq=False)
class Calibrator:
    """Fitted calibration: ``cells`` by name, the empty name where there is only one."""

    scales: Scales
    cells: Mapping[str, CalibrationSet]
    power: DetectionPower | None = None  # over the size of synthetic defects

    @classmethod
    def fit(
        cls,
        norm: Iterable[Scored],
        cal: Mapping[str, Iterable[Scored]],
        cluster_mass: ClusterMass,
        defects: Mapping[str, Iterable[Sequence[ImageScore]]] | None = None,
        synthetic: Mapping[str, Iterable[tuple[Sequence[ImageScore], float]]] | None = None,
        alpha: float = 0.05,
    ) -> Calibrator:
        """Fit to the scored NORM images, and to each cell's CAL images and defects where there are any.

        ``synthetic`` gives the scores of made defects with their sizes (square root of the area, px), whose power of
        detection is measured at ``alpha``. All are read once, in order, so they may score lazily.
        ``cluster_mass(map, threshold)`` gives the largest component mass of a fused map.
        """
        scales = Scales.fit(norm)
        cells: dict[str, CalibrationSet] = {}
        sizes: list[float] = []
        p: list[float] = []
        for name, images in cal.items():
            known = [scales.fusion.score(scores) for scores in (defects or {}).get(name, ())]
            made = [(scales.fusion.score(scores), size) for scores, size in (synthetic or {}).get(name, ())]
            cells[name] = CalibrationSet.fit(scales, images, cluster_mass, known, [score for score, _ in made])
            sizes += [size for _, size in made]
            p += [cells[name].p_value(score) for score, _ in made]
        power = None
        if sizes:
            power = detection_power(sizes, [value <= alpha for value in p], level=alpha, kind="synthetic")
        return cls(scales, cells, power)

    def cell(self, name: str) -> CalibrationSet:
        """The calibration set of a cell. Raises KeyError, naming the cells, for another."""
        if name not in self.cells:
            raise KeyError(f"expected one of the calibrated cells {', '.join(sorted(self.cells))}, got {name!r}")
        return self.cells[name]

    def verdict(
        self,
        scores: Sequence[ImageScore],
        acquired: Mapping[str, float],
        *,
        alpha: float,
        beta: float,
        gamma: float,
        prior: float,
        cell: str = "",
    ) -> Verdict:
        """Judge one image at level ``alpha``; TooFewImagesError when CAL (or DEF, for ``beta``) is too small for it."""
        known = self.cell(cell)
        require_images(known.n, alpha, "a verdict")
        if len(known.defects):
            require_images(len(known.defects), beta, "accepting (on labelled defects)")
        score = self.scales.fusion.score(scores)
        p = known.p_value(score)
        doubt = self.scales.doubt(scores)
        gamma = known.gamma(gamma)
        within, epistemic_limit = float(doubt.within), threshold(known.epistemic, gamma)
        gates = self.scales.gates.results(acquired, threshold(known.deviation, gamma))
        p1 = known.defect_p_value(score)
        decision, reasons = decide(p, alpha, gates, within, epistemic_limit, p1, beta if p1 is not None else None)
        return Verdict(
            decision=decision,
            score=score,
            p_value=p,
            alpha=alpha,
            probability=known.probability(score, prior),
            aleatoric=float(doubt.aleatoric),
            epistemic=float(doubt.epistemic),
            epistemic_limit=epistemic_limit,
            scorer_p_values=known.scorer_p_values(scores),
            gates=gates,
            reasons=reasons,
            defect_p_value=p1,
            beta=beta if p1 is not None else None,
            epistemic_within=within,
            epistemic_between=float(doubt.between),
            p_interval=clopper_pearson(round(p * (known.n + 1)) - 1, known.n),
            cell=cell,
        )

    def facts(self, split: Split, *, alpha: float, beta: float, gamma: float) -> CalibrationFacts:
        """What the report prints of the calibration at level ``alpha``.

        With several cells the facts as a whole are the weakest promise of any of them, and the largest threshold.
        """
        each = [self._facts(name, split, alpha, beta, gamma) for name in sorted(self.cells)]
        if len(each) == 1:
            return each[0]
        bounds = [f.conditional_alpha for f in each if f.conditional_alpha is not None]
        return replace(
            each[0],
            n_cal=sum(f.n_cal for f in each),
            smallest_p=max(f.smallest_p for f in each),
            conditional_alpha=max(bounds) if bounds else None,
            scores=tuple(sorted(score for f in each for score in f.scores)),
            score_threshold=max(f.score_threshold for f in each),
            pixel_threshold=max(f.pixel_threshold for f in each),
            gamma=max(f.gamma for f in each),
            n_def=sum(f.n_def for f in each),
            n_detected=sum(f.n_detected for f in each),
            beta=beta if any(f.n_def for f in each) else None,
            n_synthetic=sum(f.n_synthetic for f in each),
            cell="",
            cells=tuple(each),
        )

    def _facts(self, name: str, split: Split, alpha: float, beta: float, gamma: float) -> CalibrationFacts:
        known = self.cells[name]
        require_images(known.n, alpha, f"a verdict on {name}" if name else "a verdict")
        return CalibrationFacts(
            n_fit=len(split.fit),
            n_norm=len(split.norm),
            n_cal=known.n,
            n_groups=split.n_groups,
            grouping=split.grouping,
            alpha=alpha,
            smallest_p=1.0 / (known.n + 1),
            conditional_alpha=conditional_alpha(known.n, alpha) if split.scheme == SPLIT else None,
            scores=tuple(float(v) for v in np.sort(known.fused)),
            score_threshold=threshold(known.fused, alpha),
            pixel_threshold=known.pixel_threshold(alpha),
            cluster_threshold=self.scales.cluster_threshold,
            gamma=known.gamma(gamma),
            n_def=len(known.defects),
            n_detected=known.detected(alpha),
            beta=beta if len(known.defects) else None,
            scheme=split.scheme,
            cell=name,
            n_synthetic=len(known.synthetic),
            power=self.power,
        )

    def state(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for the bundle's manifest."""
        return {
            "scales": self.scales.state(),
            "cells": {name: known.state() for name, known in self.cells.items()},
            "power": asdict(self.power) if self.power else None,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Calibrator:
        """The inverse of :meth:`state`."""
        power = state["power"]
        return cls(
            Scales.restore(state["scales"]),
            {name: CalibrationSet.restore(known) for name, known in state["cells"].items()},
            DetectionPower(**{**power, "curve": tuple(map(tuple, power["curve"]))}) if power else None,
        )
