"""A customer's own look: ``theme.toml``, a logo, and templates that take the place of ours.

The folder is read once, here. Nothing in it can read another file or send anything: templates run in a sandbox, find
other templates only by the names that we have, and whatever they point at goes through a fetcher that knows the
report's own pictures and nothing else.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, ClassVar

from jinja2 import BaseLoader, Environment, FunctionLoader, TemplateError, TemplateSyntaxError
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from explainvad.config import validated
from explainvad.encoding import encoded
from explainvad.errors import ExplainVADError, RenderError, UsageError

THEME, ACCENT = "theme.toml", "#14506b"
_LOGOS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}
_TEMPLATES = (".html", ".css", ".svg")
_LARGEST = 4 << 20  # bytes of a logo or a template
_LOGO_PIXELS = 2000  # of its longer side
_CONTRAST = 4.5  # of text on white, WCAG 2.2 AA

_ONE_LINE = StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")
Line = Annotated[str, _ONE_LINE]


class Theme(BaseModel):
    """``theme.toml``; every key may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Line | None = Field(default=None, description="who issues the report, on the cover")
    logo: Line | None = Field(default=None, description="a PNG, JPEG or SVG file beside this one, on the cover")
    accent: str = Field(default=ACCENT, pattern=r"^#[0-9a-fA-F]{6}$", description="colour of names and links")
    footer: Line | None = Field(default=None, description="at the foot of each page")

    @field_validator("accent")
    @classmethod
    def _accent_is_readable(cls, accent: str) -> str:
        if (contrast := _contrast_to_white(accent)) < _CONTRAST:
            raise ValueError(f"its contrast to white is {contrast:.1f}, and text needs {_CONTRAST}: take a darker one")
        return accent

    @model_validator(mode="after")
    def _logo_has_words(self) -> Theme:
        if self.logo and not self.issuer:
            raise ValueError("logo needs issuer: its name is the logo's text for who cannot see it")
        return self


@dataclass(frozen=True, slots=True)
class Branding:
    """What a folder of templates says. ``templates``: name -> source, in place of ours of that name.

    ``sha256`` stands for the whole folder; it is empty where there is none.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    theme: Theme = field(default_factory=Theme)
    logo: tuple[str, bytes] | None = None  # name of the asset, and its bytes
    folder: str = ""
    templates: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""

    @property
    def loader(self) -> BaseLoader:
        """Finds the folder's templates as they were read."""

        def source(name: str) -> tuple[str, str, None] | None:
            return (self.templates[name], f"{self.folder}/{name}", None) if name in self.templates else None

        return FunctionLoader(source)


def load_branding(folder: Path | None, ours: Path) -> Branding:
    """Read a folder of templates; ``ours`` is the folder of the templates that it may replace.

    Raises UsageError for a folder that is none, a link in it, a file that replaces nothing, a fault in a template's
    syntax or a logo that is no picture; ConfigError for a fault in ``theme.toml``.
    """
    if folder is None:
        return Branding()
    if not folder.is_dir():
        raise UsageError(f"--templates expects a folder, got {folder}")
    files = dict(_files(folder))
    theme = _theme(files.get(THEME), folder)
    if theme.logo and (theme.logo not in files or Path(theme.logo).suffix.lower() not in _LOGOS):
        raise UsageError(f"{folder / THEME}: logo = {theme.logo!r} names no PNG, JPEG or SVG file of this folder")
    known = sorted(path.relative_to(ours).as_posix() for path in ours.rglob("*") if path.suffix in _TEMPLATES)
    templates: dict[str, str] = {}
    for name, data in files.items():
        if name in (THEME, theme.logo) or Path(name).suffix not in _TEMPLATES:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise UsageError(f"{folder / name} replaces no template; the nearest known one is {near[0]}")
        templates[name] = _source(data, folder / name)
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode())
    logo = (f"logo{_normal_suffix(theme.logo)}", _logo(files[theme.logo], folder / theme.logo)) if theme.logo else None
    return Branding(theme, logo, str(folder), templates, digest.hexdigest())


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files of a folder by their names in it. A link could lead out of it, so none is followed."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise UsageError(f"{path} is a link: copy the file itself into the folder of templates")
        if path.is_file():
            if path.stat().st_size > _LARGEST:
                raise UsageError(f"{path} is larger than {_LARGEST >> 20} MB, which no template or logo needs")
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _theme(data: bytes | None, folder: Path) -> Theme:
    try:
        raw = tomllib.loads(data.decode("utf-8-sig")) if data else {}
    except (UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{folder / THEME}: expected a readable TOML file, got: {error}") from error
    return validated(Theme, raw, str(folder / THEME))


def _source(data: bytes, path: Path) -> str:
    """A template's text, once it can be parsed."""
    try:
        source = data.decode()
        Environment(autoescape=True).parse(source)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except TemplateSyntaxError as error:
        raise UsageError(f"{path}, line {error.lineno}: {error.message}") from error
    return source


def _normal_suffix(name: str) -> str:
    return ".svg" if name.lower().endswith(".svg") else ".png"


def _logo(data: bytes, path: Path) -> bytes:
    """A logo that PDF/A allows: 8-bit sRGB of sensible size, or an SVG without declarations of its own."""
    if path.suffix.lower() == ".svg":
        if re.search(rb"<!(DOCTYPE|ENTITY)", data, re.IGNORECASE):
            raise UsageError(f"{path}: an SVG logo must have no DOCTYPE or ENTITY declaration")
        return data
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as stored:
            stored.thumbnail((_LOGO_PIXELS, _LOGO_PIXELS))
            picture = stored.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: expected a PNG or JPEG logo, got: {error}") from error
    on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return encoded(on_white, "PNG")


def _contrast_to_white(colour: str) -> float:
    """The contrast ratio of WCAG 2.2, in [1, 21]."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


@contextmanager
def template_faults() -> Iterator[None]:
    """Turn what goes wrong inside a template into a RenderError that names its file and line."""
    try:
        yield
    except TemplateSyntaxError as error:
        raise RenderError(f"template {error.filename or error.name}, line {error.lineno}: {error.message}") from error
    except ExplainVADError:  # what a template shows may be at fault, not the template: an altered picture, say
        raise
    except Exception as error:
        place = _template_line(error.__traceback__)
        if place is None and not isinstance(error, TemplateError):
            raise
        raise RenderError(f"template {place or 'of the report'}: {type(error).__name__}: {error}") from error


def _template_line(trace: TracebackType | None) -> str | None:
    """The innermost line of a template that a traceback went through."""
    place = None
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename.endswith(_TEMPLATES):
            place = f"{code.co_filename}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place
