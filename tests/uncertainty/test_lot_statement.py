"""Counts reconcile, and each bound is of the images that may carry it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from explainvad.types import (
    CalibrationFacts,
    Decision,
    GateResult,
    ImageRecord,
    LotStatistics,
    ProbabilityBound,
    Verdict,
)
from explainvad.uncertainty.lot_bounds import defective_at_least, rogan_gladen
from explainvad.uncertainty.lot_statement import summarise
from explainvad.uncertainty.lot_statistics import clopper_pearson

FACTS = CalibrationFacts(
    n_fit=80, n_norm=20, n_cal=99, n_groups=199, grouping="every image its own group", alpha=0.05, smallest_p=0.01,
    conditional_alpha=0.089, scores=(), score_threshold=1.0, pixel_threshold=1.0, cluster_threshold=0.5, gamma=0.02,
)  # fmt: skip
LABELLED = replace(FACTS, n_def=40, n_detected=30, beta=0.1)


def gate(passed: bool) -> GateResult:
    return GateResult("exposure", 120.0, 100.0, 140.0 if passed else 110.0, passed, "mean luminance")


def record(number: int, decision: Decision, p_value: float = 0.5, *, gates: bool = True, **changes: Any) -> ImageRecord:
    image_id = f"img-{number:05d}"
    inspected = decision is not Decision.NOT_INSPECTED
    verdict = Verdict(
        decision=decision,
        score=1.0,
        p_value=p_value,
        alpha=changes.pop("alpha", 0.05),
        probability=ProbabilityBound(upper=1.0, prior=0.01, method="stated"),
        aleatoric=0.0,
        epistemic=0.0,
        epistemic_limit=1.0,
        scorer_p_values={},
        gates=(gate(True), gate(gates)),
        reasons=(),
    ) if inspected else None  # fmt: skip
    fields: dict[str, Any] = {
        "image_id": image_id,
        "file": f"{image_id}.png",
        "sha256": None,
        "size_bytes": None,
        "width": None,
        "height": None,
        "notes": (),
        "verdict": verdict,
        "scores": {},
        "findings": (),
        "reference": None,
        "artifacts": {},
        "failure": None if inspected else "truncated",
    }
    return ImageRecord(**fields | changes)


def lot(*p_values: float, n_not_inspected: int = 0) -> list[ImageRecord]:
    """A record for each p-value, rejected at 0.05, and some that were not inspected."""
    decided = [record(i, Decision.REJECT if p <= 0.05 else Decision.NOT_FLAGGED, p) for i, p in enumerate(p_values)]
    return decided + [record(1000 + i, Decision.NOT_INSPECTED) for i in range(n_not_inspected)]


# --- Counts


def test_summary_counts_every_decision_and_reconciles() -> None:
    records = [
        record(1, Decision.REJECT, 0.01),
        record(2, Decision.NOT_FLAGGED, 0.6),
        record(3, Decision.DEFER, 0.02),
        record(4, Decision.NOT_INSPECTED),
        record(5, Decision.REJECT, 0.05),
        record(6, Decision.NOT_FLAGGED, 0.9),
    ]
    s = summarise(records, FACTS, fdr_level=0.10)
    assert s.counts == {"REJECT": 2, "DEFER": 1, "ACCEPT": 0, "NOT_FLAGGED": 2, "NOT_INSPECTED": 1}
    assert list(s.counts) == [d.value for d in Decision]
    assert (s.n_files, s.n_inspected) == (6, 5)
    assert s.expected_false_rejects == pytest.approx(0.25)
    assert s.reject_rate is not None and s.defer_rate is not None
    assert (s.reject_rate.estimate, s.defer_rate.estimate) == (0.4, 0.2)
    assert asdict(s.reject_rate) == asdict(clopper_pearson(2, 5))
    assert asdict(s.defer_rate) == asdict(clopper_pearson(1, 5))
    # p = .01, .02, .05 against the lines .02, .04, .06: all three, the deferred one too
    assert s.fdr_rejected == ("img-00001", "img-00003", "img-00005")
    assert (s.fdr_level, s.confidence) == (0.10, 0.95)
    assert (s.drift, s.chart) == (None, None)


def test_the_list_is_corrected_for_the_size_of_the_lot() -> None:
    assert summarise(lot(0.03, *[0.9] * 18), FACTS).fdr_rejected == ()


def test_a_lot_of_which_nothing_was_inspected_has_no_rates_and_no_bounds() -> None:
    s = summarise([record(1, Decision.NOT_INSPECTED)], LABELLED)
    assert s.reject_rate is None and s.defer_rate is None
    assert s.at_least_defective is None and s.defect_rate is None
    assert (s.n_files, s.n_inspected, s.expected_false_rejects, s.fdr_rejected) == (1, 0, 0.0, ())
    assert summarise([], FACTS).n_files == 0


def test_a_repeated_image_does_not_reconcile() -> None:
    with pytest.raises(ValueError, match="img-00001"):
        summarise([record(1, Decision.REJECT), record(2, Decision.DEFER), record(1, Decision.DEFER)], FACTS)


def test_an_unknown_decision_does_not_reconcile() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        summarise([record(1, "SCRAP")], FACTS)  # type: ignore[arg-type]


def test_a_verdict_at_another_alpha_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at alpha = 0\.05, got another one for img-00002"):
        summarise([record(1, Decision.REJECT), record(2, Decision.REJECT, alpha=0.01)], FACTS)
    assert summarise([record(2, Decision.REJECT, alpha=0.01)], replace(FACTS, alpha=0.01)).n_inspected == 1


# --- At least so many


def test_the_lower_bound_on_defective_images_is_of_the_inspected_ones() -> None:
    p = (0.01, 0.01, 0.01, 0.02, 0.3, 0.9)
    for confidence in (0.8, 0.95):
        s = summarise(lot(*p, n_not_inspected=20), FACTS, confidence=confidence)
        assert s.at_least_defective == defective_at_least(p, confidence) > 0
        assert s.confidence == confidence
    assert summarise(lot(0.6, 0.9), FACTS).at_least_defective == 0


def test_an_image_taken_otherwise_counts_as_the_least_suspicious_of_all() -> None:
    p = (0.01, 0.01, 0.01, 0.3)

    def with_failed(*failed: int) -> LotStatistics:
        return summarise([record(i, Decision.DEFER, x, gates=i not in failed) for i, x in enumerate(p)], FACTS)

    assert with_failed().fdr_rejected == ("img-00000", "img-00001", "img-00002")
    s = with_failed(1)
    assert s.fdr_rejected == ("img-00000", "img-00002")
    assert s.at_least_defective == defective_at_least([0.01, 1.0, 0.01, 0.3])
    assert s.n_inspected == 4
    none = with_failed(0, 1, 2, 3)
    assert (none.fdr_rejected, none.at_least_defective) == ((), 0)


# --- The share of defective units


def test_the_share_of_defective_units_is_that_of_rogan_and_gladen() -> None:
    p = (*[0.01] * 6, 0.05, 0.051, *[0.5] * 12)
    s = summarise(lot(*p, n_not_inspected=5), LABELLED, confidence=0.9)
    assert s.defect_rate is not None
    assert asdict(s.defect_rate) == asdict(rogan_gladen(7, 20, 30, 40, 99, 0.05, 0.9))
    assert 0 < s.defect_rate.lower < s.defect_rate.estimate < s.defect_rate.upper


def test_deferred_images_count_by_their_p_value_unless_a_gate_failed() -> None:
    records = [
        record(0, Decision.DEFER, 0.01),
        record(1, Decision.DEFER, 0.01, gates=False),
        record(2, Decision.DEFER, 0.9, gates=False),
        record(3, Decision.NOT_FLAGGED, 0.9),
        record(4, Decision.ACCEPT, 0.8),
    ]
    s = summarise(records, LABELLED)
    assert s.defect_rate is not None
    assert asdict(s.defect_rate) == asdict(rogan_gladen(1, 3, 30, 40, 99, 0.05))
    assert summarise([records[1]], LABELLED).defect_rate is None  # nothing usable is left


@pytest.mark.parametrize(
    "facts",
    [
        FACTS,  # no labelled defects: how many are found is unknown
        replace(LABELLED, scheme="leave-one-out"),  # no distribution of the false-positive rate
        replace(LABELLED, cells=(FACTS, FACTS)),  # several of them
    ],
)
def test_there_is_no_share_of_defective_units_without_what_it_needs(facts: CalibrationFacts) -> None:
    s = summarise(lot(0.01, 0.01, 0.9), facts)
    assert s.defect_rate is None
    at_least = None if facts.scheme == "leave-one-out" else defective_at_least([0.01, 0.01, 0.9])
    assert s.at_least_defective == at_least
