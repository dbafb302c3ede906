"""Reads the text of a PDF's pages through its fonts' ToUnicode maps, and where its parts begin, with pikepdf alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pikepdf


def _unicode_map(font: pikepdf.Object) -> dict[int, str]:
    pairs = re.findall(rb"<([0-9A-Fa-f]+)>\s*<([0-9A-Fa-f]+)>", font.ToUnicode.read_bytes())
    return {int(code, 16): bytes.fromhex(text.decode()).decode("utf-16-be", "replace") for code, text in pairs}


def page_text(page: pikepdf.Page) -> str:
    """Return a page's text without blanks: kerning and line breaks leave no trace to compare."""
    return "".join(text for _, text in _pieces(page))


def marked_text(page: pikepdf.Page) -> dict[int, str]:
    """Return the text of each piece of marked content of a page, without blanks."""
    marked: dict[int, str] = {}
    for mcid, text in _pieces(page):
        marked[mcid] = marked.get(mcid, "") + text
    return marked


def _pieces(page: pikepdf.Page) -> Iterator[tuple[int, str]]:
    """What a page draws, each piece with the number of the marked content around it, -1 where there is none."""
    fonts = {name: _unicode_map(font) for name, font in page.Resources.Font.items()}
    current: dict[int, str] = {}
    open_marks: list[int] = []
    for operands, operator in pikepdf.parse_content_stream(page):
        if str(operator) in ("BDC", "BMC"):
            properties = operands[1] if len(operands) > 1 else {}
            open_marks.append(int(properties.get("/MCID", -1)))
        elif str(operator) == "EMC":
            open_marks.pop()
        elif str(operator) == "Tf":
            current = fonts[str(operands[0])]
        elif str(operator) in ("Tj", "TJ"):
            pieces = operands[0] if str(operator) == "TJ" else [operands[0]]
            for piece in pieces:
                if isinstance(piece, pikepdf.String):
                    codes = bytes(piece)
                    text = [current.get(int.from_bytes(codes[i : i + 2], "big"), "") for i in range(0, len(codes), 2)]
                    yield open_marks[-1] if open_marks else -1, "".join("".join(text).split())


def page_of_anchor(pdf: pikepdf.Pdf) -> dict[str, int]:
    """Return the number of the page, from 0, that each anchor of the report lies on."""
    names = pdf.Root.Names.Dests.Names
    pages = {page.objgen: number for number, page in enumerate(pdf.pages)}
    return {str(names[i]): pages[names[i + 1][0].objgen] for i in range(0, len(names), 2)}
