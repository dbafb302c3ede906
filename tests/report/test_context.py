"""Values derived from a report for its templates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pikepdf
import pytest
from fabricated_lot import quiet_lot
from pdf_text import page_text

from explainvad.report.context import Attachment, flattened, issued_at, report_context
from explainvad.report.image_page import image_pages
from explainvad.report.render import ReportRenderer
from explainvad.types import LotInfo, LotReport


def test_configuration_is_flattened_in_the_order_of_its_keys() -> None:
    config = {"b": {"y": [1, "two", None], "x": True}, "a": None, "c": {}, "d": 0.05}
    expected = [("a", "—"), ("b.x", "yes"), ("b.y", "1, two, —"), ("c", "{}"), ("d", "0.05")]
    assert flattened(config) == expected


def test_issue_date_is_the_end_of_the_inspection(lot_report: LotReport) -> None:
    assert issued_at(lot_report).isoformat() == "2026-03-14T09:27:41+00:00"
    local = replace(lot_report.provenance, finished_at="2026-03-14T09:27:41+02:00")
    assert issued_at(replace(lot_report, provenance=local)).isoformat() == "2026-03-14T07:27:41+00:00"


def test_absent_lot_facts_are_left_out(lot_report: LotReport) -> None:
    pages, _ = image_pages(lot_report)
    full = dict(report_context(lot_report, pages, [])["lot_facts"])
    assert full["Scale"] == "0.125 mm per pixel" and full["Drawing revision"] == "C"
    bare = replace(lot_report, lot=LotInfo("x", part="", site="Plant 2"))
    assert report_context(bare, pages, [])["lot_facts"] == [("Site", "Plant 2")]


def test_counts_on_the_page_reconcile(lot_report: LotReport) -> None:
    context = report_context(lot_report, [], [])
    assert sum(n for _, n in context["reconciled"]) == lot_report.statistics.n_files
    assert len({d for d, _ in context["reconciled"]}) == 5


def test_repeated_fallbacks_are_told_once(lot_report: LotReport) -> None:
    same = replace(lot_report.provenance, fallbacks=lot_report.model.fallbacks)
    assert report_context(replace(lot_report, provenance=same), [], [])["fallbacks"] == lot_report.model.fallbacks


def test_attachment_hash_is_of_its_bytes() -> None:
    assert Attachment("a", b"", "", "Data").sha256.startswith("e3b0c44298fc1c14")


def test_labelled_defects_change_what_is_claimed(tmp_path: Path) -> None:
    report = quiet_lot(tmp_path / "run")
    calibration = replace(report.model.calibration, n_def=40, beta=0.1)
    labelled = replace(report, model=replace(report.model, calibration=calibration))
    ReportRenderer().render(labelled, tmp_path, ["html"])
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "exchangeable with the 40 labelled defects" in html
    assert "No bound on missed defects" not in html


@pytest.mark.parametrize("formats", [["pdf"]])
def test_quiet_lot_has_no_image_pages(tmp_path: Path, formats: list[str]) -> None:
    ReportRenderer().render(quiet_lot(tmp_path / "run"), tmp_path, formats)
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        text = "".join(page_text(page) for page in pdf.pages)
    assert "Noimageflagged" in text
    assert "Noimageofthislotwasrejectedordeferred" in text
    assert "Everyfileofthelotwasinspected" in text
    assert "Humanverdict" not in text
