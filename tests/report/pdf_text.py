"""Reads the text of a PDF's pages through its fonts' ToUnicode maps, and where its parts begin, with pikepdf alone."""

from __future__ import annotations

import re

import pikepdf


def _unicode_map(font: pikepdf.Object) -> dict[int, str]:
    pairs = re.findall(rb"<([0-9A-Fa-f]+)>\s*<([0-9A-Fa-f]+)>", font.ToUnicode.read_bytes())
    return {int(code, 16): bytes.fromhex(text.decode()).decode("utf-16-be", "replace") for code, text in pairs}


def page_text(page: pikepdf.Page) -> str:
    """Return a page's text without blanks: kerning and line breaks leave no trace to compare."""
    fonts = {name: _unicode_map(font) for name, font in page.Resources.Font.items()}
    current: dict[int, str] = {}
    text: list[str] = []
    for operands, operator in pikepdf.parse_content_stream(page):
        if str(operator) == "Tf":
            current = fonts[str(operands[0])]
        elif str(operator) in ("Tj", "TJ"):
            pieces = operands[0] if str(operator) == "TJ" else [operands[0]]
            for piece in pieces:
                if isinstance(piece, pikepdf.String):
                    codes = bytes(piece)
                    text += [current.get(int.from_bytes(codes[i : i + 2], "big"), "") for i in range(0, len(codes), 2)]
    return "".join("".join(text).split())


def page_of_anchor(pdf: pikepdf.Pdf) -> dict[str, int]:
    """Return the number of the page, from 0, that each anchor of the report lies on."""
    names = pdf.Root.Names.Dests.Names
    pages = {page.objgen: number for number, page in enumerate(pdf.pages)}
    return {str(names[i]): pages[names[i + 1][0].objgen] for i in range(0, len(names), 2)}
