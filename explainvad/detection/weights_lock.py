"""What the weights of this machine must be: ``weights.lock.json``, written at the first pull or import.

From then on it is enforced at every load. An entry changes only on purpose, with ``--update``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from explainvad.errors import IntegrityError, StorageError, WeightsError

LOCK = "weights.lock.json"
LAYOUTS = {  # library -> its configuration and its tensors
    "timm": ("config.json", "model.safetensors"),
    "open_clip": ("open_clip_config.json", "open_clip_model.safetensors"),
    "segment_anything": ("sam_config.json", "sam_model.safetensors"),
}
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_HEX = r"^[0-9a-f]{%d}$"
_hashed: dict[tuple[int, ...], str] = {}  # sha256 of the files that this process has read, by what stat says of them


def weights_root() -> Path:
    """The folder of this machine's weights."""
    return Path(os.environ.get("EXPLAINVAD_WEIGHTS") or Path.home() / ".cache/explainvad/weights")


def present(root: Path) -> list[str]:
    """Names of the weights that lie in a store, locked or not."""
    return sorted(p.name for p in root.iterdir() if p.is_dir() and re.match(NAME, p.name)) if root.is_dir() else []


def checked_name(name: str) -> str:
    """``name`` when it is a plain one, with no path in it; WeightsError otherwise."""
    if not re.match(NAME, name):
        raise WeightsError(f"expected a name of letters, digits, '.', '_' and '-' for weights, got {name!r}")
    return name


def _one_layout(files: dict[str, LockedFile]) -> dict[str, LockedFile]:
    if set(files) not in map(set, LAYOUTS.values()):
        raise ValueError(f"expected the files of one layout, got {', '.join(files)}")
    return files


class LockedFile(BaseModel):
    """One file as it was when it was locked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=_HEX % 64)
    size: int = Field(ge=0)  # bytes


class Locked(BaseModel):
    """One model's weights as they were when they were locked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    origin: Literal["hub", "folder", "archive"]
    hub: str | None = None  # repository on the Hugging Face hub
    revision: str | None = Field(None, pattern=_HEX % 40)  # its commit
    licence: str | None = None
    at: str  # when it was locked, ISO 8601, UTC
    files: Annotated[dict[str, LockedFile], AfterValidator(_one_layout)]

    @property
    def library(self) -> str:
        """timm, open_clip or segment_anything: whose layout the files have."""
        return next(library for library, names in LAYOUTS.items() if set(names) == set(self.files))

    @property
    def sha256(self) -> str:
        """Hash of the tensors."""
        return self.files[LAYOUTS[self.library][1]].sha256

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def describe(self, name: str) -> str:
        """Hub id, commit, hash and licence in one line, for reports."""
        source = f"{self.hub} at {(self.revision or 'an unknown commit')[:12]}" if self.hub else f"{name} from a folder"
        return f"{source}, sha256 {self.sha256[:16]}…, {self.licence or 'licence not stated'}"


class Lock(BaseModel):
    """All that is locked, by name."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    weights: dict[Annotated[str, StringConstraints(pattern=NAME)], Locked] = Field(default_factory=dict)

    def dump(self) -> bytes:
        """As bytes, the same ones whatever the order of the entries."""
        ordered = Lock(weights={name: self.weights[name] for name in sorted(self.weights)})
        return ordered.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"


def parse_lock(data: bytes, where: str) -> Lock:
    """The lock that ``data`` holds. Raises IntegrityError naming ``where`` it comes from."""
    try:
        return Lock.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise IntegrityError(
            f"{where} is damaged ({place or 'JSON'}: {first['msg']}): restore it, or remove it and lock the "
            "weights anew with `explainvad models pull`"
        ) from error


def read_lock(root: Path) -> Lock:
    """The lock of a store; an empty one where there is none yet."""
    try:
        data = (root / LOCK).read_bytes()
    except FileNotFoundError:
        return Lock()
    except OSError as error:
        raise StorageError(f"{root / LOCK} cannot be read: {error.strerror or error}") from error
    return parse_lock(data, str(root / LOCK))


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """The store to oneself: others that change it wait."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_lock(root: Path, lock: Lock) -> None:
    """Put the lock in its place in one step."""
    scratch = root / f".{LOCK}.partial"
    try:
        with scratch.open("wb") as stream:
            stream.write(lock.dump())
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(root / LOCK)
    finally:
        scratch.unlink(missing_ok=True)


def locked_file(path: Path, *, afresh: bool = False) -> LockedFile:
    """Hash and size of a file. A file that did not change is read once a process, unless ``afresh``."""
    with path.open("rb") as source:
        stat = os.fstat(source.fileno())
        key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if afresh or key not in _hashed:
            _hashed[key] = hashlib.file_digest(source, "sha256").hexdigest()
    return LockedFile(sha256=_hashed[key], size=stat.st_size)


def differences(name: str, folder: Path, locked: Locked, *, afresh: bool = False) -> list[str]:
    """What of the files in ``folder`` is not as locked, a sentence each that names both hashes."""
    found = []
    for file, expected in locked.files.items():
        try:
            got = locked_file(folder / file, afresh=afresh)
        except OSError as error:
            found.append(f"{name}/{file} cannot be read: {error.strerror or error}")
            continue
        if got != expected:
            found.append(f"{name}/{file}: {_versus(expected, got)}")
    return found


def require_same(name: str, locked: Locked, got: Locked) -> None:
    """Raise IntegrityError, naming both hashes, unless the files that came are the locked ones."""
    for file in sorted(locked.files.keys() | got.files.keys()):
        expected, came = locked.files.get(file), got.files.get(file)
        if expected != came:
            what = _versus(expected, came) if expected and came else f"expected {', '.join(locked.files)}, got {file}"
            raise IntegrityError(
                f"{name}/{file} is not what {LOCK} says: {what}. If the change is wanted, move the lock with --update"
            )


def _versus(expected: LockedFile, got: LockedFile) -> str:
    return f"expected sha256 {expected.sha256} ({expected.size} bytes), got {got.sha256} ({got.size} bytes)"
