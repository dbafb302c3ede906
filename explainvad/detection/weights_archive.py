"""Weights for machines without a network, as one plain tar file that says itself what must be in it.

Its first member is a lock of the models in it, the others are their files. The same weights make the same bytes. On
the way in nothing is taken from the archive but bytes: which files there are, how they are called and how long they
are follows from its lock, and each must have the locked hash.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from explainvad.detection.weights import WeightStore, require_locked
from explainvad.detection.weights_install import require_free, settle, staging
from explainvad.detection.weights_lock import LOCK, Lock, Locked, locked_file, parse_lock, read_lock, require_same
from explainvad.errors import IntegrityError, StorageError, WeightsError

BLOCK = tarfile.BLOCKSIZE
LOCK_LIMIT = 1 << 20  # bytes of an archive's lock
FILE_LIMIT = 8 << 30  # bytes of one file; the plain format ends there
_COPY = 1 << 20


def export_weights(store: WeightStore, names: Sequence[str], out: Path) -> None:
    """Write the locked weights ``names`` to ``out``. Raises as for loading them, and StorageError."""
    known = read_lock(store.root).weights
    if lacking := [name for name in names if name not in known]:
        raise WeightsError(f"expected locked weights, {', '.join(lacking)} are not: see `explainvad models list`")
    lock = Lock(weights={name: known[name] for name in sorted(set(names))})
    for name, locked in lock.weights.items():
        require_locked(name, store.root / name, locked)
    partial = out.with_name(f".{out.name}.partial")
    try:
        with ExitStack() as stack:
            stack.callback(partial.unlink, missing_ok=True)
            with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
                data = lock.dump()
                archive.addfile(_member(LOCK, len(data)), io.BytesIO(data))
                for name, locked in lock.weights.items():
                    for file, content in sorted(locked.files.items()):
                        with (store.root / name / file).open("rb") as source:
                            archive.addfile(_member(f"{name}/{file}", content.size), source)
            partial.replace(out)
    except OSError as error:
        raise StorageError(f"the archive could not be written to {out}: {error.strerror or error}") from error


def import_weights(store: WeightStore, archive: Path, *, update: bool = False) -> dict[str, Locked]:
    """Take all weights of an archive into the store and lock them; returns them by name.

    Raises IntegrityError when the archive is not what its own lock says, or when its weights are not those that are
    locked here already, unless ``update``. Nothing is taken up before the archive was read to its end.
    """
    try:
        source = archive.open("rb")
    except OSError as error:
        raise WeightsError(f"expected an archive of weights, {archive} cannot be read: {error.strerror}") from error
    with source, staging(store, archive.name) as folder:
        size = _header(source, archive, LOCK, LOCK_LIMIT)
        lock = parse_lock(_content(source, archive, LOCK, size), f"{archive.name}/{LOCK}")
        known = read_lock(store.root).weights
        for name, locked in lock.weights.items():
            require_free(name)
            if name in known and not update:
                require_same(name, known[name], locked)
        for name, locked in sorted(lock.weights.items()):
            (folder / name).mkdir()
            for file, expected in sorted(locked.files.items()):
                _unpack(source, archive, f"{name}/{file}", expected.size, folder / name / file)
                if (got := locked_file(folder / name / file)) != expected:
                    raise IntegrityError(
                        f"{archive.name}: {name}/{file} is not what the archive's lock says: expected sha256 "
                        f"{expected.sha256}, got {got.sha256}: export it again"
                    )
        if source.read(BLOCK).strip(b"\0"):
            raise IntegrityError(f"{archive.name} holds more than its lock says: do not use it, export it again")
        return {
            name: settle(
                store,
                name,
                folder / name,
                locked.library,
                "archive",
                hub=locked.hub,
                revision=locked.revision,
                licence=locked.licence,
                update=update,
            )
            for name, locked in sorted(lock.weights.items())
        }


def _member(name: str, size: int) -> tarfile.TarInfo:
    """The header of a file; owner, mode and time are always the same."""
    if size >= FILE_LIMIT:
        raise WeightsError(
            f"{name} has {size} bytes, an archive takes fewer than {FILE_LIMIT}: copy its folder instead"
        )
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


def _header(source: IO[bytes], archive: Path, name: str, limit: int) -> int:
    """Read the next header, which must be that of the plain file ``name``; returns its size in bytes."""
    try:
        member = tarfile.TarInfo.frombuf(source.read(BLOCK), "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"{archive.name}: expected {name} next, as `explainvad models export` writes it, got no header: "
            "the archive was cut short or is another one"
        ) from error
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.name != name or not 0 <= member.size <= limit:
        raise IntegrityError(
            f"{archive.name}: expected the plain file {name} of at most {limit} bytes, got {member.name!r} of type "
            f"{member.type!r} with {member.size} bytes: do not use it, export it again"
        )
    return member.size


def _content(source: IO[bytes], archive: Path, name: str, size: int) -> bytes:
    data = source.read(size)
    source.seek(-size % BLOCK, 1)
    if len(data) != size:
        raise IntegrityError(f"{archive.name} ends within {name}: copy it again")
    return data


def _unpack(source: IO[bytes], archive: Path, name: str, size: int, target: Path) -> None:
    """Write the content of the next member, which must be ``name`` with ``size`` bytes."""
    if (got := _header(source, archive, name, min(size, FILE_LIMIT))) != size:
        raise IntegrityError(f"{archive.name}: expected {size} bytes of {name}, got {got}: export it again")
    with target.open("wb") as out:
        left = size
        while left and (chunk := source.read(min(left, _COPY))):
            left -= out.write(chunk)
    source.seek(-size % BLOCK, 1)
    if left:
        raise IntegrityError(f"{archive.name} ends within {name}: copy it again")
