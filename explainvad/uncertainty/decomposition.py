"""How much of the doubt about an image, or about a pixel, is disagreement, and among whom.

Every family of scorers has members: banks of resampled reference images (bagging, Breiman 1996), decoders thinned by
dropout (Gal & Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016). With p_kb the probability that
member b of family k stands for, and means over families and members of equal weight,

    H(mean_k mean_b p_kb) = aleatoric                         mean_k mean_b H(p_kb)
                          + within    mean_k [H(mean_b p_kb) - mean_b H(p_kb)]
                          + between   H(mean_k mean_b p_kb) - mean_k H(mean_b p_kb)

where the last two are mutual informations (Depeweg et al., "Decomposition of Uncertainty in Bayesian Deep Learning",
ICML 2018) and together the epistemic part. Without labelled defects the p_kb are the upper bounds of
:mod:`explainvad.uncertainty.probability` at even prior odds, so the parts rank images by disagreement; they are
not entropies of a known defect probability, and the report calls them so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Decomposition:
    """Parts of the doubt in bits, each >= 0, as arrays of one shape (of no dimension for an image)."""

    aleatoric: Array
    within: Array
    between: Array

    @property
    def epistemic(self) -> Array:
        """What more reference images or better scorers could remove: ``within`` + ``between``."""
        return self.within + self.between


def decompose(families: Sequence[ArrayLike]) -> Decomposition:
    """Decompose the doubt from log tail ranks: ``families[k]`` has shape (members of family k, ...), values <= 0."""
    members = [_probability(np.asarray(log_ranks, dtype=np.float64)) for log_ranks in families]
    of_family = [p.mean(axis=0) for p in members]
    each = np.mean([_entropy(p).mean(axis=0) for p in members], axis=0)
    middle = np.mean([_entropy(p) for p in of_family], axis=0)
    total = _entropy(np.mean(of_family, axis=0))
    # entropy is concave, so that only rounding can make a difference negative
    return Decomposition(each, np.maximum(middle - each, 0.0), np.maximum(total - middle, 0.0))


def _probability(log_rank: Array) -> Array:
    """Upper bound of P(defect) at even prior odds: B / (1 + B), B = 1 / (-e u ln u), from L = ln u without overflow."""
    low = np.minimum(log_rank, -1.0)  # B = 1 for u >= 1/e
    return np.asarray(1.0 / (1.0 - low * np.exp(1.0 + low)))


def _entropy(p: Array) -> Array:
    """Binary entropy in bits."""
    q = np.clip(p, 1e-300, 1.0)
    r = np.clip(1.0 - p, 1e-300, 1.0)
    return np.asarray(-(p * np.log2(q) + (1.0 - p) * np.log2(r)))
