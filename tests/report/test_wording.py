"""Number formats and fixed words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fabricated_lot import statistics_of

from explainvad.report import wording
from explainvad.types import Decision, Interval, LotReport


@pytest.mark.parametrize(
    ("value", "text"),
    [(1 / 96, "0.0104"), (1.0, "1"), (0.99999, "> 0.999"), (0.05, "0.05"), (2.5e-7, "2.5e-07"), (0.9994, "0.999")],
)
def test_p_value(value: float, text: str) -> None:
    assert wording.p_value(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0866, "0.0866"),
        (0.175, "0.175"),
        (2428.4, "2,428"),
        (1.4166, "1.42"),
        (-21.44, "−21.4"),
        (141.2, "141"),
        (float("inf"), "—"),
        (3e7, "3e+07"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("size", "text"), [(17, "17 B"), (412_350, "412 kB"), (999_700, "1.0 MB"), (88_310_000, "88.3 MB")]
)
def test_file_size(size: int, text: str) -> None:
    assert wording.file_size(size) == text


@pytest.mark.parametrize(
    ("iso", "text"),
    [
        ("2026-03-14T09:26:53Z", "2026-03-14 09:26 UTC"),
        ("2026-03-14T09:26:53+02:00", "2026-03-14 07:26 UTC"),
        ("unknown", "unknown"),
    ],
)
def test_timestamp(iso: str, text: str) -> None:
    assert wording.timestamp(iso) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((6.1, 5.42, 6.88), ("6.10", "5.42", "6.88")),
        ((5.4184, 5.4196, 6.88), ("5.418", "5.420", "6.880")),  # a failed gate must look failed
        ((0.2, 0.2), ("0.200", "0.200")),
        ((0.31, float("-inf"), float("inf")), ("0.310", "—", "—")),
        ((1.0, 1.0 + 1e-15), ("1.00000000000000", "1.00000000000000")),
    ],
)
def test_compared_numbers_are_told_apart(values: tuple[float, ...], texts: tuple[str, ...]) -> None:
    assert wording.distinct(*values) == texts


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        ("2026-03-14T09:26:53Z", "2026-03-14T11:27:41+02:00", "2026-03-14 09:26:53 to 09:27:41 UTC"),
        ("2026-03-14T23:59:59", "2026-03-15T00:00:07", "2026-03-14 23:59:59 to 2026-03-15 00:00:07 UTC"),
        ("unknown", "2026-03-15T00:00:07", "unknown to 2026-03-15T00:00:07"),
    ],
)
def test_period(start: str, end: str, text: str) -> None:
    assert wording.period(start, end) == text


def test_comparisons_and_ranges_stay_on_one_line() -> None:
    reason = "likeness 0.175 is outside [0, 0.168], p = 0.0164 is at most alpha = 0.05"
    lines = wording.unbroken(reason).split(" ")
    assert {"[0,\u00a00.168],", "p\u00a0=\u00a00.0164", "alpha\u00a0=\u00a00.05"} <= set(lines)
    assert wording.unbroken(reason).replace("\u00a0", " ") == reason


def test_interval() -> None:
    assert wording.interval(Interval(4 / 27, 0.0419, 0.3373, 0.95)) == "14.8 % (4.2 % to 33.7 %)"
    assert wording.interval(None) == "no inspected image"


def test_elide_keeps_both_ends_and_the_length() -> None:
    assert wording.elide("short.png", 20) == "short.png"
    elided = wording.elide("a" * 50 + "0007.png", 20)
    assert len(elided) == 20 and elided.endswith("0007.png") and elided.startswith("aaaa") and "…" in elided


def test_every_decision_has_a_mark_of_its_own_and_a_word() -> None:
    assert len(set(wording.MARKS.values())) == len(Decision) == len(wording.WORDS)


def test_disposition_with_labelled_defects(lot_report: LotReport) -> None:
    calibration = replace(lot_report.model.calibration, n_def=40, beta=0.1)
    records = tuple(
        replace(r, verdict=replace(r.verdict, decision=Decision.ACCEPT)) if r.decision is Decision.NOT_FLAGGED else r
        for r in lot_report.records
    )
    model = replace(lot_report.model, calibration=calibration)
    labelled = replace(lot_report, records=records, statistics=statistics_of(records), model=model)
    told = wording.disposition(labelled)[2]
    assert told.startswith("Of 27 inspected images: 4 rejected, 2 deferred to a person and 21 accepted.")
    nothing = replace(labelled, records=(), statistics=statistics_of([]))
    assert wording.disposition(nothing)[2] == "Of 0 inspected images: 0 accepted."


@pytest.mark.parametrize(
    ("kept", "lead", "sentence"),
    [
        (Decision.REJECT, Decision.REJECT, "Of 4 inspected images: 4 rejected and 0 not flagged."),
        (Decision.DEFER, Decision.DEFER, "Of 2 inspected images: 2 deferred to a person and 0 not flagged."),
        (Decision.NOT_FLAGGED, Decision.NOT_FLAGGED, "Of 21 inspected images: 21 not flagged."),
        (
            Decision.NOT_INSPECTED,
            Decision.NOT_INSPECTED,
            "Of 0 inspected images: 0 not flagged. 3 further files could not be inspected and are listed with reasons.",
        ),
    ],
)
def test_disposition(lot_report: LotReport, kept: Decision, lead: Decision, sentence: str) -> None:
    records = tuple(r for r in lot_report.records if r.decision is kept)
    report = replace(lot_report, records=records, statistics=statistics_of(records))
    assert wording.disposition(report)[0] is lead
    assert wording.disposition(report)[2] == sentence
