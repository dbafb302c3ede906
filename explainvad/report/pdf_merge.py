"""Rendered parts -> one tagged PDF. Workers number what must be unique, so that merging costs little by the page.

Each part comes with keys of its own in the number tree of its structure (``StructParents``) and with links by name;
what is left is to string them together.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pikepdf
from pikepdf import Array, Dictionary, Name, OutlineItem, String

from explainvad.errors import RenderError
from explainvad.report.attachments import Attachment
from explainvad.report.pdf_parts import Place, RenderedPart
from explainvad.report.signature_fields import add_signature_fields

_MEDIA = {".json": "application/json", ".jsonl": "application/jsonl", ".csv": "text/csv", ".png": "image/png"}


@contextmanager
def merged(parts: Sequence[RenderedPart]) -> Iterator[pikepdf.Pdf]:
    """Open the parts as one PDF, in their order. The first one gives metadata, language and colour.

    Raises :class:`RenderError` for a link that leads nowhere or a name that stands for two places.
    """
    sources: list[pikepdf.Pdf] = []
    try:
        pdf = pikepdf.open(parts[0].file)
        sources.append(pdf)
        add_signature_fields(pdf)  # while the cover's part is alone, and its number tree a plain list
        tree = pdf.Root.StructTreeRoot
        number_kids = [pdf.make_indirect(tree.ParentTree)]
        for part in parts[1:]:
            source = pikepdf.open(part.file)
            sources.append(source)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that links by name may lead nowhere: the names are written below
                pdf.pages.extend(source.pages)  # before its structure, which then finds the copied pages
            further = pdf.copy_foreign(source.Root.StructTreeRoot)
            document = tree.K[0]
            for element in further.K[0].K:
                element.P = document
                document.K.append(element)
            number_kids.append(further.ParentTree)
        tree.ParentTree = pdf.make_indirect(Dictionary(Kids=Array(number_kids)))
        tree.ParentTreeNextKey = int(number_kids[-1].Limits[1]) + 1
        _name_places(pdf, parts)
        _add_bookmarks(pdf, parts)
        yield pdf
    finally:
        for source in sources:
            source.close()


def _name_places(pdf: pikepdf.Pdf, parts: Sequence[RenderedPart]) -> None:
    """Write the tree of named destinations, and refuse links to names that it lacks."""
    places: dict[str, Array] = {}
    for first, part in _starts(parts):
        for name, at in part.anchors.items():
            if name in places:
                raise RenderError(f"the PDF could not be rendered: two places of the report are named {name!r}")
            places[name] = _destination(pdf, first, at)
    lost = sorted(set().union(*(part.foreign_links for part in parts)) - set(places))
    if lost:
        raise RenderError(f"the PDF could not be rendered: no place of the report is named {lost[0]!r}, yet a link is")
    names = Array(item for name in sorted(places, key=str.encode) for item in (String(name), places[name]))
    pdf.Root.Names = Dictionary(Dests=pdf.make_indirect(Dictionary(Names=names)))


def _add_bookmarks(pdf: pikepdf.Pdf, parts: Sequence[RenderedPart]) -> None:
    """Write the outline: a bookmark stands below the latest one of a lower level, whatever part that is in."""
    with pdf.open_outline() as outline:
        outline.root.clear()
        path: list[tuple[int, OutlineItem]] = []
        for first, part in _starts(parts):
            for level, title, at in part.bookmarks:
                item = OutlineItem(title, _destination(pdf, first, at))
                while path and path[-1][0] >= level:
                    path.pop()
                (path[-1][1].children if path else outline.root).append(item)
                path.append((level, item))


def _starts(parts: Sequence[RenderedPart]) -> Iterator[tuple[int, RenderedPart]]:
    first = 0
    for part in parts:
        yield first, part
        first += part.n_pages


def _destination(pdf: pikepdf.Pdf, first: int, at: Place) -> Array:
    return Array([pdf.pages[first + at.page].obj, Name.XYZ, at.x, at.y, 0])


def attach(pdf: pikepdf.Pdf, attachments: Sequence[Attachment], when: datetime) -> None:
    """Embed files, each associated with the document once; ``attachments`` are in the order of their names."""
    date = String(f"D:{when:%Y%m%d%H%M%S}Z")
    names, associated = Array(), Array()
    for attachment in attachments:
        packed = zlib.compress(attachment.data, 9)
        # Deflated data that ends in a carriage return looks one byte shorter than its Length: store it as it is.
        deflated = not packed.endswith(b"\r")
        stream = pdf.make_stream(packed if deflated else attachment.data)
        if deflated:
            stream.Filter = Name.FlateDecode
        stream.Type = Name.EmbeddedFile
        stream.Subtype = Name(f"/{_MEDIA.get(Path(attachment.name).suffix, 'text/plain')}")
        stream.Params = Dictionary(Size=len(attachment.data), CreationDate=date, ModDate=date)
        specification = pdf.make_indirect(
            Dictionary(
                Type=Name.Filespec,
                F=String(attachment.name),
                UF=String(attachment.name),
                Desc=String(attachment.description),
                AFRelationship=Name(f"/{attachment.relationship}"),
                EF=Dictionary(F=stream, UF=stream),
            )
        )
        names.extend([String(attachment.name), specification])
        associated.append(specification)
    pdf.Root.Names.EmbeddedFiles = pdf.make_indirect(Dictionary(Names=names))
    pdf.Root.AF = associated


def save(pdf: pikepdf.Pdf, file: Path) -> None:
    """Write the file: the same PDF gives the same bytes. Streams stay as they are, so that metadata is plain text."""
    pdf.save(
        file,
        deterministic_id=True,
        compress_streams=False,
        stream_decode_level=pikepdf.StreamDecodeLevel.none,
        object_stream_mode=pikepdf.ObjectStreamMode.generate,
    )
