"""Calling the command line as its entry point does, in this process; and the environment of one of its own."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from explainvad.cli import main

EPOCH = "1767225600"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


def explainvad(*arguments: object, terminal: bool = False) -> Outcome:
    """Run a command; ``terminal`` makes it believe that somebody is watching."""
    out, err = io.StringIO(), io.StringIO()
    err.isatty = lambda: terminal  # type: ignore[method-assign]
    argv = ["explainvad", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Outcome(ended.value.code or 0, out.getvalue(), err.getvalue())


def own_process(**extra: str) -> dict[str, str]:
    """The environment of a child: one thread as here, the date of the fixtures, and another order of hashes."""
    return os.environ | {"OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": EPOCH, "PYTHONHASHSEED": "4711", **extra}


def ledger(run_dir: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's ledger."""
    text = (run_dir / "ledger.jsonl").read_text("utf-8") if (run_dir / "ledger.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below the folder with its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
