"""Agreement beyond chance between reviewers, or between a reviewer and the system.

Kappa is (observed - expected) / (1 - expected) agreement, where the expected one is that of independent judges with the
same shares of each category: 1 for full agreement, 0 for chance, negative below it. It depends on those shares. Where
defects are rare it can be low although nearly all judgements agree, so kappas of lots with different defect rates do
not compare.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from explainvad.types import Interval


def cohen_kappa(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval | None:
    """Cohen's kappa of two judges' labels (n,), in [-1, 1], for categories without an order.

    Cohen, "A coefficient of agreement for nominal scales" (1960). The interval is normal with the large-sample
    variance of Fleiss, Cohen and Everitt (1969), cut at -1 and 1: too narrow for few items, and without width
    where the judges agree fully or one of them gives every item the same label; neither is certainty. It needs
    independent items.
    None where only one category occurs. Raises ValueError unless both are (n,) with n >= 1.
    """
    from statsmodels.stats.inter_rater import cohens_kappa, to_table

    judged = [np.asarray(first), np.asarray(second)]
    if judged[0].ndim != 1 or judged[0].size == 0 or judged[1].shape != judged[0].shape:
        raise ValueError(f"both judges' labels must be (n,) with n >= 1, got {judged[0].shape} and {judged[1].shape}")
    ratings = np.stack(judged, axis=1)
    if np.unique(ratings).size < 2:
        return None
    with np.errstate(invalid="ignore"):  # its test statistic, which is not used, is 0 / 0 for a constant judge
        result = cohens_kappa(to_table(ratings)[0])
    kappa, error = float(result.kappa), float(np.sqrt(max(0.0, result.var_kappa)))
    reach = float(stats.norm.isf((1 - confidence) / 2)) * error
    return Interval(kappa, max(-1.0, kappa - reach), min(1.0, kappa + reach), confidence)


def fleiss_kappa(
    ratings: ArrayLike, confidence: float = 0.95, *, n_resamples: int = 1000, seed: int = 0
) -> Interval | None:
    """Fleiss' kappa of several judges: labels (n items, m >= 2 judges), the judges of an item in any order.

    Fleiss, "Measuring nominal scale agreement among many raters" (1971). The interval is the percentile bootstrap over
    items, which must be independent; it has no width where all agree. Resamples that hold only one category, where
    kappa is not defined, are left out. None where only one category occurs. Raises ValueError for another shape.
    """
    from statsmodels.stats import inter_rater

    judged = np.asarray(ratings)
    if judged.ndim != 2 or judged.shape[0] == 0 or judged.shape[1] < 2:
        raise ValueError(f"ratings must be (n, m) with n >= 1 items and m >= 2 judges, got {judged.shape}")
    counts, categories = inter_rater.aggregate_raters(judged)
    if len(categories) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = (counts[rng.integers(len(counts), size=len(counts))] for _ in range(n_resamples))
    resampled = [inter_rater.fleiss_kappa(table) for table in drawn if np.count_nonzero(table.any(axis=0)) > 1]
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(inter_rater.fleiss_kappa(counts)), float(lower), float(upper), confidence)
