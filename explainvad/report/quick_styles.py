"""Styles are found once for all elements that no rule can tell apart, and once for all pages of a kind.

As in ``quick_layout``; there, alike is what has the same style. Here, elements are akin if selectors see the same in
them and around them, as far as the selectors of a report look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from explainvad.report.quick_layout import Memory, replace

_FARTHEST = 9  # child that a selector counts to
_LOOKS_NO_FARTHER = re.compile(
    r"::?(?:before|after|marker|link|visited|first-child|last-child|first-of-type|is\(|not\(|nth-child\([1-9]\))"
)
_OWN = frozenset({"id", "src", "alt", "href", "data-page", "data-bookmark"})  # attributes whose values tell nothing
_HOLD_NO_RULES = {"page", "font-face", "counter-style"}
_ASKED_VALUE = re.compile(rf"\[\s*(?:{'|'.join(sorted(_OWN))})\s*[~|^$*]?=")


def tells_kin_alike(rules: str) -> bool:
    """Whether no selector of a style sheet sees more of an element than what makes :func:`share_styles` call it akin.

    That is its ancestors, the element before it, its place up to a ninth child, and whether it is the last.
    """
    selectors = re.sub(r"/\*.*?\*/", "", rules, flags=re.DOTALL)
    selectors = re.sub(r"\{[^{}]*\}", ",", selectors)
    # Margin boxes lie within the rule of a page; any other rule within a rule keeps its braces, which are refused
    selectors = re.sub(r"(@page[^{}]*)\{[^{}]*\}", r"\1,", selectors)
    if not {*re.findall(r"@([\w-]*)", selectors)} <= _HOLD_NO_RULES:
        return False
    selectors = re.sub(r"@[^,;]*", "", selectors)
    if any(mark in selectors for mark in "~#{}") or _ASKED_VALUE.search(selectors):
        return False
    return ":" not in _LOOKS_NO_FARTHER.sub("", selectors) and all(s.count("+") < 2 for s in selectors.split(","))


def share_styles() -> Memory:
    """Match the first of all elements that are akin, and style the others as that one.

    Only for HTML whose attribute ``kin_alike`` says that its style sheets allow it.
    """
    from weasyprint.css import StyleFor

    find = StyleFor.__init__

    def find_shared(self: Any, html: Any, sheets: Any, *rest: Any) -> None:
        if not getattr(html, "kin_alike", False) or any(origin == "user" for _, origin, _ in sheets):
            find(self, html, sheets, *rest)
            return
        numbers: dict[Any, int] = {}
        firsts: dict[int, Any] = {}
        akin: list[tuple[Any, Any]] = []

        def firsts_of_kin() -> Iterator[Any]:
            for element in html.wrapper_element.iter_subtree():
                tree = element.etree_element
                first = firsts.setdefault(_kin(element, numbers), tree)
                if first is tree or "id" in tree.attrib or "name" in tree.attrib:  # these are named in their style
                    yield element
                else:
                    # before its children come, which ask for the style of their parent
                    self._computed_styles[tree, None] = self._computed_styles[first, None]
                    akin.append((tree, first))

        distinct = SimpleNamespace(iter_subtree=firsts_of_kin)
        only = SimpleNamespace(wrapper_element=distinct, etree_element=html.etree_element, base_url=html.base_url)
        find(self, only, sheets, *rest)
        pseudo: dict[Any, list[Any]] = {}
        for tree, kind in self._computed_styles:
            if kind is not None:
                pseudo.setdefault(tree, []).append(kind)
        for tree, first in akin:
            for kind in pseudo.get(first, ()):
                self._computed_styles[tree, kind] = self._computed_styles[first, kind]

    StyleFor.__init__ = find_shared
    return {}


def _kin(element: Any, numbers: dict[Any, int]) -> int:
    """The number of what selectors see of an element, which is kept with it for those that follow."""
    tree, before, parent = element.etree_element, element.previous, element.parent
    attributes = ((name, "" if name in _OWN else value) for name, value in tree.attrib.items())
    element.itself = (tree.tag, *sorted(attributes))
    element.tags = {tree.tag} if before is None else before.tags | {tree.tag}
    seen = (
        element.itself,
        None if parent is None else parent.kin,
        None if before is None else before.itself,
        before is None or tree.tag not in before.tags,
        min(element.index, _FARTHEST),
        parent is None or element.index + 1 == len(parent.etree_children),
    )
    element.kin = numbers.setdefault(seen, len(numbers))
    return int(element.kin)


def remember_page_styles() -> Memory:
    """Find the styles of a page and its margins once for all pages of a kind, if no rule counts pages."""
    from weasyprint.layout import page

    memory: Memory = {}
    compute = page.set_page_type_computed_styles

    def set_page_type_computed_styles(page_type: Any, html: object, style_for: Any) -> None:
        selectors = [kind for sheet, *_ in style_for._sheets for rule in sheet.page_rules for *_, kind in rule[1]]
        if any(kind.index is not None for kind in selectors):
            compute(page_type, html, style_for)
            return
        key = (id(style_for), page_type.side, page_type.blank, page_type.name, page_type.index == 0)
        if key not in memory:
            compute(page_type, html, style_for)
            names = [name for element, name in style_for.get_cascaded_styles() if element == page_type]
            computed = style_for.get_computed_styles()
            memory[key] = {name: computed[page_type, name] for name in [None, *names]}, style_for
            return
        style_for.get_computed_styles().update({(page_type, name): s for name, s in memory[key][0].items()})

    replace(compute, set_page_type_computed_styles)
    return memory


STYLES = (share_styles, remember_page_styles)
