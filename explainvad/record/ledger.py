"""The ledger: an append-only file of events in which every line vouches for the one before it.

One line is one event, as canonical JSON (RFC 8785) in UTF-8, ended by a newline::

    {"body":{...},"event":"image","prev":"9f2c...","seq":3,"time":"2025-06-01T08:30:00Z","trailer":"51aa..."}

``seq`` counts lines from 1. ``prev`` is the SHA-256 of the line before, without its newline (64 zeros in
line 1): changing, swapping, inserting or removing lines breaks the chain. ``trailer`` is the SHA-256 of the
same line's canonical form without ``trailer``: it pins an alteration to the line that was altered, and finds
one in the last line, which no other line vouches for. The hash of the last line is the *head*; who holds
a copy of the head can detect any rewriting of the file.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

import rfc8785

from explainvad.errors import ConfigError, IntegrityError, RunConflictError, StorageError
from explainvad.record.storage import sha256_hex, storage_errors
from explainvad.whole_files import sync_folder, write_all

LEDGER = "ledger.jsonl"
GENESIS = "0" * 64  # prev of the first line
_LARGEST_INTEGER = 2**53 - 1  # RFC 8785, section 3.2.2.3: beyond it numbers are doubles
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_TRAILER = re.compile(rb',"trailer":"([0-9a-f]{64})"}')
_TRAILER_BYTES = len(',"trailer":""}') + 64


@dataclass(frozen=True, slots=True)
class Line:
    """One whole line: ``sha256`` is of its bytes without the newline, ``end`` the offset behind the newline."""

    number: int
    time: str
    event: str
    body: Mapping[str, Any]
    sha256: str
    end: int


class LedgerError(IntegrityError):
    """A line is not what was written. ``where`` names it, lines counting from 1."""

    def __init__(self, number: int, what: str, expected: str | None = None, got: str | None = None) -> None:
        self.where, self.what, self.expected, self.got = f"{LEDGER} line {number}", what, expected, got
        detail = "" if expected is None else f" (expected {expected}, got {got})"
        super().__init__(f"{self.where}: {printable(what + detail)}")


def printable(text: str) -> str:
    """Escape what a tampered file could do to a terminal, and cut it to a readable length."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:400])
    return shown if len(text) <= 400 else f"{shown}..."


def canonical(value: Any) -> bytes:
    """Serialise as RFC 8785. Raises ValueError for NaN, infinities and whatever is not plain JSON."""
    return bytes(rfc8785.dumps(value))


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the second; SOURCE_DATE_EPOCH stands in for the clock when set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        now = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(
            f"SOURCE_DATE_EPOCH must be a whole number of seconds since 1970, got {epoch!r}; correct or unset it"
        ) from error
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def seal(number: int, prev: str, time: str, event: str, body: Mapping[str, Any]) -> bytes:
    """Return the bytes of one line, without its newline. Raises ValueError as :func:`canonical`."""
    bare = canonical({"seq": number, "prev": prev, "time": time, "event": event, "body": body})
    # "trailer" sorts behind every other member, so it can be put at the end
    return bare[:-1] + b',"trailer":"' + sha256_hex(bare).encode() + b'"}'


def read_lines(source: BinaryIO) -> Iterator[Line]:
    """Yield the whole lines of a ledger, checking the chain; a torn last line is left out.

    Torn is a last line that has no newline or is no JSON: what a kill or a power failure leaves behind.
    Raises LedgerError at the first line that is anything else than what was written.
    """
    prev, end = GENESIS, 0
    for number, raw in enumerate(source, start=1):
        try:
            value = _parse(raw)
        except (ValueError, RecursionError) as error:
            if not source.readline():
                return
            raise LedgerError(number, "not one JSON object ended by a newline") from error
        end += len(raw)
        line = _checked(raw[:-1], value, number, prev, end)
        prev = line.sha256
        yield line


