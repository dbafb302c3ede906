"""Claims on where a region lies: place words, clock, distance from the centre, contact with the image edge."""

from __future__ import annotations

import re
from itertools import product

from explainvad.explanation.place import PLACES, RADIAL_ZONES
from explainvad.explanation.reading import IMAGE_NOUN, PART_NOUN, Judgement, Reader
from explainvad.types import ClaimStatus, RegionFacts

_ROWS = {"upper": 0, "top": 0, "lower": 2, "bottom": 2}
_COLUMNS = {"left": 0, "right": 2}
_MIDDLE = r"(?:middle|cent(?:re|er)|central)"
_WORD = rf"(?:upper|top|lower|bottom|left|right|{_MIDDLE})"
_FRAME = (
    rf"(?:\s+of\s+(?:the|this|its)\s+(?:inspected\s+|whole\s+|entire\s+)?"
    rf"(?:(?P<part>{PART_NOUN})|(?P<image>{IMAGE_NOUN}))\b(?!['\w-]))?"
)
# What may follow a place: "on the left." does, "at the right angle" and "the bottom of the bottle" do not.
_END = (
    r"(?=\s*(?:$|[.,;:()!])|\s+(?:at|near|and|or|with|close|just|about|around|that|is|are|has|lies|there|it|a|an"
    r"|touching|measuring|covering|running|shows|contains|exhibits|displays)\b)"
)
_PLACE = re.compile(
    rf"(?:^\s*the|(?:\b(?:in|into|at|on|near|within|inside|along|and|or)|,)\s+the)\s+(?:far\s+|very\s+)?"
    rf"(?P<first>{_WORD})(?:[ -](?P<second>{_WORD}))?(?:[- ]hand)?"
    r"(?:[- ](?:corner|side|part|half|third|area|region|portion|edge|zone|quadrant|section|margin))?"
    rf"{_FRAME}{_END}"
)
# "Brighter on the left" and "ends at the top" speak of a place within the region.
_WITHIN = re.compile(
    r"(?:\b\w+est|\b(?:dark|bright|light|wid|thick|thinn|narrow|faint|sharp|strong|weak|dens|deep|redd|green"
    r"|yellow|blu|rough|smooth|clear|larg|small)er|\b(?:sharp|blurred|faint|dense|thick|wide|thin|narrow|rounded|than))\s*$"
    r"|\b(?:starts?|begins?|ends?|opens?|points|tapers?|fades?|widens?|narrows|curves?|bends?|branches)\b"
)
_HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def _judge_place(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    stated = _stated_cells(match["first"], match["second"])
    if not stated or _WITHIN.search(match.string[: match.start()]):
        return None
    frame, place, names = _grid(match, facts)
    measured = f"{place} of the {frame}"
    if not names:
        return f"spread across the {frame}", ClaimStatus.PARTLY
    cells = {divmod(PLACES.index(name), 3) for name in (place, *names)}
    outermost = frame == facts.frame and facts.radial_zone == "rim"
    gap = min(abs(r - q) + abs(c - d) for (r, c), (q, d) in product(stated, cells))
    if gap == 0:
        status = ClaimStatus.SUPPORTED
    elif gap == 1 or ((1, 1) in stated | cells and not outermost and gap == 2):
        status = ClaimStatus.PARTLY  # a neighbouring cell, or the inner end of a corner cell
    else:
        status = ClaimStatus.CONTRADICTED
    if match["part"] and facts.frame != "part":  # the part could not be told from the background
        return None if status is ClaimStatus.CONTRADICTED else (measured, ClaimStatus.PARTLY)
    return measured, status


def _grid(match: re.Match[str], facts: RegionFacts) -> tuple[str, str, tuple[str, ...]]:
    """Frame, place and cells that the words refer to: those of the image only where they say so."""
    if match["image"]:
        return "image", facts.image_place, facts.image_cells
    return facts.frame, facts.place, facts.cells


def _stated_cells(first: str, second: str | None) -> set[tuple[int, int]]:
    """Cells (row, column) that the words stand for; none where they exclude one another."""
    words = [word for word in (first, second) if word is not None]
    rows = {_ROWS[word] for word in words if word in _ROWS}
    columns = {_COLUMNS[word] for word in words if word in _COLUMNS}
    if len(rows) > 1 or len(columns) > 1:
        return set()
    unsaid = {1} if any(re.fullmatch(_MIDDLE, word) for word in words) else {0, 1, 2}
    return set(product(rows or unsaid, columns or unsaid))


def _judge_clock(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    word = match["hour"]
    hour = int(word) if word.isdigit() else 1 + _HOURS.index(word)
    if not 1 <= hour <= 12:
        return None
    if facts.clock is None:
        central = facts.radial_zone == "centre"
        return ("within the central zone", ClaimStatus.CONTRADICTED) if central else None
    gap = min((hour - facts.clock) % 12, (facts.clock - hour) % 12)
    status = (ClaimStatus.SUPPORTED, ClaimStatus.PARTLY, ClaimStatus.CONTRADICTED)[min(gap, 2)]
    return f"{facts.clock} o'clock", status


def _judge_rim(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    if facts.frame != "part":
        return None
    gap = len(RADIAL_ZONES) - 1 - RADIAL_ZONES.index(facts.radial_zone)
    status = (ClaimStatus.SUPPORTED, ClaimStatus.PARTLY, ClaimStatus.CONTRADICTED)[gap]
    return f"{facts.radial_zone} zone", status


def _judge_spread(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    frame, _, cells = _grid(match, facts)
    if not cells:
        return f"spread across the {frame}", ClaimStatus.SUPPORTED
    return ", ".join(cells), ClaimStatus.PARTLY if len(cells) > 2 else ClaimStatus.CONTRADICTED


def _judge_edge(match: re.Match[str], facts: RegionFacts) -> Judgement:
    if facts.touches_edge:
        return "touches the image edge", ClaimStatus.SUPPORTED
    return "does not touch the image edge", ClaimStatus.CONTRADICTED


READERS = (
    Reader("place", _PLACE, _judge_place),
    Reader(
        "clock",
        re.compile(rf"\b(?P<hour>\d{{1,2}}|{'|'.join(_HOURS)})[ -]?o'?clock\b(?:[ -](?:position|direction))?"),
        _judge_clock,
    ),
    Reader(
        "radial zone",
        re.compile(
            rf"\b(?:near|at|along|close to|on) (?:the|its) rim\b(?: of the {PART_NOUN}\b)?(?! of| \w+ of){_END}"
        ),
        _judge_rim,
    ),
    Reader(
        "place",
        re.compile(
            r"\b(?:spreads?|spread out|distributed|extends|stretches) (?:across|over|all over) the (?:whole |entire )?"
            rf"(?:(?P<part>{PART_NOUN})|(?P<image>{IMAGE_NOUN}))\b(?!['\w-])"
        ),
        _judge_spread,
    ),
    Reader(
        "edge contact",
        re.compile(
            r"\b(?:touch(?:es|ing)?|reach(?:es|ing)?|meets?|abuts|extends? (?:up )?to|cut(?: off)? (?:by|at)"
            r"|in contact with) the "
            rf"(?:(?:edge|border|boundary)s? of the {IMAGE_NOUN}|{IMAGE_NOUN}(?:'s)? (?:edge|border|boundary))\b"
        ),
        _judge_edge,
    ),
)
