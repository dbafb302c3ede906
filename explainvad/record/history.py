"""The history of a model: one line for each lot that was finished with it, in a file beside the bundle.

Drift and control charts look beyond one lot. ``part.evad.history.jsonl`` carries what they need from lot to lot. It is
written like a ledger (:mod:`explainvad.record.ledger`): every line vouches for the one before it, so that an edited or
missing line is found, unless all lines from it to the end are gone or were written anew. A model that was fitted
again under the same name has another id: it begins without lots, in the same file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from pydantic import TypeAdapter

from explainvad.errors import IntegrityError, StorageError
from explainvad.record.events import from_json, to_json
from explainvad.record.ledger import LEDGER, Ledger, LedgerError, canonical, read_lines
from explainvad.record.storage import sha256_hex
from explainvad.whole_files import sync_folder


@dataclass(frozen=True, slots=True, eq=False)
class FinishedLot:
    """What one lot leaves to the lots after it."""

    model_id: str
    lot_id: str
    content: str  # lot_content of its files
    head: str  # the results head of its report
    finished_at: str  # ISO 8601, UTC
    n_inspected: int
    n_flagged: int
    images: tuple[str, ...]  # those inspected for the first time by this model: beginnings of their sha256, in order
    cells: tuple[str, ...]  # of Mondrian calibration, of the same images
    values: Mapping[str, tuple[float, ...]]  # by stream, of the same images
    states: Mapping[str, Mapping[str, Any]]  # by stream, after the lot; plain JSON


_LOT = TypeAdapter(FinishedLot)


def history_path(bundle: Path) -> Path:
    """Return where the history of the bundle lies: beside it, one for all links that lead to it."""
    bundle = bundle.resolve()
    return bundle.with_name(f"{bundle.name}.history.jsonl")


def lot_content(digests: Sequence[str | None]) -> str:
    """Return what tells whether a lot is the same: a SHA-256 over those of its files, in the lot's order."""
    return sha256_hex(canonical(list(digests)))


def read_history(path: Path, model_id: str) -> tuple[FinishedLot, ...]:
    """Read the lots of one model, oldest first; a missing file holds none, and a torn last line is left out.

    Raises IntegrityError that names the first line that is not what was written, StorageError when the file cannot
    be read.
    """
    with _errors(path):
        try:
            with path.open("rb") as source:
                return tuple(_lots(source, model_id))
        except FileNotFoundError:
            return ()


class LotHistory:
    """The history of a model, locked against other processes until it is closed.

    The lock is to be held from reading what came before a lot to appending the lot: between the two no other
    lot must go on from the same state.
    """

    def __init__(self, path: Path, model_id: str, descriptor: int) -> None:
        self._path, self._model_id, self._descriptor = path, model_id, descriptor
        self._lots = read_history(path, model_id)

    @classmethod
    def open(cls, path: Path, model_id: str) -> Self:
        """Open the history at ``path``, or create an empty one; waits while another process holds it.

        Raises StorageError when it cannot be opened for writing, IntegrityError as :func:`read_history`.
        """
        with _errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                sync_folder(path.parent)
                return cls(path, model_id, descriptor)
            except BaseException:
                os.close(descriptor)
                raise

    def before(self, content: str) -> tuple[FinishedLot, ...]:
        """The lots that came before the one with this content: all, where it is new.

        So a lot that is analysed again is judged by the same earlier lots as the first time.
        """
        contents = self._contents()
        return self._lots[: contents.index(content)] if content in contents else self._lots

    def append(self, lot: FinishedLot) -> None:
        """Write one lot, durable on return; nothing when its content is in the history already.

        Raises ValueError for a lot of another model or one that is not plain JSON (NaN, infinities), StorageError when
        it cannot be written; the history is then as it was before.
        """
        if lot.model_id != self._model_id:
            raise ValueError(f"expected a lot of the model {self._model_id}, got one of {lot.model_id}")
        if lot.content in self._contents():
            return
        body = {**to_json(_LOT, lot), "states": lot.states}  # as they are: NaN in them would come out as null
        with _errors(self._path):
            Ledger(self._path, self._descriptor).append("lot", body)
        self._lots = (*self._lots, lot)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)

    def _contents(self) -> list[str]:
        return [lot.content for lot in self._lots]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lots(source: BinaryIO, model_id: str) -> Iterator[FinishedLot]:
    for line in read_lines(source):
        if line.body.get("model_id") == model_id:
            try:
                yield from_json(_LOT, line.body)
            except ValueError as error:
                raise LedgerError(line.number, str(error)) from error


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Name the file, and the remedy."""
    try:
        yield
    except LedgerError as error:
        raise IntegrityError(
            f"{path.parent / str(error).replace(LEDGER, path.name, 1)}. Restore {path.name}, or move it away: drift "
            "detection and control charts then begin anew"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}. A model's history of lots lies beside the model: make that folder "
            "writable, or copy the model to one that is, and give the same command again"
        ) from error
