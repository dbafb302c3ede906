"""The plans of MIL-STD-105E against its printed table, the operating characteristic against simulated inspection."""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
from scipy import stats

from explainvad.errors import UsageError
from explainvad.uncertainty.acceptance_sampling import (
    AQLS,
    CODE_LETTERS,
    LOT_SIZES,
    SAMPLE_SIZES,
    SamplingPlan,
    limiting_quality,
    probability_of_acceptance,
    producer_risk,
    sampling_plan,
)

# --- The tables

# Table II-A from AQL 0.65 to 10 %: acceptance numbers, and arrows up and down. At (A, 10) nothing lies above, so it
# points down, against its diagonal
PRINTED_AQLS = (0.65, 1.0, 1.5, 2.5, 4.0, 6.5, 10.0)
PRINTED = """
A    2   v   v   v   v   v   0   v
B    3   v   v   v   v   0   ^   v
C    5   v   v   v   0   ^   v   1
D    8   v   v   0   ^   v   1   2
E   13   v   0   ^   v   1   2   3
F   20   0   ^   v   1   2   3   5
G   32   ^   v   1   2   3   5   7
H   50   v   1   2   3   5   7  10
J   80   1   2   3   5   7  10  14
K  125   2   3   5   7  10  14  21
L  200   3   5   7  10  14  21   ^
M  315   5   7  10  14  21   ^   ^
N  500   7  10  14  21   ^   ^   ^
P  800  10  14  21   ^   ^   ^   ^
Q 1250  14  21   ^   ^   ^   ^   ^
R 2000  21   ^   ^   ^   ^   ^   ^
"""
ROWS = [line.split() for line in PRINTED.strip().splitlines()]
LETTERS = [row[0] for row in ROWS]


def printed(letter: str, aql: float) -> tuple[str, int, int]:
    """Follow the printed arrows to letter, sample size and acceptance number."""
    row, column = LETTERS.index(letter), 2 + PRINTED_AQLS.index(aql)
    while (cell := ROWS[row][column]) in "v^":
        row += 1 if cell == "v" else -1
    return ROWS[row][0], int(ROWS[row][1]), int(cell)


def found(plan: SamplingPlan) -> tuple[str, int, int]:
    return plan.letter, plan.sample_size, plan.acceptance_number


def lot_of(letter: str) -> tuple[int, str]:
    """Some lot size, large enough not to be inspected whole where that is possible, and level of a code letter."""
    level = next(name for name, letters in CODE_LETTERS.items() if letter in letters)
    return ([*LOT_SIZES, 10**6])[CODE_LETTERS[level].rindex(letter)], level


@pytest.mark.parametrize("aql", PRINTED_AQLS)
@pytest.mark.parametrize("letter", LETTERS)
def test_every_cell_is_that_of_the_printed_table(letter: str, aql: float) -> None:
    lot_size, level = lot_of(letter)
    name, size, accepted = printed(letter, aql)
    assert found(sampling_plan(lot_size, aql, level)) == (name, min(size, lot_size), accepted)


@pytest.mark.parametrize(
    ("lot_size", "level", "aql", "expected"),
    [
        (2000, "II", 1.0, ("K", 125, 3)),
        (200, "II", 1.5, ("G", 32, 1)),
        (500, "II", 1.0, ("H", 50, 1)),
        (501, "II", 0.65, ("J", 80, 1)),
        (5000, "II", 1.0, ("L", 200, 5)),
        (150, "II", 1.0, ("E", 13, 0)),
        (151, "II", 0.65, ("F", 20, 0)),
        (600_000, "III", 0.010, ("Q", 1250, 0)),
        (600_000, "III", 0.025, ("R", 2000, 1)),
        (600_000, "II", 0.010, ("Q", 1250, 0)),
        (600_000, "II", 0.025, ("R", 2000, 1)),
        (20_000, "II", 0.065, ("L", 200, 0)),
        (100_000, "II", 0.065, ("P", 800, 1)),
        (100_000, "II", 0.10, ("N", 500, 1)),
        (20_000, "I", 0.10, ("K", 125, 0)),
        (1_000, "II", 0.15, ("J", 80, 0)),
        (1_000, "II", 0.010, ("Q", 1000, 0)),
        # Nothing lies above A or below R: the other arrow's plan is the only one near
        (600_000, "III", 0.015, ("P", 800, 0)),
        (9, "I", 10.0, ("C", 5, 1)),
    ],
)
def test_known_plans(lot_size: int, level: str, aql: float, expected: tuple[str, int, int]) -> None:
    plan = sampling_plan(lot_size, aql, level)
    assert found(plan) == expected
    assert (plan.lot_size, plan.aql, plan.level, plan.rejection_number) == (lot_size, aql, level, expected[2] + 1)


