from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from run_factories import (
    continue_run,
    finished_run,
    make_model,
    make_record,
    make_start,
    read_members,
    render,
    tree,
)

from explainvad.errors import IntegrityError, RunConflictError
from explainvad.record.finished import read_report
from explainvad.record.run import Run
from explainvad.record.verify import verify_run
from explainvad.types import ImageRecord, LotInfo, LotReport, LotStatistics, ModelCard


def results(report: LotReport) -> dict[str, Any]:
    """All of a report that an interruption must not change."""
    return {
        "records": TypeAdapter(tuple[ImageRecord, ...]).dump_python(report.records),
        "statistics": TypeAdapter(LotStatistics).dump_python(report.statistics),
        "model": TypeAdapter(ModelCard).dump_python(report.model),
        "lot": TypeAdapter(LotInfo).dump_python(report.lot),
        "fallbacks": report.provenance.fallbacks,
        "started_at": report.provenance.started_at,
    }


@pytest.mark.parametrize("n_before", range(5))
@pytest.mark.parametrize("torn_bytes", [0, 1, 200])
def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path: Path, n_before: int, torn_bytes: int) -> None:
    start = make_start()
    unbroken = finished_run(tmp_path / "unbroken", start)
    broken = tmp_path / "broken"
    with Run.open(broken, start) as run:
        continue_run(run, start, until=n_before)
    if torn_bytes:
        ledger = broken / "ledger.jsonl"
        ledger.write_bytes(ledger.read_bytes()[:-torn_bytes])
    with Run.open(broken, start) as run:
        assert not run.finished
        assert len(run.done) == max(0, n_before - (torn_bytes > 0))
        continue_run(run, start)
        run.note_rendered(render(broken))
    assert results(read_report(broken)) == results(read_report(unbroken))
    assert read_report(broken).provenance.resumed == 1
    resumptions = [line["body"] for line in read_members(broken) if line["event"] == "run_resumed"]
    assert [body["torn"] for body in resumptions] == [torn_bytes > 0]
    pictures = [{k: v for k, v in tree(d).items() if k.startswith("m")} for d in (broken, unbroken)]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 6
    assert verify_run(broken).ok


CHILD = """
import sys
from pathlib import Path
from run_factories import continue_run, make_start, render
from explainvad.record.run import Run
start = make_start(25)
with Run.open(Path(sys.argv[1]), start) as run:
    continue_run(run, start)
    run.note_rendered(render(Path(sys.argv[1])))
"""


def count_images(run_dir: Path) -> int:
    ledger = run_dir / "ledger.jsonl"
    return ledger.read_bytes().count(b'"event":"image"') if ledger.exists() else 0


def test_a_run_killed_at_any_moment_resumes(tmp_path: Path) -> None:
    start = make_start(25)
    unbroken = finished_run(tmp_path / "unbroken", start)
    run_dir = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    rng = random.Random(5)
    for n_done in (0, 1, 9, 25):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(run_dir)], env=environment)
        while count_images(run_dir) < n_done and child.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.005))
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert read_members(run_dir)[0]["event"] == "run_started"
    with Run.open(run_dir, start) as run:
        if not run.finished:
            continue_run(run, start)
        run.note_rendered(render(run_dir))
    assert results(read_report(run_dir)) == results(read_report(unbroken))
    assert verify_run(run_dir).problems == ()
    assert read_report(run_dir).provenance.resumed >= 2


def test_an_image_is_durable_before_its_line(tmp_path: Path, synced: list[str]) -> None:
    start = make_start()
    with Run.open(tmp_path / "run", start) as run:
        assert synced.index("ledger.jsonl") > synced.index("run")
        synced.clear()
        run.add(make_record(start, 0), {"maps/a.png": b"x"})
        assert synced == ["run", ".partial", "maps", "ledger.jsonl"]


