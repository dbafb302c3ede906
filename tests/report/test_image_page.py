"""What the page of a flagged image shows when there is more than it has room for."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pikepdf
import pytest
from fabricated_lot import LONG, SMALL_P, Builder, sentence, verdict_of
from fabricated_pictures import HEIGHT, WIDTH, encoded
from fabricated_variants import cell_lot, labelled_lot, synthetic_lot
from page_text import image_pages, image_sections, sections, sections_of
from pdf_text import page_of_anchor, page_text
from PIL import Image

from explainvad.report.assets import template_environment
from explainvad.report.image_page import _PICTURE_MM, REGIONS_SHOWN
from explainvad.report.render import ReportRenderer
from explainvad.types import Claim, ClaimStatus, Decision, Interval, LotReport

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
        target = page_of_anchor(pdf)
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
    sheet = template_environment().get_template("style/print_image.css").render()
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
    ReportRenderer().render(report, tmp_path, ["pdf"])
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        text = page_text(pdf.pages[page_of_anchor(pdf)["img-00001"]])
    assert f"{page.reasons_left_out}furtherreasonsinreport.json" in text


def test_sentences_of_one_region_share_its_name(lot_report: LotReport) -> None:
    for page in image_pages(lot_report)[0]:
        names = [s.region_id for s in page.sentences if s.rows]
        assert len(names) == len(set(names)) == len({s.region_id for s in page.sentences})
        assert sum(s.rows for s in page.sentences) == len(page.sentences)


def test_measured_sentences_of_every_region_come_before_those_of_a_model(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    measured = [sentence(f"It is measured to be so, {k}.") for k in range(3)]
    claim = Claim("place", "lower right", "upper left", ClaimStatus.CONTRADICTED)
    author = "a model at a server with a very long name, " * 8
    said = [sentence(f"It looks {k}. " * 9, f"{k} {author}", ClaimStatus.CONTRADICTED, claim) for k in range(4)]
    verdict = verdict_of(Decision.REJECT, 3.0, 1 / 96, SMALL_P)
    b.inspected("a.png", verdict, NINE[:3], sentences=[*measured, *said])
    report = b.report()
    (page,), _ = image_pages(report)
    shown = [(s.region_id, s.sentence.text) for s in page.sentences]
    assert {(region, s.text) for region in ("R1", "R2", "R3") for s in measured} <= set(shown)
    assert page.sentences_left_out == 3 * 7 - len(shown) > 0
    ReportRenderer().render(report, tmp_path, ["pdf"])
    with pikepdf.open(tmp_path / "report.pdf") as pdf:  # long author lines make no second page
        target = page_of_anchor(pdf)
    assert target["model-card"] == target["img-00001"] + 1


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


def test_image_is_held_against_its_own_cell(tmp_path: Path) -> None:
    report = cell_lot(tmp_path / "run")
    first, second = image_pages(report)[0]
    one, two = report.model.calibration.cells
    assert (first.heat.pixel, second.heat.pixel) == (one.pixel_threshold, two.pixel_threshold)
    assert first.heat.pixel != second.heat.pixel and first.colour_bar != second.colour_bar
    ReportRenderer().render(report, tmp_path, ["html"])
    first_text, second_text = image_sections(tmp_path)
    assert "p-value, camera 1 0.0104" in first_text and "4.81 threshold 1.42" in first_text
    assert "p-value, camera 2 0.0104" in second_text and "4.81 threshold 1.21" in second_text
    html = (tmp_path / "report.html").read_text("utf-8")
    for pixel, top in (("4.20", "16.8"), ("3.36", "13.4")):
        assert f"Colour scale from 0 to {top}, shown from 2.90, pixel threshold {pixel}." in html
    assert "One scale for this cell" in second_text


def test_map_of_a_cell_is_read_with_the_range_that_it_was_kept_with(tmp_path: Path) -> None:
    report = cell_lot(tmp_path / "run")
    second = report.records[5]
    path = f"maps/{second.image_id}.png"
    # A map of one value: 3.0 of the 13.44 that the second cell spans, so below its pixel threshold of 3.36, though
    # the same file would mean 3.75 on the scale of the first
    data = encoded(Image.fromarray(np.full((HEIGHT, WIDTH), round(3.0 / 13.44 * 65535), np.uint16)), "PNG")
    (report.run_dir / path).write_bytes(data)
    kept = replace(second, artifacts={**second.artifacts, path: hashlib.sha256(data).hexdigest()})
    pages, _ = image_pages(replace(report, records=(*report.records[:5], kept)))
    assert not pages[1].above_threshold
    data = encoded(Image.fromarray(np.full((HEIGHT, WIDTH), round(3.5 / 13.44 * 65535), np.uint16)), "PNG")
    (report.run_dir / path).write_bytes(data)
    kept = replace(second, artifacts={**second.artifacts, path: hashlib.sha256(data).hexdigest()})
    pages, _ = image_pages(replace(report, records=(*report.records[:5], kept)))
    assert pages[1].above_threshold  # on the scale of the first cell 4.38


def test_doubt_and_tail_are_those_of_the_record(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    v = verdict_of(Decision.REJECT, 3.0, 2 / 96, SMALL_P)
    v = replace(v, epistemic_within=0.31, epistemic_between=0.27, aleatoric=0.44)
    b.inspected("a.png", replace(v, p_interval=Interval(0.01, 0.000266, 0.0573, 0.9)), [(250, 130, 20, 9)])
    text = sections(b.report(), tmp_path)["image"]
    assert "Epistemic, within scorers 0.310 bit limit 0.182" in text
    assert "Between scorers / aleatoric, bits 0.270 / 0.440" in text
    assert "Tail of normal images 0.000266 to 0.0573 (90 %)" in text


def test_probability_is_a_bound_unless_defects_were_labelled(rendered: Path, tmp_path: Path) -> None:
    said = [re.findall(r"P\(defect\)(, synthetic)? (.*?) assuming prior", page) for page in image_sections(rendered)]
    assert len(said) == 6 and all(len(found) == 1 for found in said)
    assert all(stamp == "" and re.fullmatch(r"≤ [\d.]+", value) for ((stamp, value),) in said)
    ReportRenderer().render(labelled_lot(tmp_path / "run"), tmp_path, ["html"])
    assert all("P(defect) 0.318 to 0.912 assuming prior 0.01" in page for page in image_sections(tmp_path))


def test_nothing_but_a_bound_follows_p_of_defect_anywhere(rendered: Path) -> None:
    text = " ".join(sections_of(rendered).values())
    after = re.findall(r"P\(defect\)[^.;]{0,40}?([≤<>=]?) ?\d", text)
    assert after and set(after) == {"≤"}
    assert "synthetic" not in text


def test_synthetic_probabilities_carry_their_stamp_everywhere(tmp_path: Path) -> None:
    text = sections(synthetic_lot(tmp_path / "run"), tmp_path)
    assert "P(defect), synthetic 0.318 to 0.912 assuming prior 0.01" in text["image"]
    assert "P(defect) 0" not in text["image"]
    assert "synthetic: calibrated on 60 synthetic defects; says nothing of real ones" in text["method"]
    assert "Power of detection on synthetic defects" in text["card"]
    assert (
        "27 of 40 synthetic defects have p ≤ 0.05" in text["card"] and "This says nothing of real ones" in text["card"]
    )
    assert "Synthetic defects: they decide nothing 60" in text["card"]
    assert "so nothing is called accepted" in text["method"] and "Accept" not in text["cover"]


def test_more_scorers_than_gates_make_the_pictures_smaller(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    marks = [(250, 130, 20, 9), (400, 300, 12, 12)]
    b.inspected("a.png", verdict_of(Decision.REJECT, 3.0, 1 / 96, SMALL_P), marks)
    few = b.report()
    scores = {f"scorer {k}": 1.0 for k in range(8)}
    many = replace(few, records=(replace(few.records[0], scores=scores),))
    heights = [int(image_pages(report)[0][0].height_class[1:]) for report in (few, many)]
    assert heights[1] <= heights[0] - 24  # six more rows of 4.4 mm
    ReportRenderer().render(many, tmp_path, ["pdf"])
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        page = page_text(pdf.pages[page_of_anchor(pdf)["img-00001"]])
    assert "Tailofnormalimages" in page and "Humanverdict" in page
