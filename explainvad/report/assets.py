"""Where templates come from, and how files of a run folder are read: never without their recorded hash."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from explainvad.errors import IntegrityError, RenderError
from explainvad.report import wording
from explainvad.report.signature_fields import MEANINGS
from explainvad.types import ImageRecord

if TYPE_CHECKING:
    from jinja2 import Environment

    from explainvad.report.branding import Branding

MEDIA = {".jpg": "image/jpeg", ".png": "image/png", ".svg": "image/svg+xml"}  # of pictures in a report, by suffix
_PACKAGE = Path(__file__).resolve().parents[1]


def templates_folder() -> Path:
    """Find the templates: inside the installed package, else in the checkout that holds the package.

    Raises :class:`RenderError` when neither place has them.
    """
    places = (_PACKAGE / "templates", _PACKAGE.parent / "templates")
    for place in places:
        if (place / "print.html").is_file():
            return place
    looked = " nor ".join(str(place) for place in places)
    raise RenderError(f"the report templates are neither in {looked}: reinstall explainvad")


def template_environment(branding: Branding | None = None) -> Environment:
    """Return the Jinja environment of the report: everything escaped, an unknown name is an error.

    Templates of a ``branding`` come before ours, and all then run in a sandbox.
    """
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from explainvad.report.branding import Branding

    branding = branding or Branding()
    kind = ImmutableSandboxedEnvironment if branding.templates else Environment
    environment = kind(
        loader=ChoiceLoader([branding.loader, FileSystemLoader(templates_folder())]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "p": wording.p_value,
        "num": wording.number,
        "percent": wording.percent,
        "interval": wording.interval,
        "file_size": wording.file_size,
        "timestamp": wording.timestamp,
        "unbroken": wording.unbroken,
        "elide": wording.elide,
        "counted": wording.count,
    }
    environment.globals |= {
        "MARKS": wording.MARKS,
        "SIGNATURES": MEANINGS,
        "WORDS": wording.WORDS,
        "SHORT": wording.SHORT,
        "AUTHOR_CHARACTERS": wording.AUTHOR_CHARACTERS,
        "CHECK_MARKS": wording.CHECK_MARKS,
        "distinct": wording.distinct,
        "period": wording.period,
        "theme": branding.theme,
        "logo": branding.logo[0] if branding.logo else "",
    }
    return environment


def read_artifact(run_dir: Path, record: ImageRecord, name: str) -> bytes:
    """Read one artefact of an image and check it against the record.

    ``name`` is a key of ``record.artifacts``. Raises :class:`IntegrityError` when it is not recorded,
    leaves the run folder, is missing, or differs from what was recorded.
    """
    expected = record.artifacts.get(name)
    if expected is None:
        raise IntegrityError(f"{record.image_id}: the record lists no {name}; inspect the lot again")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise IntegrityError(f"{record.image_id}: the artefact {name!r} points out of the run folder")
    try:
        data = (run_dir / path).read_bytes()
    except OSError as error:
        raise IntegrityError(f"{name} is recorded but cannot be read ({error.strerror})") from error
    got = hashlib.sha256(data).hexdigest()
    if got != expected:
        raise IntegrityError(f"{name} was altered: recorded sha256 {expected}, got {got}")
    return data


def read_ledger(run_dir: Path, n_lines: int) -> bytes:
    """Read the ledger's first ``n_lines``, its results, which the report attaches.

    What follows them, such as the note of an earlier rendering, is no part of a report: with it, no report could
    be rendered again as it was. Raises :class:`IntegrityError` when the ledger is missing.
    """
    try:
        lines = (run_dir / "ledger.jsonl").read_bytes().splitlines(keepends=True)
        return b"".join(lines[:n_lines])
    except OSError as error:
        raise IntegrityError(f"ledger.jsonl cannot be read from {run_dir} ({error.strerror})") from error
