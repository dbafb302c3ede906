"""What may be said about P(defect) when no defect was ever labelled: an upper bound, and nothing more."""

from __future__ import annotations

import math

from explainvad.types import ProbabilityBound


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
