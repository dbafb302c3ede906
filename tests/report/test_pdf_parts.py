"""A PDF of several parts is one PDF: archival, accessible, numbered and linked as if it had been made at once."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import page
import pikepdf
import pypdfium2
import pytest
from fabricated_lot import SMALL_P, Builder, many_flagged, verdict_of
from pdf_structure import check_structure, elements, kids, targets
from pdf_text import marked_text, page_text

from explainvad.report import context, pdf_parts
from explainvad.report.image_page import shown_records
from explainvad.report.pdf_parts import Numbering, Place, RenderedPart, divided, numbered
from explainvad.report.pdf_report import PdfRenderer
from explainvad.report.render import ReportRenderer
from explainvad.types import Decision, LotReport


@pytest.fixture(scope="module")
def listed_lot(tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    """Seven flagged images, more than the summary lists in the test below."""
    return many_flagged(tmp_path_factory.mktemp("listed") / "run", 7)


@pytest.fixture(scope="module")
def in_parts(listed_lot: LotReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their PDF: a list of two pages, and images three at a time."""
    out = tmp_path_factory.mktemp("in_parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "LISTED_IN_SUMMARY", 4)
        patch.setattr(pdf_parts, "LISTED_IN_SUMMARY", 4)
        ReportRenderer(PdfRenderer(images_per_part=3)).render(listed_lot, out, ["pdf"])
    return out / "report.pdf"


@pytest.mark.parametrize("profile", ["pdfa-3a", "pdfua-1"])
@pytest.mark.parametrize("parts", ["few", "many"])
def test_is_archival_and_accessible(parts: str, profile: str, rendered: Path, in_parts: Path) -> None:
    report = page.validate_pdf(rendered / "report.pdf" if parts == "few" else in_parts, profile=profile)
    # The validator takes data of a stream that ends in a carriage return for one byte shorter than it is; qpdf's own
    # object streams may end so.
    found = [f"{f.rule_id}: {f.message}" for f in report.failures if "Length" not in f.message]
    assert found == []


def test_qpdf_finds_nothing(in_parts: Path) -> None:
    done = subprocess.run(["qpdf", "--check", in_parts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_that_a_page_needs_is_missing(in_parts: Path, tmp_path: Path) -> None:
    done = subprocess.run(["pdftoppm", "-r", "20", in_parts, tmp_path / "page"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_structure_pages_and_parent_tree_agree(rendered: Path, in_parts: Path) -> None:
    for path in (rendered / "report.pdf", in_parts):
        with pikepdf.open(path) as pdf:
            assert check_structure(pdf) > 100 * len(pdf.pages)


def test_pages_are_numbered_through(in_parts: Path) -> None:
    with pikepdf.open(in_parts) as pdf:
        texts = [page_text(sheet) for sheet in pdf.pages]
    for number, text in enumerate(texts, 1):
        assert f"Page{number}of{len(texts)}" in text


def test_links_bookmarks_and_printed_numbers_lead_to_the_same_pages(in_parts: Path) -> None:
    with pikepdf.open(in_parts) as pdf:
        at = targets(pdf)
        texts = [page_text(sheet) for sheet in pdf.pages]
        notes = [(number, note) for number, sheet in enumerate(pdf.pages) for note in sheet.obj.get("/Annots", [])]
        links = [(number, str(note.Dest)) for number, note in notes if note.Subtype == "/Link"]
        assert not any("/A" in link for sheet in pdf.pages for link in sheet.obj.get("/Annots", []))
    images = [f"img-{k:05d}" for k in range(1, 8)]
    assert at["flagged-images"] == at["img-00001"] - 1
    assert [at[name] for name in images] == list(range(at["img-00001"], at["img-00001"] + 7))
    assert at["model-card"] == at["img-00007"] + 1 and at["appendix"] > at["model-card"]
    assert all(texts[at[name]].count(name) for name in images)
    assert {name for _, name in links} == {"lot-summary", "lot-statement", "method", "model-card", "appendix",
                                           "flagged-images", *images}  # fmt: skip
    assert f"from page {at['flagged-images'] + 1}".replace(" ", "") in texts[at["lot-summary"]]
    for k, name in enumerate(images):
        assert f"{name}{k}.png" in texts[at["flagged-images"]]
        assert f"2yes{at[name] + 1}" in texts[at["flagged-images"]]

    document = pypdfium2.PdfDocument(in_parts)
    toc = [(item.level, item.get_title(), item.get_dest().get_index()) for item in document.get_toc()]
    document.close()
    assert [(level, title.split()[0], number) for level, title, number in toc if level == 1] == [
        (1, name, at[name]) for name in images
    ]
    assert [title for level, title, _ in toc if level == 0] == [
        "Visual inspection report", "Lot summary", "Lot statement", "Method and decision rule",
        "List of flagged images", "Flagged images", "Model card", "Appendix: record and verification",
    ]  # fmt: skip


def test_every_picture_tells_its_finding_and_lies_on_its_page(in_parts: Path) -> None:
    with pikepdf.open(in_parts) as pdf:
        figures = [e for e in elements(pdf) if e.S == "/Figure"]
        words = [str(figure.Alt) for figure in figures]
        for figure in figures:
            x0, y0, x1, y1 = (float(value) for value in figure.A.BBox)
            assert 0 < x0 < x1 < 596 and 0 < y0 < y1 < 842
            assert x1 - x0 > 50
    assert sum("Heat map of img-00003: 2 regions (R1 upper left" in text and "reject" in text for text in words) == 1
    assert len(words) >= 7 * 7 and all(len(text) > 10 for text in words)


def test_text_is_in_reading_order_and_has_no_page_numbers_in_it(in_parts: Path) -> None:
    with pikepdf.open(in_parts) as pdf:
        number = targets(pdf)["img-00002"]
        sheet = pdf.pages[number]
        marked, drawn = marked_text(sheet), page_text(sheet)
        read = "".join(
            marked.get(int(kid), "")
            for element in elements(pdf)
            if "/Pg" in element and element.Pg.objgen == sheet.obj.objgen
            for kid in kids(element)
            if not isinstance(kid, pikepdf.Dictionary)
        )
    order = (
        *(
            "Flaggedimages2of7",
            "img-000021.png",
            "Automaticdecision◆Reject",
            "p-value0.0104",
            "Grounds",
            "Inspectedimage",
        ),
        *("Fusedanomalymap", "R1asinspected", "R2asinspected", "RegionPlace", "Statement", "Acquisitiongate"),
        *("Humanverdict", "Signature"),
    )
    assert [words for words in order if words not in read] == []
    places = [read.index(words) for words in order]
    assert places == sorted(places)
    assert "Page" not in read and f"Page{number + 1}of" in drawn


def test_bytes_depend_on_neither_workers_nor_time_zone(
    listed_lot: LotReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ReportRenderer(PdfRenderer(workers=1, images_per_part=3)).render(listed_lot, tmp_path / "one", ["pdf"])
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    ReportRenderer(PdfRenderer(workers=3, images_per_part=3)).render(listed_lot, tmp_path / "three", ["pdf"])
    monkeypatch.undo()
    time.tzset()
    one, three = ((tmp_path / name / "report.pdf").read_bytes() for name in ("one", "three"))
    assert one == three
    assert b"explainvad-" not in one and os.fsencode(tmp_path) not in one  # no trace of where it was made


@pytest.mark.thorough
def test_section_that_stays_too_long_moves_the_others_on(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    marks = [(250, 130, 20, 9)]
    for k in range(3):
        b.inspected(f"{k}.png", verdict_of(Decision.REJECT, 3.0, 1 / 96, SMALL_P), marks)
    own = tmp_path / "own"
    (own / "partials").mkdir(parents=True)
    # Our page with a heap of lines under the first image, which no smaller picture makes room for
    from explainvad.report.assets import templates_folder

    source = (templates_folder() / "partials" / "image_page.html").read_text("utf-8")
    heap = "{% if page.number == 1 %}{% for k in range(70) %}<p>line</p>{% endfor %}{% endif %}\n</section>"
    (own / "partials" / "image_page.html").write_text(source.replace("</section>", heap), "utf-8")
    renderer = ReportRenderer(PdfRenderer(images_per_part=2))
    renderer.render(b.report(), tmp_path / "out", ["pdf"], templates=own)
    with pikepdf.open(tmp_path / "out" / "report.pdf") as pdf:
        at, texts = targets(pdf), [page_text(sheet) for sheet in pdf.pages]
        check_structure(pdf)
    assert at["img-00002"] == at["img-00001"] + 2 or at["img-00002"] == at["img-00001"] + 3
    assert at["img-00003"] == at["img-00002"] + 1
    assert all(f"Page{number}of{len(texts)}" in text for number, text in enumerate(texts, 1))
    assert f"Modelcard{at['model-card'] + 1}" in texts[0]


def test_a_small_report_is_one_part_and_prints_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = many_flagged(tmp_path / "run", 2)
    texts, places = [], []
    for limit, n_parts in ((2, 1), (1, 3)):
        monkeypatch.setattr(pdf_parts, "IMAGES_OF_A_SMALL_REPORT", limit)
        assert len(divided(report, shown_records(report, "flagged"), 40)) == n_parts
        ReportRenderer(PdfRenderer()).render(report, tmp_path / str(limit), ["pdf"])
        with pikepdf.open(tmp_path / str(limit) / "report.pdf") as pdf:
            assert check_structure(pdf) > 50 * len(pdf.pages)
            # Inter draws an x between digits as a cross; which of the two it reads as is a matter of the whole font
            texts.append([page_text(sheet).replace("×", "x") for sheet in pdf.pages])
            places.append(targets(pdf))
    assert places[0] == places[1]
    assert texts[0][:-1] == texts[1][:-1]
    assert "".join(texts[1][-1].split("ThisPDFwasrenderedinpartsof40images.")) == texts[0][-1]


def test_division_and_numbers(lot_report: LotReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_parts, "LISTED_IN_SUMMARY", 3)
    monkeypatch.setattr(pdf_parts, "ROWS_PER_PAGE", 4)
    shown = shown_records(lot_report, "flagged")
    parts = divided(lot_report, shown, 4)
    assert [(part.kind, part.start, part.expected) for part in parts] == [
        ("front", 0, None), ("list", 0, 2), ("images", 0, 4), ("images", 4, 2), ("back", 0, None),
    ]  # fmt: skip
    front = RenderedPart(Path(), 5, {"method": Place(4, 0, 0)}, (), frozenset({"flagged-images", shown[5].image_id}))
    numbers = numbered(parts, {0: front})
    assert [n.first for n in numbers] == [1, 6, 8, 12, 14] and {n.total for n in numbers} == {14}
    assert numbers[0].pages == {"flagged-images": 6, shown[5].image_id: 13}
    assert numbers[1].pages == {record.image_id: 8 + k for k, record in enumerate(shown)}
    assert numbers[2] == Numbering(8, 14, {})
