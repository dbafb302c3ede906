"""The decision rule, row by row."""

from __future__ import annotations

from itertools import product

import pytest

from explainvad.types import Decision, GateResult
from explainvad.uncertainty.selective import decide

ALPHA, BETA, LIMIT = 0.05, 0.10, 0.2
GOOD = GateResult("exposure", 100.0, 80.0, 120.0, True, "mean luminance")
BAD = GateResult("sharpness", 0.5, 1.25, 3.0, False, "log of the Laplacian")
REJECT, DEFER, ACCEPT, NOT_FLAGGED = Decision.REJECT, Decision.DEFER, Decision.ACCEPT, Decision.NOT_FLAGGED

# (p0 <= alpha, a gate failed, scorers disagree) -> decision without defects, if p1 > beta, if p1 <= beta
TABLE = {
    (False, False, False): (NOT_FLAGGED, DEFER, ACCEPT),
    (False, False, True): (DEFER, DEFER, DEFER),
    (False, True, False): (DEFER, DEFER, DEFER),
    (False, True, True): (DEFER, DEFER, DEFER),
    (True, False, False): (REJECT, REJECT, DEFER),
    (True, False, True): (REJECT, REJECT, DEFER),
    (True, True, False): (DEFER, DEFER, DEFER),
    (True, True, True): (DEFER, DEFER, DEFER),
}


@pytest.mark.parametrize(("row", "labelled"), list(product(TABLE, range(3))))
def test_the_whole_truth_table(row: tuple[bool, bool, bool], labelled: int) -> None:
    small, failed, disagree = row
    decision, reasons = decide(
        0.02 if small else 0.3,
        ALPHA,
        (GOOD, BAD) if failed else (GOOD,),
        0.5 if disagree else 0.1,
        LIMIT,
        *((), (0.4, BETA), (0.03, BETA))[labelled],
    )
    assert decision is TABLE[row][labelled]
    # Whatever a person must act on has a reason, and nothing else has
    assert bool(reasons) == (decision in (REJECT, DEFER))


def test_the_table_keeps_its_guarantees() -> None:
    for (small, _, _), (without, like_defect, unlike_defect) in TABLE.items():
        assert small or REJECT not in (without, like_defect, unlike_defect)  # P(REJECT | normal) <= alpha
        assert ACCEPT not in (without, like_defect)  # P(ACCEPT | defect) <= beta
        assert (like_defect in (REJECT, DEFER)) and (unlike_defect is not REJECT)


@pytest.mark.parametrize(
    ("p", "p1", "decision"),
    [(ALPHA, None, REJECT), (ALPHA, BETA, DEFER), (0.0501, BETA, ACCEPT), (0.0501, 0.1001, DEFER)],
)
def test_levels_are_inclusive(p: float, p1: float | None, decision: Decision) -> None:
    assert decide(p, ALPHA, (), LIMIT, LIMIT, p1, BETA if p1 is not None else None)[0] is decision


def test_reasons_name_the_numbers() -> None:
    assert decide(0.02, ALPHA, (GOOD,), 0.1, LIMIT)[1] == ("p = 0.0200 is at most alpha = 0.05",)
    assert decide(0.02, ALPHA, (GOOD, BAD), 0.1, LIMIT)[1] == (
        "sharpness 0.5 is outside [1.25, 3], the range of the reference images",
        "p = 0.0200 is at most alpha = 0.05",
    )
    (disagree,) = decide(0.3, ALPHA, (), 0.25, LIMIT)[1]
    assert "0.250 bit" in disagree and "0.200 bit" in disagree
    assert "p1 = 0.0300" in decide(0.02, ALPHA, (), 0.1, LIMIT, 0.03, BETA)[1][1]
    (undecided,) = decide(0.3, ALPHA, (), 0.1, LIMIT, 0.4, BETA)[1]
    assert "p1 = 0.4000 > beta = 0.1" in undecided