@pytest.mark.parametrize(
    ("lot_sizes", "letters"),
    [((2, 8), "AAB"), ((9, 15), "ABC"), ((16, 25), "BCD"), ((26, 50), "CDE"), ((51, 90), "CEF"), ((91, 150), "DFG"),
     ((151, 280), "EGH"), ((281, 500), "FHJ"), ((501, 1200), "GJK"), ((1201, 3200), "HKL"), ((3201, 10_000), "JLM"),
     ((10_001, 35_000), "KMN"), ((35_001, 150_000), "LNP"), ((150_001, 500_000), "MPQ"), ((500_001, 10**7), "NQR")],
)  # fmt: skip
def test_code_letters_by_lot_size_and_level(lot_sizes: tuple[int, int], letters: str) -> None:
    for lot_size, aql, (level, letter) in product(lot_sizes, PRINTED_AQLS, zip(CODE_LETTERS, letters, strict=True)):
        name, size, accepted = printed(letter, aql)
        assert found(sampling_plan(lot_size, aql, level)) == (name, min(size, lot_size), accepted)


def test_a_lot_smaller_than_the_sample_is_inspected_as_a_whole() -> None:
    assert found(sampling_plan(100, 0.10)) == ("K", 100, 0)
    assert found(sampling_plan(125, 0.10)) == ("K", 125, 0)
    assert found(sampling_plan(126, 0.10)) == ("K", 125, 0)
    # And can be rejected
    for lot_size, aql, level in product(range(2, 40), AQLS, CODE_LETTERS):
        plan = sampling_plan(lot_size, aql, level)
        assert plan.acceptance_number < plan.sample_size <= lot_size


@pytest.mark.parametrize(
    ("aql", "nearest"),
    [(1.2, "use 1 % or 1.5 %"), (0.005, r"use 0\.01 %$"), (15.0, "use 10 %$"), (0.5, r"use 0\.4 % or 0\.65 %")],
)
def test_another_aql_is_refused_and_the_nearest_are_named(aql: float, nearest: str) -> None:
    with pytest.raises(UsageError, match=nearest):
        sampling_plan(100, aql)


def test_another_level_and_a_lot_of_one_are_refused() -> None:
    with pytest.raises(UsageError, match="I, II, III, got IV"):
        sampling_plan(100, 1.0, "IV")
    with pytest.raises(UsageError, match="got 1"):
        sampling_plan(1, 1.0)


# --- The operating characteristic

PLAN = sampling_plan(2000, 1.0)  # K: 125, Ac 3


def test_acceptance_by_hand_and_of_any_shape() -> None:
    plan = sampling_plan(20, 2.5)  # C: 5, Ac 0
    assert found(plan) == ("C", 5, 0)
    accepted = probability_of_acceptance(plan, [[0.0, 0.1], [0.5, 1.0]])
    assert accepted == pytest.approx(np.array([[1, 0.9**5], [0.5**5, 0]]))
    # Half the defects are found, a tenth of the good units called defective: 0.2 * 0.5 + 0.8 * 0.1 = 0.18
    assert probability_of_acceptance(plan, 0.2, 0.5, 0.9) == pytest.approx(0.82**5)


