"""A finished run, read back from its ledger alone."""

from __future__ import annotations

from pathlib import Path

from explainvad.errors import IntegrityError, StorageError, UsageError
from explainvad.record.events import History, RunStart
from explainvad.record.ledger import LEDGER, read_lines
from explainvad.record.storage import open_below
from explainvad.types import LotReport, Provenance, Renderer


def read_report(run_dir: str | Path, renderer: Renderer | None = None) -> LotReport:
    """Rebuild the report of a finished run, with its latest audit, from its ledger alone.

    Raises UsageError when ``run_dir`` holds no run or an unfinished one, IntegrityError when the ledger is not
    what was written, StorageError when it cannot be read.
    """
    root = Path(run_dir)
    history = read_finished(root)
    start, statistics, head = history.start, history.statistics, history.head
    assert start is not None and statistics is not None and head is not None
    provenance = Provenance(
        report_id=report_id(head),
        started_at=history.started_at,
        finished_at=history.finished_at,
        software=start.software,
        versions=start.versions,
        platform=start.platform,
        config=start.config,
        head_hash=head,
        n_ledger_lines=history.n_lines,
        fallbacks=tuple(history.fallbacks),
        resumed=history.resumed,
    )
    records = tuple(history.records[image_id] for image_id in history.files)
    audit = history.audits.results[-1] if history.audits.results else None
    return LotReport(start.lot, records, statistics, start.model, provenance, root, renderer, audit)


def finished_start(run_dir: Path) -> RunStart | None:
    """What a finished run began with; None where there is none, or none that can be read."""
    try:
        return read_finished(run_dir).start
    except (UsageError, StorageError, IntegrityError):
        return None  # whoever opens it says what is wrong


def report_id(head: str) -> str:
    """Return the id of the report whose results head is ``head``: "EV-9F2C-04D1-77AB"."""
    return "-".join(["EV", *(head[i : i + 4].upper() for i in (0, 4, 8))])


def read_finished(root: Path) -> History:
    """Replay the ledger of a finished run. Raises as :func:`read_report`."""
    try:
        with open_below(root, LEDGER) as source:
            history = History.of(read_lines(source))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{root} holds no run: expected a folder with {LEDGER}") from error
    except OSError as error:
        raise StorageError(f"cannot read {root / LEDGER}: {error.strerror or error}") from error
    if not history.finished:
        raise UsageError(
            f"the run in {root} is not finished: {len(history.missing)} of {len(history.files)} files have no "
            "result yet; give the same analyze command again, which resumes it"
        )
    return history
