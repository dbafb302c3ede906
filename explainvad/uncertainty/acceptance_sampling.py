"""Acceptance sampling by attributes: the single plans of MIL-STD-105E, and what inspection error makes of them.

The standard (1989, in the public domain, as are its tables) fixes how many units of a lot are inspected and with how
many defective ones it is still accepted. Its numbers presume that inspection errs never; the operating
characteristic here does not.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from explainvad.errors import UsageError

# Table I: largest lot of each class but the last, and the code letters of the classes by general inspection level
LOT_SIZES = (8, 15, 25, 50, 90, 150, 280, 500, 1_200, 3_200, 10_000, 35_000, 150_000, 500_000)
CODE_LETTERS = {"I": "AABCCDEFGHJKLMN", "II": "ABCDEFGHJKLMNPQ", "III": "BCDEFGHJKLMNPQR"}

# Table II-A: sample size of each code letter, acceptable quality levels up to 10 % in per cent
SAMPLE_SIZES = {
    "A": 2, "B": 3, "C": 5, "D": 8, "E": 13, "F": 20, "G": 32, "H": 50,
    "J": 80, "K": 125, "L": 200, "M": 315, "N": 500, "P": 800, "Q": 1250, "R": 2000,
}  # fmt: skip
AQLS = (0.010, 0.015, 0.025, 0.040, 0.065, 0.10, 0.15, 0.25, 0.40, 0.65, 1.0, 1.5, 2.5, 4.0, 6.5, 10.0)
# Sample sizes and AQLs grow by the same factor, so acceptance numbers are constant along rising diagonals. They are
# counted from the one through (A, 6.5 %) and (Q, 0.010 %); those between have arrows
ACCEPTANCE_NUMBERS = {0: 0, 3: 1, 4: 2, 5: 3, 6: 5, 7: 7, 8: 10, 9: 14, 10: 21}
FIRST_DIAGONAL = AQLS.index(6.5)


@dataclass(frozen=True, slots=True, eq=False)
class SamplingPlan:
    """A single sampling plan: inspect ``sample_size`` units, accept with up to ``acceptance_number`` defective."""

    letter: str  # code letter of the plan that is used, arrows followed
    sample_size: int  # the whole lot, when the table asks for as many or more
    acceptance_number: int
    lot_size: int
    aql: float  # acceptable quality level, per cent defective
    level: str  # general inspection level: I, II or III

    @property
    def rejection_number(self) -> int:
        """The fewest defective units in the sample with which the lot is rejected."""
        return self.acceptance_number + 1


def sampling_plan(lot_size: int, aql: float, level: str = "II") -> SamplingPlan:
    """The single sampling plan of MIL-STD-105E for normal inspection (tables I and II-A).

    ``aql`` is in per cent defective, 0.010 to 10. A lot smaller than the sample is inspected as a whole. Tightened and
    reduced inspection, and the rules that switch between them, are not part of this.

    Raises UsageError on a lot of fewer than 2 units, an AQL that the table lacks (naming the nearest) or another level.
    """
    if lot_size < 2:
        raise UsageError(f"sampling plans are for lots of 2 units or more, got {lot_size}")
    if level not in CODE_LETTERS:
        raise UsageError(f"the general inspection levels are {', '.join(CODE_LETTERS)}, got {level}")
    if aql not in AQLS:
        place = bisect_left(AQLS, aql)
        nearest = " or ".join(f"{a:g} %" for a in AQLS[max(place - 1, 0) : place + 1])
        raise UsageError(
            f"MIL-STD-105E has no AQL of {aql:g} % defective (it has {AQLS[0]:g} to {AQLS[-1]:g} %): use {nearest}"
        )
    rows = tuple(SAMPLE_SIZES)
    row = rows.index(CODE_LETTERS[level][bisect_left(LOT_SIZES, lot_size)])
    # An arrow leads to the first plan above or below it, and that is always the nearest of its column. So it is taken
    # at (A, 10 %) and (R, 0.015 %) too, where the table ends on the side of that diagonal's arrows
    diagonals = {r: r + AQLS.index(aql) - FIRST_DIAGONAL for r in range(len(rows))}
    used = min((r for r, d in diagonals.items() if d in ACCEPTANCE_NUMBERS), key=lambda r: abs(r - row))
    return SamplingPlan(
        letter=rows[used],
        sample_size=min(SAMPLE_SIZES[rows[used]], lot_size),
        acceptance_number=ACCEPTANCE_NUMBERS[diagonals[used]],
        lot_size=lot_size,
        aql=aql,
        level=level,
    )


def probability_of_acceptance(
    plan: SamplingPlan, p: ArrayLike, sensitivity: float = 1.0, specificity: float = 1.0
) -> NDArray[np.float64]:
    """Operating characteristic: P(the lot is accepted) where a share ``p`` of the units is defective, of p's shape.

    A sampled unit is *called* defective with probability p Se + (1 - p)(1 - Sp), and the lot is accepted when at most
    Ac are (Collins, Case and Bennett 1973, "The effects of inspection error on single sampling inspection plans"). It
    is a binomial probability: units are judged independently, and the lot is drawn from a process with defect rate
    p (type B). Sp of a conformal verdict is that of its calibration set, one number for all units.

    Raises ValueError unless p, sensitivity and specificity lie in [0, 1].
    """
    share = np.asarray(p, dtype=np.float64)
    for name, value in (("p", share), ("sensitivity", sensitivity), ("specificity", specificity)):
        if not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
            raise ValueError(f"{name} must lie in [0, 1], got {value}")
    called = share * sensitivity + (1 - share) * (1 - specificity)
    return np.asarray(stats.binom.cdf(plan.acceptance_number, plan.sample_size, called), dtype=np.float64)


def producer_risk(plan: SamplingPlan, sensitivity: float = 1.0, specificity: float = 1.0) -> float:
    """P(the lot is rejected) where the share of defective units is just the AQL; see probability_of_acceptance."""
    return 1.0 - float(probability_of_acceptance(plan, plan.aql / 100, sensitivity, specificity))


def limiting_quality(
    plan: SamplingPlan, sensitivity: float = 1.0, specificity: float = 1.0, acceptance: float = 0.10
) -> float | None:
    """Smallest share of defective units, in [0, 1], with which a lot is accepted with probability <= ``acceptance``.

    0 when false alarms alone reject lots that often, and None when so many defects are missed that even a lot of
    nothing but defective units is accepted more often. Assumptions as in :func:`probability_of_acceptance`.
    """
    # binom.cdf(Ac, n, q) = beta.sf(q, Ac + 1, n - Ac), solved for q: the share that must be called defective
    called = float(stats.beta.isf(acceptance, plan.acceptance_number + 1, plan.sample_size - plan.acceptance_number))
    false_alarms = 1 - specificity
    if false_alarms >= called:
        return 0.0
    if sensitivity < called:
        return None
    return (called - false_alarms) / (sensitivity - false_alarms)
