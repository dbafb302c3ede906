from __future__ import annotations

import errno
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from run_factories import (
    continue_run,
    finished_run,
    forge,
    make_artifacts,
    make_record,
    make_start,
    make_statistics,
    read_members,
    render,
    tree,
)

from explainvad.errors import IntegrityError, RunConflictError, StorageError, UsageError
from explainvad.record.finished import read_report
from explainvad.record.run import Run
from explainvad.record.verify import verify_run
from explainvad.types import ImageRecord


def test_a_report_is_rebuilt_from_the_ledger_alone(tmp_path: Path) -> None:
    start = make_start()
    run_dir = finished_run(tmp_path / "run", start)
    for folder in ("maps", "masks"):
        for file in (run_dir / folder).iterdir():
            file.unlink()
    report = read_report(run_dir)
    adapter = TypeAdapter(ImageRecord)
    for index, record in enumerate(report.records):
        expected = replace(make_record(start, index), artifacts=record.artifacts)
        assert adapter.dump_python(record) == adapter.dump_python(expected)
        assert record.artifacts.keys() == make_artifacts(start, index).keys()
    assert len(report.records) == 4
    assert report.records[1].findings[0].region.mask.to_array().sum() == 8
    assert report.model.calibration.scores == start.model.calibration.scores
    assert report.provenance.config == start.config
    assert report.provenance.fallbacks == ("CLIP scorer: not used, no weights",)
    assert report.provenance.started_at == report.provenance.finished_at == "2025-06-15T15:06:40Z"
    assert report.run_dir == run_dir


def test_the_results_head_does_not_move_when_reports_are_rendered(tmp_path: Path) -> None:
    start = make_start()
    with Run.open(tmp_path, start) as run:
        continue_run(run, start)
        first = read_report(tmp_path).provenance
        n_lines = len(read_members(tmp_path))
        run.note_rendered(render(tmp_path))
    then = read_report(tmp_path).provenance
    assert first.head_hash == then.head_hash
    assert first.n_ledger_lines == then.n_ledger_lines == n_lines == 7
    digits = first.head_hash.upper()
    assert first.report_id == f"EV-{digits[:4]}-{digits[4:8]}-{digits[8:12]}"


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    ledgers = []
    for name in ("a", "b"):
        start = make_start()
        with Run.open(tmp_path / name, start) as run:
            continue_run(run, start)
        ledgers.append(tree(tmp_path / name))
    assert ledgers[0] == ledgers[1]


def test_a_changed_rendering_is_noted_once(finished: Path) -> None:
    n_lines = len(read_members(finished))
    (finished / "results.csv").write_text("file\n")
    with Run.reopen(finished) as run:
        run.note_rendered([finished / "results.csv"])
        run.note_rendered([finished / "results.csv", finished / "report.pdf"])
    added = read_members(finished)[n_lines:]
    assert [line["event"] for line in added] == ["report_rendered"]
    assert added[0]["body"]["files"].keys() == {"results.csv"}
    assert verify_run(finished).ok


def test_files_elsewhere_are_not_noted(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.pdf").write_bytes(b"x")
    with Run.reopen(finished) as run, pytest.raises(UsageError, match="not in the run folder"):
        run.note_rendered([tmp_path / "copy.pdf"])


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunConflictError, match=r"holds files \(thesis.tex\) but no run"):
        Run.open(tmp_path, make_start())
    assert tree(tmp_path) == {"thesis.tex": b"years of work"}
    with pytest.raises(RunConflictError, match="is a file, expected a folder"):
        Run.open(tmp_path / "thesis.tex", make_start())


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Run.open(tmp_path, make_start()), pytest.raises(RunConflictError, match="another process"):
        Run.open(tmp_path, make_start())


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "maps/../../x", "maps", "maps/", "maps//x", "other/x", "ledger.jsonl",
     "maps/.hidden", "maps/a\nb", "maps/x\x00", "maps\\x", "", "maps/./x"],
)  # fmt: skip
def test_artifacts_stay_in_their_folders(tmp_path: Path, name: str) -> None:
    start = make_start()
    with Run.open(tmp_path / "run", start) as run, pytest.raises(ValueError, match="plain relative paths"):
        run.add(make_record(start, 0), {name: b"x"})
    assert tree(tmp_path).keys() == {"run/ledger.jsonl"}


