"""Killed at any moment, or out of disk: nothing is lost, nothing is half, and the same command finishes the work.

Times are fixed, so that a record that was cut short is the beginning of the unbroken one, byte for byte. With
``--thorough`` there are fifty moments of each command; otherwise a few of them, and not all ways to be cut short.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import pytest
from command_line import EPOCH, ledger, tree
from own_authority import NOW, PASSPHRASE
from signed_runs import People
from struck import Ended, Server
from tiny_parts import GOOD, RUSTY, write_lot

from explainvad import Inspector, verify_run
from explainvad.record.verify_pdf import verify_pdf
from explainvad.report.stamp import stamp_pdf
from explainvad.reporting import load_report

Moments = Callable[[int, int], list[int]]
SCRATCH = {".partial"}
LEDGER = "ledger.jsonl"
CHEAP = "html,csv,json,parquet,coco,maps"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    stamp = stamp_pdf("A. Nobody", NOW.isoformat(), "Inspection performed", None, (221, 32))
    folder = tmp_path_factory.mktemp("struck") / "tmp"
    folder.mkdir()
    server = Server(folder, stamp)
    yield server
    server.close()


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lot of two."""
    return write_lot(tmp_path_factory.mktemp("few") / "few", [RUSTY, GOOD])


@pytest.fixture(scope="module")
def record(inspector: Inspector, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of the lot, not rendered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        return inspector.analyze(few, tmp_path_factory.mktemp("record") / "run").run_dir


@pytest.fixture(scope="module")
def moments(request: pytest.FixtureRequest) -> Moments:
    """Which of so many steps to strike at, in order: the given few at random, or with --thorough fifty."""

    def chosen(steps: int, few: int) -> list[int]:
        number = 50 if request.config.getoption("--thorough") else few
        return sorted(random.Random(f"{steps} {few}").sample(range(1, steps + 1), min(number, steps)))

    return chosen


def assert_whole(run_dir: Path, *states: dict[str, bytes]) -> None:
    """Every file is as in one of the states, and the ledger is the beginning of that of the last one."""
    found = tree(run_dir) if run_dir.exists() else {}
    assert states[-1][LEDGER].startswith(found.pop(LEDGER, b""))
    for name in found.keys() - SCRATCH:
        assert found[name] in [state.get(name) for state in states], name


def assert_killed(ended: Ended) -> None:
    assert ended.code == -9, ended.err


class TestAnalyze:
    FORMATS = "csv,json,html"

    @pytest.fixture
    def command(self, few: Path, model: Path, tmp_path: Path) -> list[object]:
        return ["analyze", few, "--model", model, "--formats", self.FORMATS, "--out"]

    @pytest.fixture
    def unbroken(self, server: Server, command: list[object], tmp_path: Path) -> tuple[Path, int, float]:
        """The folder of the run, its steps and seconds."""
        start = time.monotonic()
        ended = server.run(*command, tmp_path / "unbroken")
        assert ended.code == 0, ended.err
        return tmp_path / "unbroken", ended.steps, time.monotonic() - start

    def test_killed(
        self,
        server: Server,
        command: list[object],
        unbroken: tuple[Path, int, float],
        model: Path,
        moments: Moments,
        tmp_path: Path,
    ) -> None:
        whole, steps, seconds = unbroken
        at = moments(steps, 2)
        rng = random.Random(1)
        strikes = [*({"kill_at": step} for step in at), *({"seconds": rng.uniform(0, seconds)} for _ in at[::3])]
        for number, strike in enumerate(strikes):
            history(model).unlink(missing_ok=True)
            run_dir = tmp_path / f"run-{number}"
            ended = server.run(*command, run_dir, **strike)
            if "kill_at" in strike:
                assert_killed(ended)
            assert_whole(run_dir, tree(whole))
            ended = server.run(*command, run_dir)
            assert ended.code == 0, (strike, ended.err)
            self.assert_same(run_dir, whole)
            assert len(history(model).read_text().splitlines()) == 1

    @pytest.mark.thorough
    def test_disk_full(
        self,
        server: Server,
        command: list[object],
        unbroken: tuple[Path, int, float],
        model: Path,
        moments: Moments,
        tmp_path: Path,
    ) -> None:
        whole, steps, _ = unbroken
        refused = 0
        for at in moments(steps // 2, 2):  # about half of all steps take room; behind the last one nothing happens
            history(model).unlink(missing_ok=True)
            run_dir = tmp_path / f"run-{at}"
            ended = server.run(*command, run_dir, full_at=at)
            if ended.code != 0:
                refused += 1
                assert_refused(ended, tmp_path, model.parent)
                assert_whole(run_dir, tree(whole))
                assert server.run(*command, run_dir).code == 0
            self.assert_same(run_dir, whole)
        assert refused

    def assert_same(self, run_dir: Path, whole: Path) -> None:
        found, expected = tree(run_dir), tree(whole)
        assert found.keys() == expected.keys()
        if not any(line["event"] in ("run_resumed", "fallback") for line in ledger(run_dir)):
            assert found == expected
        of_the_record = {LEDGER, "report.json", "report.html"}  # these tell of the interruption
        assert {n: d for n, d in found.items() if n not in of_the_record} == {
            n: d for n, d in expected.items() if n not in of_the_record
        }
        reports = [load_report(folder) for folder in (run_dir, whole)]
        assert asdict(reports[0])["records"] == asdict(reports[1])["records"]
        assert verify_run(run_dir).ok


def history(model: Path) -> Path:
    return model.with_name(f"{model.name}.history.jsonl")


def assert_refused(ended: Ended, *places: Path) -> None:
    """One line of help, which names a place and the remedy."""
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    assert any(str(place) in ended.err for place in places), ended.err
    assert "free space" in ended.err


class TestRender:
    @pytest.fixture
    def older(self, server: Server, record: Path, tmp_path: Path) -> Path:
        """The run, rendered on another day."""
        folder = shutil.copytree(record, tmp_path / "older")
        assert server.run("render", folder, "--formats", CHEAP, env={"SOURCE_DATE_EPOCH": "1800000000"}).code == 0
        return folder

    def test_killed(self, server: Server, record: Path, older: Path, moments: Moments, tmp_path: Path) -> None:
        for before in (record, older):
            command = ("--formats", CHEAP)
            whole = shutil.copytree(before, tmp_path / f"whole-{before.name}")
            unbroken = server.run("render", whole, *command)
            assert unbroken.code == 0, unbroken.err
            for at in moments(unbroken.steps, 2):
                run_dir = shutil.copytree(before, tmp_path / f"{before.name}-{at}")
                assert_killed(server.run("render", run_dir, *command, kill_at=at))
                assert_whole(run_dir, tree(before), tree(whole))
                assert server.run("render", run_dir, *command).code == 0
                assert tree(run_dir) == tree(whole)
                assert verify_run(run_dir).ok

    @pytest.mark.thorough
    def test_killed_with_its_pdf(self, server: Server, record: Path, moments: Moments, tmp_path: Path) -> None:
        """At steps of its own, and at moments of its worker's, which ends too."""
        whole = shutil.copytree(record, tmp_path / "whole")
        start = time.monotonic()
        unbroken = server.run("render", whole, "--formats", "pdf")
        seconds = time.monotonic() - start
        assert unbroken.code == 0, unbroken.err
        for tenth in moments(9, 2):
            run_dir = shutil.copytree(record, tmp_path / f"run-{tenth}")
            server.run("render", run_dir, "--formats", "pdf", seconds=tenth / 10 * seconds)
            assert_whole(run_dir, tree(record), tree(whole))
            for _ in range(100):
                if not workers_of(server.folder):
                    break
                time.sleep(0.1)
            assert workers_of(server.folder) == []
            at = random.Random(tenth).randint(1, unbroken.steps)
            assert_killed(server.run("render", run_dir, "--formats", "pdf", kill_at=at))
            assert_whole(run_dir, tree(record), tree(whole))
            assert server.run("render", run_dir, "--formats", "pdf").code == 0
            assert tree(run_dir) == tree(whole)
            assert verify_run(run_dir).ok

    @pytest.mark.thorough
    def test_disk_full(self, server: Server, record: Path, moments: Moments, tmp_path: Path) -> None:
        whole = shutil.copytree(record, tmp_path / "whole")
        unbroken = server.run("render", whole, "--formats", CHEAP)
        assert unbroken.code == 0
        refused = 0
        for at in moments(unbroken.steps // 2, 2):
            run_dir = shutil.copytree(record, tmp_path / f"run-{at}")
            ended = server.run("render", run_dir, "--formats", CHEAP, full_at=at)
            if ended.code != 0:
                refused += 1
                assert_refused(ended, run_dir)
                assert_whole(run_dir, tree(record), tree(whole))
                assert server.run("render", run_dir, "--formats", CHEAP).code == 0
            assert tree(run_dir) == tree(whole)
        assert refused

    @pytest.mark.parametrize("largest", [1000, 40_000])
    def test_no_room_for_the_parts_of_the_pdf(self, server: Server, record: Path, tmp_path: Path, largest: int) -> None:
        run_dir = shutil.copytree(record, tmp_path / "run")
        assert_refused(server.run("render", run_dir, "--formats", "pdf", largest=largest), server.folder, run_dir)
        assert tree(run_dir) == tree(record)


def workers_of(folder: Path) -> list[str]:
    """The render processes that have their parts in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(process.read_bytes().decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return [line for line in found if f"{folder}/" in line]


class TestSign:
    """A signature and its time are new each time, so files are verified in place of compared."""

    ENV: ClassVar = {"SOURCE_DATE_EPOCH": None, "EXPLAINVAD_KEY_PASSPHRASE": PASSPHRASE}

    @pytest.fixture
    def command(self, people: People) -> list[object]:
        return ["--key", people.first.key.path, "--name", people.first.name, "--meaning", "performed"]

    def test_killed(
        self, server: Server, command: list[object], quiet_run: Path, moments: Moments, tmp_path: Path
    ) -> None:
        steps = server.run("sign", shutil.copytree(quiet_run, tmp_path / "whole"), *command, env=self.ENV).steps
        assert steps > 5
        for at in moments(steps, 2):
            run_dir = shutil.copytree(quiet_run, tmp_path / f"run-{at}")
            assert_killed(server.run("sign", run_dir, *command, kill_at=at, env=self.ENV))
            self.assert_whole(run_dir / "report.pdf", quiet_run / "report.pdf")
            self.assert_signed_by(server, run_dir, command, quiet_run)

    @pytest.mark.thorough
    def test_killed_without_a_run(
        self, server: Server, command: list[object], quiet_run: Path, moments: Moments, tmp_path: Path
    ) -> None:
        alone = tmp_path / "copy.pdf"
        shutil.copy(quiet_run / "report.pdf", alone)
        steps = server.run("sign", alone, *command, env=self.ENV).steps
        for at in moments(steps, 3):
            shutil.copy(quiet_run / "report.pdf", alone)
            assert_killed(server.run("sign", alone, *command, kill_at=at, env=self.ENV))
            self.assert_whole(alone, quiet_run / "report.pdf")
            if alone.read_bytes() == (quiet_run / "report.pdf").read_bytes():
                assert server.run("sign", alone, *command, env=self.ENV).code == 0
            self.assert_whole(alone, quiet_run / "report.pdf")
            assert list(tmp_path.iterdir()) == [alone]

    @pytest.mark.thorough
    def test_disk_full(
        self, server: Server, command: list[object], quiet_run: Path, moments: Moments, tmp_path: Path
    ) -> None:
        for at in moments(3, 1):  # as many steps take room
            run_dir = shutil.copytree(quiet_run, tmp_path / f"run-{at}")
            ended = server.run("sign", run_dir, *command, full_at=at, env=self.ENV)
            assert_refused(ended, run_dir, server.folder)
            self.assert_whole(run_dir / "report.pdf", quiet_run / "report.pdf")
            self.assert_signed_by(server, run_dir, command, quiet_run)

    def test_no_room_for_temporary_files(
        self, server: Server, command: list[object], quiet_run: Path, tmp_path: Path
    ) -> None:
        run_dir = shutil.copytree(quiet_run, tmp_path / "run")
        assert_refused(server.run("sign", run_dir, *command, largest=500, env=self.ENV), server.folder)
        assert tree(run_dir) == tree(quiet_run)

    def assert_whole(self, path: Path, before: Path) -> None:
        """The file as it was, or that with a signature that verifies."""
        assert path.read_bytes().startswith(before.read_bytes())
        assert verify_pdf(path).ok

    def assert_signed_by(self, server: Server, run_dir: Path, command: list[object], before: Path) -> None:
        """The same command signs once, whatever there was."""
        ended = server.run("sign", run_dir, *command, env=self.ENV)
        complete = ended.code == 2 and "is signed already" in ended.err  # it was killed after its last step
        assert ended.code == 0 or complete, ended.err
        assert [line["event"] for line in ledger(run_dir)].count("report_signed") == 1
        assert verify_run(run_dir).problems == ()
        assert tree(run_dir).keys() == tree(before).keys()
