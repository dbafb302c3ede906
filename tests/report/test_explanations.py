"""Kept explanations: in words, on the printed page where it has room, and as layers on the screen."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pikepdf
import pytest
from browser import Browser
from fabricated_explanations import with_explanations
from fabricated_lot import LONG, SMALL_P, Builder, sentence, verdict_of
from page_text import image_pages, sections
from pdf_text import page_of_anchor, page_text
from PIL import Image
from test_image_page import NINE

from explainvad.record.events import RECORD, from_json, to_json
from explainvad.report import image_page as image_page_module
from explainvad.report.exports import report_json
from explainvad.report.layers import EXPLAINING_PX, LOWERS, RAISES, explaining_layer
from explainvad.report.render import ReportRenderer
from explainvad.report.schema import report_of
from explainvad.report.screen_image import screen_image
from explainvad.types import Decision, KeptExplanation, LotReport

LINE = (
    "Nearest normal patch: x 248 to 280, y 128 to 140 px is nearest to part <7>.png, x 50 to 52 %, y 25 to 27 % "
    "of its sides, at distance 0.500 (memory bank)."
)


def _lot(run_dir: Path) -> LotReport:
    """Two rejected images, the first with a region, the second without."""
    b = Builder(run_dir)
    b.inspected("a.png", verdict_of(Decision.REJECT, 4.8, 1 / 96, SMALL_P), [(250, 130, 26, 9)])
    b.inspected("b.png", verdict_of(Decision.REJECT, 2.2, 2 / 96, SMALL_P))
    return b.report()


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    return with_explanations(_lot(tmp_path_factory.mktemp("explained") / "run"), "img-00001", "img-00002")


def test_the_printed_patch_is_that_of_the_region_in_the_bank_that_found_it(explained: LotReport) -> None:
    pages, _ = image_pages(explained)
    assert pages[0].explanation == LINE
    assert pages[1].explanation.startswith(
        "Nearest normal patch: x 0 to 8, y 0 to 8 px is nearest to part <7>.png, row 0"
    )
    elsewhere = replace(explained.records[0], findings=explained.records[0].findings)
    assert elsewhere.explanation is not None
    away = replace(elsewhere.explanation, nearest=elsewhere.explanation.nearest[:2])
    (page, _), _ = image_pages(replace(explained, records=(replace(elsewhere, explanation=away), explained.records[1])))
    assert "at distance 0.750 (memory bank)" in page.explanation  # none touches the region: its most anomalous one


def test_where_a_page_has_no_room_the_line_is_left_out(explained: LotReport, monkeypatch: pytest.MonkeyPatch) -> None:
    room = [int(page.height_class[1:]) for page in image_pages(explained)[0]]
    plain = replace(explained, records=tuple(replace(r, explanation=None) for r in explained.records))
    assert all(now <= before for now, before in zip(room, _heights(plain), strict=True))
    monkeypatch.setattr(image_page_module, "_PAGE_MM", 1.0)
    assert [page.explanation for page in image_pages(explained)[0]] == ["", ""]


def _heights(report: LotReport) -> list[int]:
    return [int(page.height_class[1:]) for page in image_pages(report)[0]]


def test_a_crowded_page_with_an_explanation_is_one(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    verdict = verdict_of(Decision.DEFER, 3.0, 1 / 96, SMALL_P * 9)
    b.inspected(LONG, verdict, NINE[:3], sentences=[sentence("The mark is long and dark. " * 5)])
    report = with_explanations(b.report(), "img-00001", file="long/" * 40 + "name.png")
    ((page,), _) = image_pages(report)
    assert page.explanation and int(page.height_class[1:]) < 50
    ReportRenderer().render(report, tmp_path, ["pdf"])
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        target = page_of_anchor(pdf)
        text = page_text(pdf.pages[target["img-00001"]]).replace(" ", "")
    assert target["model-card"] == target["img-00001"] + 1
    assert "Nearestnormalpatch:x" in text


def test_screen_and_method_say_what_was_kept(explained: LotReport, tmp_path: Path) -> None:
    text = sections(explained, tmp_path)
    assert "Explanations (evidence, gradients) were made of each flagged image after its verdict" in text["method"]
    image = text["image"]  # the last
    for words in (
        "Occlusion, memory bank. a square <moved>. Explains its score; 8 x 8 cells.",
        "Orange raises the number, blue lowers it; full colour stands for 2.00. Figures: convergence delta 0.0125.",
        "Colour scale from 0 to 3.00, the range of this map.",
        "Phrase: “torn (+0.200)”, words for a defect: cosine 0.310, elsewhere 0.120 (memory bank).",
        "Not given: grad-cam of masked autoencoder: it has no convolution.",
    ):
        assert words in image, words
    assert "<moved>" not in (tmp_path / "report.html").read_text("utf-8")


def test_a_signed_layer_tells_up_from_down_and_says_nothing_elsewhere(explained: LotReport) -> None:
    assert explained.records[0].explanation is not None
    ramp, signed = explained.records[0].explanation.maps
    layer, place = explaining_layer((explained.run_dir / signed.path).read_bytes(), True)
    rgba = np.asarray(Image.open(io.BytesIO(layer.data)).convert("RGBA"), int)
    assert max(layer.width, layer.height) == EXPLAINING_PX and place == pytest.approx((0.166, 0.2), abs=0.04)
    factor = layer.width / explained.records[0].findings[0].region.mask.width
    up, down = (rgba[round(at * factor), round(at * factor)] for at in (150, 350))
    for pixel, colour in ((up, RAISES), (down, LOWERS)):
        np.testing.assert_allclose(pixel[:3], list(bytes.fromhex(colour[1:])), atol=30)
    assert up[3] > 240 and 110 < down[3] < 145 and rgba[0, 0, 3] == 0
    layer, place = explaining_layer((explained.run_dir / ramp.path).read_bytes(), False)
    opacity = np.asarray(Image.open(io.BytesIO(layer.data)).convert("RGBA"), int)[layer.height // 2, :, 3]
    assert opacity[0] < 5 and opacity[-1] > 250 and (np.diff(opacity) >= -2).all() and place[0] > 0.99


def test_a_map_of_one_value_has_no_strongest_place_and_no_baseline_is_no_line(explained: LotReport) -> None:
    record = explained.records[0]
    assert record.explanation is not None
    kept = replace(record.explanation.maps[1], low=0.0, high=0.0)
    explanation = replace(record.explanation, maps=(kept,), baseline="")
    image = screen_image(explained, replace(record, explanation=explanation), 1, 2)
    alt = image.maps[-1].picture.alt
    assert "the same everywhere" in alt and "strongest" not in alt
    assert not [line for line in image.explanations if line.startswith("Pixels are compared")]
    assert [line for line in screen_image(explained, record, 1, 2).explanations if line.startswith("Pixels are")]


def test_a_record_and_a_report_from_before_explanations_load_and_render(explained: LotReport, tmp_path: Path) -> None:
    body = to_json(RECORD, explained.records[0])
    read = from_json(RECORD, body)
    assert isinstance(read.explanation, KeptExplanation) and to_json(RECORD, read) == body
    del body["explanation"]
    assert from_json(RECORD, body).explanation is None
    document = json.loads(report_json(explained))
    for record in document["records"]:
        del record["explanation"]
    document["provenance"]["config"].pop("attribution")
    old = report_of(json.dumps(document).encode(), explained.run_dir)
    text = sections(old, tmp_path)
    assert "Explanations" not in text["method"] and "Occlusion" not in text["image"]


def test_key_m_goes_through_the_explanations_and_to_the_same_one_of_the_next_image(
    browser: Browser, explained: LotReport, tmp_path: Path
) -> None:
    (page,) = ReportRenderer().render(explained, tmp_path, ["html"])
    browser.open(page, "img-00001")
    browser.press("r")
    plain = browser.pixels(".image.open .inspected")
    names, shown = [], []
    for _ in range(3):
        browser.press("m")
        names.append(browser.seen(".image.open .legend")[0].text.partition(".")[0])
        shown.append(browser.pixels(".image.open .inspected"))
    assert names == ["Distance, memory bank", "Occlusion, memory bank", "Anomaly"]
    assert all((np.abs(picture - plain).max(axis=2) > 40).mean() > 0.02 for picture in shown[:2])
    assert (shown[2] == plain).all()
    browser.press("m", "m", "j")  # to the second explanation, and on to the next image
    assert browser.seen(".image.open .legend")[0].text.startswith("Occlusion, memory bank.")
    assert not browser.complaints()