class Ledger:
    """An open ledger, locked against other processes until it is closed.

    ``torn`` says that something half-written follows the last whole line. It is dropped by :meth:`mend`, and
    by the next :meth:`append` at the latest.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._count, self._head, self._size = 0, GENESIS, 0
        for line in self.events():
            self._count, self._head, self._size = line.number, line.sha256, line.end
        self.torn = os.fstat(descriptor).st_size > self._size

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the ledger at ``path``, or create an empty one; nothing that is there is changed.

        Raises RunConflictError when another process holds it or when the file is no ledger, IntegrityError
        when its chain is broken, StorageError when it cannot be opened for writing.
        """
        with storage_errors(path):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise RunConflictError(f"{path} is not a regular file; use another --out")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
            try:
                _lock(descriptor, path)
                ledger = cls(path, descriptor)
                if ledger.head == GENESIS:
                    _refuse_foreign_text(descriptor, path)
                sync_folder(path.parent)
                return ledger
            except BaseException:
                os.close(descriptor)
                raise

    @property
    def head(self) -> str:
        """SHA-256 of the last whole line, or 64 zeros."""
        return self._head

    def events(self) -> Iterator[Line]:
        """Read all whole lines from the start. Raises as :func:`read_lines`."""
        with self._path.open("rb") as source:
            yield from read_lines(source)

    def mend(self) -> None:
        """Cut off what follows the last whole line. Raises StorageError."""
        with storage_errors(self._path):
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        self.torn = False

    def append(self, event: str, body: Mapping[str, Any]) -> Line:
        """Write one line, durable on return, and return it.

        Raises ValueError when ``body`` is not plain JSON (NaN, infinities, numpy scalars) and StorageError when
        the line cannot be written; the ledger is then as it was before.
        """
        number, time = self._count + 1, utc_now()
        raw = seal(number, self._head, time, event, body)
        if self.torn:
            self.mend()
        self._refuse_meddling()
        try:
            with storage_errors(self._path):
                write_all(self._descriptor, raw + b"\n")
                os.fsync(self._descriptor)
        except BaseException:
            self.torn = True
            with suppress(StorageError):
                self.mend()
            raise
        line = Line(number, time, event, body, sha256_hex(raw), self._size + len(raw) + 1)
        self._count, self._head, self._size = line.number, line.sha256, line.end
        return line

    def close(self) -> None:
        """Release the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_meddling(self) -> None:
        status = os.fstat(self._descriptor)
        if status.st_nlink == 0 or status.st_size != self._size:
            raise IntegrityError(
                f"{self._path} was deleted or changed by another program while the run held it; restore it, or "
                "start again with another --out"
            )


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunConflictError(
            f"another process is writing {path}; wait for it to end, or use another --out"
        ) from error


def _refuse_foreign_text(descriptor: int, path: Path) -> None:
    """Refuse a file that does not begin as a ledger does: as a torn first line it would be cut off."""
    start = b'{"body":{'
    if not start.startswith(os.pread(descriptor, len(start), 0)):
        raise RunConflictError(f"{path} is not the record of a run; use another --out")


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw.endswith(b"\n"):
        raise ValueError("no newline at the end")
    value = json.loads(raw[:-1].decode("utf-8"), parse_int=_number, parse_float=_number, parse_constant=_number)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _number(text: str) -> int | float:
    """Read a JSON number as RFC 8785 means it: an integer beyond 2**53 - 1 is the notation of a double."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return int(number) if abs(number) <= _LARGEST_INTEGER and number.is_integer() else number


def _checked(raw: bytes, value: dict[str, Any], number: int, prev: str, end: int) -> Line:
    """Check one line's trailer, members and place in the chain."""
    match = _TRAILER.fullmatch(raw[-_TRAILER_BYTES:])
    bare = sha256_hex(raw[:-_TRAILER_BYTES] + b"}").encode()
    if match is None or match[1] != bare:
        got = "none" if match is None else match[1].decode()
        raise LedgerError(number, "the line was altered: its trailer does not match", bare.decode(), got)
    types = {"body": dict, "event": str, "prev": str, "seq": int, "time": str, "trailer": str}
    if value.keys() != types.keys() or any(type(value[key]) is not types[key] for key in types):
        raise LedgerError(number, f"expected the members {', '.join(types)}, got {', '.join(value)}")
    if value["seq"] != number:
        what = "lines were removed, inserted or moved: seq does not count on"
        raise LedgerError(number, what, str(number), str(value["seq"]))
    if value["prev"] != prev:
        if number == 1:
            raise LedgerError(number, "lines before the first were removed: prev is not zero", prev, value["prev"])
        what = f"the line was replaced: line {number} was chained to a line with another hash"
        raise LedgerError(number - 1, what, value["prev"], prev)
    if _TIME.fullmatch(value["time"]) is None:
        raise LedgerError(number, "not a time", "YYYY-MM-DDThh:mm:ssZ", value["time"])
    return Line(number, value["time"], value["event"], value["body"], sha256_hex(raw), end)
