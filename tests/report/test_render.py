"""The rendered files: what the PDF holds, what it refuses, and that the same report gives the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pikepdf
import pytest
from fabricated_lot import HOSTILE, Builder, many_flagged, quiet_lot, verdict_of
from pdf_text import page_of_anchor, page_text
from PIL import ImageFile

from explainvad import whole_files
from explainvad.errors import IntegrityError, StorageError, UsageError
from explainvad.report import render_process
from explainvad.report.render import ReportRenderer
from explainvad.types import Decision, LotReport


def test_writes_all_formats_in_their_order(lot_report: LotReport, rendered: Path) -> None:
    assert sorted(p.name for p in rendered.iterdir()) == ["report.html", "report.json", "report.pdf", "results.csv"]
    assert all(p.stat().st_mode & 0o444 == 0o444 for p in rendered.iterdir())


def test_pdf_has_one_page_for_each_flagged_image_between_front_and_back(lot_report: LotReport, rendered: Path) -> None:
    flagged = [r.image_id for r in lot_report.records if r.flagged]
    with pikepdf.open(rendered / "report.pdf") as pdf:
        target = page_of_anchor(pdf)
        n_pages = len(pdf.pages)
    assert target["lot-summary"] == 1
    assert target["lot-statement"] == 2  # this summary fills its page
    assert target["method"] == 3
    first = target[flagged[0]]
    assert [target[name] for name in flagged] == list(range(first, first + len(flagged)))
    assert target["model-card"] == first + len(flagged)
    assert first == 4  # the method fills one page
    assert target["appendix"] == n_pages - 1


def test_long_lists_run_on_and_leave_no_page_nearly_empty(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    for k in range(70):
        b.missed(f"folder/file_{k:04d}.png", "the file is empty")
    ReportRenderer().render(b.report(), tmp_path, ["pdf"])
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        texts = [page_text(page) for page in pdf.pages]
    last_row = next(k for k, text in enumerate(texts) if "file_0069.png" in text)
    assert "Lotstatement" in texts[last_row]
    assert texts[last_row].count("ImageFileReason") == 1  # the head is repeated on each page
    method = next(k for k, text in enumerate(texts) if text.startswith("Methodanddecisionrule"))
    assert method - last_row <= 1


def test_attachments_equal_the_exports_the_ledger_and_the_masks(lot_report: LotReport, rendered: Path) -> None:
    flagged = [r.image_id for r in lot_report.records if r.flagged]
    with pikepdf.open(rendered / "report.pdf") as pdf:
        attached = {name: spec.get_file().read_bytes() for name, spec in pdf.attachments.items()}
        kinds = {str(f.UF): str(f.AFRelationship) for f in pdf.Root.AF}
        names = [str(name) for name in pdf.Root.Names.EmbeddedFiles.Names[::2]]
        dates = {str(f.EF.F.Params.ModDate) for f in pdf.Root.AF}
        assert len(pdf.Root.AF) == len(names) == 3 + len(flagged)
    masks = {f"masks/{name}.png": (lot_report.run_dir / f"masks/{name}.png").read_bytes() for name in flagged}
    assert attached == masks | {
        "ledger.jsonl": (lot_report.run_dir / "ledger.jsonl").read_bytes(),
        "report.json": (rendered / "report.json").read_bytes(),
        "results.csv": (rendered / "results.csv").read_bytes(),
    }
    own = {"ledger.jsonl": "/Source", "report.json": "/Data", "results.csv": "/Data"}
    assert kinds == own | dict.fromkeys(masks, "/Supplement")
    assert names == sorted(names) and dates == {"D:20260314092741Z"}


def test_pdf_text_carries_the_numbers_of_the_decision_rule(rendered: Path) -> None:
    with pikepdf.open(rendered / "report.pdf") as pdf:
        texts = [page_text(page) for page in pdf.pages]
        method = next(t for t in texts if t.startswith("Methodanddecisionrule"))
        last = texts[-1]
    for expected in ("withn=95calibrationimages", "p≤α=0.05", "exceeds1.42", "0.0104", "8.12%", "exchangeable"):
        assert expected in method
    assert "Noboundonmisseddefects" in method
    assert "CLIPscorer:notused,noweights" in method
    assert "takenupagain1time" in method
    assert "EndofreportEV-7F3A-91C2-04BD" in last
    assert "c0ffee5eed" * 6 in last
    for number, text in enumerate(texts, 1):
        assert f"Page{number}of{len(texts)}" in text
        assert "EV-7F3A-91C2-04BD" in text


def test_image_page_shows_verdict_contradiction_and_an_empty_human_verdict(rendered: Path) -> None:
    with pikepdf.open(rendered / "report.pdf") as pdf:
        texts = [page_text(page) for page in pdf.pages]
    page = next(t for t in texts if "img-00022flange_022.png" in t and "Humanverdict" in t)
    assert "≤0.24assumingprior0.01" in page
    assert "Measuredplace:upperleft(stated:lowerright)" in page
    assert "[a]smolvlm-256m" in page and f"[b]{'measured text, no language model'.replace(' ', '')}" in page
    assert "Humanverdict" in page and "Signature" in page
    blurred = next(t for t in texts if "blurred/flange_019.png" in t and "Humanverdict" in t)
    assert "Noregionreachedsignificance" in blurred and "✕failed" in blurred


def test_pdf_is_tagged_titled_archival_and_dated_by_the_record(rendered: Path) -> None:
    with pikepdf.open(rendered / "report.pdf") as pdf:
        assert bool(pdf.Root.MarkInfo.Marked)
        assert str(pdf.Root.Lang) == "en"
        assert str(pdf.docinfo["/CreationDate"]).startswith("D:20260314092741")
        metadata = pdf.Root.Metadata.read_bytes()
        assert b'pdfaid:part="3"' in metadata and b"<pdfuaid:part>1<" in metadata
        schema = metadata[metadata.index(b"<pdfaExtension:schemas>") :]
        assert b"<pdfaSchema:prefix>pdfuaid<" in schema and metadata.count(b"</rdf:RDF>") == 1
        assert "/Filter" not in pdf.Root.Metadata
        images = [o for o in pdf.objects if isinstance(o, pikepdf.Stream) and o.get("/Subtype") == "/Image"]
        assert len(images) > 20 and not any(o.get("/Interpolate") for o in images)
        figures = [o for o in pdf.objects if isinstance(o, pikepdf.Dictionary) and o.get("/S") == "/Figure"]
        assert len(figures) > 20
        assert all(str(f.get("/Alt", "")).strip() for f in figures)


@pytest.mark.thorough
def test_same_report_same_bytes(lot_report: LotReport, rendered: Path, tmp_path: Path) -> None:
    paths = ReportRenderer().render(lot_report, tmp_path)
    assert [p.name for p in paths] == ["report.pdf", "report.html", "results.csv", "report.json"]
    for path in paths:
        assert path.read_bytes() == (rendered / path.name).read_bytes(), path.name


@pytest.mark.thorough
def test_note_of_an_earlier_rendering_changes_nothing(tmp_path: Path) -> None:
    report = quiet_lot(tmp_path / "run")
    report = replace(report, provenance=replace(report.provenance, n_ledger_lines=3))
    ReportRenderer().render(report, tmp_path / "first", ["pdf", "html"])
    results = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    (tmp_path / "run" / "ledger.jsonl").write_bytes(results + b'{"event":"report_rendered"}\n')
    ReportRenderer().render(report, tmp_path / "again", ["pdf", "html"])
    for name in ("report.pdf", "report.html"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with pikepdf.open(tmp_path / "again" / "report.pdf") as pdf:
        assert pdf.attachments["ledger.jsonl"].get_file().read_bytes() == results


def test_rendering_leaves_pillow_strict(rendered: Path) -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert "weasyprint" not in sys.modules


def test_importing_the_renderer_is_light() -> None:
    code = "import sys, explainvad.report.render; print({'weasyprint', 'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=render_process.environment()
    )
    assert done.stdout.strip() == "set()", done.stderr


def test_hostile_name_stays_text(
    lot_report: LotReport, rendered: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    short = tempfile.TemporaryDirectory()  # the name is printed whole only while it is short
    request.addfinalizer(short.cleanup)
    canary = Path(short.name) / "secret.png"
    canary.write_bytes(b"secret")
    lot = replace(lot_report.lot, part=f'<img src="file://{canary}"><style>@import "x"</style>')
    report = replace(quiet_lot(tmp_path / "run"), lot=lot)
    ReportRenderer().render(report, tmp_path, ["pdf", "html"])
    html = (tmp_path / "report.html").read_text("utf-8")
    assert f"&lt;img src=&#34;file://{canary}&#34;&gt;" in html
    assert "<img src=&#34;" not in html
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        assert f'<imgsrc="file://{canary}">' in page_text(pdf.pages[0])
    assert HOSTILE not in (rendered / "report.html").read_text("utf-8")


def test_altered_picture_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    b.inspected("a.png", verdict_of(Decision.REJECT, 3.0, 1 / 96), [(250, 130, 20, 9)])
    report = b.report()
    path = tmp_path / "run" / "maps" / "img-00001.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"maps/img-00001\.png was altered"):
        ReportRenderer().render(report, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_ledger_is_an_integrity_error(tmp_path: Path) -> None:
    report = quiet_lot(tmp_path / "run")
    (tmp_path / "run" / "ledger.jsonl").unlink()
    with pytest.raises(IntegrityError, match=r"ledger\.jsonl"):
        ReportRenderer().render(report, tmp_path, ["html"])
    ReportRenderer().render(report, tmp_path, ["csv"])


@pytest.mark.parametrize("formats", [["pdf", "docx"], []])
def test_unknown_format_names_the_valid_ones(lot_report: LotReport, tmp_path: Path, formats: list[str]) -> None:
    with pytest.raises(UsageError, match="pdf, html, csv, json"):
        ReportRenderer().render(lot_report, tmp_path, formats)


def test_unwritable_folder_is_a_storage_error(lot_report: LotReport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        ReportRenderer().render(lot_report, tmp_path / "file", ["csv"])


def test_failed_write_keeps_the_old_file_whole(
    lot_report: LotReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results.csv").write_text("old")

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_files.os, "fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        ReportRenderer().render(lot_report, tmp_path, ["csv"])
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]
    assert (tmp_path / "results.csv").read_text() == "old"


def test_issue_date_follows_source_date_epoch(
    lot_report: LotReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    ReportRenderer().render(lot_report, tmp_path, ["html"])
    assert "2027-01-15 08:00 UTC" in (tmp_path / "report.html").read_text("utf-8")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "tomorrow")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        ReportRenderer().render(lot_report, tmp_path, ["html"])


def test_renders_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "weasyprint.py").write_text("raise SystemExit('a stray module was imported')")
    report = quiet_lot(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "cwd")
    assert ReportRenderer().render(report, tmp_path / "out", ["pdf"]) == [tmp_path / "out" / "report.pdf"]
    shutil.rmtree(tmp_path / "run")


def test_a_relative_run_folder_is_found_by_the_worker_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = many_flagged(tmp_path / "run", 1)
    monkeypatch.chdir(tmp_path)
    relative = replace(report, run_dir=Path("run"))
    assert ReportRenderer().render(relative, Path("out"), ["pdf"]) == [Path("out/report.pdf")]
