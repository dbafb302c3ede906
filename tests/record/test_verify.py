from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from run_factories import (
    continue_run,
    finished_run,
    first_problem,
    forge,
    make_start,
    read_members,
    tree,
    write_pdf,
)

from explainvad.errors import UsageError
from explainvad.record.finished import read_report
from explainvad.record.run import Run
from explainvad.record.verify import verify_run


def test_an_untouched_run_is_proved(finished: Path) -> None:
    before = tree(finished)
    verification = verify_run(finished)
    assert verification.problems == () and verification.ok
    assert verification.head_hash == read_report(finished).provenance.head_hash
    text = "\n".join(verification.checked)
    for part in ("ledger.jsonl", "6 artifacts", "3 report files", "report.pdf", "report.json"):
        assert part in text
    assert tree(finished) == before


def test_a_finished_run_without_reports_is_whole(tmp_path: Path) -> None:
    start = make_start()
    with Run.open(tmp_path, start) as run:
        continue_run(run, start)
    assert verify_run(tmp_path).ok


def test_the_expected_head_may_be_typed_from_paper(finished: Path) -> None:
    head = read_report(finished).provenance.head_hash
    typed = " ".join(head[i : i + 8] for i in range(0, 64, 8)).upper()
    assert verify_run(finished, expected_head=typed).ok
    assert verify_run(finished, expected_head="0" * 64).problems[0].got == head
    with pytest.raises(UsageError, match="64 hex digits"):
        verify_run(finished, expected_head=head[:12])


def test_missing_extra_and_replaced_artifacts_are_named(finished: Path) -> None:
    (finished / "maps" / "img-00001.png").unlink()
    (finished / "masks" / "img-00002.png").write_bytes((finished / "maps" / "img-00002.png").read_bytes())
    (finished / "evidence").mkdir()
    (finished / "evidence" / "new.png").write_bytes(b"x")
    problems = [str(problem) for problem in verify_run(finished).problems]
    assert problems[0] == "maps/img-00001.png: missing"
    assert problems[1].startswith("masks/img-00002.png: altered: its SHA-256 is not the recorded one (expected ")
    assert problems[2:] == ["evidence/new.png: no ledger line accounts for this file"]


@pytest.mark.parametrize("name", ["report.html", "results.parquet", "regions.coco.json", "maps_tiff/img-00001.tiff"])
def test_a_report_that_was_never_rendered_is_named(finished: Path, name: str) -> None:
    (finished / name).parent.mkdir(exist_ok=True)
    (finished / name).write_text("forged")
    assert first_problem(finished) == f"{name}: no ledger line accounts for this file"


def test_rendered_maps_are_accounted_for_one_by_one(finished: Path) -> None:
    folder = finished / "maps_tiff"
    folder.mkdir()
    maps = [folder / f"img-0000{number}.tiff" for number in (2, 3)]
    for path in maps:
        path.write_bytes(b"grey")
    with Run.reopen(finished) as run:
        run.note_rendered(maps)
    assert verify_run(finished).ok
    (folder / "more").mkdir()
    (folder / "more" / "stray.tiff").write_bytes(b"grey")
    maps[0].write_bytes(b"gray")
    maps[1].unlink()
    problems = [str(problem) for problem in verify_run(finished).problems]
    assert problems[0].startswith("maps_tiff/img-00002.tiff: altered")
    assert problems[1:] == [
        "maps_tiff/img-00003.tiff: missing",
        "maps_tiff/more/stray.tiff: no ledger line accounts for this file",
    ]


@pytest.mark.parametrize("name", ["report.json", "regions.coco.json", "results.parquet"])
def test_a_report_file_of_other_results_is_named(finished: Path, name: str) -> None:
    (finished / name).write_text("another lot's")
    with Run.reopen(finished) as run:
        run.note_rendered([finished / name])
    problems = [str(problem) for problem in verify_run(finished).problems]
    assert any(problem.startswith(f"{name}: made from other results") for problem in problems)


def test_further_pages_of_the_report_are_checked_like_it(finished: Path) -> None:
    folder = finished / "report_images"
    folder.mkdir()
    page = folder / "flagged-0101-0200.html"
    page.write_text("as rendered")
    assert first_problem(finished) == "report_images/flagged-0101-0200.html: no ledger line accounts for this file"
    with Run.reopen(finished) as run:
        run.note_rendered([page])
    assert verify_run(finished).ok
    (folder / "flagged-0201-0300.html").symlink_to(page)
    assert first_problem(finished) == "report_images/flagged-0201-0300.html: no ledger line accounts for this file"
    (folder / "flagged-0201-0300.html").unlink()
    page.write_text("altered")
    assert first_problem(finished).startswith("report_images/flagged-0101-0200.html: altered")
    page.unlink()
    assert first_problem(finished) == "report_images/flagged-0101-0200.html: missing"


