"""Plain sentences from measured facts. No cause, defect type or severity is ever named.

The wording varies from region to region, but the same region always reads the same.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

from explainvad.explanation.colour import NO_BASELINE, RING, SAME_BRIGHTNESS
from explainvad.types import InspectionImage, Region, RegionFacts


class MeasuredDescriber:
    """Writes two to four sentences a region from its facts alone (types.Describer)."""

    author = "measured text, no language model"

    def describe(self, image: InspectionImage, region: Region, facts: RegionFacts) -> tuple[str, ...]:
        """Return sentences on place, size, form (where there is something to say) and colour."""
        variant = zlib.crc32(f"{image.sha256}:{region.region_id}".encode())
        sentences = (
            _place(facts, variant % 3),
            _size(facts, variant // 3 % 2),
            _form(facts),
            _colour(facts),
        )
        return tuple(sentence for sentence in sentences if sentence)


def _place(facts: RegionFacts, variant: int) -> str:
    region = f"{_article(facts.shape)} {facts.shape} region"
    if not facts.cells:  # no cell holds enough of it to be named
        where = f"spreads across the {facts.frame}"
        return f"The region is {facts.shape} and {where}." if variant == 2 else f"{_capital(region)} {where}."
    where = f"in the {facts.place} of the {facts.frame}"
    if facts.clock is not None:
        where += f", at about {facts.clock} o'clock"
    if facts.radial_zone == "rim" and facts.frame == "part":
        where += " near the rim"
    others = _join([f"the {cell}" for cell in facts.cells if cell != facts.place])
    if variant == 0:
        reach = f", and reaches into {others}" if others else ""
        return f"{_capital(region)} lies {where}{reach}."
    if variant == 1:
        reach = f", which reaches into {others}" if others else ""
        return f"{_capital(where)}, there is {region}{reach}."
    reach = f"; it also reaches into {others}" if others else ""
    return f"The region is {facts.shape} and lies {where}{reach}."


def _size(facts: RegionFacts, variant: int) -> str:
    length, width = _pixels(facts.length_px), _pixels(facts.width_px)
    text = ("It measures {} × {} px", "It is {} px long and {} px wide")[variant].format(length, width)
    if facts.length_mm is not None and facts.width_mm is not None:
        text += f" ({_millimetres(facts.length_mm)} × {_millimetres(facts.width_mm)} mm)"
    return f"{text} and covers {_percent(facts.area_share)} of the {facts.frame}."


def _form(facts: RegionFacts) -> str | None:
    predicates = []
    if facts.orientation_deg is not None:
        angle = round(facts.orientation_deg) % 180
        level = {0: "horizontally", 90: "vertically"}
        predicates.append(f"runs {level.get(angle, f'at {angle}° counter-clockwise from the horizontal')}")
    if facts.holes:
        predicates.append("encloses one hole" if facts.holes == 1 else f"encloses {facts.holes} holes")
    if facts.touches_edge:
        predicates.append("touches the edge of the image")
    return f"It {_join(predicates)}." if predicates else None


def _colour(facts: RegionFacts) -> str:
    if facts.baseline == NO_BASELINE:
        return "It leaves no normal surroundings to compare its brightness and colour with."
    baseline = "its surroundings" if facts.baseline == RING else "the reference image"
    same = facts.brightness == SAME_BRIGHTNESS
    numbers = f"ΔE00 {_signed(facts.delta_e)}, noise {_signed(facts.noise_delta_e)}"
    if same and facts.colour is None:
        return f"It is not measurably different from {baseline} in brightness or colour ({numbers})."
    if facts.colour is not None:
        numbers = f"Δa* {_signed(facts.delta_a)}, Δb* {_signed(facts.delta_b)}, {numbers}"
    numbers = f"ΔL* {_signed(facts.delta_l)}, {numbers}"
    if same:
        return f"It is {facts.colour} than {baseline}, but not measurably different in brightness ({numbers})."
    words = [facts.brightness, *([] if facts.colour is None else facts.colour.split(" and "))]
    return f"It is {_join(words)} than {baseline} ({numbers})."


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _join(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _pixels(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _millimetres(value: float) -> str:
    """Three digits, at least two of them decimals where below 10; two digits where below 0.1."""
    if value >= 0.1:
        return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
    return f"{value:.{_decimals(value)}f}"


def _percent(share: float) -> str:
    percent = 100 * share
    if percent < 0.01:
        return "less than 0.01 %"
    return f"{percent:.{_decimals(percent) if percent < 1 else 1 if percent < 10 else 0}f} %"


def _decimals(value: float) -> int:
    """Decimals that show two significant digits of a value in (0, 1)."""
    return 1 - math.floor(math.log10(value))


def _signed(value: float) -> str:
    """One decimal, with a true minus sign, never "-0.0"."""
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")
