"""What WeasyPrint's layout finds out again and again, found out once for a document.

Each function puts its own in place of a function of WeasyPrint and returns its memory, to be emptied before the next
document. Memories are keyed by the identity of a style, which elements that are styled alike share, and hold on to it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

_SIDES = ("top", "right", "bottom", "left")
_BORDERS = tuple(f"border_{side}_width" for side in _SIDES)
_RADII = tuple(f"border_{corner}_radius" for corner in ("top_left", "top_right", "bottom_right", "bottom_left"))
_LENGTHS = (
    *(f"{kind}_{side}" for kind in ("margin", "padding") for side in _SIDES),
    *("width", "min_width", "max_width", "height", "min_height", "max_height"),
)

Memory = dict[Any, Any]


def replace(original: Any, replacement: object) -> None:
    """Put ``replacement`` wherever a module of WeasyPrint has ``original`` under its own name."""
    name = original.__name__
    for module in [m for key, m in sys.modules.items() if key.startswith("weasyprint.")]:
        if getattr(module, name, None) is original:
            setattr(module, name, replacement)


def remember_lines() -> Memory:
    """Break a text of the same style at the same width once."""
    from weasyprint.text import line_break

    memory: Memory = {}
    split = line_break.split_first_line

    def split_first_line(text: str, style: Mapping[str, Any], context: object, *rest: Any, **options: Any) -> Any:
        if style["text_align_all"] == "justify":
            return split(text, style, context, *rest, **options)
        key = (text, id(style), rest, *options.items())
        if key not in memory:
            memory[key] = split(text, style, context, *rest, **options), style
        return memory[key][0]

    replace(split, split_first_line)
    return memory


def remember_struts() -> Memory:
    """Measure the line height of a style once."""
    from weasyprint.text import line_break

    strut, memory = _once_for_a_style(line_break.strut)
    replace(line_break.strut, strut)
    return memory


def remember_fonts() -> Memory:
    """Describe the font of a style once."""
    from weasyprint.text import fonts

    describe, memory = _once_for_a_style(fonts.get_font_description)
    replace(fonts.get_font_description, describe)
    return memory


def _once_for_a_style(find: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], Memory]:
    memory: Memory = {}

    def once(style: Any) -> Any:
        if id(style) not in memory:
            memory[id(style)] = find(style), style
        return memory[id(style)][0]

    return once, memory


def keep_lines_set() -> Memory:
    """Keep a line as it was set until it is drawn, in place of setting it again: it is small beside the page."""
    from weasyprint.text.line_break import Layout

    reactivate = Layout.reactivate

    def reactivate_justified(layout: Any, style: Any) -> None:
        if style["text_align_all"] == "justify":  # its spaces are set only now
            reactivate(layout, style)

    Layout.deactivate, Layout.reactivate = lambda layout: None, reactivate_justified
    return {}


def remember_flow() -> Memory:
    """Look once whether a style takes boxes out of the flow."""
    from weasyprint.formatting_structure.boxes import Box

    memory: Memory = {}
    look = Box.is_in_normal_flow

    def is_in_normal_flow(box: Any) -> bool:
        style = box.style
        if id(style) not in memory:
            memory[id(style)] = look(box), style
        return bool(memory[id(style)][0])

    Box.is_in_normal_flow = is_in_normal_flow
    return memory


def remember_lengths() -> Memory:
    """Resolve the lengths of a style within blocks of one size once."""
    from weasyprint.formatting_structure.boxes import Box, PageBox
    from weasyprint.layout import percent

    memory: Memory = {}
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
        if key in memory:
            own.update(memory[key][0])
            if given:
                for name in _BORDERS:
                    own.setdefault(name, style[name])
            return
        resolve(box, containing_block)
        names = _LENGTHS if given else _LENGTHS + _BORDERS
        memory[key] = {name: own[name] for name in names}, style

    replace(resolve, resolve_percentages)
    return memory


def remember_bare_boxes() -> Memory:
    """Look once whether a style has no background and no round corner, and leave its boxes without."""
    from weasyprint.draw.color import get_color
    from weasyprint.layout import background

    lay_out = background.layout_box_backgrounds
    square = dict.fromkeys(_RADII, (0, 0)) | {"background": None}

    def is_bare(style: Any) -> bool:
        return (
            style["border_image_source"][0] == style["mask_border_source"][0] == "none"
            and all(kind == "none" for kind, _ in style["background_image"])
            and not style["box_shadow"]
            and get_color(style, "background_color").alpha == 0
            and all((0, "px") in style[name] for name in _RADII)
        )

    known_bare, memory = _once_for_a_style(is_bare)

    def layout_box_backgrounds(page: Any, box: Any, get_image: Any, layout_children: bool = True, style: Any = None):  # type: ignore[no-untyped-def]
        if style is not None or box is page or not known_bare(box.style):
            lay_out(page, box, get_image, layout_children, style)
            return
        for name, value in square.items():  # not by __dict__: a placeholder hands them on to its box
            setattr(box, name, value)
        if layout_children:
            for child in box.all_children():
                layout_box_backgrounds(page, child, get_image)

    replace(lay_out, layout_box_backgrounds)
    return memory


LAYOUT = (
    remember_lines,
    remember_struts,
    remember_fonts,
    keep_lines_set,
    remember_flow,
    remember_lengths,
    remember_bare_boxes,
)
