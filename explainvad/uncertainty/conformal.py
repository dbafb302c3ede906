"""Conformal p-values and thresholds: guarantees from ranks, whatever the scores' distribution.

A p-value compares one score with n calibration scores. If the image is normal and exchangeable with the
calibration images, P(p <= alpha) <= alpha for every alpha (Vovk, Gammerman & Shafer, "Algorithmic Learning in
a Random World", 2005, ch. 2; Bates et al., "Testing for outliers with conformal p-values", Ann. Statist. 2023).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from explainvad.errors import TooFewImagesError


def p_values(calibration: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """p = (1 + #{calibration >= score}) / (n + 1), in [1 / (n + 1), 1]; ties count against significance.

    ``calibration`` (n,) and ``scores`` of any shape. Cost O((n + m) log n).
    """
    ordered = np.sort(np.asarray(calibration, dtype=np.float64))
    below = np.searchsorted(ordered, np.asarray(scores, dtype=np.float64), side="left")
    return np.asarray((1.0 + len(ordered) - below) / (len(ordered) + 1.0), dtype=np.float64)


def significant_ranks(n: int, alpha: float) -> int:
    """Largest k for which the p-value k / (n + 1) is <= alpha, rounded just as :func:`p_values` rounds it."""
    k = math.floor(alpha * (n + 1))
    # The product may round across an integer in either direction; the comparison itself decides
    if k / (n + 1) > alpha:
        return k - 1
    return k + 1 if (k + 1) / (n + 1) <= alpha else k


def images_needed(alpha: float) -> int:
    """Smallest n for which 1 / (n + 1) <= alpha, so that an image can be rejected at all."""
    n = max(1, math.floor(1.0 / alpha) - 1)
    return n if significant_ranks(n, alpha) else n + 1


def require_images(n: int, alpha: float, purpose: str) -> None:
    """Raise TooFewImagesError, naming the number needed, when n images cannot support ``alpha``."""
    if n < images_needed(alpha):
        possible = math.ceil(1e4 / (n + 1)) / 1e4  # rounded up, so that asking for it helps
        raise TooFewImagesError(
            f"alpha = {alpha:g} for {purpose} needs at least {images_needed(alpha)} calibration images, got {n}: "
            f"with {n} images the smallest possible p-value is {1 / (n + 1):.3g}. "
            f"Add reference images, or ask for alpha >= {possible:g}."
        )


def threshold(calibration: ArrayLike, alpha: float) -> float:
    """The ceil((1 - alpha)(n + 1))-th smallest calibration value: P(value above it | normal) <= alpha.

    A value is above it exactly when its p-value is <= alpha. Raises TooFewImagesError when n < 1 / alpha - 1.
    """
    ordered = np.sort(np.asarray(calibration, dtype=np.float64))
    require_images(len(ordered), alpha, "a threshold")
    return float(ordered[len(ordered) - significant_ranks(len(ordered), alpha)])


def conditional_alpha(n: int, alpha: float, confidence: float = 0.95) -> float:
    """Bound on P(p <= alpha | normal) for *this* calibration set, with ``confidence`` over calibration sets.

    The false-reject rate given the calibration set is Beta(k, n + 1 - k) distributed, k = floor(alpha (n + 1)), for
    continuous scores (Vovk, "Conditional validity of inductive conformal predictors", 2012, prop. 2a).
    """
    k = significant_ranks(n, alpha)
    return float(beta.ppf(confidence, k, n + 1 - k)) if k > 0 else 0.0
