"""What WeasyPrint's drawing works out again and again, worked out once for a document; as in ``quick_layout``."""

from __future__ import annotations

from typing import Any

from explainvad.report.quick_layout import Memory, replace

_WIDTHS = tuple((side, f"border_{side}_width") for side in ("top", "right", "bottom", "left"))


def remember_drawn_lines() -> Memory:
    """Draw a line that was drawn before by its operators."""
    from weasyprint.draw import text

    draw = text.draw_first_line

    def draw_first_line(stream: Any, textbox: Any, text_overflow: str, block_ellipsis: str, matrix: Any) -> Any:
        layout = textbox.pango_layout
        if text_overflow != "clip" or block_ellipsis != "none":
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

    replace(draw, draw_first_line)
    return {}


def remember_graphics() -> Memory:
    """Draw a vector graphic of the same size by its operators; one with patterns, which depend on its place, anew."""
    from weasyprint.images import SVGImage

    memory: Memory = {}
    draw = SVGImage.draw

    def draw_once(image: Any, stream: Any, width: float, height: float, style: object) -> None:
        key = (id(image), width, height)
        if key in memory:
            stream.stream.extend(memory[key][0])
            return
        # Nothing may be left out because it is set already: it may not be where the operators are used again
        stream._current_color = stream._current_color_stroke = stream._current_font = None
        stream._current_alpha = stream._current_alpha_stroke = None
        start, patterns = len(stream.stream), len(stream._resources["Pattern"])
        draw(image, stream, width, height, style)
        if len(stream._resources["Pattern"]) == patterns:
            memory[key] = stream.stream[start:], image

    SVGImage.draw = draw_once
    return memory


def draw_rules() -> Memory:
    """Draw a border of one side as the rectangle that it is, and no border without looking further."""
    from weasyprint.draw import border
    from weasyprint.draw.color import get_color

    draw = border.draw_border

    def draw_border(stream: Any, box: Any) -> None:
        style = box.style
        sides = [side for side, width in _WIDTHS if getattr(box, width)]
        images = style["border_image_source"][0] != "none"
        if images or style["column_width"] != "auto" or style["column_count"] != "auto" or len(sides) > 1:
            draw(stream, box)
            return
        for side in sides:
            x, y, width, height, *radii = box.rounded_border_box()
            color, kind = get_color(style, f"border_{side}_color"), style[f"border_{side}_style"]
            if style["visibility"] != "visible" or kind != "solid" or not color.alpha or any(map(any, radii)):
                draw(stream, box)
                return
            thick, upright = getattr(box, f"border_{side}_width"), side in ("left", "right")
            x += width - thick if side == "right" else 0
            y += height - thick if side == "bottom" else 0
            with stream.artifact():
                stream.set_color(color)
                stream.rectangle(x, y, thick if upright else width, height if upright else thick)
                stream.fill()

    replace(draw, draw_border)
    return {}


DRAWING = (remember_drawn_lines, remember_graphics, draw_rules)
