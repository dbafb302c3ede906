"""Values derived from a report for its templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pikepdf
import pytest
from fabricated_lot import Builder, quiet_lot, statistics_of, verdict_of
from fabricated_statistics import power_of
from fabricated_variants import cell_lot, cells_of, few_lot, synthetic_lot, with_calibration
from markupsafe import escape
from page_text import sections, sections_of
from pdf_text import page_text

from explainvad.report.assets import template_environment
from explainvad.report.attachments import Attachment
from explainvad.report.branding import Branding
from explainvad.report.context import flattened, issued_at
from explainvad.report.context import report_context as context_of
from explainvad.report.image_page import shown_records
from explainvad.report.render import ReportRenderer
from explainvad.types import Decision, ImageRecord, LotInfo, LotReport


def report_context(report: LotReport, pages: Sequence[ImageRecord] = ()) -> dict[str, Any]:
    """The variables of a report with pages of these images, without a brand."""
    return context_of(report, pages, [], Branding())


def test_configuration_is_flattened_in_the_order_of_its_keys() -> None:
    config = {"b": {"y": [1, "two", None], "x": True}, "a": None, "c": {}, "d": 0.05}
    expected = [("a", "—"), ("b.x", "yes"), ("b.y", "1, two, —"), ("c", "{}"), ("d", "0.05")]
    assert flattened(config) == expected


def test_tables_of_a_list_have_rows_of_their_own() -> None:
    config = {"scorer": [{"use": "unet", "layers": [1, 2]}, {"use": "padim"}], "some": []}
    assert flattened(config) == [
        ("scorer.1.layers", "1, 2"), ("scorer.1.use", "unet"), ("scorer.2.use", "padim"),
        ("some", "none"),
    ]  # fmt: skip


def test_issue_date_is_the_end_of_the_inspection(lot_report: LotReport) -> None:
    assert issued_at(lot_report).isoformat() == "2026-03-14T09:27:41+00:00"
    local = replace(lot_report.provenance, finished_at="2026-03-14T09:27:41+02:00")
    assert issued_at(replace(lot_report, provenance=local)).isoformat() == "2026-03-14T07:27:41+00:00"


def test_absent_lot_facts_are_left_out(lot_report: LotReport) -> None:
    full = dict(report_context(lot_report)["lot_facts"])
    assert full["Drawing revision"] == "C" and full["Serial numbers"] == "BF-26-0401 to BF-26-0430"
    assert (full["Operator"], full["Reviewer"]) == ("M. Okafor, line inspector", "J. Lindqvist, quality engineer")
    bare = replace(lot_report, lot=LotInfo("x", part="", site="Plant 2", reviewer_role="quality engineer"))
    assert report_context(bare)["lot_facts"] == [("Site", "Plant 2"), ("Reviewer", "quality engineer")]


def test_scope_and_imaging_are_complete_whatever_is_known(lot_report: LotReport) -> None:
    context = report_context(lot_report)
    bare = report_context(replace(lot_report, lot=LotInfo("x")))
    assert dict(context["imaging"])["Scale"] == "0.125 mm per pixel"
    for part in ("scope", "imaging"):
        assert all(value for _, value in context[part])
        assert [(name, None) for name, _ in context[part]] == bare[part]


def test_the_report_names_its_revision_and_what_it_supersedes(lot_report: LotReport) -> None:
    assert report_context(lot_report)["report_revision"] == "2; supersedes EV-1111-2222-3333"
    bare = replace(lot_report, lot=LotInfo("x"))
    assert report_context(bare)["report_revision"] == "1; the record names no earlier report"


def test_every_fact_of_the_lot_is_on_the_cover(lot_report: LotReport) -> None:
    template = template_environment().get_template("partials/cover.html")
    cover = template.render(report_context(lot_report), medium="print")
    for field in fields(LotInfo):
        value = getattr(lot_report.lot, field.name)
        assert str(escape(value)) in cover, field.name
    shown = template.render(report_context(replace(lot_report, lot=LotInfo("x"))), medium="print")
    for name in ("Criteria", "Sampling plan", "Deviations", "Lighting", "Calibration"):
        assert f'<span class="fact">{name}:</span> not stated' in shown
    assert '<th scope="row">Issued by</th><td>not stated</td>' in shown


def test_counts_on_the_page_reconcile(lot_report: LotReport) -> None:
    context = report_context(lot_report)
    assert sum(n for _, n in context["reconciled"]) == lot_report.statistics.n_files
    assert [d for d, _ in context["reconciled"]] == ["NOT_FLAGGED", "REJECT", "DEFER", "NOT_INSPECTED"]


def test_accept_is_counted_only_where_it_can_be_said(lot_report: LotReport) -> None:
    calibration = replace(lot_report.model.calibration, n_def=40, beta=0.1)
    labelled = replace(lot_report, model=replace(lot_report.model, calibration=calibration))
    shown = dict(report_context(labelled)["reconciled"])
    assert shown[Decision.ACCEPT] == 0
    assert shown[Decision.NOT_FLAGGED] == 21  # a count is never hidden
    none_left = replace(labelled, records=(), statistics=statistics_of([]))
    assert Decision.NOT_FLAGGED not in dict(report_context(none_left)["reconciled"])


def test_repeated_fallbacks_are_told_once(lot_report: LotReport) -> None:
    same = replace(lot_report.provenance, fallbacks=lot_report.model.fallbacks)
    assert report_context(replace(lot_report, provenance=same))["fallbacks"] == lot_report.model.fallbacks


def test_attachment_hash_is_of_its_bytes() -> None:
    assert Attachment("a", b"", "", "Data").sha256.startswith("e3b0c44298fc1c14")


def test_labelled_defects_tell_what_accept_means(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    b.good(2)
    deferred = verdict_of(Decision.DEFER, 1.1, 0.09, ("cannot be told from the labelled defects",))
    b.inspected("a.png", replace(deferred, defect_p_value=0.317, beta=0.1))
    report = b.report()
    calibration = replace(report.model.calibration, n_def=40, beta=0.1)
    accepted = [replace(r, verdict=replace(r.verdict, decision=Decision.ACCEPT)) for r in report.records[:2]]
    records = (*accepted, report.records[2])
    model = replace(report.model, calibration=calibration)
    text = sections(replace(report, records=records, statistics=statistics_of(records), model=model), tmp_path)
    assert "unlike the 40 labelled defects" in text["cover"] and "Not flagged" not in text["cover"]
    assert "p₁ ≤ β = 0.1 among the 40 labelled defects" in text["summary"]
    assert "at most 10 % are expected to be accepted" in text["summary"]
    assert "n₁ = 40 labelled defects" in text["method"]
    assert "exchangeable with the 40 labelled defects" in text["method"]
    assert "No bound on misses of defects unlike the 40 labelled ones" in text["method"]
    assert "so nothing is called accepted" not in text["method"]
    assert "p₁, 40 defects 0.317 accept: p₁ ≤ β = 0.1" in text["image"]
    assert "Bound β on accepted defects 0.1" in text["card"]


def test_without_labelled_defects_accept_is_never_mentioned(rendered: Path) -> None:
    text = sections_of(rendered)
    for name in ("cover", "summary", "statement", "method", "image", "card"):
        assert "p₁" not in text[name] and "β" not in text[name], name
    assert "Accept" not in text["cover"] + text["summary"]
    assert "so nothing is called accepted" in text["method"]


def test_cover_lists_the_parts_and_where_they_start(lot_report: LotReport, rendered: Path) -> None:
    pages = shown_records(lot_report, "flagged")
    anchors = [anchor for anchor, _ in report_context(lot_report, pages)["contents"]]
    assert anchors == ["lot-summary", "lot-statement", "method", "img-00005", "model-card", "appendix"]
    assert "Flagged images" not in dict(map(reversed, report_context(lot_report)["contents"]))
    with pikepdf.open(rendered / "report.pdf") as pdf:
        cover = page_text(pdf.pages[0])
        n_pages = len(pdf.pages)
    parts = "Lotsummary2Lotstatement3Methodanddecisionrule4Flaggedimages5Modelcard11"
    assert f"Contents{parts}Recordandverification{n_pages}" in cover


@pytest.mark.parametrize("formats", [["pdf"]])
def test_quiet_lot_has_no_image_pages(tmp_path: Path, formats: list[str]) -> None:
    ReportRenderer().render(quiet_lot(tmp_path / "run"), tmp_path, formats)
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        text = "".join(page_text(page) for page in pdf.pages)
    assert "Noimageflagged" in text
    assert "Noimageofthislotwasrejectedordeferred" in text
    assert "Everyfileofthelotwasinspected" in text
    assert "Humanverdict" not in text


def test_method_names_every_way_that_probabilities_were_found(lot_report: LotReport) -> None:
    method = lot_report.records[0].verdict
    assert method is not None
    other = replace(method, probability=replace(method.probability, method="another way"))
    records = (replace(lot_report.records[0], verdict=other), *lot_report.records[1:])
    told = report_context(replace(lot_report, records=records))["bound_methods"]
    assert told == ("another way", method.probability.method)


def test_cells_are_told_apart_on_method_and_card(tmp_path: Path) -> None:
    text = sections(cell_lot(tmp_path / "run"), tmp_path)
    assert "n = 95 for camera 1, n = 83 for camera 2" in text["method"]
    assert "exceeds 1.42 (camera 1), 1.21 (camera 2)" in text["method"]
    assert "1 / (n + 1), here 0.0119 in the smallest cell" in text["method"]
    assert "camera 1 95 0 0.0104 0.0812 1.42 4.20 camera 2 83 0 0.0119 0.0872 1.21 3.36" in text["card"]
    assert "p ≤ 0.05 in every cell" in text["summary"]


def test_many_cells_are_left_to_the_card(lot_report: LotReport, tmp_path: Path) -> None:
    cells = cells_of(lot_report.model.calibration, *(f"cavity {k}" for k in range(5)))
    report = with_calibration(replace(lot_report, records=()), cells=cells)
    text = sections(report, tmp_path)
    assert "n = 47 to 95 calibration images in 5 cells" in text["method"] and "cavity" not in text["method"]
    assert all(f"cavity {k} {95 - 12 * k} 0" in text["card"] for k in range(5))


def test_power_without_a_curve_has_no_picture(tmp_path: Path) -> None:
    report = with_calibration(synthetic_lot(tmp_path / "run"), power=power_of("synthetic", curve=False))
    text = sections(report, tmp_path)["card"]
    assert "39 of 40 synthetic defects have p ≤ 0.05. From which size" in text and "is not determined" in text
    assert "MIL-HDBK" not in text
    assert "Probability that a defect" not in (tmp_path / "report.html").read_text("utf-8")


def test_few_references_change_the_words_of_the_method(tmp_path: Path) -> None:
    text = sections(few_lot(tmp_path / "run"), tmp_path)
    assert "jackknife-minmax" in text["method"] and "is not proven here" in text["method"]
    assert "with 95 % confidence" not in text["method"].split("What is guaranteed")[1].split("smallest p-value")[0]
    assert "“Tail”" not in text["method"] and "Tail of normal images" not in text["image"]
    assert "Calibration-conditional bound" not in text["card"] and "Split; leave-one-out" in text["card"]
    assert "each scored by a model of the others" in text["summary"]
    assert "no part of the model was fitted on" not in text["summary"]
