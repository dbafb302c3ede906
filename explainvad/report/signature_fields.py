"""Empty signature fields of the PDF, made where the cover has a cell for each.

They must be there before the first signature: a field that is added with it would change the structure tree of pages
that were issued already. The template marks each place by a link ``x-signature:NAME`` that fills the cell. Its
annotation, whichever way the pages came together, becomes the field NAME; its structure element, the form element that
PDF/UA asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pikepdf

MEANINGS = {
    "performed": "Inspection performed",
    "reviewed": "Flagged images reviewed",
    "approved": "Report approved",
    "other": "Other, as the signature states",
}  # field -> what a signature in it means
_MARKER = "x-signature:"
_PRINTED = 4  # annotation flag: shown on paper too


def add_signature_fields(pdf: pikepdf.Pdf) -> list[str]:
    """Turn the marker links of a tagged PDF into empty signature fields; return their names in reading order.

    Raises ValueError when a marker occurs twice.
    """
    import pikepdf
    from pikepdf import Array, Dictionary, Name

    fields = Array()
    for page in pdf.pages:
        for annotation in page.get(Name.Annots, []):
            uri = str(annotation.get(Name.A, Dictionary()).get("/URI", ""))
            if uri.startswith(_MARKER):
                name = uri.removeprefix(_MARKER)
                if name in [str(field.T) for field in fields]:
                    raise ValueError(f"the signature field {name} has more than one place")
                _make_field(pdf, page, annotation, name)
                fields.append(annotation)
    if len(fields):
        pdf.Root.AcroForm = pdf.make_indirect(Dictionary(Fields=fields))
        tagged = pikepdf.NumberTree(pdf.Root.StructTreeRoot.ParentTree)
        for field in fields:
            _make_form_element(tagged[int(field.StructParent)], field)
    return [str(field.T) for field in fields]


def field_states(content: bytes | Path) -> dict[str, bool]:
    """Return the signature fields of a PDF in reading order: name -> whether it is signed; none of what is no PDF."""
    from pikepdf import Name, PdfError

    try:
        return {str(field.T): Name.V in field for field in _fields(content)}
    except PdfError:
        return {}


def field_size(content: bytes, name: str) -> tuple[float, float]:
    """Return width and height of a signature field in points. Raises KeyError when there is none of that name."""
    from pikepdf import Rectangle

    for field in _fields(content):
        if str(field.T) == name:
            place = Rectangle(field.Rect)
            return float(place.width), float(place.height)
    raise KeyError(name)


def _fields(content: bytes | Path) -> Iterator[Any]:
    import pikepdf
    from pikepdf import Dictionary, Name

    with pikepdf.open(BytesIO(content) if isinstance(content, bytes) else content) as pdf:
        for field in pdf.Root.get(Name.AcroForm, Dictionary()).get(Name.Fields, []):
            if field.get(Name.FT) == Name.Sig:
                yield field


def _make_field(pdf: pikepdf.Pdf, page: pikepdf.Page, annotation: Any, name: str) -> None:
    from pikepdf import Array, Dictionary, Name, Rectangle, String

    place = Rectangle(annotation.Rect)
    nothing = pdf.make_stream(
        b"", Type=Name.XObject, Subtype=Name.Form, BBox=Array([0, 0, place.width, place.height]), Resources=Dictionary()
    )
    for key in (Name.A, Name.BS, Name.Contents):
        del annotation[key]
    annotation.Subtype, annotation.FT = Name.Widget, Name.Sig
    annotation.T, annotation.TU = String(name), String(f"Signature: {MEANINGS.get(name, name)}")
    annotation.F, annotation.P, annotation.AP = _PRINTED, page.obj, Dictionary(N=nothing)
    annotation.Rect = place.as_array()


def _make_form_element(element: Any, field: Any) -> None:
    from pikepdf import Name

    element.S, element.Alt = Name.Form, field.TU
    # PDF/UA wants the reference itself as the only child, not in an array
    (element.K,) = list(element.K)
