"""A report in parts of few pages, and the page numbers that one part prints of another; a small report is one part.

An image takes one page by design, so that numbers are known before the images are rendered. How many pages the
front and the back have, only their layout tells: they are laid out once before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from explainvad.report.attachments import Printed
from explainvad.report.branding import Branding
from explainvad.report.context import LIST_ANCHOR, LISTED_IN_SUMMARY, AuthorCount, FlaggedImage
from explainvad.report.exports import canonical_json, plain
from explainvad.types import ImageRecord, LotReport

WHOLE = "whole"  # kind of the only part of a small report
COMMON, REPORT = "common.json", "report.json"  # in the folder that workers share
IMAGES_PER_PART = 40  # a part costs a second to set up, and memory by the page
IMAGES_OF_A_SMALL_REPORT = 6  # up to which one process is done with all of it before two have started
ROWS_PER_PAGE, _LIST_PAGES_PER_PART = 44, 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Numbering:
    """What a part prints of the other parts: its own first page, all pages, and on which page a link ends.

    ``total`` is 0 where there are none.
    """

    first: int
    total: int
    pages: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Part:
    """Some consecutive pages of a ``kind`` that ``print.html`` knows.

    Images come with their records. ``start`` is the place of the first image,
    or of the first row of a list, among all of its kind; ``expected`` the number of pages, where it is known.
    """

    kind: str
    words: str
    records: tuple[ImageRecord, ...] = ()
    start: int = 0
    rows: int = 0
    expected: int | None = None
    links: tuple[str, ...] = ()  # names in other parts whose page numbers it prints, where they are known beforehand


@dataclass(frozen=True, slots=True)
class PartJob:
    """What a worker gets: a part, its place among the parts, and whether to lay it out only, to count its pages."""

    part: Part
    index: int
    numbering: Numbering
    measure: bool
    target: Path


@dataclass(frozen=True, slots=True)
class Common:
    """What all parts share, beside the report without its findings; each worker reads both once."""

    run_dir: Path
    shown: tuple[str, ...]  # ids of the images that get a page
    flagged: tuple[FlaggedImage, ...]
    listed: bool  # whether they have a list on pages of its own
    images_per_part: int  # 0 where there are no parts
    authors: tuple[AuthorCount, ...]
    attachments: tuple[Printed, ...]
    branding: Branding


@dataclass(frozen=True, slots=True)
class Place:
    """A point of a part: ``page`` from 0, ``x`` and ``y`` in PDF points."""

    page: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class RenderedPart:
    """A part's file with the named places in it, its bookmarks as (level, title, place), and links to other parts."""

    file: Path
    n_pages: int
    anchors: Mapping[str, Place]
    bookmarks: tuple[tuple[int, str, Place], ...]
    foreign_links: frozenset[str]

    @classmethod
    def of(cls, file: Path, answer: Mapping[str, Any]) -> RenderedPart:
        """Read a worker's answer."""
        return cls(
            file,
            answer["pages"],
            {name: Place(*at) for name, at in answer["anchors"].items()},
            tuple((level, title, Place(*at)) for level, title, at in answer["bookmarks"]),
            frozenset(answer["links"]),
        )


def written(value: Common | PartJob) -> bytes:
    """A value for a worker as JSON: what is read back can only be a value."""
    return TypeAdapter(type(value)).dump_json(value)


def without_findings(report: LotReport) -> bytes:
    """A report as JSON, with what the pages of the lot print of its records."""
    slim = (replace(record, findings=(), artifacts={}, scores={}) for record in report.records)
    return canonical_json("report.json", plain(replace(report, records=tuple(slim))))


def divided(report: LotReport, shown: Sequence[ImageRecord], images_per_part: int) -> list[Part]:
    """Divide the report. It is the same division whatever renders it: its bytes depend on that."""
    flagged = [record.image_id for record in report.records if record.flagged]
    listed = len(flagged) > LISTED_IN_SUMMARY
    if len(shown) <= min(IMAGES_OF_A_SMALL_REPORT, images_per_part) and not listed:
        return [Part(WHOLE, "the report", tuple(shown), expected=1)]
    parts = [Part("front", "the pages before the images")]
    if listed:
        for start, names in _batches(flagged, ROWS_PER_PAGE * _LIST_PAGES_PER_PART):
            words = f"the list of {names[0]} to {names[-1]}"
            expected = math.ceil(len(names) / ROWS_PER_PAGE)
            parts.append(Part("list", words, start=start, rows=len(names), expected=expected, links=tuple(names)))
    for start, records in _batches(shown, images_per_part):
        words = f"the pages of {records[0].image_id} to {records[-1].image_id}"
        parts.append(Part("images", words, tuple(records), start, expected=len(records)))
    return [*parts, Part("back", "the pages after the images")]


def _batches(items: Sequence[T], size: int) -> Iterator[tuple[int, Sequence[T]]]:
    """Consecutive items, ``size`` at a time, each with the place of the first."""
    for start in range(0, len(items), size):
        yield start, items[start : start + size]


def numbered(parts: Sequence[Part], known: Mapping[int, RenderedPart]) -> list[Numbering]:
    """Number the parts: those ``known`` by what they are, the others by what is expected of them.

    Page numbers of links are for the front, the lists and the back; a page of an image prints none. A part that is the
    whole report counts its pages by itself.
    """
    if parts[0].kind == WHOLE:
        return [Numbering(1, 0, {})]
    n_pages = [known[i].n_pages if i in known else part.expected or 1 for i, part in enumerate(parts)]
    firsts = [1 + sum(n_pages[:i]) for i in range(len(parts))]
    page_of: dict[str, int] = {}
    for i, (part, first) in enumerate(zip(parts, firsts, strict=True)):
        if i in known:
            page_of |= {name: first + at.page for name, at in known[i].anchors.items()}
        elif part.kind == "images":
            page_of |= {record.image_id: first + k for k, record in enumerate(part.records)}
        elif part.kind == "list" and part.start == 0:
            page_of[LIST_ANCHOR] = first
    numberings = []
    for i, part in enumerate(parts):
        wanted = part.links if i not in known else known[i].foreign_links if part.kind != "images" else ()
        pages = {name: page_of[name] for name in sorted(wanted) if name in page_of}
        numberings.append(Numbering(firsts[i], sum(n_pages), pages))
    return numberings
