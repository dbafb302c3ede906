"""WeasyPrint with its known costs taken out; what it makes is the same.

Everything here and in the ``quick_`` modules leans on how one version of WeasyPrint is built, so it is used with that
version only; with any other, reports take longer and look the same. The gain comes from repetition: hundreds of pages
share their styles and half of their words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from explainvad.report.quick_drawing import DRAWING
from explainvad.report.quick_layout import LAYOUT
from explainvad.report.quick_styles import STYLES, tells_kin_alike

KNOWN_VERSION = "70.0"
_RULE = re.compile(r"^(?P<selectors>[^@/{}\s][^{}]*)\{(?P<body>[^{}]*)\}\n", re.MULTILINE)
_MARGIN_BOX = re.compile(r"^ +@([a-z-]+) *\{.*\}\n", re.MULTILINE)
_NOTES = re.compile(r"::(?:foot)?note-[a-z]+")
_FORM_TAG = r"(?:input|select|textarea|button|option)\b"


class Engine:
    """Makes WeasyPrint documents of page sources, one after the other. There is one in a process."""

    def __init__(self, *, quick: bool = True) -> None:
        import weasyprint

        self._html: Callable[..., Any] = weasyprint.HTML
        self._memories: list[dict[Any, Any]] = []  # of one document, whose fonts and styles are not those of the next
        if quick and weasyprint.__version__ == KNOWN_VERSION:
            self._html = _quick_html()
            _list_pages_once()
            self._memories = [remember() for remember in (*STYLES, *LAYOUT, *DRAWING)]

    def source(self, html: str, url_fetcher: object) -> Any:
        """Return a page source as WeasyPrint's HTML."""
        for memory in self._memories:
            memory.clear()
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
            self.kin_alike = tells_kin_alike(self._rules + "".join(style.text or "" for style in tree.iter("style")))

        def _ua_stylesheets(self, forms: bool = False) -> list[object]:
            return [sheet(self._rules)]

    return QuickHTML


def _rules_that_match(rules: str, html: str) -> str:
    """The default rules without those for notes, forms, margins and attributes that the page source has none of.

    Each such rule is tried on every element, or even gives each a pseudo-element of its own: a third of the layout.
    """
    used = set(re.findall(r'[\s"]([a-z]+)=', html)) | {word for word in ("hidden",) if f" {word}" in html}
    notes = re.search(r"float: *(foot)?note|note-", html) is not None
    forms = re.search("<" + _FORM_TAG, html) is not None

    def can_match(selector: str) -> bool:
        asked = set(re.findall(r"\[([a-z]+)", selector))
        if ":not(" not in selector and asked and not asked & used:
            return False
        return (notes or not _NOTES.search(selector)) and (forms or not re.search(r"\b" + _FORM_TAG, selector))

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
