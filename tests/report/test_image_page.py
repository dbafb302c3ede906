"""What the page of a flagged image shows when there is more than it has room for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pikepdf
import pytest
from fabricated_lot import LONG, SMALL_P, Builder, sentence, verdict_of

from explainvad.report.assets import template_environment
from explainvad.report.image_page import _PICTURE_MM, REGIONS_SHOWN, image_pages
from explainvad.report.render import ReportRenderer
from explainvad.types import Claim, ClaimStatus, Decision, LotReport

NINE = [(140 + 180 * (k % 3), 90 + 150 * (k // 3), 12, 12) for k in range(9)]


def _crowded(run_dir: Path) -> LotReport:
    """One image with everything too long at once: names, notes, reasons, regions, sentences, scorers."""
    b = Builder(run_dir)
    claim = Claim("place", "lower right, beside the second bolt hole", "upper left", ClaimStatus.CONTRADICTED)
    texts = [sentence("The mark is long and dark. " * 5, "a model", ClaimStatus.CONTRADICTED, claim) for _ in range(4)]
    verdict = verdict_of(Decision.DEFER, 3.0, 1 / 96, SMALL_P * 9)
    b.inspected(LONG, verdict, NINE, mm=0.125, sentences=texts, notes=("16-bit, shown as value / 257",) * 5)
    return b.report()


def test_regions_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    (page,), _ = image_pages(_crowded(tmp_path))
    assert len(page.record.findings) == 9
    assert len(page.regions) == REGIONS_SHOWN
    assert page.regions_left_out == 9 - REGIONS_SHOWN
    assert "9 regions" in page.original.alt


def test_no_sentence_disappears_uncounted(tmp_path: Path) -> None:
    (page,), _ = image_pages(_crowded(tmp_path))
    assert page.sentences
    assert len(page.sentences) + page.sentences_left_out == 9 * 4
    assert {s.region_id for s in page.sentences} <= {"R1", "R2", "R3"}


def test_crowded_page_stays_one_page(tmp_path: Path) -> None:
    report = _crowded(tmp_path / "run")
    ReportRenderer().render(report, tmp_path, ["pdf"])
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        names = pdf.Root.Names.Dests.Names
        pages = {p.objgen: i for i, p in enumerate(pdf.pages)}
        target = {str(names[i]): pages[names[i + 1][0].objgen] for i in range(0, len(names), 2)}
    assert target["model-card"] == target["img-00001"] + 1


def test_authors_get_letters_and_disputed_claims_their_measurement(lot_report: LotReport) -> None:
    pages, _ = image_pages(lot_report)
    page = next(p for p in pages if p.record.file == "flange_022.png")
    assert list(page.authors) == ["a", "b"]
    wrong = next(s for s in page.sentences if s.sentence.status is ClaimStatus.CONTRADICTED)
    assert [c.measured for c in wrong.disputed] == ["upper left"]
    assert [c.kind for s in page.sentences if s.sentence.status is ClaimStatus.PARTLY for c in s.disputed] == [
        "brightness"
    ]


def test_image_without_a_region_shows_its_reference_as_a_whole(lot_report: LotReport) -> None:
    pages, pictures = image_pages(lot_report)
    page = next(p for p in pages if p.record.file == LONG)
    assert page.regions == () and page.sentences == ()
    assert page.reference is not None and page.reference.name in pictures
    assert "no region reached significance" in page.overlay.alt
    assert all(p.reference is None for p in pages if p.regions)


def test_image_without_a_reference_shows_its_crop_alone(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    b.inspected("a.png", verdict_of(Decision.REJECT, 3.0, 1 / 96, SMALL_P), [(250, 130, 20, 9)])
    b.records[0] = replace(b.records[0], reference=None)
    report = b.report()
    (page,), _ = image_pages(report)
    assert page.regions[0].reference is None
    ReportRenderer().render(report, tmp_path, ["html"])
    assert "same place, nearest reference" not in (tmp_path / "report.html").read_text("utf-8")


def test_pictures_shrink_before_the_page_overflows(lot_report: LotReport, tmp_path: Path) -> None:
    pages, _ = image_pages(lot_report)
    heights = {p.record.file: int(p.height_class[1:]) for p in pages}
    assert heights["flange_005.png"] >= 66  # as wide as its column, at 4 to 3
    (crowded,), _ = image_pages(_crowded(tmp_path))
    assert int(crowded.height_class[1:]) < 50


def test_every_height_that_is_chosen_has_a_rule(lot_report: LotReport) -> None:
    sheet = template_environment().get_template("style/print.css").render()
    assert all(f".h{height} figure > img {{ max-height: {height}mm; }}" in sheet for height in _PICTURE_MM)


def test_reasons_are_whole_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    reasons = tuple(f"gate {k} is outside [0, 1], the range of the reference images" for k in range(12))
    b.inspected("a.png", verdict_of(Decision.DEFER, 3.0, 0.2, reasons))
    b.inspected("b.png", verdict_of(Decision.DEFER, 3.0, 0.2, ("x" * 2000,)))
    report = b.report()
    (page, endless), _ = image_pages(report)
    assert 3 <= len(page.reasons) < 12
    assert page.reasons == reasons[: len(page.reasons)]
    assert page.reasons_left_out == 12 - len(page.reasons)
    assert len(endless.reasons) == 1 and len(endless.reasons[0]) <= 420
    ReportRenderer().render(report, tmp_path, ["html"])
    assert f"{page.reasons_left_out} further reasons in report.json" in (tmp_path / "report.html").read_text("utf-8")


def test_sentences_of_one_region_share_its_name(lot_report: LotReport) -> None:
    for page in image_pages(lot_report)[0]:
        names = [s.region_id for s in page.sentences if s.rows]
        assert len(names) == len(set(names)) == len({s.region_id for s in page.sentences})
        assert sum(s.rows for s in page.sentences) == len(page.sentences)


def test_close_call_of_a_gate_looks_like_one(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    b.inspected("a.png", verdict_of(Decision.DEFER, 1.4196, 0.2, ("blurred",), sharpness=5.4184))
    report = b.report()
    ReportRenderer().render(report, tmp_path, ["html"])
    html = (tmp_path / "report.html").read_text("utf-8")
    assert '<td class="n">5.418</td><td class="n">5.420 to 6.880</td>' in html
    assert '<span class="value">1.4196</span><span class="against">threshold 1.4200</span>' in html


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("upper left",), "upper left of the part, 2 o’clock"),
        (("upper left", "centre"), "upper left, centre of the part"),
        ((), "spread over the part, most in the upper left"),
    ],
)
def test_place_of_a_single_region(tmp_path: Path, cells: tuple[str, ...], expected: str) -> None:
    b = Builder(tmp_path / "run")
    b.inspected("a.png", verdict_of(Decision.REJECT, 3.0, 1 / 96, SMALL_P), [(190, 130, 20, 9)])
    (finding,) = b.records[0].findings
    b.records[0] = replace(b.records[0], findings=(replace(finding, facts=replace(finding.facts, cells=cells)),))
    ReportRenderer().render(b.report(), tmp_path, ["html"])
    assert f"<td>{expected}</td>" in (tmp_path / "report.html").read_text("utf-8")
