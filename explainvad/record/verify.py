"""Verification: proves that a run folder is what was written, or names the first thing in it that is not.

What it can find by itself: every alteration, removal, insertion or reordering that does not rewrite the
record consistently from the altered line to its end, in the artifacts, the audits and the rendered reports. Whoever
can rewrite all of these together, PDF included, leaves nothing behind that contradicts itself; that is found only
by comparing with a results head that was kept elsewhere (on paper, or in a signed PDF), which is what
``expected_head`` is for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pikepdf

from explainvad.errors import IntegrityError, UsageError
from explainvad.record.audits import audit_entries
from explainvad.record.events import History
from explainvad.record.ledger import GENESIS, LEDGER, LedgerError, Line, printable, read_lines, seal
from explainvad.record.storage import ARTIFACT_FOLDERS, file_sha256, folder_entries, open_below, sha256_hex

REPORT_FILES = ("report.pdf", "report.html", "report.json", "results.csv", "results.parquet", "regions.coco.json")
REPORT_FOLDERS = ("report_images", "maps_tiff")  # further pages of the HTML report, and anomaly maps
_HOLD_THE_HEAD = (".pdf", ".json", ".parquet")  # report files that name the results that they were made from


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as recorded. ``where`` is "ledger.jsonl line 7" or a file of the run folder."""

    where: str
    what: str
    expected: str | None = None
    got: str | None = None

    def __str__(self) -> str:
        detail = "" if self.expected is None else f" (expected {self.expected}, got {self.got})"
        return printable(f"{self.where}: {self.what}{detail}")


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and every problem found: the one nearest the start of the chain first.

    ``head_hash`` is the results head (64 hex digits), None when the run is not finished.
    """

    checked: tuple[str, ...]
    problems: tuple[Problem, ...]
    head_hash: str | None

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the record."""
        return not self.problems


def verify_run(run_dir: str | Path, *, expected_head: str | None = None) -> Verification:
    """Check a run folder against its ledger, and the ledger against itself and the rendered PDF.

    ``expected_head`` is the results head as printed in the report (case and spaces do not matter). Whatever the
    folder holds is reported, not raised, and no link in it is followed. Raises UsageError only when
    ``run_dir`` is no folder or ``expected_head`` is no SHA-256.
    """
    root = Path(run_dir)
    if not root.is_dir():
        raise UsageError(f"expected the folder of a run, got {root}")
    expected = None if expected_head is None else _as_sha256(expected_head)
    try:
        with open_below(root, LEDGER) as source:
            data = source.read()
    except (OSError, IntegrityError) as error:
        return Verification((), (Problem(LEDGER, _reason(error)),), None)

    # Follow the chain from its start
    history = History()
    problems = list(_ledger_problems(data, history))
    sound = not problems
    checked = [f"{LEDGER}: form, chain and meaning of its lines"]
    if expected is not None:
        checked.append("the results head against the expected one")
        if history.head != expected:
            what = "the results are not the expected ones: the results head differs"
            problems.append(Problem(_line(history.n_lines), what, expected, str(history.head)))

    # Compare the files with it; what it leaves out is a problem only where it is whole
    checked.append(f"{len(history.artifacts)} artifacts: present and unaltered")
    problems += _altered(root, history.artifacts)
    if history.audits.files:
        checked.append(f"{', '.join(history.audits.files)}: as taken in")
        problems += _altered(root, history.audits.files)
    checked.append(f"{len(history.rendered)} report files: as they were rendered")
    problems += _altered(root, history.rendered)
    if sound:
        checked.append("no files that the ledger does not account for")
        problems += _unaccounted(root, history)
    for name in sorted({*history.rendered, *REPORT_FILES}):
        content = _content(root, name) if name.endswith(_HOLD_THE_HEAD) else None
        if content is not None and history.head is not None:
            told = history.rendered_after.get(name)
            older = told is not None and told < len(history.audits.results)
            checked.append(f"{name}: made from this record{', before the latest audit' if older else ''}")
            if name.endswith(".pdf"):
                # An audit between two renderings changes report.json, and the PDF keeps the one of its own time
                same_time = told == history.rendered_after.get("report.json")
                beside = _content(root, "report.json") if same_time else None
                problems += _pdf_problems(name, content, beside, data, history.head)
            else:
                problems += _head_problems(name, content, history.head)
    return Verification(tuple(checked), tuple(problems), history.head)


