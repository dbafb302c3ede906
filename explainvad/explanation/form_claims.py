"""Claims on size, area, shape, orientation and holes."""

from __future__ import annotations

import re

from explainvad.explanation.bands import BANDS
from explainvad.explanation.reading import (
    IMAGE_NOUN,
    MODIFIER,
    NUMBER,
    PART_NOUN,
    REGION_NOUN,
    Judgement,
    Reader,
    judge_number,
)
from explainvad.types import ClaimStatus, RegionFacts

_SUPPORTED, _PARTLY, _CONTRADICTED = ClaimStatus.SUPPORTED, ClaimStatus.PARTLY, ClaimStatus.CONTRADICTED

_UNIT = (
    r"(?P<unit>px|pixels?|mm|millimet(?:re|er)s?|cm|centimet(?:re|er)s?|[µμu]m|micromet(?:re|er)s?|microns?)(?![a-z])"
)
_IN_MM = {"m": 1.0, "c": 10.0, "u": 1e-3, "µ": 1e-3, "μ": 1e-3}
_START = rf"(?:{MODIFIER}\s*)?(?<![\w.,/-])"

_SHAPE_WORDS = {
    "compact": ("compact", "blob-like", "roundish", "round", "circular"),
    "elongated": ("elongated", "elongate", "oblong", "long", "narrow", "thin"),
    "line-like": ("line-like", "linear", "line-shaped", "thread-like"),
    "irregular": ("irregular", "irregularly shaped"),
    "ring-shaped": ("ring-shaped", "ring-like", "annular"),
    "point-like": ("point-like", "dot-like", "pinpoint"),
}
_SHAPE_OF = {word: shape for shape, words in _SHAPE_WORDS.items() for word in words}
_SHAPE = rf"(?P<shape>{'|'.join(sorted(_SHAPE_OF, key=len, reverse=True))})"
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _per_unit(match: re.Match[str], px: float, mm: float | None, power: int = 1) -> float | None:
    """Express a measurement in the stated unit; None where the scale is unknown."""
    unit = match["unit"]
    if unit.startswith("p"):
        return px
    factor = 1e-3 if unit.startswith("mic") else _IN_MM[unit[0]]
    return None if mm is None else mm / factor**power


