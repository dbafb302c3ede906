"""What a lot holds, bounded: defective units at least, at most after an audit, and their share.

Three questions with three sources. p-values alone say how many units are not normal *at least*; they never say how
many were missed. A person who audits a random sample bounds the defectives from *above*. Labelled defects tell how many
of their kind are found, and so turn the share of flagged units into a share of defective ones.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from explainvad.types import Interval
from explainvad.uncertainty.conformal import require_images, significant_ranks
from explainvad.uncertainty.lot_statistics import clopper_pearson

# Counts and multiples of 1/(n + 1) often meet a level exactly, which rounding must not decide
ROUNDING = 1 + 1e-9


def defective_at_least(p_values: ArrayLike, confidence: float = 0.95) -> int:
    """Lower bound on the number of units that are not normal: too high with probability <= 1 - ``confidence``.

    ``p_values`` (m,), one of each unit. Closed testing with Simes' test of each set of units (Goeman, Meijer, Krebs and
    Solari 2019, "Simultaneous control of all false discovery proportions in large-scale multiple hypothesis testing"):
    of m units at most h can be normal, where h is the size of the largest set that is not rejected (Hommel 1988), so
    m - h are not. Cost O(m log m).

    It needs p-values of the normal units that are independent, or positively dependent on each of a subset (PRDS).
    Conformal p-values that share one calibration set are PRDS, if the normal units and that set are drawn independently
    from one distribution (Bates, Candès, Lei, Romano and Sesia 2023); ties only make them larger. The probability is
    over calibration sets and lots. Which units they are is not said: that is the list of
    :func:`explainvad.uncertainty.lot_statistics.benjamini_hochberg`.

    The bound is positive exactly when that list at q = 1 - confidence is not empty. So with n calibration images
    it stays 0 until m / (q (n + 1)) units are more extreme than all of them, and says nothing about the lot then.

    Raises ValueError unless 0 < confidence < 1 and all p-values lie in [0, 1].
    """
    level = _risk(confidence) * ROUNDING
    p = np.sort(np.asarray(p_values, dtype=np.float64))
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {p.min()} to {p.max()}")
    m = len(p)
    lines = level * np.arange(1, m + 1)

    def rejected(i: int) -> bool:
        # Simes rejects a set of i units when its j-th smallest p-value is <= j level / i for any j. Among sets of one
        # size that of the largest p-values is rejected last, so it stands for them all.
        return bool((i * p[m - i :] <= lines[:i]).any())

    # Once a size is rejected, all larger ones are: the i - 1 largest are the i largest without their smallest, so the
    # j-th of them is the (j + 1)-th of the i. If the i pass, it is > (j + 1) level / i, which is >= j level / (i - 1)
    # because (j + 1)(i - 1) >= j i for j <= i - 1. So the i - 1 pass too, and bisection finds the largest that does.
    return m - bisect_left(range(1, m + 1), True, key=rejected)


def audit_sample_size(population: int, confidence: float, limit: float) -> int:
    """Smallest sample that, found free of defectives, bounds the share of defectives by ``limit``.

    Of ``population`` units so many are drawn at random without replacement; if none is defective, the share of
    defectives in the population is <= ``limit`` with ``confidence`` (hypergeometric, exact). For large populations the
    auditor's numbers come out: 59 for 5 % and 299 for 1 % at 95 %. ``limit`` 0 asks for no defective unit at all.

    Raises ValueError unless population >= 1, 0 < confidence < 1 and 0 <= limit < 1.
    """
    if population < 1:
        raise ValueError(f"population must be at least 1, got {population}")
    if not 0 <= limit < 1:
        raise ValueError(f"limit must lie in [0, 1), got {limit}")
    risk = _risk(confidence)
    # The fewest defectives whose share, as it is divided, is above the limit
    too_many = significant_ranks(population - 1, limit) + 1
    return bisect_left(
        range(population + 1), True, key=lambda n: _excludes(population, too_many, sampled=n, defective=0, risk=risk)
    )


def audit_upper_bound(population: int, sampled: int, defective: int, confidence: float) -> int:
    """Upper bound on the number of defectives among ``population`` units, from a random sample of them.

    ``defective`` of ``sampled`` units were found so. The bound is the largest number of defectives under which so few
    would be found with probability > 1 - confidence (one-sided, hypergeometric, exact); it is too low with probability
    <= 1 - confidence, whatever the population holds. That needs a simple random sample without replacement whose size
    was fixed beforehand, and an auditor who sees every defect in it.

    Raises ValueError unless 0 <= defective <= sampled <= population, population >= 1 and 0 < confidence < 1.
    """
    if not 0 <= defective <= sampled <= population or population < 1:
        raise ValueError(
            "expected 0 <= defective <= sampled <= population, and population >= 1, "
            f"got defective = {defective}, sampled = {sampled}, population = {population}"
        )
    risk = _risk(confidence)
    beyond = range(defective + 1, population - sampled + defective + 1)
    return defective + bisect_left(beyond, True, key=lambda d: _excludes(population, d, sampled, defective, risk))


def rogan_gladen(
    positives: int, inspected: int, detected: int, n_defects: int, n_cal: int, alpha: float, confidence: float = 0.95
) -> Interval:
    """Share of defective units from the share with p <= ``alpha``, allowing for missed defects and false alarms.

    The apparent share A = ``positives`` of ``inspected`` is pi Se + (1 - pi) F, so pi = (A - F) / (Se - F), clipped to
    [0, 1] (Rogan and Gladen 1978, with F = 1 - Sp). Se is the sensitivity, known from ``detected`` of ``n_defects``
    labelled defects with p <= alpha. F is the false-positive rate of this calibration set of ``n_cal`` images: it is
    Beta(k, n_cal + 1 - k) distributed, k = floor(alpha (n_cal + 1)), and need not be counted (Vovk 2012, prop. 2a).

    A and Se have Clopper-Pearson intervals, F that of its distribution, each at 1 - (1 - confidence) / 3; the interval
    holds every pi that agrees with the three. It covers the truth with probability >= ``confidence`` over calibration
    sets, labelled defects and lots (Bonferroni), and is conservative: at 95 % it covers some 98 to 99 % where one of
    the three is much less certain than the others, and more elsewhere. The truth may be the rate of the process, or the
    share in this lot, whose flags scatter no more than binomial ones (independent events of unequal probability,
    Hoeffding 1956). It needs units that are judged independently, one calibration set with continuous scores, normal
    units exchangeable with it, and defects like the labelled ones.

    Where Se may be as small as F, the flags cannot be told from false alarms. If the lower limit of Se does not exceed
    that of F, the upper limit is 1; if the upper limit of Se does not exceed that of F, the lower limit is 0. If
    the estimate of Se does not exceed that of F there is no estimate, and the upper limit stands in its place.

    Raises TooFewImagesError when ``n_cal`` images cannot give any p <= alpha, and ValueError unless 0 <= positives <=
    inspected, 0 <= detected <= n_defects, both totals >= 1 and 0 < confidence < 1.
    """
    require_images(n_cal, alpha, "a share of defective units")
    each = 1 - _risk(confidence) / 3
    apparent = clopper_pearson(positives, inspected, each)
    sensitivity = clopper_pearson(detected, n_defects, each)
    k = significant_ranks(n_cal, alpha)
    fewest, most = stats.beta(k, n_cal + 1 - k).interval(each)

    def share(apparent: float, sensitivity: float, false: float, unknown: float) -> float:
        if sensitivity <= false:
            return unknown
        return float(np.clip((apparent - false) / (sensitivity - false), 0, 1))

    # A >= A_L, Se <= Se_U and F <= F_U give pi Se_U + (1 - pi) F_U >= A_L, and the other way round
    lower = share(apparent.lower, sensitivity.upper, most, unknown=0.0)
    upper = share(apparent.upper, sensitivity.lower, fewest, unknown=1.0)
    estimate = share(apparent.estimate, sensitivity.estimate, k / (n_cal + 1), unknown=upper)
    return Interval(estimate, lower, upper, confidence)


def _excludes(population: int, defectives: int, sampled: int, defective: int, risk: float) -> bool:
    """Whether a sample with so few defective units would be too unlikely if ``defectives`` were in the population."""
    return bool(stats.hypergeom.cdf(defective, population, defectives, sampled) <= risk * ROUNDING)


def _risk(confidence: float) -> float:
    """1 - confidence; ValueError unless that is a probability in (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    return 1 - confidence
