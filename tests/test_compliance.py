"""What docs/compliance.md names must exist: ledger events, paths in report.json, commands and options, files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from explainvad.cli import app
from explainvad.record import events
from explainvad.record.storage import ARTIFACT_FOLDERS
from explainvad.report.render import FILES
from explainvad.report.schema import SCHEMA_FILE

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "compliance.md").read_text("utf-8")
SCHEMA = json.loads(SCHEMA_FILE.read_text("utf-8"))

EVENTS = set(re.findall(r"^([a-z]+_?[a-z]+) {2,}\S", events.__doc__ or "", re.MULTILINE)) - {"event"}
WRITTEN = {
    *(f"{folder}/" for folder in ARTIFACT_FOLDERS),
    *FILES.values(),
    *("ledger.jsonl", "lot.toml", "manifest.json", "metrics.json"),  # of a run, a lot, a bundle, an evaluation
}
SCORERS = {"musc"}

CLAUSES = {
    "21 CFR Part 11": [
        *(f"11.10 ({c})" for c in "abcdefghijk"),
        *(f"11.{k}" for k in (30, 50, 70, 100, 200, 300)),
    ],
    "EU GMP Annex 11, Computerised Systems (2011)": [
        *("1", "2", "3", "4", "5", "6", "7.1", "7.2", "8.1", "8.2"),
        *map(str, range(9, 18)),
    ],
    "EU GMP Annex 11, draft": ["4", "6", *map(str, range(8, 18))],
    "EU GMP Annex 22": [
        *("1", "2", "3", "4.1", "4.2", "4.3", "5", "6", "7", "8.1", "8.2", "9.1", "9.2"),
        *(f"10.{k}" for k in range(1, 6)),
    ],
    "ISO 13485:2016": ["4.1.6", "4.2.4", "4.2.5", "7.5.6", "7.6", "8.2.6", "8.3"],
    "ISO/IEC 17025:2017": ["7.6", "7.8.2", "7.8.3", "7.8.6", "7.8.8", "7.11"],
    "EU AI Act": [
        *("12 (1)", "12 (2)", "13 (1)", "13 (3)", "14 (1)", *(f"14 (4) ({c})" for c in "abcde")),
        *("15 (1)", "15 (3)", "15 (4)", "15 (5)", "19 (1)", "26 (1)", "26 (2)", "26 (5)", "26 (6)"),
    ],
}  # fmt: skip


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows but their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("Clause", "What") and set(row[0]) != {"-"}]


def section(title: str) -> str:
    (text,) = re.findall(rf"^## {re.escape(title)}[^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def named() -> list[str]:
    return sorted({span for row in rows(PAGE) for cell in row for span in re.findall(r"`([^`]+)`", cell)})


def is_path(text: str) -> bool:
    """Whether report.json has a place of this name, ``[]`` standing for the members of a list."""
    nodes: list[dict[str, Any]] = [SCHEMA]
    for part in text.split("."):
        key, array = part.removesuffix("[]"), part.endswith("[]")
        nodes = [resolved for node in nodes for resolved in resolve(node.get("properties", {}).get(key))]
        if array:
            nodes = [resolved for node in nodes for resolved in resolve(node.get("items"))]
    return bool(nodes)


def resolve(node: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A schema node, its reference followed and its alternatives apart."""
    if node is None:
        return []
    if "$ref" in node:
        return [SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[1]]]
    return [found for choice in node["anyOf"] for found in resolve(choice)] if "anyOf" in node else [node]


def is_command(text: str) -> bool:
    """Whether there is such a command with all these options; words in capitals stand for arguments."""
    program, *words = text.split()
    command: Any = get_command(app)
    names = [word for word in words if word.islower() and not word.startswith("--")]
    for name in names:
        command = getattr(command, "commands", {}).get(name)
    known = {option for parameter in command.params for option in parameter.opts} if command else set()
    options = {word for word in words if word.startswith("--")}
    return program == "explainvad" and bool(known) and options <= known


def exists(text: str) -> bool:
    if text.startswith("explainvad "):
        return is_command(text)
    return text in EVENTS | WRITTEN | SCORERS or is_path(text) or (ROOT / text).is_file()


def test_the_page_names_something_of_every_kind() -> None:
    assert {
        "run_started",
        "image",
        "fallback",
        "run_finished",
        "report_rendered",
        "report_signed",
        "audit_recorded",
    } <= EVENTS
    assert len(named()) > 100
    for kind in (EVENTS, WRITTEN):
        assert kind & set(named())


@pytest.mark.parametrize("name", named())
def test_what_the_page_names_exists(name: str) -> None:
    assert exists(name)


NOWHERE = ["records[].verdict.p", "records.verdict", "lot.gloss", "record_deleted", "results.xlsx", "tests/no.py"]
NO_COMMANDS = ["explainvad certify", "explainvad verify --certify", "explainvad sign --certify", "other verify"]


@pytest.mark.parametrize("name", NOWHERE + NO_COMMANDS)
def test_what_does_not_exist_would_be_noticed(name: str) -> None:
    assert not exists(name)


@pytest.mark.parametrize("title", CLAUSES)
def test_every_clause_has_its_row_and_says_what_serves_it_or_what_is_missing(title: str) -> None:
    table = rows(section(title))
    assert [re.sub(r" [A-Z].*", "", row[0]) for row in table] == CLAUSES[title]
    for clause, asks, served, missing in table:
        assert len(asks) > 10, clause
        assert "-" not in (served, missing) or served != missing, clause


def test_the_page_claims_no_approval_and_dates_its_drafts() -> None:
    head = PAGE[: PAGE.index("\n## ")]
    assert "not legal advice" in head and "not certified" in head
    assert "7 July 2025" in head
    assert all("7 July 2025" in line for line in PAGE.splitlines() if line.startswith("## ") and "draft" in line)
