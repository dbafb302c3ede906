"""Files of a run folder: written whole or not at all, and never through a link.

What a ledger says of paths is treated as hostile: a path is opened only when it is a plain relative one
and no part of it is a symbolic link, so nothing outside the run folder is ever read or written.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from explainvad.errors import IntegrityError, StorageError
from explainvad.whole_files import sync_folder, write_whole

ARTIFACT_FOLDERS = ("maps", "masks", "evidence", "attributions")

_SCRATCH = ".partial"  # one name is enough: the run's lock leaves a single writer
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_PLAIN_PATH = re.compile(rf"{_PART}(/{_PART})*")


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that says what became of the run."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}. What was written before is whole: put this "
            "right (free space, permissions) and give the same command again, which resumes the run"
        ) from error


def is_artifact_path(name: str) -> bool:
    """Whether ``name`` is a plain relative path to a file in one of ARTIFACT_FOLDERS."""
    folder, slash, _ = name.partition("/")
    return bool(_PLAIN_PATH.fullmatch(name) and slash) and folder in ARTIFACT_FOLDERS


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def open_below(root: Path, name: str) -> BufferedReader:
    """Open the regular file ``name`` below ``root`` for reading.

    Raises IntegrityError when ``name`` is not a plain relative path, leads through a link or is not a regular
    file, and OSError when it is missing or cannot be read.
    """
    path = _plain(root, name)
    # Open without waiting: a named pipe in the file's place must not hang the reader
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IntegrityError(f"{name} is not a regular file; it was not read")
    return os.fdopen(descriptor, "rb")


def file_sha256(root: Path, name: str) -> str:
    """Return the SHA-256 of a file below ``root``. Errors as for :func:`open_below`."""
    with open_below(root, name) as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def write_below(root: Path, name: str, data: bytes) -> None:
    """Put ``data`` at ``name`` below ``root`` in one step: after a crash the old file is there, or the new one.

    The new name is durable once its folder is synced.
    Raises StorageError when it cannot be written, IntegrityError for a path that :func:`open_below` refuses.
    """
    with storage_errors(root / name):
        path = _plain(root, name)
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            for folder in Path(name).parents[1:]:
                sync_folder(root / folder)
        write_whole(path, data, root / _SCRATCH)


def folder_entries(root: Path, tops: Sequence[str] = ARTIFACT_FOLDERS) -> Iterator[str]:
    """Yield what the folders ``tops`` hold, except folders, as relative paths; links are named, not followed."""
    for top in tops:
        if (root / top).is_symlink() or (root / top).is_file():
            yield top
            continue
        for folder, below, files in os.walk(root / top):
            below.sort()
            links = [name for name in below if Path(folder, name).is_symlink()]
            for name in sorted(files + links):
                yield Path(folder, name).relative_to(root).as_posix()


def remove_leftovers(root: Path, keep: set[str]) -> None:
    """Delete what a killed run left: the scratch file, and artifacts that no ledger line names."""
    with storage_errors(root):
        (root / _SCRATCH).unlink(missing_ok=True)
        for name in list(folder_entries(root)):
            if is_artifact_path(name) and name not in keep:
                (root / name).unlink()


def _plain(root: Path, name: str) -> Path:
    """Return the path of ``name`` below ``root``, or raise IntegrityError."""
    if _PLAIN_PATH.fullmatch(name) is None:
        raise IntegrityError(f"{name!r} is not a plain path below the run folder; it was not opened")
    below = Path(name)
    for part in (below, *below.parents[:-1]):
        if (root / part).is_symlink():
            raise IntegrityError(f"{part} is a symbolic link; it was not followed")
    return root / below
