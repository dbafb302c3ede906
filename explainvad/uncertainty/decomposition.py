"""How much of the doubt about an image is disagreement between scorers.

total = H(mean p), aleatoric = mean H(p_k), epistemic = total - aleatoric (mutual information; Depeweg et al.,
"Decomposition of Uncertainty in Bayesian Deep Learning", ICML 2018). Without labelled defects the p_k are the
upper bounds of :mod:`explainvad.uncertainty.probability` at even prior odds, so the parts rank images by
disagreement; they are not entropies of a known defect probability, and the report calls them so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from explainvad.uncertainty.probability import probability_bound


def _entropy(p: float) -> float:
    return -sum(q * math.log2(q) for q in (p, 1.0 - p) if q > 0)


def decompose(scorer_p_values: Sequence[float]) -> tuple[float, float]:
    """(aleatoric, epistemic) in bits, both >= 0, from the p-values that the scorers give one image."""
    p = [probability_bound(value, 0.5).upper for value in scorer_p_values]
    aleatoric = math.fsum(map(_entropy, p)) / len(p)
    return aleatoric, max(0.0, _entropy(math.fsum(p) / len(p)) - aleatoric)
