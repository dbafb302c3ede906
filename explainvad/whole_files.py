"""Files that are written whole or not at all: after a crash the old file is there, or the new one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_PIECE = 1 << 20  # bytes


def write_whole(path: Path, data: bytes | Iterable[bytes], scratch: Path, mode: int | None = None) -> None:
    """Write ``data``, whole or in pieces, to ``scratch``, sync it, and rename it to ``path``.

    The name is durable once its folder is synced.

    ``scratch`` is always the same file of the same file system, so that what a killed process left is written over by
    the next; whoever else writes it at the moment is waited for. ``mode`` are the permissions to give. Raises OSError,
    and ``scratch`` is then gone.
    """
    descriptor = _locked(scratch)
    try:
        os.ftruncate(descriptor, 0)
        if mode is not None:
            os.fchmod(descriptor, mode)
        for piece in (data,) if isinstance(data, bytes) else data:
            write_all(descriptor, piece)
        os.fsync(descriptor)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``: os.write stops short of a full disk before it fails."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def pieces_of(file: Path) -> Iterator[bytes]:
    """What is in a file, a piece at a time: it may be larger than memory."""
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            yield piece


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """Open the file for writing, never through a link, and lock it against other processes until it is closed."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # who held it has renamed it: it is somebody's finished file now
