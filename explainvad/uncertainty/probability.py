"""What may be said about P(defect): an upper bound from the p-value, or an interval where defects were labelled.

Without labelled defects P(defect) is not identified, and :func:`probability_bound` is all there is. With MIN_DEFECTS
of them :class:`VennAbers` gives two probabilities, one for each label that the image may have; where few defects speak
they lie far apart, and they are never merged into one number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from explainvad.types import ProbabilityBound

MIN_DEFECTS = 20  # even for a score above all n_d defects p0 is at most n_d / (n_d + 1)


def evidence_bound(p: float) -> float:
    """Largest Bayes factor in favour of "not normal" that a p-value can stand for: 1 / (-e p ln p), p < 1/e, else 1.

    Sellke, Bayarri & Berger, "Calibration of p Values for Testing Precise Null Hypotheses", Am. Stat. 2001.
    """
    if not 0 < p <= 1:
        raise ValueError(f"a p-value lies in (0, 1], got {p}")
    return 1.0 / (-math.e * p * math.log(p)) if p < 1 / math.e else 1.0


def probability_bound(p: float, prior: float) -> ProbabilityBound:
    """P(defect | p) is at most this, if the defect rate before inspection is ``prior`` in (0, 1)."""
    odds = prior / (1.0 - prior) * evidence_bound(p)
    return ProbabilityBound(
        upper=odds / (1.0 + odds),
        prior=prior,
        method="upper bound from the p-value (Sellke, Bayarri & Berger 2001)",
    )


@dataclass(frozen=True, slots=True, eq=False)
class VennAbers:
    """Inductive Venn-Abers predictor on fused scores.

    Vovk, Petej & Fedorova, "Large-scale probabilistic predictors with and without guarantees of validity", NeurIPS
    2015.

    p0 and p1 of a score are what isotonic regression on the calibration set gives it once it has joined that set as
    normal and once as a defect. If the image and the calibration images, defects among them, are exchangeable, the one
    of the two that belongs to the image's true label is perfectly calibrated: E[label | p_label] = p_label (Vovk &
    Petej, "Venn-Abers Predictors", UAI 2014, theorem 1). Nobody knows which of the two that is, so both are given.
    """

    knots: NDArray[np.float64]  # (k,) distinct calibration scores, ascending
    p0: NDArray[np.float64]  # (k + 1,); p0[i] for scores from knot i - 1 on and below knot i
    p1: NDArray[np.float64]  # (k + 1,); p1[i] for scores above knot i - 1 and up to knot i
    n_normal: int
    n_defects: int
    synthetic: bool  # whether the defects were made; then nothing here speaks of real ones

    @classmethod
    def fit(cls, normal: ArrayLike, defects: ArrayLike, *, synthetic: bool = False) -> VennAbers:
        """Fit to the fused scores of normal (n,) and defective (n_d,) calibration images, seen by nothing before.

        Two isotonic regressions at each of k distinct scores, O(k^2): 0.1 s for k = 2,000, 1 s for k = 10,000.
        Raises ValueError with fewer than MIN_DEFECTS defects.
        """
        n, n_d = np.size(normal), np.size(defects)
        if n_d < MIN_DEFECTS:
            raise ValueError(f"probabilities need at least {MIN_DEFECTS} defects, got {n_d}")
        knots, place = np.unique(np.concatenate([normal, defects]), return_inverse=True)
        weight = np.bincount(place)
        positive = np.bincount(place[n:], minlength=len(knots))
        # A defect in the gap below a knot is pooled with that knot, and a normal image in the gap above it as well: the
        # fits at the knots are all there are. Beyond the ends there is nothing to be pooled with.
        p0, p1 = np.zeros(len(knots) + 1), np.ones(len(knots) + 1)
        places = np.arange(len(knots))
        for i in places:
            joined = places == i
            total = weight + joined
            p0[i + 1] = isotonic_regression(positive / total, weights=total).x[i]
            p1[i] = isotonic_regression((positive + joined) / total, weights=total).x[i]
        return cls(knots, p0, p1, n, n_d, synthetic)

    def interval(self, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(p0, p1), p0 < p1, for ``scores`` of any shape, where defects are as frequent as in the calibration set."""
        return (
            self.p0[np.searchsorted(self.knots, scores, side="right")],
            self.p1[np.searchsorted(self.knots, scores, side="left")],
        )

    def bound(self, score: float, prior: float) -> ProbabilityBound:
        """Bounds on P(defect | score), if the defect rate before inspection is ``prior`` in (0, 1).

        The odds of p0 and p1 are multiplied by prior / (1 - prior) over n_d / n (Saerens, Latinne & Decaestecker,
        "Adjusting the Outputs of a Classifier to New a Priori Probabilities: A Simple Procedure", Neural Computation
        2002). Calibration then also needs the defect rate to be the stated one, and the scores of normal and of
        defective images to be distributed as in the calibration set. It is exact up to n_d / n standing for the odds
        at which calibration images were defective; where normal and defective ones were collected apart,
        it holds for large n and n_d only.
        """
        p0, p1 = self.interval(score)
        return ProbabilityBound(
            lower=self._shifted(float(p0), prior),
            upper=self._shifted(float(p1), prior),
            prior=prior,
            method=f"synthetic: calibrated on {self.n_defects} synthetic defects; says nothing of real ones"
            if self.synthetic
            else f"Venn-Abers on {self.n_defects} labelled defects, shifted to the prior",
            synthetic=self.synthetic,
        )

    def _shifted(self, p: float, prior: float) -> float:
        # The odds of p = 1 are infinite, so the two terms of p's odds are weighed instead
        defect, normal = p * prior / self.n_defects, (1.0 - p) * (1.0 - prior) / self.n_normal
        return defect / (defect + normal)