def test_an_earlier_rendering_is_superseded(finished: Path) -> None:
    old = (finished / "results.csv").read_bytes()
    (finished / "results.csv").write_text("file\n")
    with Run.reopen(finished) as run:
        run.note_rendered([finished / "results.csv"])
    assert verify_run(finished).ok
    (finished / "results.csv").write_bytes(old)
    assert first_problem(finished).startswith("results.csv: altered")


@pytest.mark.parametrize(
    ("attach", "message"),
    [
        (lambda ledger, summary: {"report.json": summary}, "ledger.jsonl is not attached"),
        (lambda ledger, summary: {"ledger.jsonl": ledger}, "report.json is not attached"),
        (lambda ledger, summary: {"ledger.jsonl": ledger[:-1], "report.json": summary}, "is not the beginning"),
        (lambda ledger, summary: {"ledger.jsonl": b"", "report.json": summary}, "does not reach the results head"),
        (
            lambda ledger, summary: {"ledger.jsonl": ledger[: ledger.index(b"\n") + 1], "report.json": summary},
            "does not reach the results head",
        ),
        (lambda ledger, summary: {"ledger.jsonl": ledger, "report.json": b"{}"}, "is not the one in the folder"),
    ],
)
def test_what_a_pdf_carries_must_be_the_record(
    finished: Path, attach: Callable[[bytes, bytes], dict[str, bytes]], message: str
) -> None:
    ledger = b"".join((finished / "ledger.jsonl").read_bytes().splitlines(keepends=True)[:7])
    write_pdf(finished / "report.pdf", attach(ledger, (finished / "report.json").read_bytes()))
    with Run.reopen(finished) as run:
        run.note_rendered([finished / "report.pdf"])
    assert message in first_problem(finished)


def test_a_pdf_that_is_none_is_reported(finished: Path) -> None:
    (finished / "report.pdf").write_bytes(b"%PDF-1.7 and nothing more")
    with Run.reopen(finished) as run:
        run.note_rendered([finished / "report.pdf"])
    assert first_problem(finished).startswith("report.pdf: its attachments cannot be read")


HOSTILE_PATHS = ("../../secret", "/etc/passwd", "maps/../../secret", "maps/\x1b[2J", "maps", "a" * 5000)


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("not for reading")
    run_dir = finished_run(tmp_path / "a" / "run")
    members = read_members(run_dir)
    members[2]["body"]["artifacts"][path] = "0" * 64
    forge(run_dir, members)
    problem = first_problem(run_dir)
    assert problem.startswith("ledger.jsonl line 3: image: img-00001: artifacts are plain relative paths")
    assert problem.isprintable() and len(problem) < 600
    members = read_members(finished_run(tmp_path / "b" / "run"))
    members[-1]["body"]["files"][path] = "0" * 64
    forge(tmp_path / "b" / "run", members)
    assert not verify_run(tmp_path / "b" / "run").ok


def test_links_are_named_and_not_followed(finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "same bytes"
    picture = finished / "maps" / "img-00001.png"
    shutil.move(picture, target)
    picture.symlink_to(target)
    assert first_problem(finished) == ("maps/img-00001.png: maps/img-00001.png is a symbolic link; it was not followed")
    picture.unlink()
    shutil.move(target, picture)
    assert verify_run(finished).ok
    shutil.move(finished / "maps", tmp_path / "maps")
    (finished / "maps").symlink_to(tmp_path / "maps")
    assert "maps is a symbolic link" in first_problem(finished)


def test_a_linked_folder_among_the_artifacts_is_named(finished: Path, tmp_path: Path) -> None:
    (finished / "masks" / "more").symlink_to(tmp_path)
    assert first_problem(finished) == "masks/more: no ledger line accounts for this file"


def test_a_pipe_does_not_hang_verification(finished: Path) -> None:
    (finished / "maps" / "img-00001.png").unlink()
    os.mkfifo(finished / "maps" / "img-00001.png")
    assert "is not a regular file" in first_problem(finished)


@pytest.mark.parametrize("entry", ["nothing", "folder", "link", "empty"])
def test_a_folder_without_a_ledger_is_reported(tmp_path: Path, entry: str) -> None:
    ledger = tmp_path / "ledger.jsonl"
    if entry == "folder":
        ledger.mkdir()
    elif entry == "link":
        ledger.symlink_to("/dev/zero")
    elif entry == "empty":
        ledger.touch()
    assert first_problem(tmp_path).startswith("ledger.jsonl")


def test_only_a_wrong_call_raises(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected the folder of a run"):
        verify_run(tmp_path / "none")


def test_an_interrupted_run_is_told_from_a_whole_one(tmp_path: Path) -> None:
    start = make_start()
    with Run.open(tmp_path, start) as run:
        continue_run(run, start, until=2)
    assert first_problem(tmp_path).startswith("ledger.jsonl line 5: run_finished is missing, 2 of 4 files")
    with (tmp_path / "ledger.jsonl").open("ab") as ledger:
        ledger.write(b'{"body":')
    assert first_problem(tmp_path).startswith("ledger.jsonl line 5: torn: ")
