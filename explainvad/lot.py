"""A folder of product images -> one :class:`InspectionImage` a file, or the reason why there is none.

Every file below the folder is an item, whatever it is, so that the report accounts for all of them. Names and
links come from outside: names are shown escaped, and nothing outside the folder is ever opened.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import math
import os
import re
import stat
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from explainvad.decoding import decode
from explainvad.errors import ConfigError, LotError, UnreadableImageError
from explainvad.types import InspectionImage, LotInfo

MAX_FILE_BYTES = 512 * 2**20
MAX_NAME = 160  # characters of a displayed path
MAX_VALUE = 200  # characters of a value of lot.toml

_CONFIGURATION = {"lot.toml", "explainvad.toml"}
_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini"}  # besides all dotfiles

# Letters and marks that count as printable, yet show as nothing or as a blank.
_INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)


@dataclass(frozen=True, slots=True)
class LotFile:
    """One file of a lot or of the references, not opened yet."""

    image_id: str  # "img-00001", by position in the stable order
    file: str  # path below the folder, "/" between its parts, escaped for display
    path: Path
    root: Path  # no link may lead out of it


def display_name(path: Path | str) -> str:
    r"""Make a file name visible and harmless: printable, free of bidi controls, at most ``MAX_NAME`` characters.

    Characters that are control, bidi, invisible or undecodable become escapes (``\u202e``, a byte ``\xff``), as do
    backslashes and the blanks that a page would swallow. A name that is too long loses its middle and gains the
    start of its SHA-256, so that different names stay different.
    """
    name = str(path)
    shown = re.sub(r"^ | $|(?<= ) ", r"\\x20", _escape(name.replace("\\", r"\\")))
    if len(shown) <= MAX_NAME:
        return shown
    kept = (MAX_NAME - 10) // 2
    return f"{shown[:kept]}…{shown[-kept:]}~{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() and c not in _INVISIBLE else _code(ord(c)) for c in text)


def _code(point: int) -> str:
    if point < 0x80 or 0xDC80 <= point <= 0xDCFF:  # ASCII, or a byte that is not UTF-8 as os.fsdecode smuggles it
        return f"\\x{point & 0xFF:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def scan(root: Path) -> list[LotFile]:
    """List every file below ``root`` by the bytes of their paths, whatever order the file system keeps.

    Left out are configuration (``lot.toml``, ``explainvad.toml``), ``*.evad`` folders and their histories, and the
    litter of operating systems (dotfiles, ``Thumbs.db``, ``desktop.ini``). A folder that is a link, or that cannot be
    listed, is an item itself: its content is not inspected. Raises LotError when there is no such folder or nothing
    in it.
    """
    return _numbered({name: (root / name, root) for name in _walk(root)})


def collect_references(paths: Sequence[Path]) -> list[LotFile]:
    """List the files of folders, and single files, in one stable order; what is named twice counts once.

    ``file`` is the path below the deepest folder that all ``paths`` share.
    Raises LotError when a path is missing or a folder has nothing in it.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112 - Path's own one may raise
            names, root = [path.name], path.parent.resolve()
        else:
            names, root = _walk(path), path.resolve()
        for name in names:
            found.setdefault(root / name, root)
    if not found:
        raise LotError("expected folders or files of reference images, got none; name at least one")
    shared = os.path.commonpath(found.values())
    return _numbered({str(path.relative_to(shared)): (path, root) for path, root in found.items()})


def read_picture(path: str | Path) -> InspectionImage:
    """Read one picture, wherever it lies. Raises LotError when there is none, UnreadableImageError naming the file."""
    if not Path(path).is_file():
        raise LotError(f"expected a picture, got {path}: name one file")
    (file,) = collect_references([Path(path)])
    try:
        return read_image(file)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{file.file}: {error}") from error


def _walk(root: Path) -> list[str]:
    """The paths of all items below ``root``, relative to it, unordered."""
    shown = display_name(root)
    try:
        items, pending = _list(root, "")
    except NotADirectoryError:
        raise LotError(f"{shown} is a file; expected a folder of images: name the folder that holds it") from None
    except FileNotFoundError:
        raise LotError(f"{shown} does not exist; expected a folder of images: check the path") from None
    except (OSError, ValueError) as error:
        reason = str(error.strerror).lower() if isinstance(error, OSError) else error
        raise LotError(f"{shown} cannot be listed ({reason}); check the path and its permissions") from None
    while pending:
        folder = pending.pop()
        try:
            below, folders = _list(root, folder)
        except OSError:  # read_image will find the reason again
            below, folders = [folder], []
        items += below
        pending += folders
    if not items:
        raise LotError(f"{shown} holds no files to inspect; expected a folder of images")
    return items