def test_what_a_kill_left_over_is_removed_on_resume(tmp_path: Path) -> None:
    start = make_start()
    with Run.open(tmp_path, start) as run:
        continue_run(run, start, until=2)
    (tmp_path / "maps" / "img-00003.png").write_bytes(b"written, but its line was not")
    (tmp_path / ".partial").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"of the user")
    recorded = (tmp_path / "maps" / "img-00001.png").read_bytes()
    with Run.open(tmp_path, start):
        pass
    assert not (tmp_path / "maps" / "img-00003.png").exists()
    assert not (tmp_path / ".partial").exists()
    assert (tmp_path / "maps" / "img-00001.png").read_bytes() == recorded
    assert (tmp_path / "notes.txt").exists()


def test_a_finished_run_is_opened_unchanged(finished: Path) -> None:
    before = tree(finished)
    with Run.open(finished, make_start()) as run:
        assert run.finished and len(run.done) == 4
        run.fallback("CLIP scorer: not used, no weights")
        run.note_rendered([finished / "report.pdf"])
    assert tree(finished) == before


def test_a_torn_line_behind_the_results_does_not_hide_them(finished: Path) -> None:
    before = tree(finished)
    with (finished / "ledger.jsonl").open("ab") as ledger:
        ledger.write(b'{"body":{"files":{"rep')
    assert len(read_report(finished).records) == 4
    with Run.open(finished, make_start()) as run:
        assert run.finished
    assert tree(finished) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lot": LotInfo("lot43", part="capsule")}, "lot.lot_id is 'lot42' there and 'lot43' here"),
        ({"model": make_model("cd" * 32)}, f"model is '{'ab' * 32}' there and '{'cd' * 32}' here"),
        ({"config": {**make_start().config, "alpha": 0.01}}, "config.alpha is 0.05 there and 0.01 here"),
        ({"config": {"alpha": 0.05, "seed": 7}}, "config.regions"),
        ({"files": make_start(5).files}, "files.img-00005 is None there and 'tray/part 5 ü.png' here"),
        ({"files": make_start(3).files}, "files.img-00004"),
    ],
)
@pytest.mark.parametrize("torn", [b"", b'{"body":{"tor'])
def test_another_run_is_refused_and_what_differs_is_named(
    tmp_path: Path, change: dict[str, Any], message: str, torn: bytes
) -> None:
    start = make_start()
    with Run.open(tmp_path, start) as run:
        continue_run(run, start, until=2)
    with (tmp_path / "ledger.jsonl").open("ab") as ledger:
        ledger.write(torn)
    (tmp_path / "maps" / "left.png").write_bytes(b"x")
    before = tree(tmp_path)
    with pytest.raises(RunConflictError) as caught:
        Run.open(tmp_path, replace(start, **change))
    assert message in str(caught.value) and "use another --out" in str(caught.value)
    assert tree(tmp_path) == before
    Run.open(tmp_path, start).close()  # and the lock was released


def test_many_differences_are_cut_short(tmp_path: Path) -> None:
    Run.open(tmp_path, make_start(4)).close()
    with pytest.raises(RunConflictError, match="; and 10 more"):
        Run.open(tmp_path, make_start(20))


def test_the_software_may_differ_and_is_recorded(tmp_path: Path) -> None:
    Run.open(tmp_path, make_start()).close()
    Run.open(tmp_path, make_start(software="explainvad 0.2.0")).close()
    assert [m["body"]["software"] for m in read_members(tmp_path)] == ["explainvad 0.1.0", "explainvad 0.2.0"]


def test_a_broken_record_is_not_continued(tmp_path: Path) -> None:
    start = make_start()
    with Run.open(tmp_path, start) as run:
        continue_run(run, start, until=3)
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"epistemic_limit":0.8', b'"epistemic_limit":0.9', 1))
    before = ledger.read_bytes()
    for action in (lambda: Run.open(tmp_path, start), lambda: read_report(tmp_path)):
        with pytest.raises(IntegrityError, match=r"^ledger.jsonl line 3: the line was altered"):
            action()
    assert ledger.read_bytes() == before
