"""Verification of a ledger by itself: form, chain and meaning of its lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

from explainvad.errors import UsageError
from explainvad.record.events import History
from explainvad.record.ledger import GENESIS, LEDGER, LedgerError, Line, read_lines, seal
from explainvad.record.problems import Problem


def ledger_problems(data: bytes, history: History) -> Iterator[Problem]:
    """Replay the ledger into ``history`` as far as its chain holds."""
    number, prev, end = 0, GENESIS, 0
    try:
        for line in read_lines(BytesIO(data)):
            if not _is_canonical(data[end : line.end - 1], line, prev):
                yield Problem(_line_name(line.number), "not in canonical form (RFC 8785), as all lines are written")
            number, prev, end = line.number, line.sha256, line.end
            try:
                history.apply(line)
            except LedgerError as error:
                yield Problem.of(error)
    except LedgerError as error:
        yield Problem.of(error)
        return
    if end < len(data):
        what = "torn: not one whole line. Resuming the run drops it and goes on from there"
        yield Problem(_line_name(number + 1), what)
    if not history.finished:
        n_missing, n_files = len(history.missing), len(history.files)
        what = f"run_finished is missing, {n_missing} of {n_files} files have no line: interrupted, or cut off"
        yield Problem(_line_name(number + 1), what)


def as_head(text: str) -> str:
    """Return a results head as it is typed from paper as 64 hex digits. Raises UsageError when it is none."""
    digits = "".join(text.split()).lower()
    if re.fullmatch(r"[0-9a-f]{64}", digits) is None:
        raise UsageError(f"the expected head must be the 64 hex digits that the report prints, got {text!r}")
    return digits


def head_problems(history: History, expected: str) -> Iterator[Problem]:
    """Compare the results head with one that was kept elsewhere."""
    if history.head != expected:
        what = "the results are not the expected ones: the results head differs"
        yield Problem(_line_name(history.n_lines), what, expected, str(history.head))


def _line_name(number: int) -> str:
    return f"{LEDGER} line {number}"


def _is_canonical(raw: bytes, line: Line, prev: str) -> bool:
    try:
        return seal(line.number, prev, line.time, line.event, line.body) == raw
    except (ValueError, RecursionError):
        return False
