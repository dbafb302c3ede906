"""LotReport -> report.html, to work in; and, where a lot has many flagged images, further pages beside it.

Every page holds all it shows and fetches nothing. Its content security policy names the one style sheet and the one
script by their hashes, so nothing else can act in it, whatever a file of the lot is called.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment

from explainvad.report.assets import MEDIA, read_artifact, template_environment, templates_folder
from explainvad.report.attachments import Printed
from explainvad.report.branding import Branding, template_faults
from explainvad.report.context import lot_graphics, report_context
from explainvad.report.figures import colour_stops
from explainvad.report.layers import LOWERS, RAISES, thumbnail
from explainvad.report.screen_image import ScreenImage, data_uri, screen_image
from explainvad.types import Decision, ImageRecord, LotReport

PAGE = "report.html"
FOLDER = "report_images"  # of further pages, beside PAGE
IMAGES_A_PAGE = 100  # some 100 kB each: a page opens at once and can be sent by mail

_OTHER_MAPS = 16  # that an image may have beside those that explain it
# What asks for a person's eye first
_ORDER = (Decision.REJECT, Decision.DEFER, Decision.NOT_INSPECTED, Decision.NOT_FLAGGED, Decision.ACCEPT)
# Control and direction characters would let a name look like another; those of a lot are escaped when it is read
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file of the lot in the list: where its image is shown, and its thumbnail (both may be empty)."""

    record: ImageRecord
    href: str
    picture: str

    @property
    def reasons(self) -> str:
        """Why it was flagged, or not inspected."""
        verdict = self.record.verdict
        return self.record.failure or "" if verdict is None else "; ".join(verdict.reasons)


@dataclass(frozen=True, slots=True)
class ImagesPage:
    """A page with flagged images number ``first`` to ``last``; the first such page is PAGE itself."""

    name: str
    first: int
    last: int
    records: Sequence[ImageRecord]


def html_files(
    report: LotReport, shown: Sequence[ImageRecord], attached: Sequence[Printed], branding: Branding
) -> dict[str, bytes]:
    """Render the report for the screen: name below the report's folder -> bytes; PAGE, which links to all, is last.

    ``shown`` are the images that can be looked at. Raises :class:`explainvad.errors.IntegrityError` when an artefact
    differs from its record, UsageError for a fault in a template of the ``branding``.
    """
    environment = template_environment(branding).overlay(finalize=_visible)
    pages = list(_pages(shown))
    place = {record.image_id: page for page in pages for record in page.records}
    thumbnails = {record.image_id: _thumbnail(report, record) for record in shown}
    context = report_context(report, shown, attached, branding) | _frame(environment, shown)
    context["asset"] = _graphics(environment, report, branding)

    def rendered(page: ImagesPage, records: Sequence[ImageRecord]) -> bytes:
        """The page with a list of ``records``."""
        rows = [
            FileRow(r, _address(page, place.get(r.image_id), r.image_id), thumbnails.get(r.image_id, ""))
            for r in records
        ]
        return (
            environment.get_template("screen.html")
            .render(
                context,
                page=page,
                whole=page.name == PAGE,
                rows=rows,
                images=_images(report, page, len(shown)),
                decisions=[(d, n) for d in _ORDER if (n := sum(r.decision is d for r in records))],
                others=[(other, _address(page, other, "")) for other in pages],
                home=_address(page, pages[0], "files"),
            )
            .encode()
        )

    with template_faults():
        beside = {page.name: rendered(page, page.records) for page in pages[1:]}
        return {**beside, PAGE: rendered(pages[0], report.records)}


def _pages(shown: Sequence[ImageRecord]) -> Iterator[ImagesPage]:
    """Deal the images to pages, in their order; there is one page even without images."""
    width = max(4, len(str(len(shown))))  # of a number in a name, so that names sort
    for start in range(0, max(1, len(shown)), IMAGES_A_PAGE):
        records = shown[start : start + IMAGES_A_PAGE]
        first, last = start + 1, start + len(records)
        name = f"{FOLDER}/flagged-{first:0{width}}-{last:0{width}}.html" if start else PAGE
        yield ImagesPage(name, first, last, records)


def _address(here: ImagesPage, there: ImagesPage | None, anchor: str) -> str:
    """A relative link from one page to a place on another; empty without another."""
    if there is None:
        return ""
    name = there.name if here.name == PAGE else there.name.removeprefix(f"{FOLDER}/")
    if here.name == there.name:
        name = ""
    elif there.name == PAGE:
        name = f"../{PAGE}"
    return f"{name}#{anchor}" if anchor else name


def _images(report: LotReport, page: ImagesPage, total: int) -> Iterator[ScreenImage]:
    """The images of a page one by one: their pictures need not be in memory together."""
    for position, record in enumerate(page.records, start=page.first):
        yield screen_image(report, record, position, total)


def _thumbnail(report: LotReport, record: ImageRecord) -> str:
    return data_uri(thumbnail(read_artifact(report.run_dir, record, f"evidence/{record.image_id}.jpg")))


def _frame(environment: Environment, shown: Sequence[ImageRecord]) -> dict[str, Any]:
    """Style sheet and script with the hashes that the content security policy allows."""
    explained = max((len(r.explanation.maps) for r in shown if r.explanation), default=0)
    style = environment.get_template("style/screen.css").render(maps=_OTHER_MAPS + explained)
    script = (templates_folder() / "script" / "report.js").read_text("utf-8")
    order = {decision: number for number, decision in enumerate(_ORDER)}
    return {
        "style": style,
        "script": script,
        "style_hash": _policy_hash(style),
        "script_hash": _policy_hash(script),
        "order": order,
        "ramp": colour_stops(21),
        "signed": (LOWERS, RAISES),
    }


def _policy_hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _graphics(environment: Environment, report: LotReport, branding: Branding) -> Any:
    """The function that gives templates the lot's vector graphics, and a logo, as data URIs, by name."""
    graphics = lot_graphics(environment, report) | dict([branding.logo] if branding.logo else [])
    return lambda name: f"data:{MEDIA[Path(name).suffix]};base64,{base64.b64encode(graphics[name]).decode()}"


def _visible(value: object) -> object:
    """Escape characters that cannot be seen, in everything a template prints."""
    if isinstance(value, str) and _UNSEEN.search(value):
        return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], value)
    return value
