"""The command line: exit codes, quiet and progress, and what is refused before anything is written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import explainvad
from tiny_parts import FOREIGN, GOOD, RUSTY, write_lot

from explainvad import Inspector, LotReport


class TestLight:
    """``--help`` must answer at once, and a command that is not on a terminal says nothing of its progress."""

    @pytest.mark.parametrize("command", [[], ["analyze"], ["fit"]])
    def test_help_loads_nothing_heavy(self, command: list[str]) -> None:
        code = (
            "import sys\nfrom explainvad.cli import main\n"
            f"sys.argv = ['explainvad', *{command}, '--help']\n"
            "try: main()\nexcept SystemExit as end: assert not end.code\n"
            "heavy = {'torch', 'weasyprint', 'scipy', 'sklearn', 'skimage', 'matplotlib', 'numpy', 'PIL'}\n"
            "print('LOADED', sorted(heavy & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "Usage:" in done.stdout
        assert done.stdout.splitlines()[-1] == "LOADED []"

    def test_it_is_quiet_where_nobody_watches(self, model: Path, tmp_path: Path) -> None:
        lot = write_lot(tmp_path / "lot", [GOOD])
        done = explainvad("analyze", lot, "--model", model, "--out", tmp_path / "run", "--formats", "csv")
        assert (done.code, done.err) == (0, "")
        assert done.out == f"csv   {tmp_path / 'run' / 'results.csv'}\nlot lot: 1 files: 1 not flagged\n"

    def test_on_a_terminal_it_shows_progress(self, model: Path, tmp_path: Path) -> None:
        lot = write_lot(tmp_path / "lot", [GOOD])
        arguments = ("analyze", lot, "--model", model, "--out", tmp_path / "run", "--formats", "csv")
        done = explainvad(*arguments, terminal=True)
        assert done.code == 0
        assert "inspecting" in done.err and "1/1" in done.err


class TestAnalyze:
    """Exit codes of an inspection, and what is refused before anything is written."""

    def test_a_whole_lot_gives_all_formats(self, report: LotReport, lot: Path, model: Path, tmp_path: Path) -> None:
        done = explainvad("analyze", lot, "--model", model, "--out", tmp_path / "run", "--formats", "html,csv, json")
        assert done.code == 0
        assert sorted(p.name for p in (tmp_path / "run").iterdir() if p.is_file()) == [
            "ledger.jsonl",
            "report.html",
            "report.json",
            "results.csv",
        ]
        assert (tmp_path / "run" / "results.csv").read_bytes() == (report.run_dir / "results.csv").read_bytes()
        assert done.out.splitlines()[-1].startswith("lot L-7: 12 files: ")

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            (GOOD, {"": 0, "reject": 0, "defer": 0}),
            (RUSTY, {"": 0, "reject": 1, "defer": 1}),
            (FOREIGN, {"": 0, "reject": 0, "defer": 1}),
        ],
    )
    def test_findings_fail_on_request(self, kind: str, expected: dict[str, int], model: Path, tmp_path: Path) -> None:
        lot = write_lot(tmp_path / "lot", [kind], first=1020)
        command = ("analyze", lot, "--model", model, "--out", tmp_path / "run", "--formats", "csv")
        codes = {level: explainvad(*command, *(("--fail-on", level) if level else ())).code for level in expected}
        assert codes == expected

    def test_an_uninspected_file_is_exit_code_3_unless_findings_fail(self, model: Path, tmp_path: Path) -> None:
        lot = write_lot(tmp_path / "lot", [RUSTY], first=1020)
        (lot / "torn.png").write_bytes(b"")
        command = ("analyze", lot, "--model", model, "--out", tmp_path / "run", "--formats", "csv")
        assert explainvad(*command).code == 3
        assert explainvad(*command, "--fail-on", "reject").code == 1

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                ("--formats", "pdf,docx"),
                "--formats expects some of pdf,html,csv,json,parquet,coco,maps, separated by commas, got 'pdf,docx'",
            ),
            (("--formats", ","), "--formats expects some of"),
            (("--alpha", "0.01"), "alpha = 0.01 for a verdict needs at least 99 calibration images, got 29"),
            (("--alpha", "2"), "alpha = 2.0: Input should be less than 1"),
            (("--device", "gpu"), "device = 'gpu'"),
            (("--fail-on", "accept"), "is not one of 'reject', 'defer'"),
            (("--modle", "x.evad"), "No such option: --modle"),
        ],
    )
    def test_wrong_options_are_refused_before_anything_is_written(
        self, options: tuple[str, ...], message: str, lot: Path, model: Path, tmp_path: Path
    ) -> None:
        done = explainvad("analyze", lot, "--model", model, "--out", tmp_path / "run", *options)
        assert done.code == 2
        assert message in _unboxed(done.err)
        assert "Traceback" not in done.err
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")])
    def test_what_is_no_lot_is_refused(self, make: Callable[[Path], object], model: Path, tmp_path: Path) -> None:
        make(tmp_path / "lot")
        done = explainvad("analyze", tmp_path / "lot", "--model", model, "--out", tmp_path / "run")
        assert done.code == 2
        assert "expected a folder of images" in done.err
        assert not (tmp_path / "run").exists()

    def test_an_altered_model_is_an_integrity_failure(self, lot: Path, model: Path, tmp_path: Path) -> None:
        broken = shutil.copytree(model, tmp_path / "broken.evad")
        name = next(p.name for p in broken.glob("*.safetensors"))
        (broken / name).write_bytes((broken / name).read_bytes()[:-1] + b"!")
        done = explainvad("analyze", lot, "--model", broken, "--out", tmp_path / "run")
        assert done.code == 4
        assert f"broken.evad/{name} was altered" in done.err
        assert not (tmp_path / "run").exists()

    def test_stopping_by_hand_says_how_to_go_on(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stopped(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Inspector, "_judged", stopped)  # what analyze and inspect share
        lot = write_lot(tmp_path / "lot", [GOOD])
        done = explainvad("analyze", lot, "--model", model, "--out", tmp_path / "run")
        assert done.code == 130
        assert "the same command resumes" in done.err

    def test_a_path_that_is_no_text_is_printed_escaped(self, model: Path, tmp_path: Path) -> None:
        lot = tmp_path / "lot\udcff"
        write_lot(lot, [GOOD])
        out = tmp_path / "run\udcff"
        command = [sys.executable, "-m", "explainvad.cli", "analyze", lot, "--model", model, "--out", out]
        done = subprocess.run([*command, "--formats", "csv"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "run\\udcff/results.csv" in done.stdout and "lot\\xff" in done.stdout


def test_the_demo_inspects_its_lot_with_its_model(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from explainvad import demo

    def small_demo(out: Path, progress: Callable[[int, int], None]) -> demo.DemoFolders:
        progress(1, 1)
        write_lot(out / "lot42", [GOOD, RUSTY], first=1020)
        (out / "lot42" / "torn.png").write_bytes(b"")
        shutil.copytree(model, out / "flange.evad")
        return demo.DemoFolders(out, out / "reference", out / "lot42", out / "labelled")

    monkeypatch.setattr(demo, "make_demo", small_demo)
    done = explainvad("demo", "--out", tmp_path / "demo")
    assert done.code == 0, done.err  # the files that cannot be read are part of the show
    assert (tmp_path / "demo" / "report" / "report.pdf").is_file()
    assert done.out.splitlines()[-1] == "lot lot42: 3 files: 1 reject, 1 not flagged, 1 not inspected"


def test_evaluate_takes_a_model_or_what_is_needed_to_fit_one(model: Path, tmp_path: Path) -> None:
    command = ("evaluate", tmp_path, "--out", tmp_path / "out", "--model", model)
    done = explainvad(*command, "--profile", "embedded")
    assert done.code == 2
    assert "--model is fitted already" in done.err
    done = explainvad(*command)
    assert done.code == 2
    assert "labelled data set" in done.err


def _unboxed(text: str) -> str:
    """Undo the frame and the line breaks that usage errors are set in."""
    return " ".join(text.replace("│", " ").split())
