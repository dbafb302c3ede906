"""Rendered parts -> one tagged PDF, one part in memory at a time.

Workers number what must be unique in the structure (``StructParents``) and link by name; what is left is to give
objects numbers of the whole file and to string the parts' pages, structure and number trees together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pikepdf
from pikepdf import Name

from explainvad.errors import RenderError
from explainvad.report.attachments import Attachment
from explainvad.report.pdf_file import PdfFile, packed
from explainvad.report.pdf_parts import Place, RenderedPart
from explainvad.report.signature_fields import add_signature_fields

_MEDIA = {".json": "application/json", ".jsonl": "application/jsonl", ".csv": "text/csv", ".png": "image/png"}
# Strings are stepped over: what looks like a reference in one is none
_REFERENCE = re.compile(rb"\((?:[^()\\]|\\.)*\)|<[0-9A-Fa-f]*>|\b(\d+) 0 R\b", re.DOTALL)
_LENGTH = re.compile(rb"/Length \d+(?: 0 R)?")


def merge(parts: Sequence[RenderedPart], attachments: Sequence[Attachment], when: datetime, target: Path) -> None:
    """Write the parts, in their order, as one PDF with files attached; ``attachments`` are in the order of their names.

    The first part gives metadata, language and colour. The same parts give the same bytes. Raises RenderError for a
    link that leads nowhere or a name that stands for two places, and OSError.
    """
    with target.open("wb") as file:
        pdf = PdfFile(file)
        whole = _Whole(pdf)
        for part in parts:
            whole.add(part)
        whole.close(_places(parts), [part.bookmarks for part in parts], _attached(pdf, attachments, when))


def _places(parts: Sequence[RenderedPart]) -> dict[str, tuple[int, Place]]:
    """The named places, each with the number of its part. Raises RenderError as :func:`merge`."""
    places: dict[str, tuple[int, Place]] = {}
    for number, part in enumerate(parts):
        for name, at in part.anchors.items():
            if name in places:
                raise RenderError(f"the PDF could not be rendered: two places of the report are named {name!r}")
            places[name] = number, at
    lost = sorted(set().union(*(part.foreign_links for part in parts)) - set(places))
    if lost:
        raise RenderError(f"the PDF could not be rendered: no place of the report is named {lost[0]!r}, yet a link is")
    return places


class _Whole:
    """The file that parts are added to."""

    def __init__(self, pdf: PdfFile) -> None:
        self._pdf = pdf
        self._catalog, self._pages, self._tree, self._document = (pdf.number() for _ in range(4))
        self._sheets: list[list[int]] = []  # of each part, the numbers of its pages
        self._nodes: list[int] = []  # of the tree of pages, one a part
        self._elements: list[int] = []  # right below the document element
        self._parents: list[int] = []  # of the number tree, one a part
        self._profiles: list[int] = []  # of colours
        self._last_key = 0
        self._root: dict[str, bytes] = {}  # of the first part: entries of catalog, structure and document element
        self._structure: dict[str, bytes] = {}
        self._head: dict[str, bytes] = {}
        self._information = b""

    def add(self, part: RenderedPart) -> None:
        """Write all objects of a part, but what the whole has one of."""
        with pikepdf.open(part.file) as source:
            first = not self._nodes
            if first:
                add_signature_fields(source)
            root, tree = source.Root, source.Root.StructTreeRoot
            (document,) = tree.K
            numbers = {
                _number(root): self._catalog,
                _number(tree): self._tree,
                _number(document): self._document,
            }
            profiles = [_number(intent.DestOutputProfile) for intent in root.OutputIntents]
            once: tuple[Any, ...] = ()
            if not first:
                once = (root.Metadata, *root.OutputIntents, source.trailer.get(Name.Info))
                numbers |= dict(zip(profiles, self._profiles, strict=True))  # its pictures are in the same colours
            left_out = {0, *numbers, *map(_number, once)}  # 0: what is no object, but free
            things = [thing for thing in source.objects if _number(thing) not in left_out]
            numbers |= {_number(thing): self._pdf.number() for thing in things}
            for thing in things:
                self._put(thing, numbers, _number(thing) == _number(root.Pages))
            self._sheets.append([numbers[_number(page.obj)] for page in source.pages])
            self._nodes.append(numbers[_number(root.Pages)])
            self._elements += [numbers[_number(element)] for element in document.K]
            self._parents.append(numbers[_number(tree.ParentTree)])
            self._last_key = int(tree.ParentTree.Limits[1])
            if first:
                self._profiles = [numbers[profile] for profile in profiles]
                self._root = _entries(root, numbers)
                self._structure = _entries(tree, numbers)
                self._head = _entries(document, numbers)
                if Name.Info in source.trailer:
                    self._information = b"%d 0 R" % numbers[_number(source.trailer.Info)]

    def close(
        self,
        places: Mapping[str, tuple[int, Place]],
        bookmarks: Sequence[Sequence[tuple[int, str, Place]]],
        attached: tuple[bytes, bytes],
    ) -> None:
        """Write what holds the parts together, and the end of the file."""
        put = self._pdf.put
        parents, names = self._pdf.number(), self._pdf.number()
        put(parents, b"<< /Kids [%s] >>" % _references(self._parents))
        n_pages = sum(map(len, self._sheets))
        put(self._pages, b"<< /Type /Pages /Count %d /Kids [%s] >>" % (n_pages, _references(self._nodes)))
        put(self._document, _dictionary(self._head | {"/K": b"[%s]" % _references(self._elements)}))
        structure = {"/K": b"[%d 0 R]" % self._document, "/ParentTree": b"%d 0 R" % parents}
        structure["/ParentTreeNextKey"] = b"%d" % (self._last_key + 1)
        put(self._tree, _dictionary(self._structure | structure))
        dests = (_string(name) + self._destination(*places[name]) for name in sorted(places, key=str.encode))
        put(names, b"<< /Names [%s] >>" % b" ".join(dests))
        embedded, associated = attached
        root = {
            "/Pages": b"%d 0 R" % self._pages,
            "/StructTreeRoot": b"%d 0 R" % self._tree,
            "/Names": b"<< /Dests %d 0 R /EmbeddedFiles %s >>" % (names, embedded),
            "/AF": associated,
            "/Outlines": b"%d 0 R" % self._put_outline(bookmarks),
        }
        put(self._catalog, _dictionary(self._root | root))
        self._pdf.close(self._catalog, self._information)

    def _put(self, thing: Any, numbers: Mapping[int, int], is_node: bool) -> None:
        """Write one object of a part under its number in the whole."""
        number = numbers[_number(thing)]
        if isinstance(thing, pikepdf.Stream):
            text = _renumbered(thing.stream_dict.unparse(), numbers).removeprefix(b"<<").removesuffix(b">>")
            self._pdf.put_stream(number, _LENGTH.sub(b"", text, count=1).strip(), thing.read_raw_bytes())
            return
        text = _renumbered(thing.unparse(resolved=True), numbers)
        if is_node:
            text = b"<< /Parent %d 0 R %s" % (self._pages, text.removeprefix(b"<<"))
        self._pdf.put(number, text)

    def _put_outline(self, bookmarks: Sequence[Sequence[tuple[int, str, Place]]]) -> int:
        """Write the outline: a bookmark stands below the latest one of a lower level, whatever part that is in."""
        root = _Bookmark(self._pdf.number(), 0, b"/Type /Outlines")
        path, items = [root], [root]
        for part, listed in enumerate(bookmarks):
            for level, title, at in listed:
                while len(path) > 1 and path[-1].level >= level:
                    path.pop()
                words = b"/Title %s /Dest %s /Parent %d 0 R" % (
                    *(_string(title), self._destination(part, at), path[-1].number),
                )
                item = _Bookmark(self._pdf.number(), level, words)
                path[-1].below.append(item)
                path.append(item)
                items.append(item)
        for item in items:
            for earlier, later in zip(item.below, item.below[1:], strict=False):
                earlier.words += b" /Next %d 0 R" % later.number
                later.words += b" /Prev %d 0 R" % earlier.number
            if item.below:
                ends = item.below[0].number, item.below[-1].number, item.count()
                item.words += b" /First %d 0 R /Last %d 0 R /Count %d" % ends
        for item in items:
            self._pdf.put(item.number, b"<< %s >>" % item.words)
        return root.number

    def _destination(self, part: int, at: Place) -> bytes:
        return b"[%d 0 R /XYZ %.6g %.6g 0]" % (self._sheets[part][at.page], at.x, at.y)


@dataclass(slots=True, eq=False)
class _Bookmark:
    """An item of the outline, or its root."""

    number: int
    level: int
    words: bytes
    below: list[_Bookmark] = field(default_factory=list)

    def count(self) -> int:
        """All items below, which are shown open."""
        return sum(1 + item.count() for item in self.below)


def _attached(pdf: PdfFile, attachments: Sequence[Attachment], when: datetime) -> tuple[bytes, bytes]:
    """Embed files, each associated with the document once; their name tree, and the list of associated files."""
    date = _string(f"D:{when:%Y%m%d%H%M%S}Z")
    names, associated = [], []
    for attachment in attachments:
        stream, specification = pdf.number(), pdf.number()
        media = Name(f"/{_MEDIA.get(Path(attachment.name).suffix, 'text/plain')}").unparse()
        filtered, data = packed(attachment.data, 9)
        facts = b"<< /Size %d /CreationDate %s /ModDate %s >>" % (len(attachment.data), date, date)
        pdf.put_stream(stream, b"/Type /EmbeddedFile /Subtype %s /Params %s %s" % (media, facts, filtered), data)
        name = _string(attachment.name)
        embedded = b"<< /F %d 0 R /UF %d 0 R >>" % (stream, stream)
        relation = Name(f"/{attachment.relationship}").unparse()
        words = (name, name, _string(attachment.description), relation, embedded)
        pdf.put(specification, b"<< /Type /Filespec /F %s /UF %s /Desc %s /AFRelationship %s /EF %s >>" % words)
        names.append(b"%s %d 0 R" % (name, specification))
        associated.append(specification)
    return b"<< /Names [%s] >>" % b" ".join(names), b"[%s]" % _references(associated)


def _number(thing: Any) -> int:
    """The number of an indirect object in its own file; 0 of anything else."""
    return int(thing.objgen[0]) if isinstance(thing, pikepdf.Object) else 0


def _renumbered(text: bytes, numbers: Mapping[int, int]) -> bytes:
    """Text of an object with references by numbers of the whole file; what a part lacks is null."""

    def renumber(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            return match[0]
        number = numbers.get(int(match[1]))
        return b"null" if number is None else b"%d 0 R" % number

    return _REFERENCE.sub(renumber, text)


def _entries(thing: Any, numbers: Mapping[int, int]) -> dict[str, bytes]:
    """The entries of a dictionary by key, as text for the whole file."""
    texts = {key: v.unparse() if isinstance(v := thing[key], pikepdf.Object) else str(v).encode() for key in thing}
    return {key: _renumbered(text, numbers) for key, text in texts.items()}


def _dictionary(entries: Mapping[str, bytes]) -> bytes:
    return b"<< %s >>" % b" ".join(b"%s %s" % (key.encode(), value) for key, value in entries.items())


def _references(numbers: Sequence[int]) -> bytes:
    return b" ".join(b"%d 0 R" % number for number in numbers)


def _string(text: str) -> bytes:
    return bytes(pikepdf.String(text).unparse())
