"""``explainvad audit-sample``: what it says, and what it refuses."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import typer
from run_factories import passed_run
from typer.testing import CliRunner

from explainvad.cli_audit import audit_sample
from explainvad.errors import UsageError

app = typer.Typer()
app.command()(audit_sample)

NOTE = (
    "note    the bound holds for defects that a person can see in what was looked at, and needs every sampled item to "
    "have been judged"
)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return passed_run(tmp_path / "lot 42", 120)


def audit(*arguments: object) -> list[str]:
    """The lines that the command says; errors are raised as they are."""
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output.splitlines()


def fill(sheet: Path, n_defective: int = 0) -> Path:
    header, *rows = sheet.read_text("utf-8").splitlines()
    filled = [re.sub(",,$", ",defect," if i < n_defective else ",good,", row) for i, row in enumerate(rows)]
    sheet.write_text("\n".join([header, *filled]), "utf-8")
    return sheet


def test_a_draw_says_what_to_do_next(run_dir: Path) -> None:
    said = audit(run_dir, "--confidence", 0.9, "--limit", 0.05)
    sheet = run_dir / "audit" / "sample-1.csv"
    assert said == [
        f"draws 33 of 120 passed images: {sheet}",
        "Fill the column result with good or defect for every row, then: explainvad audit-sample "
        f"'{run_dir}' --results '{sheet}' --auditor NAME",
    ]
    assert len(sheet.read_text("utf-8").splitlines()) == 1 + 33
    assert audit(run_dir) == said


def test_a_limit_that_is_kept(run_dir: Path) -> None:
    audit(run_dir, "--confidence", 0.9, "--limit", 0.05)
    said = audit(run_dir, "--results", fill(run_dir / "audit" / "sample-1.csv"), "--auditor", "A. Nobody")
    assert said == [
        "0 of 33 defective: with 90 % confidence at most 6 of 120 passed images (5.00 %) are defective; "
        "the limit 5 % is kept",
        NOTE,
        f"To put it into the report: explainvad render '{run_dir}'",
    ]


def test_a_limit_that_is_not_kept_and_a_second_draw(run_dir: Path) -> None:
    for number in (1, 2):
        audit(run_dir, *["--again"] * (number - 1), "--limit", 0.07)
        sheet = fill(run_dir / "audit" / f"sample-{number}.csv", n_defective=1)
        names = sheet.read_text("utf-8").splitlines()[1].split(",")
        said = audit(run_dir, "--results", sheet, "--auditor", "A. Nobody")
        assert said[0] == f"defect  {names[1]} {names[2]}"
        assert said[1] == (
            "1 of 33 defective: with 95 % confidence at most 14 of 120 passed images (11.67 %) are defective; "
            "the limit 7 % is not kept"
        )
        assert said[2] == NOTE
        draws = [line for line in said if "draw" in line]
        assert draws == [
            "note    this is draw 2 of the run: the confidence is that of one audit, not of the best of several"
        ] * (number - 1)


def test_counts_are_grouped_by_thousands(tmp_path: Path) -> None:
    run_dir = passed_run(tmp_path / "run", 1001)
    said = audit(run_dir, "--limit", 0.5, "--confidence", 0.5)
    assert said[0].startswith("draws 1 of 1,001 passed images")
    said = audit(run_dir, "--results", fill(run_dir / "audit" / "sample-1.csv"), "--auditor", "A. Nobody")
    assert "at most 500 of 1,001 passed images (49.96 %)" in said[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--auditor", "A"], "--auditor goes with --results"),
        (["--results", "x.csv"], "--results needs --auditor NAME"),
        (["--results", "x.csv", "--auditor", "A", "--limit", "0.1"], "--confidence, --limit and --again belong to"),
        (["--results", "x.csv", "--auditor", "A", "--confidence", "0.9"], "--confidence, --limit and --again belong"),
        (["--results", "x.csv", "--auditor", "A", "--again"], "--confidence, --limit and --again belong to"),
        (["--results", "x.csv", "--auditor", "A"], "no draw of .* waits for results: draw a sample first"),
        (["--limit", "5"], "--limit expects a share between 0 and 1, such as 0.95 or 0.01, got 5"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run_dir: Path, options: list[str], message: str) -> None:
    before = (run_dir / "ledger.jsonl").read_bytes()
    with pytest.raises(UsageError, match=message):
        audit(run_dir, *options)
    assert (run_dir / "ledger.jsonl").read_bytes() == before and not (run_dir / "audit").exists()


def test_the_run_is_named_first() -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 2 and "run_dir" in done.output.lower()
