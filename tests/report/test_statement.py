"""The lot statement: what it bounds, what it cannot bound, and whether the guarantees stand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pikepdf
import pytest
from fabricated_lot import quiet_lot
from fabricated_statistics import AUDIT, CALM, drifted
from fabricated_variants import (
    cell_lot,
    cells_of,
    labelled_lot,
    suspended,
    with_calibration,
    with_statistics,
)
from page_text import sections, sections_of
from pdf_text import page_of_anchor, page_text

from explainvad.report.render import ReportRenderer
from explainvad.report.statement import UNDETERMINED, alarm_risk, statements, stream_rows, suspension
from explainvad.types import Drift, Interval, LotReport

AT_LEAST, SHARE, AUDITED = 0, 1, 2
SINCE = "Drift alarm: the images seen so far are no longer like the calibration images"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    """The full lot with labelled defects and an audit."""
    return labelled_lot(tmp_path_factory.mktemp("labelled") / "run")


def test_numbers_are_those_of_the_record(labelled: LotReport) -> None:
    at_least, share, audited = statements(labelled)
    assert at_least.value == "3 of 27" and at_least.condition.startswith("With 95 % confidence (Simes")
    assert share.value == "17.2 % (3.1 % to 38.8 %)"
    assert "with 95 % interval" in share.condition and "40 labelled ones, of which 27 have p ≤ α" in share.condition
    assert audited.value == "8 of 21 (38.1 %)"
    assert "95 % confidence" in audited.condition
    assert "1 of 8 sampled images found defective by K. Lindqvist. The limit of 10 % is not kept" in audited.condition


def test_every_confidence_is_its_own(labelled: LotReport) -> None:
    rate = Interval(0.172, 0.031, 0.388, 0.9)
    other = with_statistics(labelled, confidence=0.99, defect_rate=rate)
    other = replace(other, audit=replace(AUDIT, confidence=0.8))
    printed = [re.findall(r"\d+ % (?:confidence|interval)", s.condition) for s in statements(other)]
    assert printed == [["99 % confidence"], ["90 % interval"], ["80 % confidence"]]


def test_audit_says_whether_the_limit_is_kept_and_how_often_it_was_tried(labelled: LotReport) -> None:
    kept = replace(labelled, audit=replace(AUDIT, upper_count=2, n_draws=3))
    condition = statements(kept)[AUDITED].condition
    assert "The limit of 10 % is kept" in condition
    assert "sample 3 of this run, while the confidence is that of one" in condition
    assert "of this run" not in statements(labelled)[AUDITED].condition


def test_what_is_undetermined_names_what_it_needs(lot_report: LotReport, labelled: LotReport) -> None:
    _, share, audited = statements(lot_report)
    assert share.value == audited.value == UNDETERMINED
    assert "labelled defects (fit --defects)" in share.condition
    assert "explainvad audit-sample" in audited.condition

    unknown = with_statistics(labelled, defect_rate=None)
    cells = cells_of(labelled.model.calibration, "a", "b")
    assert "one calibration for all images" in statements(with_calibration(unknown, cells=cells))[SHARE].condition
    few = statements(with_calibration(unknown, scheme="leave-one-out"))[SHARE]
    assert "more reference images" in few.condition
    assert "passed every acquisition gate" in statements(unknown)[SHARE].condition
    nothing = statements(with_statistics(labelled, at_least_defective=None))[AT_LEAST]
    assert (nothing.value, nothing.condition) == (UNDETERMINED, "Needs an inspected image")


@pytest.mark.parametrize(
    ("inspected", "smallest_p", "words"),
    [
        (200, 1 / 96, "unless 42 or more of the 200 score higher"),  # 200 / (0.05 * 96) = 41.7
        (200, 1 / 100, "unless 40 or more of the 200 score higher"),
        (6, 1 / 100, "unless 2 or more of the 6 score higher"),
        (5, 1 / 100, None),  # one image would do, so 0 is a finding
        (50, 1 / 20, "unless 50 or more of the 50 score higher"),
        (50, 1 / 19, "Cannot be above 0 here: 95 calibration images are too few"),
    ],
)
def test_zero_says_when_it_could_not_have_been_more(
    lot_report: LotReport, inspected: int, smallest_p: float, words: str | None
) -> None:
    lot = with_calibration(lot_report, smallest_p=smallest_p)
    zero = statements(with_statistics(lot, n_inspected=inspected, at_least_defective=0))[AT_LEAST]
    assert zero.value == f"0 of {inspected}"
    assert words in zero.condition if words else "above 0" not in zero.condition
    positive = statements(with_statistics(lot, n_inspected=inspected, at_least_defective=1))[AT_LEAST]
    assert "above 0" not in positive.condition


def test_images_needed_are_counted_exactly(lot_report: LotReport) -> None:
    lot = with_calibration(lot_report, smallest_p=1 / 100)
    zero = with_statistics(lot, n_inspected=20, at_least_defective=0, confidence=0.9)
    assert "unless 2 or more of the 20" in statements(zero)[AT_LEAST].condition  # 20 / (0.1 * 100), in floats above 2


def test_zero_of_a_model_with_cells_counts_with_its_largest_cell(lot_report: LotReport) -> None:
    cells = cells_of(lot_report.model.calibration, "a", "b")  # 95 and 83 images
    lot = with_calibration(lot_report, cells=cells, smallest_p=1 / 84)
    condition = statements(with_statistics(lot, n_inspected=200, at_least_defective=0))[AT_LEAST].condition
    assert "unless 42 or more of the 200 score higher than all calibration images of their cells" in condition


def test_few_references_leave_the_dependence_open(lot_report: LotReport) -> None:
    few = statements(with_calibration(lot_report, scheme="leave-one-out"))[AT_LEAST]
    assert "leave-one-out is not proven to give" in few.condition
    assert "leave-one-out" not in statements(lot_report)[AT_LEAST].condition


@pytest.mark.parametrize(
    ("detected", "rate", "told"),
    [
        (27, (0.1, 0.0, 1.0), "leave any share possible"),
        (1, (0.7, 0.0, 0.7), "no more than normal images would"),  # 1/40 = 0.025 < 4/96
        (2, (0.7, 0.0, 0.7), None),  # 0.05 > 4/96: an estimate, though at its upper limit
        (40, (1.0, 0.6, 1.0), None),  # nearly all flagged
    ],
)
def test_share_is_no_finding_where_flags_cannot_tell(
    labelled: LotReport, detected: int, rate: tuple[float, float, float], told: str | None
) -> None:
    lot = with_calibration(labelled, n_detected=detected)
    share = statements(with_statistics(lot, defect_rate=Interval(*rate, 0.95)))[SHARE]
    if told:
        assert share.value == UNDETERMINED and told in share.condition and "Rogan" not in share.condition
    else:
        assert share.value.startswith(f"{100 * rate[0]:.1f} % (") and "Rogan" in share.condition


@pytest.mark.parametrize(
    ("alpha", "n_cal", "detected", "n_def", "told"),
    [
        (0.05, 99, 2, 40, False),  # 5 of 100 ranks are significant, a share of 0.05 exactly
        (0.29, 99, 29, 100, False),  # 0.29 * 100 is below 29 in floats
        (0.05, 95, 5, 119, True),  # 0.0420, between 4/96 and 4/95
    ],
)
def test_false_positive_rate_is_the_one_that_ranks_allow(
    labelled: LotReport, alpha: float, n_cal: int, detected: int, n_def: int, told: bool
) -> None:
    lot = with_calibration(labelled, alpha=alpha, n_cal=n_cal, n_detected=detected, n_def=n_def)
    share = statements(with_statistics(lot, defect_rate=Interval(0.7, 0.0, 0.7, 0.95)))[SHARE]
    assert (share.value != UNDETERMINED) is told


def test_streams_are_those_of_the_record() -> None:
    calm, late = stream_rows(drifted())
    assert (calm.name, calm.now, calm.peak, calm.limit, calm.status, calm.alarmed) == (
        *("scores", "0.240", "2.38", "200", "no alarm", False),
    )
    assert (late.now, late.peak, late.status, late.alarmed) == (
        *("82.0", "2.0 × 10⁶", "alarm at lot 2026-0341, img-00107", True),
    )
    assert stream_rows(None) == []


@pytest.mark.parametrize(
    ("log10", "text"),
    [(0, "1.00"), (4.999, "99,770"), (5.999, "1.0 × 10⁶"), (6.99, "9.8 × 10⁶"), (412.3, "2.0 × 10⁴¹²")],
)
def test_evidence_of_any_size_has_a_form(log10: float, text: str) -> None:
    stream = replace(CALM.streams[0], log10_wealth=log10)
    assert stream_rows(replace(CALM, streams=(stream,)))[0].now == text


def test_alarm_risk_adds_up_the_streams() -> None:
    assert alarm_risk(CALM) == pytest.approx(0.01)
    wide = tuple(replace(s, delta=0.02) for s in CALM.streams)
    assert alarm_risk(Drift(wide, 0, 0)) == pytest.approx(0.04)


def test_statement_page_prints_the_record(lot_report: LotReport, rendered: Path, tmp_path: Path) -> None:
    text = sections_of(rendered)["statement"]
    assert "scores ordinary fused scores; defects do not count 0.240 2.38 200 ✓ no alarm" in text
    assert "this lot and 11 earlier lots with 1,302 images" in text
    assert "any alarm is ever raised with probability 1 % at most" in text
    wide = replace(CALM, streams=tuple(replace(s, delta=0.02) for s in CALM.streams), n_lots=0, n_images=0)
    text = sections(with_statistics(lot_report, drift=wide, chart=None), tmp_path)["statement"]
    assert "this lot alone; no earlier lot is known" in text and "probability 4 % at most" in text
    assert "No chart: this is the first lot of this model that is known" in text


def test_record_without_drift_says_so(lot_report: LotReport, tmp_path: Path) -> None:
    text = sections(with_statistics(lot_report, drift=None), tmp_path)["statement"]
    assert "Not watched: this record carries no drift streams" in text


def test_suspension_stands_on_cover_statement_and_method_and_nowhere_without_an_alarm(
    lot_report: LotReport, rendered: Path, tmp_path: Path
) -> None:
    text = sections(suspended(lot_report), tmp_path)
    assert {name for name, body in text.items() if SINCE in body} == {"cover", "statement", "method"}
    assert "guarantees in this report are suspended" in text["cover"]
    assert "✕ alarm at lot 2026-0341, img-00107" in text["statement"]
    assert not any("suspended" in body or "Drift alarm" in body for body in sections_of(rendered).values())
    assert suspension(with_statistics(lot_report, drift=None)) == ""


def test_suspension_after_leave_one_out_speaks_of_the_lots_alone(lot_report: LotReport) -> None:
    few = suspension(with_calibration(suspended(lot_report), scheme="leave-one-out"))
    assert "later images are no longer like earlier ones" in few and "like the calibration images" not in few


def test_suspended_lot_with_everything_keeps_to_one_page_for_cover_method_and_card(
    labelled: LotReport, tmp_path: Path
) -> None:
    ReportRenderer().render(suspended(labelled), tmp_path, ["pdf"])
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        at = page_of_anchor(pdf)
        cover = page_text(pdf.pages[0])
    assert at["lot-summary"] == 1
    assert at["img-00005"] == at["method"] + 1
    assert at["appendix"] == at["model-card"] + 1
    assert SINCE.replace(" ", "") in cover and "ContentsLotsummary2" in cover


@pytest.mark.thorough
def test_hostile_words_stay_text(tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">'
    report = cell_lot(tmp_path / "run", first=f"1{evil}", second=f"2{evil}")
    chart = report.statistics.chart
    assert chart is not None
    points = tuple(replace(p, lot_id=f"{k}<b>&") for k, p in enumerate(chart.points))
    report = with_statistics(report, drift=drifted(f"lot {evil}"), chart=replace(chart, points=points))
    report = replace(report, audit=replace(AUDIT, auditor=evil), lot=replace(report.lot, lot_id=evil))
    ReportRenderer().render(report, tmp_path, ["html", "pdf"])
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "<img src=x" not in html and "onerror=&#34;" in html
    text = sections_of(tmp_path)
    assert f"found defective by {evil}" in text["statement"] and f"alarm at lot {evil}" in text["statement"]
    assert f"1{evil}" in text["card"]
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        assert evil.replace(" ", "") in page_text(pdf.pages[0])


def test_endless_names_are_shortened(tmp_path: Path) -> None:
    report = quiet_lot(tmp_path)
    endless = replace(report, audit=replace(AUDIT, auditor="x" * 500))
    assert "x" * 61 not in statements(endless)[AUDITED].condition
    assert len(stream_rows(drifted("x" * 500))[1].status) <= 90