def _list(root: Path, folder: str) -> tuple[list[str], list[str]]:
    """The items in one folder below ``root``, and the folders in it that are to be walked."""
    items, folders = [], []
    with os.scandir(root / folder) as entries:
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith(".") or entry.name.lower() in _LITTER:
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name.endswith(".evad") and (is_folder or os.path.isdir(entry)):  # noqa: PTH112
                continue
            if is_folder:
                folders.append(path)
            elif entry.name not in _CONFIGURATION and not entry.name.endswith(".evad.history.jsonl"):
                items.append(path)
    return items, folders


def _numbered(found: Mapping[str, tuple[Path, Path]]) -> list[LotFile]:
    """Order names by their bytes, number them, and tell apart those that would look the same."""
    ordered = sorted(found, key=os.fsencode)
    shown = [display_name(os.fsencode(name).decode("utf-8", "surrogateescape")) for name in ordered]
    looks = [unicodedata.normalize("NFC", name) for name in shown]
    twins = Counter(looks)
    return [
        LotFile(f"img-{i:05d}", name if twins[look] == 1 else f"{name}~{_digest(raw)}", *found[raw])
        for i, (raw, name, look) in enumerate(zip(ordered, shown, looks, strict=True), start=1)
    ]


def read_image(file: LotFile, *, root: Path | None = None, mm_per_pixel: float | None = None) -> InspectionImage:
    """Read and decode one file. ``root``, by default the folder that was listed, bounds where links may lead.

    Raises UnreadableImageError; its text is the reason that the report prints, in one line and free of paths.
    """
    data = _read(file.path, root or file.root, MAX_FILE_BYTES)
    pixels, notes = decode(data, file.path.suffix)
    sha256 = hashlib.sha256(data).hexdigest()
    return InspectionImage(file.image_id, file.file, pixels, sha256, len(data), file.path, mm_per_pixel, notes)


def _read(path: Path, root: Path, limit: int) -> bytes:
    """Read a regular file below ``root``, once. Nothing else is ever opened: a pipe would block for ever."""
    try:
        real = Path(os.path.realpath(path, strict=True))
        if not real.is_relative_to(os.path.realpath(root)):
            raise UnreadableImageError("link that leads out of the folder; put a copy of the file in its place")
        mode = real.lstat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(real).close()  # raises whatever kept the folder from being walked
            what = "link to a folder, not followed" if path.is_symlink() else "folder that could not be listed"
            raise UnreadableImageError(f"{what}; put a copy of the folder in its place")
        if not stat.S_ISREG(mode):
            raise UnreadableImageError("pipe, socket or device, not a file; remove it from the folder")
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(real, flags), "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > limit:
                raise UnreadableImageError(f"{size / 2**20:.0f} MiB is over the limit of {limit / 2**20:.0f} MiB")
            data = stream.read(size + 1)
    except FileNotFoundError:
        reason = "broken link" if path.is_symlink() else "file vanished after the folder was listed"
        raise UnreadableImageError(reason) from None
    except PermissionError:
        raise UnreadableImageError("no read permission; grant it and run again") from None
    except OSError as error:
        reason = "links lead in a circle" if error.errno == errno.ELOOP else str(error.strerror).lower()
        raise UnreadableImageError(f"cannot be read: {reason}") from error
    except MemoryError:
        raise UnreadableImageError("not enough memory to read the file") from None
    if len(data) != size:
        raise UnreadableImageError("file was changing while it was read; run again when it is complete")
    return data


def read_lot_info(root: Path) -> LotInfo:
    """Read ``lot.toml`` of the folder, if there is one; ``lot_id`` defaults to the folder's name.

    Texts are escaped and cut to ``MAX_VALUE`` characters; blank ones count as not given. Raises ConfigError when
    the file cannot be read, or on an unknown key (naming the nearest known one) or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    path = root / "lot.toml"
    if os.path.lexists(path):
        try:
            values = tomllib.loads(_read(path, root, limit=2**20).decode("utf-8-sig"))
        except (UnreadableImageError, ValueError, RecursionError) as error:
            raise ConfigError(f"lot.toml cannot be read as TOML: {_clip(str(error))}") from error
    info = {key: _checked(key, value) for key, value in values.items()}
    info["lot_id"] = info.get("lot_id") or display_name(root.resolve().name) or "lot"
    return LotInfo(**info)


def _checked(key: str, value: Any) -> Any:
    known = [field.name for field in fields(LotInfo)]
    if key not in known:
        nearest = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
        raise ConfigError(f"unknown key {_clip(key)} in lot.toml; {hint}")
    if key == "mm_per_pixel":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ConfigError(f"mm_per_pixel in lot.toml must be a number above 0, got {_clip(repr(value))}")
        return float(value)
    if not isinstance(value, str):
        raise ConfigError(f"{key} in lot.toml must be a text in quotes, got {_clip(repr(value))}")
    return _clip(value.strip()) or None


def _clip(text: str) -> str:
    shown = _escape(text)
    return shown if len(shown) <= MAX_VALUE else shown[: MAX_VALUE - 1] + "…"