def _ledger_problems(data: bytes, history: History) -> Iterator[Problem]:
    """Replay the ledger into ``history`` as far as its chain holds."""
    number, prev, end = 0, GENESIS, 0
    try:
        for line in read_lines(BytesIO(data)):
            if not _is_canonical(data[end : line.end - 1], line, prev):
                yield Problem(_line(line.number), "not in canonical form (RFC 8785), as all lines are written")
            number, prev, end = line.number, line.sha256, line.end
            try:
                history.apply(line)
            except LedgerError as error:
                yield _problem(error)
    except LedgerError as error:
        yield _problem(error)
        return
    if end < len(data):
        yield Problem(_line(number + 1), "torn: not one whole line. Resuming the run drops it and goes on from there")
    if not history.finished:
        n_missing, n_files = len(history.missing), len(history.files)
        what = f"run_finished is missing, {n_missing} of {n_files} files have no line: interrupted, or cut off"
        yield Problem(_line(number + 1), what)


def _is_canonical(raw: bytes, line: Line, prev: str) -> bool:
    try:
        return seal(line.number, prev, line.time, line.event, line.body) == raw
    except (ValueError, RecursionError):
        return False


def _altered(root: Path, digests: Mapping[str, str]) -> Iterator[Problem]:
    """Compare files with their recorded hashes."""
    for name, expected in digests.items():
        try:
            got = file_sha256(root, name)
        except (OSError, IntegrityError) as error:
            yield Problem(name, _reason(error))
        else:
            if got != expected:
                yield Problem(name, "altered: its SHA-256 is not the recorded one", expected, got)


def _unaccounted(root: Path, history: History) -> Iterator[Problem]:
    """Find artifacts, audit files and report files that no line names."""
    reports = (name for name in REPORT_FILES if os.path.lexists(root / name))
    known = {*history.artifacts, *history.audits.names, *history.rendered}
    kept = folder_entries(root, (*ARTIFACT_FOLDERS, *REPORT_FOLDERS))
    for name in (*kept, *audit_entries(root), *reports):
        if name not in known:
            yield Problem(name, "no ledger line accounts for this file")


def _pdf_problems(name: str, content: bytes, beside: bytes | None, ledger: bytes, head: str) -> Iterator[Problem]:
    """Compare what is attached to a PDF with the record, and with the report.json ``beside`` it that has to match."""
    try:
        with pikepdf.open(BytesIO(content)) as pdf:
            attached = {key: pdf.attachments[key].get_file().read_bytes() for key in pdf.attachments}
    except Exception as error:  # a damaged PDF can fail in any way
        yield Problem(name, f"its attachments cannot be read: {error}")
        return
    for wanted in (LEDGER, "report.json"):
        if wanted not in attached:
            yield Problem(name, f"{wanted} is not attached to it")
    if LEDGER in attached:
        lines = attached[LEDGER].split(b"\n")
        if not ledger.startswith(attached[LEDGER]) or lines[-1]:
            yield Problem(name, f"the attached {LEDGER} is not the beginning of the one in the folder")
        elif head not in map(sha256_hex, lines):
            yield Problem(name, f"the attached {LEDGER} does not reach the results head {head}")
    if "report.json" in attached:
        if beside is not None and beside != attached["report.json"]:
            yield Problem(name, "the attached report.json is not the one in the folder")
        yield from _head_problems(f"{name}, attached report.json", attached["report.json"], head)


def _head_problems(name: str, content: bytes, head: str) -> Iterator[Problem]:
    if head.encode() not in content:
        yield Problem(name, f"made from other results: it does not hold the results head {head}")


def _content(root: Path, name: str) -> bytes | None:
    """Return a file's bytes, or None where it is missing or must not be read."""
    try:
        with open_below(root, name) as source:
            return source.read()
    except (OSError, IntegrityError):
        return None


def _line(number: int) -> str:
    return f"{LEDGER} line {number}"


def _problem(error: LedgerError) -> Problem:
    return Problem(error.where, error.what, error.expected, error.got)


def _reason(error: OSError | IntegrityError) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    return str(error) if isinstance(error, IntegrityError) else f"cannot be read: {error.strerror or error}"


def _as_sha256(text: str) -> str:
    digits = "".join(text.split()).lower()
    if re.fullmatch(r"[0-9a-f]{64}", digits) is None:
        raise UsageError(f"the expected head must be the 64 hex digits that the report prints, got {text!r}")
    return digits
