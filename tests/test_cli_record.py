"""The command line on a finished run: render and verify."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import explainvad, ledger, tree

from explainvad import LotReport
from explainvad.errors import RenderError
from explainvad.record.finished import read_report
from explainvad.report import html_report
from explainvad.report.pdf_report import PdfRenderer


@pytest.fixture
def copied_run(report: LotReport, tmp_path: Path) -> Path:
    """A copy of the rendered run, to be altered."""
    return shutil.copytree(report.run_dir, tmp_path / "run")


def test_rendering_again_gives_the_same_bytes(copied_run: Path) -> None:
    before = tree(copied_run)
    for name in ("report.pdf", "report.html", "report.json", "results.csv"):
        (copied_run / name).unlink()
    assert explainvad("render", copied_run).code == 0
    after = tree(copied_run)
    assert {n for n in before if before[n] != after.get(n)} == set()
    assert explainvad("verify", copied_run).code == 0


def test_one_format_is_rendered_alone(copied_run: Path) -> None:
    (copied_run / "report.html").unlink()
    (copied_run / "report.json").unlink()
    done = explainvad("render", copied_run, "--formats", "json")
    assert (done.code, done.out) == (0, f"json  {copied_run / 'report.json'}\n")
    assert not (copied_run / "report.html").exists()
    assert explainvad("render", copied_run, "--formats", "xml").code == 2


def test_further_formats_are_written_where_they_are_asked_for_and_verified(copied_run: Path) -> None:
    done = explainvad("render", copied_run, "--formats", "parquet,coco,maps")
    names = ("results.parquet", "regions.coco.json", "maps_tiff")
    assert (done.code, [line.split()[-1] for line in done.out.splitlines()]) == (
        0,
        [str(copied_run / n) for n in names],
    )
    assert {p.stem for p in (copied_run / "maps_tiff").iterdir()} == {
        record.image_id for record in read_report(copied_run).records if record.flagged
    }
    whole = explainvad("verify", copied_run)
    assert whole.code == 0, whole.err
    assert "results.parquet: made from this record" in whole.out
    before = tree(copied_run)
    assert explainvad("render", copied_run, "--formats", "maps,coco,parquet").code == 0
    assert tree(copied_run) == before
    (copied_run / "maps_tiff" / "stray.tiff").write_bytes(b"x")
    assert "ALTERED  maps_tiff/stray.tiff" in explainvad("verify", copied_run).err


def test_further_pages_of_a_large_report_are_part_of_the_record(
    copied_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_report, "IMAGES_A_PAGE", 2)
    done = explainvad("render", copied_run, "--formats", "html")
    folder = copied_run / html_report.FOLDER
    pages = sorted(folder.iterdir())
    assert pages and [line.split()[-1] for line in done.out.splitlines()] == [
        str(folder),
        f"{folder.parent}/report.html",
    ]
    assert explainvad("verify", copied_run).code == 0
    pages[-1].write_text("other pictures")
    assert f"ALTERED  {html_report.FOLDER}/{pages[-1].name}" in explainvad("verify", copied_run).err


def test_formats_that_were_written_although_the_pdf_failed_are_part_of_the_record(
    copied_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> bytes:
        raise RenderError("a worker process was lost twice")

    before = ledger(copied_run)
    with monkeypatch.context() as patch:
        patch.setattr(PdfRenderer, "render", lost)
        failed = explainvad("render", copied_run, "--formats", "pdf,html,parquet")
    assert (failed.code, failed.err) == (2, "explainvad: a worker process was lost twice\n")
    (line,) = ledger(copied_run)[len(before) :]
    assert "results.parquet" in line["body"]["files"] and "report.pdf" not in line["body"]["files"]
    assert explainvad("verify", copied_run).code == 0


def test_only_a_finished_run_is_rendered(tmp_path: Path) -> None:
    done = explainvad("render", tmp_path)
    assert done.code == 2
    assert "holds no run" in done.err


def test_a_whole_record_is_said_to_be_whole(report: LotReport) -> None:
    done = explainvad("verify", report.run_dir, "--head", report.provenance.head_hash)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "The record is whole."


@pytest.mark.parametrize("pattern", ["ledger.jsonl", "results.csv", "report.pdf", "maps/*.png", "masks/*.png"])
def test_tampering_is_named(copied_run: Path, pattern: str) -> None:
    path = next(copied_run.glob(pattern))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = explainvad("verify", copied_run)
    assert done.code == 4
    assert f"ALTERED  {path.relative_to(copied_run).as_posix()}" in done.err
    assert "whole" not in done.out.splitlines()[-1]


def test_a_missing_file_and_another_head_are_named(copied_run: Path) -> None:
    next(copied_run.glob("evidence/*.jpg")).unlink()
    done = explainvad("verify", copied_run, "--head", "0" * 64)
    assert done.code == 4
    assert "missing" in done.err and "the results head differs" in done.err


def test_no_folder_is_wrong_usage(tmp_path: Path) -> None:
    assert explainvad("verify", tmp_path / "nowhere").code == 2
    assert explainvad("verify", tmp_path).code == 4