def _judge_sides(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    stated = sorted((match["first"], match["second"]), key=lambda text: -float(text.replace(",", "")))
    length = _per_unit(match, facts.length_px, facts.length_mm)
    width = _per_unit(match, facts.width_px, facts.width_mm)
    if length is None or width is None:
        return None
    statuses = {judge_number(match, stated[0], length), judge_number(match, stated[1], width)}
    worst = next(status for status in (_CONTRADICTED, _PARTLY, _SUPPORTED) if status in statuses)
    return f"{length:.4g} × {width:.4g} {match['unit']}", worst


def _judge_side(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    length = _per_unit(match, facts.length_px, facts.length_mm)
    width = _per_unit(match, facts.width_px, facts.width_mm)
    if length is None or width is None:
        return None
    dimension = match["dimension"]
    if "diameter" in dimension or dimension == "across":  # any extent between the two is one
        value = float(match["value"].replace(",", ""))
        measured = min(max(value, width), length)
        return f"{width:.4g} to {length:.4g} {match['unit']}", judge_number(match, match["value"], measured)
    measured = length if "long" in dimension or "length" in dimension else width
    return f"{measured:.4g} {match['unit']}", judge_number(match, match["value"], measured)


def _judge_area(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    area = _per_unit(match, facts.area_px, facts.area_mm2, power=2)
    if area is None:
        return None
    return f"{area:.4g} {match['unit']}²", judge_number(match, match["value"], area)


def _judge_share(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    if (facts.frame == "part") != bool(match["part"]):
        return None
    percent = 100 * facts.area_share
    return f"{percent:.3g} % of the {facts.frame}", judge_number(match, match["value"], percent)


def _judge_shape(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    stated, measured = _SHAPE_OF[match["shape"]], facts.shape
    status = _CONTRADICTED
    if stated == measured:
        oblong = match["shape"] in ("round", "circular") and facts.elongation > 1.5
        status = _PARTLY if oblong else _SUPPORTED
    elif measured == "point-like":
        return None  # too small to have a shape
    elif (stated == "elongated" and facts.elongation >= BANDS.elongated) or (
        stated == "irregular" and facts.solidity < BANDS.irregular_solidity
    ):
        status = _SUPPORTED
    elif (
        (stated == "line-like" and facts.elongation >= BANDS.elongated)
        or (stated == "ring-shaped" and facts.holes)
        or (stated == "point-like" and facts.area_px < 10 * BANDS.point_area)
    ):
        status = _PARTLY
    return f"{measured}, length / width {facts.elongation:.1f}, solidity {facts.solidity:.2f}", status


def _judge_angle(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    if facts.orientation_deg is None:
        return None
    stated, rounding = float(match["value"]), 0.5 + 1e-9
    if match["clockwise"]:
        stated = -stated
    return _oriented(facts.orientation_deg, stated, 5.0 if match["about"] else rounding, 15.0, period=180)


def _judge_direction(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    if facts.orientation_deg is None:
        return None
    word = match["direction"]
    if word.startswith("diagonal"):
        return _oriented(facts.orientation_deg, 45.0, 20.0, 30.0, period=90)
    return _oriented(facts.orientation_deg, 0.0 if word.startswith("h") else 90.0, 15.0, 30.0, period=180)


def _oriented(measured: float, stated: float, close: float, near: float, period: int) -> Judgement:
    error = abs((measured - stated + period / 2) % period - period / 2)
    status = _SUPPORTED if error <= close else _PARTLY if error <= near else _CONTRADICTED
    return f"{measured:.0f}° counter-clockwise from the horizontal", status


def _judge_holes(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    word = match["count"]
    measured = "no holes" if facts.holes == 0 else f"{facts.holes} hole" + "s" * (facts.holes > 1)
    if word in ("a", "an", "any", None):
        holds = facts.holes > 0
        return measured, _SUPPORTED if holds != bool(match["without"]) else _CONTRADICTED
    stated = int(word) if word.isdigit() else _COUNTS.index(word)
    return measured, _SUPPORTED if stated == facts.holes else _CONTRADICTED


_FRAME = rf"(?:(?P<part>{PART_NOUN}|surface)|(?P<image>{IMAGE_NOUN}))"
_BE = r"\b(?:is|isn't|appears|looks|seems|being|shape is|outline is)\s+"
_DIRECTION = r"(?P<direction>horizontal(?:ly)?|vertical(?:ly)?|diagonal(?:ly)?)"
_STOP = r"(?=\s*(?:$|[.,;()])|\s+(?:and|or|but|in|with|at|across|along)\b)"

READERS = (
    Reader(
        "size",
        re.compile(
            rf"{_START}(?P<first>{NUMBER})\s*(?:(?:px|mm|cm|µm)\s*)?(?:x|by)\s*(?P<second>{NUMBER})\s*-?{_UNIT}"
            r"(?!\s*(?:x\b|by\b|\^?2|²|from\b|away\b))"
        ),
        _judge_sides,
    ),
    Reader(
        "size",
        re.compile(
            rf"{_START}(?P<value>{NUMBER})[\s-]*{_UNIT}[\s-]+"
            r"(?P<dimension>long|in length|wide|in width|across|in diameter)\b"
        ),
        _judge_side,
    ),
    Reader(
        "size",
        re.compile(
            rf"\b(?P<dimension>length|width|diameter)\s+(?:of\s+|is\s+|=\s*|:\s*)?{_START}(?P<value>{NUMBER})\s*{_UNIT}"
        ),
        _judge_side,
    ),
    Reader("area", re.compile(rf"{_START}(?P<value>{NUMBER})\s*{_UNIT}\s*(?:\^?2|²)"), _judge_area),
    Reader("area", re.compile(rf"{_START}(?P<value>{NUMBER})\s*square\s+{_UNIT}"), _judge_area),
    Reader(
        "area share",
        re.compile(
            rf"\b(?:covers|covering|occupies|occupying|takes up|fills|is|equals|area of)\s+(?:only\s+)?"
            rf"{_START}(?P<value>{NUMBER})\s*(?:%|percent\b|per cent\b)\s*of\s+(?:the|this|its)\s+"
            rf"(?:whole\s+|entire\s+|total\s+)?{_FRAME}\b(?:'s)?(?:\s+(?:area|surface)\b)?"
        ),
        _judge_share,
    ),
    Reader("shape", re.compile(rf"\b{_SHAPE}(?=,?\s+(?:[\w'-]+,?\s+){{0,3}}?{REGION_NOUN}\b)"), _judge_shape),
    Reader("shape", re.compile(rf"{_BE}(?:[a-z-]+(?:,| and| but)?\s+){{0,3}}?{_SHAPE}{_STOP}"), _judge_shape),
    Reader("shape", re.compile(rf"\b{_SHAPE}\s+(?:in\s+)?(?:shape|outline|contour|form)\b"), _judge_shape),
    Reader(
        "orientation",
        re.compile(
            r"\b(?:runs|runs at|oriented at|inclined at|inclined by|tilted by|orientation of|orientation is|angle of)"
            rf"\s+(?:at\s+)?(?:an angle of\s+)?(?:(?P<about>about|around|roughly|approximately)\s+)?"
            rf"(?P<value>{NUMBER})\s*(?:°|degrees?|deg)"
            r"(?:\s+(?:(?P<clockwise>clockwise)|counter-?clockwise|anti-?clockwise))?"
            r"(?:\s+(?:from|to|against)\s+the\s+(?:horizontal|x[- ]axis))?"
            r"(?!\s*(?:c\b|f\b|from\b|to\b|against\b))"
        ),
        _judge_angle,
    ),
    Reader(
        "orientation",
        re.compile(
            rf"\b(?:runs|running|oriented|aligned|stretches|extends|lies|is|orientation is)\s+"
            rf"(?:roughly\s+|nearly\s+|almost\s+|approximately\s+)?{_DIRECTION}{_STOP}"
        ),
        _judge_direction,
    ),
    Reader(
        "orientation",
        re.compile(rf"\b{_DIRECTION}(?=,?\s+(?:[\w'-]+,?\s+){{0,2}}?{REGION_NOUN}\b)"),
        _judge_direction,
    ),
    Reader(
        "holes",
        re.compile(
            r"\b(?:(?P<without>without)|has|have|with|contains?|encloses?|enclosing|containing)\s+(?:exactly\s+)?"
            rf"(?:(?P<count>\d+|an?|any|{'|'.join(_COUNTS)})\s+)?(?:internal\s+|enclosed\s+|inner\s+)?holes?"
            r"(?=\s*(?:$|[.,;()])|\s+(?:and|or|in it|inside)\b)"
        ),
        _judge_holes,
    ),
)
