"""Temporary files of a rendering: there may be no room for them where there is room for the report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from explainvad.errors import StorageError


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is gone with the block. Raises StorageError, also for an OSError within the block."""
    try:
        with tempfile.TemporaryDirectory(prefix="explainvad-") as folder:
            yield Path(folder)
    except OSError as error:
        raise no_room(tempfile.tempdir or "TMPDIR", error) from error


def no_room(folder: str | Path, error: OSError) -> StorageError:
    """What to say and to do when temporary files cannot be written."""
    return StorageError(
        f"temporary files cannot be written to {folder} ({error.strerror or error}). Nothing was changed: free space "
        "there, or set TMPDIR to another folder, and give the same command again"
    )