def test_artifacts_are_not_written_through_a_link(tmp_path: Path) -> None:
    start = make_start()
    (tmp_path / "elsewhere").mkdir()
    with Run.open(tmp_path / "run", start) as run:
        (tmp_path / "run" / "maps").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(IntegrityError, match="maps is a symbolic link"):
            run.add(make_record(start, 0), {"maps/x.png": b"x"})
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_record_must_fit_the_run(tmp_path: Path) -> None:
    start = make_start()
    record = make_record(start, 0)
    with Run.open(tmp_path, start) as run:
        with pytest.raises(ValueError, match="no file 'x' with the id"):
            run.add(replace(record, file="x"), {})
        with pytest.raises(ValueError, match=r"no file .* with the id 'img-9'"):
            run.add(replace(record, image_id="img-9"), {})
        with pytest.raises(ValueError, match="not the ones that were given"):
            run.add(replace(record, artifacts={"maps/a.png": "0" * 64}), {"maps/a.png": b"x"})
        with pytest.raises(ValueError):
            run.add(replace(record, scores={"memory": math.nan}), {})
        assert run.done == {}
        run.add(record, {"maps/a.png": b"x"})
        with pytest.raises(ValueError, match="recorded already"):
            run.add(record, {})
        with pytest.raises(ValueError, match="belongs to another image"):
            run.add(make_record(start, 1), {"maps/a.png": b"y"})
    assert (tmp_path / "maps" / "a.png").read_bytes() == b"x"
    assert len(read_members(tmp_path)) == 2


def test_a_full_disk_leaves_the_image_unrecorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = make_start()
    real_write = os.write

    def full_disk(descriptor: int, data: bytes) -> int:
        if len(data) > 20:
            return real_write(descriptor, data[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Run.open(tmp_path, start) as run:
        run.add(make_record(start, 0), make_artifacts(start, 0))
        before = tree(tmp_path)
        monkeypatch.setattr(os, "write", full_disk)
        with pytest.raises(StorageError, match="No space left"):
            run.add(make_record(start, 1), make_artifacts(start, 1))
        assert tree(tmp_path) == before
        monkeypatch.setattr(os, "write", real_write)
        continue_run(run, start)
    assert verify_run(tmp_path).ok


def test_results_are_complete_before_they_are_closed(tmp_path: Path) -> None:
    start = make_start()
    with Run.open(tmp_path, start) as run:
        run.add(make_record(start, 0), {})
        with pytest.raises(ValueError, match="3 files have no image line, img-00002 the first"):
            run.finish(make_statistics(run.done.values()))
        with pytest.raises(UsageError, match="not finished"):
            run.note_rendered([])
        for index in (1, 2, 3):
            run.add(make_record(start, index), {})
        good = make_statistics(run.done.values())
        for wrong in ({"n_files": 5}, {"n_inspected": 4}, {"counts": {**good.counts, "REJECT": 0, "ACCEPT": 1}}):
            with pytest.raises(ValueError, match=f"do not add up: {next(iter(wrong))}"):
                run.finish(replace(good, **wrong))
        run.finish(good)
        for late in (lambda: run.finish(good), lambda: run.fallback("x"), lambda: run.add(make_record(start, 0), {})):
            with pytest.raises(UsageError, match="takes no more results"):
                late()


def test_a_fallback_is_recorded_once(tmp_path: Path) -> None:
    for _ in range(2):
        with Run.open(tmp_path, make_start()) as run:
            run.fallback("no GPU")
            run.fallback("no GPU")
    texts = [line["body"]["text"] for line in read_members(tmp_path) if line["event"] == "fallback"]
    assert texts == ["no GPU"]


def test_only_finished_runs_are_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        read_report(tmp_path)
    start = make_start()
    with Run.open(tmp_path / "run", start) as run:
        continue_run(run, start, until=1)
    for read in (read_report, Run.reopen):
        with pytest.raises(UsageError, match="3 of 4 files have no result yet; give the same analyze command again"):
            read(tmp_path / "run")


def test_an_older_record_without_a_newer_optional_member_is_read(finished: Path) -> None:
    lines = read_members(finished)
    for line in lines:
        if line["event"] == "run_started":
            del line["body"]["lot"]["camera"]
    forge(finished, lines)
    assert read_report(finished).lot.camera is None


@pytest.mark.parametrize("member", ["unknown", "height"])
def test_a_body_that_no_version_writes_is_refused(finished: Path, member: str) -> None:
    lines = read_members(finished)
    lines[2]["body"][member] = "6"
    forge(finished, lines)
    with pytest.raises(IntegrityError, match=r"line 3: image: unknown members, or values of another type"):
        read_report(finished)


def test_image_ids_are_unique() -> None:
    with pytest.raises(ValueError, match="img-1 more than once"):
        make_start(files=(("img-1", "a"), ("img-1", "b")))
