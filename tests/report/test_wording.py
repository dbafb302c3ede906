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
        (0.0866, "0.087"),
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


def test_interval() -> None:
    assert wording.interval(Interval(4 / 27, 0.0419, 0.3373, 0.95)) == "14.8 % (4.2 % to 33.7 %)"
    assert wording.interval(None) == "no inspected image"


def test_elide_keeps_both_ends_and_the_length() -> None:
    assert wording.elide("short.png", 20) == "short.png"
    elided = wording.elide("a" * 50 + "0007.png", 20)
    assert len(elided) == 20 and elided.endswith("0007.png") and elided.startswith("aaaa") and "…" in elided


def test_every_decision_has_a_mark_of_its_own_and_a_word() -> None:
    assert len(set(wording.MARKS.values())) == len(Decision) == len(wording.WORDS)


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
