"""A run: the inspection of one lot, recorded so that it can be resumed at any moment.

The folder holds ``ledger.jsonl``, the artifacts that its lines name (``maps/``, ``masks/``, ``evidence/``,
``attributions/``) and, later, the rendered report files (those of a large lot in ``report_images/`` too) and
``audit/``. An image's artifacts are durable before its line is written, and the line before :meth:`Run.add` returns: a
recorded image always has its files, and a killed run goes on with the first image that has no line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from explainvad.errors import UsageError
from explainvad.record.audits import AUDIT_FOLDER, AuditDraw, AuditTrail, results_file
from explainvad.record.events import (
    DRAW,
    RECORD,
    RESUMPTION,
    SIGNING,
    STATISTICS,
    History,
    Resumption,
    RunStart,
    audit_to_json,
    start_to_json,
    to_json,
)
from explainvad.record.finished import read_finished
from explainvad.record.ledger import LEDGER, Ledger
from explainvad.record.run_identity import prepare_folder, refuse_another_run
from explainvad.record.signings import Signing, staged_file
from explainvad.record.storage import (
    file_sha256,
    remove_leftovers,
    sha256_hex,
    storage_errors,
    write_below,
)
from explainvad.types import AuditResult, ImageRecord, LotStatistics
from explainvad.whole_files import sync_folder


class Run:
    """A run that is open for writing, and locked against other processes until it is closed."""

    def __init__(self, root: Path, ledger: Ledger, history: History) -> None:
        self._root, self._ledger, self._history = root, ledger, history

    @classmethod
    def open(cls, run_dir: str | Path, start: RunStart) -> Self:
        """Begin a run in ``run_dir``, or take up the same run again: same lot, files, model and configuration.

        A finished run is opened as it is, with ``finished`` True. Raises RunConflictError, and changes nothing,
        when the folder holds another run or anything else, or when another process writes to it; IntegrityError
        when its record is broken; StorageError when it cannot be written.
        """
        root = Path(run_dir)
        body = start_to_json(start)
        prepare_folder(root)
        ledger = Ledger.open(root / LEDGER)
        try:
            history = History.of(ledger.events())
            run = cls(root, ledger, history)
            if history.start is None:
                run._append("run_started", body)
            else:
                refuse_another_run(root, start_to_json(history.start), body)
                run._resume(start)
        except BaseException:
            ledger.close()
            raise
        return run

    @classmethod
    def reopen(cls, run_dir: str | Path) -> Self:
        """Open a finished run for its report and audits. Raises UsageError when there is none, else as :meth:`open`."""
        root = Path(run_dir)
        read_finished(root)
        ledger = Ledger.open(root / LEDGER)
        try:
            return cls(root, ledger, History.of(ledger.events()))
        except BaseException:
            ledger.close()
            raise

    @property
    def finished(self) -> bool:
        """Whether all results are in; then only rendering is left."""
        return self._history.finished

    @property
    def done(self) -> Mapping[str, ImageRecord]:
        """The recorded images by image_id."""
        return MappingProxyType(self._history.records)

    @property
    def passed(self) -> list[ImageRecord]:
        """The recorded images that were neither flagged nor left out, in the lot's order."""
        return self._history.passed

    @property
    def head(self) -> str | None:
        """The results head; None before the results are complete."""
        return self._history.head

    @property
    def finished_at(self) -> str:
        """When the results were completed, ISO 8601 in UTC; empty before that."""
        return self._history.finished_at

    @property
    def audits(self) -> AuditTrail:
        """The audits so far, to be read only."""
        return self._history.audits

    @property
    def rendered(self) -> Mapping[str, str]:
        """The report files in the folder as they were recorded last: name -> sha256."""
        return MappingProxyType(self._history.rendered)

    @property
    def signings(self) -> Sequence[Signing]:
        """The signatures in report files, oldest first."""
        return tuple(self._history.signings)

    def add(self, record: ImageRecord, artifacts: Mapping[str, bytes]) -> None:
        """Record one image with its artifacts (path below the run folder -> bytes), durable on return.

        ``record.artifacts`` is either empty, and is filled in, or holds the SHA-256 of the same artifacts.
        Raises ValueError for a record that is not of this run or cannot be written as JSON, StorageError when
        it cannot be written; the image is then not recorded, and may be added again.
        """
        self._refuse_finished()
        digests = {path: sha256_hex(data) for path, data in artifacts.items()}
        if record.artifacts and dict(record.artifacts) != digests:
            raise ValueError(f"{record.image_id}: the record's artifacts are not the ones that were given")
        record = replace(record, artifacts=digests)
        self._history.check_record(record)
        body = to_json(RECORD, record)
        for path, data in artifacts.items():
            write_below(self._root, path, data)
        with storage_errors(self._root):
            for folder in {Path(path).parent for path in artifacts}:
                sync_folder(self._root / folder)
        self._append("image", body)

    def fallback(self, text: str) -> None:
        """Record that something was replaced or left out; the same text is recorded once."""
        if text not in self._history.fallbacks:
            self._refuse_finished()
            self._append("fallback", {"text": text})

    def finish(self, statistics: LotStatistics) -> None:
        """Close the results. Raises ValueError when a file has no record or the counts do not add up."""
        self._refuse_finished()
        self._history.check_statistics(statistics)
        self._append("run_finished", to_json(STATISTICS, statistics))

    def note_rendered(self, files: Sequence[str | Path]) -> None:
        """Record the hashes of report files in the run folder, unless the ledger has just these already.

        So every ``report_rendered`` line changes something, and none can be cut off unnoticed.
        Raises UsageError for files outside the folder, for signed ones, or before the results are complete.
        """
        self._refuse_unfinished("its report is rendered")
        root = self._root.resolve()
        digests = {}
        for file in map(Path, files):
            if not file.resolve().is_relative_to(root):
                raise UsageError(f"{file} is not in the run folder {root}: only files in it are recorded")
            name = file.resolve().relative_to(root).as_posix()
            with storage_errors(file):
                digests[name] = file_sha256(root, name)
        self.refuse_overwriting(self._history.signed_and_changed(digests))
        if not digests.items() <= self._history.rendered.items():
            self._append("report_rendered", {"files": digests})

    def refuse_overwriting(self, names: Sequence[str]) -> None:
        """Raise UsageError when one of the report files ``names`` is signed."""
        signed = {signing.file: signing for signing in self.signings}
        for name in names:
            if name in signed:
                raise UsageError(
                    f"{self._root / name} is signed, by {signed[name].name}, and a signed report is never overwritten. "
                    "Render into another folder with --out, or leave this format out of --formats"
                )

    def add_signing(self, signing: Signing, content: bytes) -> None:
        """Put the signed file in the place of the report that it goes on from, and record that; durable on return.

        Raises ValueError for a signature that does not go on from the recorded report, StorageError when it cannot
        be written: :meth:`complete_signing` then takes back what was not recorded, or puts the file in place.
        """
        self._history.check_signing(signing)
        body = to_json(SIGNING, signing)
        write_below(self._root, staged_file(signing.file), content)
        with storage_errors(self._root):
            sync_folder(self._root)
        self._append("report_signed", body)
        self._put_in_place(signing.file)

    def complete_signing(self) -> Signing | None:
        """Bring a signing that was cut short to its end: return the signature whose file was put in place.

        A signed file that no line tells of is deleted, and before it a torn line, which was to tell of it. Raises
        StorageError, and IntegrityError for a link in its place.
        """
        for name in [name for name in self.rendered if os.path.lexists(self._root / staged_file(name))]:
            last = next((s for s in reversed(self.signings) if s.file == name), None)
            with storage_errors(self._root / name):
                if last is not None and file_sha256(self._root, staged_file(name)) == last.after:
                    self._put_in_place(name)
                    return last
                if self._ledger.torn:
                    self._ledger.mend()
                (self._root / staged_file(name)).unlink()
        return None

    def add_draw(self, draw: AuditDraw) -> None:
        """Record that a sample was drawn.

        Raises ValueError unless it is the next draw, of images that passed; UsageError before the results are complete.
        """
        self._refuse_unfinished("it is audited")
        self._history.check_draw(draw)
        self._append("audit_drawn", to_json(DRAW, draw))

    def add_audit(self, result: AuditResult, table: bytes) -> None:
        """Record what was found in the open draw, and keep a copy of the table that says so; durable on return.

        Raises ValueError for a result that is not of the open draw, StorageError when it cannot be written; the
        draw is then still open.
        """
        self.audits.check_result(result)
        body = audit_to_json(result, sha256_hex(table))
        write_below(self._root, results_file(result.n_draws), table)
        with storage_errors(self._root):
            sync_folder(self._root / AUDIT_FOLDER)
        self._append("audit_recorded", body)

    def close(self) -> None:
        """Release the folder for other processes."""
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resume(self, start: RunStart) -> None:
        torn = self._ledger.torn
        if torn:
            self._ledger.mend()
        if self.finished:
            return
        remove_leftovers(self._root, keep=set(self._history.artifacts))
        resumption = Resumption(len(self.done), torn, start.software, start.versions, start.platform)
        self._append("run_resumed", to_json(RESUMPTION, resumption))

    def _put_in_place(self, name: str) -> None:
        with storage_errors(self._root / name):
            (self._root / staged_file(name)).replace(self._root / name)
            sync_folder(self._root)

    def _append(self, event: str, body: Mapping[str, Any]) -> None:
        self._history.apply(self._ledger.append(event, body))

    def _refuse_unfinished(self, what: str) -> None:
        if not self.finished:
            raise UsageError(f"{self._root} is not finished; finish the run before {what}")

    def _refuse_finished(self) -> None:
        if self.finished:
            raise UsageError(f"{self._root} is finished and takes no more results; use another --out")
