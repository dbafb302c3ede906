"""Exact intervals of rates, and a list with few false flags."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from explainvad.types import Interval


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact two-sided interval of a proportion from ``k`` of ``n`` (Clopper and Pearson 1934).

    It covers the true proportion with probability >= ``confidence`` whatever that is, if the n are independent
    draws from the process of interest. Raises ValueError unless 0 <= k <= n, n >= 1 and 0 < confidence < 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"expected 0 <= k <= n and n >= 1, got k = {k}, n = {n}")
    tail = (1 - confidence) / 2
    # quantiles of beta distributions; scipy's binomtest looks for the same limits by root finding, fifty times slower
    lower = float(stats.beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    upper = float(stats.beta.isf(tail, k + 1, n - k)) if k < n else 1.0
    return Interval(k / n, lower, upper, confidence)


def benjamini_hochberg(p_values: ArrayLike, q: float) -> NDArray[np.bool_]:
    """List p-values so that the expected share of normal parts among the listed is <= ``q``.

    ``p_values`` has shape (..., m), each row a lot of its own; bool of the same shape comes back.

    With m0 normal parts the bound is q m0 / m (Benjamini and Hochberg 1995). It needs p-values of the normal
    parts that are independent, or positively dependent on each of a subset (PRDS). Conformal p-values that share
    one calibration set are PRDS, if the normal parts and that set are drawn independently from one
    distribution (Bates, Candès, Lei, Romano, Sesia 2023, "Testing for outliers with conformal p-values").
    The bound is an average over calibration sets and lots, not a promise for one list.

    The smallest conformal p-value with n calibration images is 1/(n + 1), and a list of i parts needs p <= q i / m.
    So a list of fewer than m / (q (n + 1)) parts cannot arise: with n = 99, m = 200 and q = 0.1 nothing is
    listed until 20 parts are more extreme than every calibration image, and a list of a single part needs
    n + 1 >= m / q. An empty list then says nothing about the lot.

    Raises ValueError unless 0 < q < 1 and all p-values lie in [0, 1].
    """
    if not 0 < q < 1:
        raise ValueError(f"q must lie in (0, 1), got {q}")
    p = np.asarray(p_values, dtype=np.float64)
    # Multiples of 1/(n + 1) often equal q i / m, which rounding must not decide
    listed: NDArray[np.bool_] = stats.false_discovery_control(p, axis=-1) <= q * (1 + 1e-9)
    return listed
