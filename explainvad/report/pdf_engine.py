"""WeasyPrint with its known costs taken out; what it makes is the same.

Everything here leans on how one version of WeasyPrint is built, so it is used with that version only; with any other,
reports take longer and look the same. The gain comes from repetition: hundreds of pages share their styles and
half of their words.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from xml.etree.ElementTree import Element, SubElement

KNOWN_VERSION = "70.0"
_RULE = re.compile(r"^(?P<selectors>[^@/{}\s][^{}]*)\{(?P<body>[^{}]*)\}\n", re.MULTILINE)
_MARGIN_BOX = re.compile(r"^ +@([a-z-]+) *\{.*\}\n", re.MULTILINE)
_NOTES = re.compile(r"::(?:foot)?note-[a-z]+")
_FORMS = re.compile(r"\b(?:input|select|textarea|button|option)\b")
_SIDES = ("top", "right", "bottom", "left")
_BORDERS = tuple(f"border_{side}_width" for side in _SIDES)
_LENGTHS = (
    *(f"{kind}_{side}" for kind in ("margin", "padding") for side in _SIDES),
    *("width", "min_width", "max_width", "height", "min_height", "max_height"),
)


class Memory:
    """What was found out for one document; emptied before the next, whose fonts and styles are others."""

    def __init__(self) -> None:
        self.lines: dict[tuple[object, ...], tuple[Any, object]] = {}
        self.struts: dict[int, tuple[Any, object]] = {}
        self.lengths: dict[tuple[object, ...], tuple[dict[str, object], object]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.lines.clear()
        self.struts.clear()
        self.lengths.clear()


class Engine:
    """Makes WeasyPrint documents of page sources, one after the other. There is one in a process."""

    def __init__(self, *, quick: bool = True) -> None:
        import weasyprint

        self._html: Callable[..., Any] = weasyprint.HTML
        self._memory = Memory()
        if quick and weasyprint.__version__ == KNOWN_VERSION:
            self._html = _quick_html()
            _list_pages_once()
            _remember_lines(self._memory)
            _remember_drawn_lines()
            _remember_lengths(self._memory)

    def source(self, html: str, url_fetcher: object) -> Any:
        """Return a page source as WeasyPrint's HTML."""
        self._memory.clear()
        return self._html(string=html, url_fetcher=url_fetcher)


def _quick_html() -> type:
    """Parse with libxml2, and leave out style rules that can match nothing in the page source."""
    import cssselect2
    import weasyprint
    from lxml import html as lxml_html
    from weasyprint.html import UA, UA_COUNTER_STYLE

    @cache
    def sheet(rules: str) -> object:
        return weasyprint.CSS(string=rules, counter_style=UA_COUNTER_STYLE)

    class QuickHTML(weasyprint.HTML):  # type: ignore[misc]
        def __init__(self, string: str, url_fetcher: object) -> None:
            self.base_url, self.url_fetcher, self.media_type = None, url_fetcher, "print"
            tree = _plain(lxml_html.document_fromstring(string))
            self.wrapper_element = cssselect2.ElementWrapper.from_html_root(tree, content_language=None)
            self.etree_element = self.wrapper_element.etree_element
            self._rules = _rules_that_match(UA, string)

        def _ua_stylesheets(self, forms: bool = False) -> list[object]:
            return [sheet(self._rules)]

    return QuickHTML


def _rules_that_match(rules: str, html: str) -> str:
    """The default rules without those for notes, forms, margins and attributes that the page source has none of.

    Each such rule is tried on every element, or even gives each a pseudo-element of its own: a third of the layout.
    """
    used = set(re.findall(r'[\s"]([a-z]+)=', html)) | {word for word in ("hidden",) if f" {word}" in html}
    notes, forms = re.search(r"float: *(foot)?note|note-", html) is not None, _FORMS.search(html) is not None

    def can_match(selector: str) -> bool:
        asked = set(re.findall(r"\[([a-z]+)", selector))
        if ":not(" not in selector and asked and not asked & used:
            return False
        return (notes or not _NOTES.search(selector)) and (forms or not _FORMS.search(selector))

    def rule(match: re.Match[str]) -> str:
        kept = [selector for selector in re.split(r",(?![^()]*\))", match["selectors"]) if can_match(selector)]
        return f"{','.join(kept)}{{{match['body']}}}\n" if kept else ""

    def margin_box(match: re.Match[str]) -> str:
        return match[0] if f"@{match[1]}" in html else ""

    plain = re.sub(r"/\*.*?\*/", "", rules, flags=re.DOTALL).replace("\n::marker", "\nli::marker")
    return _MARGIN_BOX.sub(margin_box, _RULE.sub(rule, plain))