@pytest.mark.parametrize(("p", "sensitivity", "specificity"), [(0.01, 1.0, 1.0), (0.03, 0.7, 0.99), (0.0, 0.5, 0.97)])
def test_it_is_how_often_simulated_inspection_accepts(p: float, sensitivity: float, specificity: float) -> None:
    n_lots = 20_000
    rng = np.random.default_rng(3)
    defective = rng.random((n_lots, PLAN.sample_size)) < p
    called = rng.random(defective.shape) < np.where(defective, sensitivity, 1 - specificity)
    accepted = int((called.sum(axis=1) <= PLAN.acceptance_number).sum())
    expected = stats.binom(n_lots, float(probability_of_acceptance(PLAN, p, sensitivity, specificity)))
    assert expected.ppf(5e-7) <= accepted <= expected.isf(5e-7)


def test_the_standards_own_risks() -> None:
    # A lot at the AQL is accepted with 0.87 to 0.99, more often by the larger samples
    risks = [producer_risk(sampling_plan(lot_size, 1.0)) for lot_size in (60, 400, 800, 2000, 8000, 30_000, 100_000)]
    assert risks == pytest.approx([0.1225, 0.0894, 0.0466, 0.0374, 0.0160, 0.0152, 0.0130], abs=2e-3)
    assert producer_risk(PLAN, 1.0, 0.99) == pytest.approx(1 - stats.binom.cdf(3, 125, 0.01 + 0.99 * 0.01))
    assert limiting_quality(PLAN) == pytest.approx(0.0527, abs=1e-4)


@pytest.mark.parametrize(("sensitivity", "specificity"), [(1.0, 1.0), (0.8, 0.99), (0.3, 1.0), (1.0, 0.95)])
def test_limiting_quality_is_where_acceptance_falls_to_a_tenth(sensitivity: float, specificity: float) -> None:
    for aql, lot_size in product(AQLS, (100, 2000, 50_000)):
        plan = sampling_plan(lot_size, aql)
        limit = limiting_quality(plan, sensitivity, specificity)
        if limit:
            at = probability_of_acceptance(plan, limit, sensitivity, specificity)
            assert at == pytest.approx(0.10), plan.letter
        else:
            worst_share = 1 if limit is None else 0
            at = probability_of_acceptance(plan, worst_share, sensitivity, specificity)
            assert at > 0.10 if limit is None else at <= 0.10, plan.letter
    assert limiting_quality(PLAN, acceptance=0.5) == pytest.approx(stats.beta.ppf(0.5, 4, 122))


def test_inspection_error_can_make_the_limiting_quality_unreachable() -> None:
    # 3 of 100 defects are found: even of nothing but defects 3.75 of 125 are called so
    assert limiting_quality(PLAN, 0.03) is None
    assert probability_of_acceptance(PLAN, 1.0, 0.03) > 0.4
    # At alpha = 0.10 false alarms alone reject nearly every lot
    assert limiting_quality(PLAN, 1.0, 0.90) == 0
    assert producer_risk(PLAN, 1.0, 0.90) > 0.99
    # An inspection that calls good units defective more often than defects sorts nothing
    assert limiting_quality(PLAN, 0.01, 0.97) is None


def test_misses_raise_acceptance_and_false_alarms_lower_it() -> None:
    shares = np.linspace(0, 0.2, 41)
    by_sensitivity = [probability_of_acceptance(PLAN, shares, se) for se in (1.0, 0.9, 0.5)]
    by_specificity = [probability_of_acceptance(PLAN, shares, 1.0, sp) for sp in (1.0, 0.99, 0.95)]
    assert all((more >= less).all() and more[5] > less[5] for less, more in pairwise(by_sensitivity))
    assert all((more >= less).all() and more[5] > less[5] for more, less in pairwise(by_specificity))


@pytest.mark.parametrize(
    ("name", "arguments"), [("p", (1.1,)), ("sensitivity", (0.1, math.nan)), ("specificity", (0, 1, -1))]
)
def test_what_is_no_share_is_refused(name: str, arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=f"^{name} must lie in"):
        probability_of_acceptance(PLAN, *arguments)


def test_sample_sizes_grow_by_one_factor() -> None:
    # What makes the table's diagonals: sample sizes and AQLs are both near a geometric series of 10^(1/5)
    for series in (tuple(SAMPLE_SIZES.values()), AQLS):
        assert all(1.42 <= b / a <= 1.68 for a, b in pairwise(series))
