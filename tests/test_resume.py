"""A run that is killed, or runs out of disk, goes on where it stopped and ends with the same results."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import explainvad, ledger, own_process
from tiny_parts import write_part

from explainvad import Inspector, LotReport, verify_run
from explainvad.fitting import Fitted
from explainvad.reporting import load_report


def assert_same_results(run_dir: Path, report: LotReport) -> None:
    """Everything that an interruption must not change."""
    found = load_report(run_dir)
    assert [asdict(r) for r in found.records] == [asdict(r) for r in report.records]
    assert asdict(found.statistics) == asdict(report.statistics)
    assert (run_dir / "results.csv").read_bytes() == (report.run_dir / "results.csv").read_bytes()
    artifacts = {name for record in report.records for name in record.artifacts}
    assert artifacts
    assert all((run_dir / name).read_bytes() == (report.run_dir / name).read_bytes() for name in artifacts)
    assert verify_run(run_dir).ok


def count(run_dir: Path, event: str) -> int:
    """How many lines of the kind the ledger has."""
    return sum(line["event"] == event for line in ledger(run_dir))


@pytest.mark.thorough
def test_a_run_killed_at_many_moments_ends_as_an_unbroken_one(
    lot: Path, model: Path, report: LotReport, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "explainvad.cli", "analyze", lot, "--model", model, "--out", run_dir]
    for event, number in [("run_started", 1), ("image", 3), ("image", 7), ("run_finished", 1)]:
        process = subprocess.Popen(command, env=own_process(TMPDIR=str(tmp_path)))
        while count(run_dir, event) < number:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.003)
        process.kill()
        assert process.wait() == -9
    assert count(run_dir, "run_resumed") == 3
    assert [line["body"]["image_id"] for line in ledger(run_dir) if line["event"] == "image"] == [
        record.image_id for record in report.records
    ]
    assert explainvad(*command[3:], "--formats", "csv").code == 0
    assert_same_results(run_dir, report)
    assert load_report(run_dir).provenance.resumed == 3


def test_a_finished_run_is_only_rendered_again(
    lot: Path, model: Path, report: LotReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = shutil.copytree(report.run_dir, tmp_path / "run")
    (run_dir / "results.csv").unlink()
    monkeypatch.setattr(Inspector, "inspect", pytest.fail)
    assert explainvad("analyze", lot, "--model", model, "--out", run_dir, "--formats", "csv").code == 0
    assert_same_results(run_dir, report)
    assert (run_dir / "ledger.jsonl").read_bytes() == (report.run_dir / "ledger.jsonl").read_bytes()


class TestAnotherRun:
    """A folder keeps one run: what differs is named, and nothing is touched."""

    @pytest.fixture
    def run_dir(self, report: LotReport, tmp_path: Path) -> Path:
        return shutil.copytree(report.run_dir, tmp_path / "run")

    def refused(self, run_dir: Path, *arguments: object) -> str:
        before = (run_dir / "ledger.jsonl").read_bytes()
        done = explainvad("analyze", *arguments, "--out", run_dir)
        assert done.code == 2
        assert "holds another run" in done.err
        assert (run_dir / "ledger.jsonl").read_bytes() == before
        return done.err

    def test_of_another_alpha(self, run_dir: Path, lot: Path, model: Path) -> None:
        message = self.refused(run_dir, lot, "--model", model, "--alpha", "0.2")
        assert "config.alpha is 0.1 there and 0.2 here" in message

    def test_of_another_model(self, run_dir: Path, lot: Path, inspector: Inspector, tmp_path: Path) -> None:
        other = Inspector.load(_altered_model(inspector, tmp_path))
        assert other.model_id != inspector.model_id
        message = self.refused(run_dir, lot, "--model", tmp_path / "other.evad")
        assert f"model is '{inspector.model_id}' there and '{other.model_id}' here" in message

    def test_of_a_lot_with_another_file(self, run_dir: Path, lot: Path, model: Path, tmp_path: Path) -> None:
        grown = shutil.copytree(lot, tmp_path / lot.name)
        write_part(grown / "new.png", 7)
        assert "files.img-00013 is None there and 'new.png' here" in self.refused(run_dir, grown, "--model", model)

    def test_that_is_no_run_at_all(self, lot: Path, model: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("keep")
        done = explainvad("analyze", lot, "--model", model, "--out", tmp_path / "mine")
        assert done.code == 2
        assert "notes.txt" in done.err
        assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_full_disk_is_said_clearly_and_the_run_goes_on_afterwards(
    share: float, lot: Path, model: Path, report: LotReport, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    command = ("analyze", lot, "--model", model, "--out", run_dir, "--formats", "csv")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = int(share * (report.run_dir / "ledger.jsonl").stat().st_size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
    try:
        done = explainvad(*command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert done.code == 2
    assert str(run_dir) in done.err and "too large" in done.err.lower()
    assert "Traceback" not in done.err
    assert not (run_dir / "results.csv").exists()
    n_before = count(run_dir, "image")
    assert n_before < 12 and (n_before > 0) == (share > 0.1)
    assert explainvad(*command).code == 0
    assert_same_results(run_dir, report)


def test_a_full_disk_while_rendering_leaves_the_record_whole(report: LotReport, tmp_path: Path) -> None:
    run_dir = shutil.copytree(report.run_dir, tmp_path / "run")
    before = (run_dir / "report.html").read_bytes()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1]))
    try:
        done = explainvad("render", run_dir, "--formats", "html,json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert done.code == 2
    assert "cannot be written" in done.err
    assert (run_dir / "report.html").read_bytes() == before
    assert verify_run(run_dir).ok


def _altered_model(inspector: Inspector, folder: Path) -> Path:
    """The same model, noted as fitted at another time."""
    fitted = Fitted(
        inspector.ensemble,
        inspector.calibrator,
        inspector.gallery,
        inspector.split,
        inspector.fitted | {"fitted_at": "2001-01-01T00:00:00+00:00"},
    )
    other = Inspector(inspector.config, fitted)
    return other.save(folder / "other.evad")
