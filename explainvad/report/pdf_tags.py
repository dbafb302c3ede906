"""The last touch to a part, while it is still a tree of pydyf objects: what WeasyPrint leaves out or makes too large.

Keys of the structure and links to other parts become such that parts can be merged as they are. The structure takes a
fifth of the room that it took: a report of a thousand pages has a hundred thousand elements.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

FOREIGN = "x-anchor:"  # scheme of a link to a name in another part
KEYS_PER_PART = 1 << 16  # more than a part has pages and links
_POINTS = 0.75  # in a CSS pixel
_HOLLOW = ("/Span", "/NonStruct")
_UA_IDENTITY = b"""<rdf:Description rdf:about="" xmlns:pdfuaid="http://www.aiim.org/pdfua/ns/id/">\
<pdfuaid:part>1</pdfuaid:part></rdf:Description>
<rdf:Description rdf:about="" xmlns:pdfaExtension="http://www.aiim.org/pdfa/ns/extension/" \
xmlns:pdfaSchema="http://www.aiim.org/pdfa/ns/schema#" xmlns:pdfaProperty="http://www.aiim.org/pdfa/ns/property#">\
<pdfaExtension:schemas><rdf:Bag><rdf:li rdf:parseType="Resource">\
<pdfaSchema:schema>PDF/UA Universal Accessibility Schema</pdfaSchema:schema>\
<pdfaSchema:namespaceURI>http://www.aiim.org/pdfua/ns/id/</pdfaSchema:namespaceURI>\
<pdfaSchema:prefix>pdfuaid</pdfaSchema:prefix><pdfaSchema:property><rdf:Seq><rdf:li rdf:parseType="Resource">\
<pdfaProperty:name>part</pdfaProperty:name><pdfaProperty:valueType>Integer</pdfaProperty:valueType>\
<pdfaProperty:category>internal</pdfaProperty:category>\
<pdfaProperty:description>PDF/UA part</pdfaProperty:description></rdf:li></rdf:Seq></pdfaSchema:property>\
</rdf:li></rdf:Bag></pdfaExtension:schemas></rdf:Description></rdf:RDF>"""


def finish(pdf: Any, index: int) -> None:
    """Make the part ready to be merged as number ``index``, and the file PDF/A-3a and PDF/UA-1."""
    _set_margins_apart(pdf)
    _compress(pdf)
    _unfold_hollow_elements(pdf)
    _place_figures(pdf)
    _scope_headers(pdf)
    _number_structure(pdf, index)
    for item in pdf.objects:
        action = item.get("A") if isinstance(item, dict) and item.get("Subtype") == "/Link" else None
        if action and action["URI"].string.startswith(FOREIGN):
            item["Dest"] = item["Contents"] = type(action["URI"])(action["URI"].string.removeprefix(FOREIGN))
            del item["A"]
    for name in ("Names", "Outlines"):  # of the whole file, which the merge writes
        pdf.catalog.pop(name, None)


def _set_margins_apart(pdf: Any) -> None:
    """Mark running heads and page numbers as no part of the text: WeasyPrint tags them, yet in no tree."""
    import pydyf

    within: set[int] = set()
    waiting = [_number(reference) for reference in pdf.objects[_number(pdf.catalog["StructTreeRoot"])]["K"]]
    while waiting:
        number = waiting.pop()
        within.add(number)
        waiting += [_number(kid) for kid in pdf.objects[number].get("K", ()) if isinstance(kid, bytes)]
    nums = _parent_tree(pdf)["Nums"]
    for page, row in zip(_pages(pdf), nums[1::2], strict=False):
        outside = {mcid for mcid, reference in enumerate(row) if _number(reference) not in within}
        pieces = pdf.objects[_number(page["Contents"])].stream
        for place, piece in enumerate(pieces):
            if isinstance(piece, dict) and piece.get("MCID") in outside:
                pieces[place - 1 : place + 1] = ["/Artifact", pydyf.Dictionary({"Type": "/Pagination"})]
        row[:] = [b"null" if mcid in outside else reference for mcid, reference in enumerate(row)]
    for element in _elements(pdf):
        if element.number not in within:
            element.free = "f"


def _pages(pdf: Any) -> Iterator[Any]:
    return (pdf.objects[number] for number in pdf.pages["Kids"][::3])


def _compress(pdf: Any) -> None:
    """Deflate streams, all but metadata, which must be plain text."""
    for item in pdf.objects:
        if getattr(item, "extra", {}).get("Type") == "/Metadata":
            item.stream = [part.replace(b"</rdf:RDF>", _UA_IDENTITY, 1) for part in item.stream]
        elif hasattr(item, "stream") and "Filter" not in item.extra:
            deflated = zlib.compress(b"\n".join(map(_bytes, item.stream)))
            # Deflated data that ends in a carriage return looks one byte shorter than its Length: leave it as it is.
            if not deflated.endswith(b"\r"):
                item.stream, item.extra["Filter"] = [deflated], "/FlateDecode"


def _bytes(piece: Any) -> bytes:
    import pydyf

    return piece if type(piece) is bytes else pydyf._to_bytes(piece)


def _elements(pdf: Any) -> Iterator[Any]:
    import pydyf

    dictionaries = (item for item in pdf.objects if isinstance(item, pydyf.Dictionary) and item.free == "n")
    return (item for item in dictionaries if item.get("Type") == "/StructElem")


def _number(reference: bytes) -> int:
    return int(reference.split(b" ", 1)[0])


def _unfold_hollow_elements(pdf: Any) -> None:
    """Replace elements that say nothing by what they hold: two thirds of all, one or more around each line of text."""
    into: dict[int, int] = {}  # hollow element -> the one around it
    for element in _elements(pdf):
        around = pdf.objects[_number(element["P"])]
        if element["S"] in _HOLLOW and not element.keys() & {"A", "ID", "Alt"} and around.get("Pg") == element["Pg"]:
            into[element.number] = around.number

    def kept(number: int) -> int:
        while number in into:
            number = into[number]
        return number

    def unfolded(kids: list[Any]) -> Iterator[Any]:
        for kid in kids:
            if isinstance(kid, bytes) and _number(kid) in into:
                yield from unfolded(pdf.objects[_number(kid)]["K"])
            else:
                yield kid

    for element in [*_elements(pdf)]:
        if element.number in into:
            element.free = "f"
        else:
            element["P"] = pdf.objects[kept(_number(element["P"]))].reference
            element["K"][:] = unfolded(list(element["K"]))
    nums = _parent_tree(pdf)["Nums"]
    for place, value in enumerate(nums):
        if isinstance(value, list):
            value[:] = [r if r == b"null" else pdf.objects[kept(_number(r))].reference for r in value]
        elif isinstance(value, bytes):
            nums[place] = pdf.objects[kept(_number(value))].reference


def _parent_tree(pdf: Any) -> Any:
    return pdf.objects[_number(pdf.objects[_number(pdf.catalog["StructTreeRoot"])]["ParentTree"])]


def _place_figures(pdf: Any) -> None:
    """Give the boxes of figures in PDF points from the page's lower left corner; they are in CSS pixels from above."""
    for element in _elements(pdf):
        if element["S"] == "/Figure":
            height = pdf.objects[_number(element["Pg"])]["MediaBox"][3]
            x0, y0, x1, y1 = (value * _POINTS for value in element["A"]["BBox"])
            element["A"]["BBox"][:] = [x0, height - y1, x1, height - y0]