def _plain(parsed: Any) -> Element:
    """An element of lxml as one of the standard library: without comments, and with a body around rows of a table."""
    element = Element(parsed.tag, dict(parsed.attrib))
    element.text, element.tail = parsed.text, parsed.tail
    inner = element
    for child in parsed:
        if not isinstance(child.tag, str):
            continue
        if parsed.tag == "table" and child.tag == "tr":
            inner = inner if inner.tag == "tbody" else SubElement(element, "tbody")
            inner.append(_plain(child))
        else:
            inner = element
            element.append(_plain(child))
    return element


def _list_pages_once() -> None:
    """Keep pydyf's list of page references, made anew for each structure element: quadratic in the pages."""
    import pydyf

    listed = pydyf.PDF.page_references.fget

    def page_references(pdf: Any) -> Any:
        count = len(pdf.pages["Kids"])
        if pdf.__dict__.get("counted") != count:
            pdf.counted, pdf.listed = count, listed(pdf)
        return pdf.listed

    pydyf.PDF.page_references = property(page_references)


def _remember_lines(memory: Memory) -> None:
    """Break a text of the same style at the same width once, and measure the line height of a style once."""
    from weasyprint.text import line_break

    split, strut = line_break.split_first_line, line_break.strut

    def split_first_line(text: str, style: Mapping[str, Any], context: object, *rest: Any, **options: Any) -> Any:
        if style["text_align_all"] == "justify":
            return split(text, style, context, *rest, **options)
        key = (text, id(style), rest, *options.items())
        if key not in memory.lines:
            memory.lines[key] = split(text, style, context, *rest, **options), style
        return memory.lines[key][0]

    def strut_once(style: Mapping[str, Any]) -> Any:
        if id(style) not in memory.struts:
            memory.struts[id(style)] = strut(style), style
        return memory.struts[id(style)][0]

    _replace(split, split_first_line)
    _replace(strut, strut_once)


def _remember_drawn_lines() -> None:
    """Draw a line that was drawn before by its operators, without setting it again."""
    from weasyprint.draw import text
    from weasyprint.text.line_break import Layout

    draw, reactivate, deactivate = text.draw_first_line, Layout.reactivate, Layout.deactivate

    def draw_first_line(stream: Any, textbox: Any, text_overflow: str, block_ellipsis: str, matrix: Any) -> Any:
        layout = textbox.pango_layout
        if text_overflow != "clip" or block_ellipsis != "none":
            if not hasattr(layout, "layout"):
                reactivate(layout, textbox.style)
            return draw(stream, textbox, text_overflow, block_ellipsis, matrix)
        if hasattr(layout, "drawn"):
            operators, font = layout.drawn
            stream.set_text_matrix(*matrix.values)
            stream.stream.extend(operators[1:] if stream._current_font == font else operators)
            stream._current_font = font
            return []
        before, start = stream._current_font, len(stream.stream)
        emojis = draw(stream, textbox, text_overflow, block_ellipsis, matrix)
        operators = stream.stream[start + 1 :]
        fonts = sum(operator.endswith(b" Tf") for operator in operators)
        if before is None and fonts == 1 and not emojis:
            layout.drawn = operators, stream._current_font
        return emojis

    def reactivate_undrawn(layout: Any, style: object) -> None:
        if not hasattr(layout, "drawn"):
            reactivate(layout, style)

    def deactivate_active(layout: Any) -> None:
        if hasattr(layout, "layout"):
            deactivate(layout)

    _replace(draw, draw_first_line)
    Layout.reactivate, Layout.deactivate = reactivate_undrawn, deactivate_active


def _remember_lengths(memory: Memory) -> None:
    """Resolve the lengths of a style within blocks of one size once."""
    from weasyprint.formatting_structure.boxes import Box, PageBox
    from weasyprint.layout import percent

    resolve = percent.resolve_percentages

    def resolve_percentages(box: Any, containing_block: Any) -> None:
        style, own = box.style, box.__dict__
        # Borders of collapsed tables are set before, and not by the style alone
        given = style["border_collapse"] == "collapse" and any(name in own for name in _BORDERS)
        if isinstance(box, PageBox) or style["box_sizing"] != "content-box":
            resolve(box, containing_block)
            return
        block = containing_block
        size = (block.width, block.height) if isinstance(block, Box) else tuple(block)
        key = (id(style), size, given)
        if key in memory.lengths:
            own.update(memory.lengths[key][0])
            if given:
                for name in _BORDERS:
                    own.setdefault(name, style[name])
            return
        resolve(box, containing_block)
        names = _LENGTHS if given else _LENGTHS + _BORDERS
        memory.lengths[key] = {name: own[name] for name in names}, style

    _replace(resolve, resolve_percentages)


def _replace(original: object, replacement: object) -> None:
    """Put ``replacement`` wherever a module of WeasyPrint has ``original`` under its own name."""
    name = original.__name__  # type: ignore[attr-defined]
    for module in [m for key, m in sys.modules.items() if key.startswith("weasyprint.")]:
        if getattr(module, name, None) is original:
            setattr(module, name, replacement)