def _scope_headers(pdf: Any) -> None:
    """Say of each header cell whether it heads a row or a column, in place of a list of headers in every cell."""
    import pydyf

    headers = {element["ID"].string: element for element in _elements(pdf) if "ID" in element}
    heads: dict[str, set[str]] = {name: set() for name in headers}
    for cell in _elements(pdf):
        if cell["S"] == "/TD":
            for header in cell["A"].pop("Headers", ()):
                heads[header.string].add("/Row" if headers[header.string]["P"] == cell["P"] else "/Column")
            if cell["A"].keys() == {"O"}:
                del cell["A"]
    scopes: dict[str, Any] = {}
    for name, header in headers.items():
        del header["ID"]
        kinds = heads[name] or {"/Column"}
        scope = "/Both" if len(kinds) > 1 else min(kinds)
        if header["A"].keys() == {"O"}:
            if scope not in scopes:
                scopes[scope] = pydyf.Dictionary({"O": "/Table", "Scope": scope})
                pdf.add_object(scopes[scope])
            header["A"] = scopes[scope].reference
        else:
            header["A"]["Scope"] = scope


def _number_structure(pdf: Any, index: int) -> None:
    """Give pages and links keys that no other part has, in a tree that a merge can string together with others."""
    import pydyf

    base = index * KEYS_PER_PART
    for item in pdf.objects:
        if isinstance(item, dict):
            for key in ("StructParents", "StructParent"):
                if key in item:
                    item[key] += base
    tree = _parent_tree(pdf)
    keys = tree["Nums"][::2]
    assert len(keys) < KEYS_PER_PART, "a part has fewer pages and links than that"
    tree["Nums"][::2] = [key + base for key in keys]
    tree["Limits"] = pydyf.Array([base, base + keys[-1]])
