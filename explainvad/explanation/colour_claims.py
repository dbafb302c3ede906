"""Claims on brightness and colour relative to the baseline, and on the numbers behind them."""

from __future__ import annotations

import re

from explainvad.explanation.bands import BANDS
from explainvad.explanation.colour import BRIGHTER, DARKER, NO_BASELINE, RING, SAME_BRIGHTNESS
from explainvad.explanation.reading import NUMBER, REGION_NOUN, Judgement, Reader, judge_number
from explainvad.types import ClaimStatus, RegionFacts

_SUPPORTED, _PARTLY, _CONTRADICTED = ClaimStatus.SUPPORTED, ClaimStatus.PARTLY, ClaimStatus.CONTRADICTED

_BRIGHTNESS = {
    "darker": DARKER,
    "dimmer": DARKER,
    "less bright": DARKER,
    "brighter": BRIGHTER,
    "lighter": BRIGHTER,
    "less dark": BRIGHTER,
    "dark": DARKER,
    "bright": BRIGHTER,
}
_COLOUR = {
    **dict.fromkeys(("redder", "more red", "reddish"), "redder"),
    **dict.fromkeys(("greener", "more green", "greenish"), "greener"),
    **dict.fromkeys(("yellower", "more yellow", "yellowish"), "yellower"),
    **dict.fromkeys(("bluer", "more blue", "bluish"), "bluer"),
}
_COMPARATIVE = (
    r"(?:darker|dimmer|less bright|brighter|lighter|less dark|redder|greener|yellower|bluer"
    r"|more (?:red|green|yellow|blue))"
)
_THAN = (
    rf"(?:(?:,|,? and| or)\s+{_COMPARATIVE})*(?:\s+in (?:colou?r|tone|hue|brightness))?"
    r"(?:\s+than\s+(?P<target>(?:(?!\s+(?:and|or|but|in|at|on|with)\b)[^,.;()!?])*))?"
)
# "Darker at its centre" and "a darker core" compare places within the region.
_ELSEWHERE = (
    r"(?!\s+(?:at|on|near|towards?|along|inside|within|side|part|half|core|cent(?:re|er)|middle|interior|outline"
    r"|border|rim|edges?|halo|tail|tip|ends?|in (?!colou?r|tone|hue|brightness))\b)"
)
_BE = r"\b(?:is|isn't|appears|looks|seems)\s+(?:[a-z-]+(?:,| and| but)?\s+){0,2}?"
_STOP = r"(?=\s*(?:$|[.,;()])|\s+(?:and|or|but)\b)"
_RING_WORDS = re.compile(
    r"(?:its|the|their)?\s*(?:immediate |direct |normal |local |nearby )?(?:surroundings?|neighbou?rhood"
    r"|surrounding (?:area|ring|surface|material|region|pixels)|area around it)\s*$"
)
_REFERENCE_WORDS = re.compile(r"(?:the|its)?\s*(?:aligned |normal |nominal )?reference(?: image)?\s*$")


def _comparable(target: str | None, facts: RegionFacts) -> bool:
    """Whether the stated object of comparison is the one that was measured against."""
    if facts.baseline == NO_BASELINE:
        return False
    if target is None:
        return True
    words = _RING_WORDS if facts.baseline == RING else _REFERENCE_WORDS
    return words.match(target.strip()) is not None


def _judge_brightness(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    if not _comparable(match.groupdict().get("target"), facts):
        return None
    stated = _BRIGHTNESS[match["word"]]
    if match["word"] in ("dark", "bright") and facts.brightness == SAME_BRIGHTNESS:
        return None  # a dark mark on a dark part is no comparison
    measured = f"{facts.brightness}, ΔL* {facts.delta_l:.1f}"
    return measured, _SUPPORTED if facts.brightness == stated else _CONTRADICTED


def _judge_colour(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    if not _comparable(match.groupdict().get("target"), facts):
        return None
    if match["word"].endswith("ish") and facts.colour is None:
        return None  # a reddish mark on a reddish part is no comparison
    stated = _COLOUR[match["word"]]
    toward = {"redder": facts.delta_a, "greener": -facts.delta_a, "yellower": facts.delta_b, "bluer": -facts.delta_b}
    status = _CONTRADICTED
    if facts.colour is not None and stated in facts.colour:
        status = _SUPPORTED
    elif facts.colour is not None and toward[stated] > BANDS.just_noticeable:
        status = _PARTLY
    return _measured_colour(facts), status


def _judge_same(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    if not _comparable(match["target"], facts):
        return None
    stated = match["property"]
    differs = []
    if "brightness" in stated and facts.brightness != SAME_BRIGHTNESS:
        differs.append(facts.brightness)
    if "col" in stated and facts.colour is not None:
        differs.append(facts.colour)
    if differs:
        return " and ".join(differs), _CONTRADICTED
    return f"no measurable difference, ΔE00 {facts.delta_e:.1f}", _SUPPORTED


def _judge_no_baseline(match: re.Match[str], facts: RegionFacts) -> Judgement:
    return facts.baseline, _SUPPORTED if facts.baseline == NO_BASELINE else _CONTRADICTED


def _judge_delta(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    if facts.baseline == NO_BASELINE:
        return None
    axis = match["axis"]
    deltas = {"l": facts.delta_l, "a": facts.delta_a, "b": facts.delta_b, "e": facts.delta_e}
    measured, stated = deltas[axis], match["value"]
    label = "ΔE00" if axis == "e" else f"Δ{axis.upper() if axis == 'l' else axis}*"
    sign = -1 if stated.startswith("-") else 1
    return f"{label} {measured:.1f}", judge_number(match, stated.lstrip("-+"), sign * measured)


def _judge_noise(match: re.Match[str], facts: RegionFacts) -> Judgement | None:
    if facts.baseline == NO_BASELINE:
        return None
    return f"noise {facts.noise_delta_e:.1f}", judge_number(match, match["value"], facts.noise_delta_e)


def _measured_colour(facts: RegionFacts) -> str:
    words = facts.colour or "not measurably different in colour"
    return f"{words}, Δa* {facts.delta_a:.1f}, Δb* {facts.delta_b:.1f}"


_BRIGHTER_WORD = rf"(?P<word>{'|'.join(w for w in _BRIGHTNESS if w not in ('dark', 'bright'))})"
_COLOUR_WORD = rf"(?P<word>{'|'.join(w for w in _COLOUR if not w.endswith('ish'))})"
_COLOURED = rf"(?P<word>{'|'.join(w for w in _COLOUR if w.endswith('ish'))})"
_BEFORE_NOUN = rf"(?=,?\s+(?:(?:and\s+)?[\w'-]+,?\s+){{0,3}}?{REGION_NOUN}\b(?!\s+(?:in|inside|within|on|near) it\b))"
_PROPERTY = r"in (?P<property>(?:brightness|colou?r)(?: (?:or|and) (?:brightness|colou?r))?)\b"

READERS = (
    Reader("brightness", re.compile(rf"\b{_BRIGHTER_WORD}\b{_ELSEWHERE}(?={_THAN})"), _judge_brightness),
    Reader("brightness", re.compile(rf"\b(?P<word>dark|bright){_BEFORE_NOUN}"), _judge_brightness),
    Reader("brightness", re.compile(rf"{_BE}(?P<word>dark|bright){_STOP}"), _judge_brightness),
    Reader("colour", re.compile(rf"\b{_COLOUR_WORD}\b{_ELSEWHERE}(?={_THAN})"), _judge_colour),
    Reader("colour", re.compile(rf"\b{_COLOURED}{_BEFORE_NOUN}"), _judge_colour),
    Reader("colour", re.compile(rf"{_BE}{_COLOURED}{_STOP}"), _judge_colour),
    Reader(
        "colour difference",
        re.compile(
            r"\b(?:not (?:measurably|noticeably|visibly|significantly) different|indistinguishable"
            r"|no (?:measurable|noticeable|visible|significant) difference)"
            rf"(?: (?:from|to) (?P<target>.*?))? {_PROPERTY}"
        ),
        _judge_same,
    ),
    Reader("baseline", re.compile(r"\b(?:leaves|has) no normal surroundings\b(?: to compare)?"), _judge_no_baseline),
    Reader(
        "colour number",
        re.compile(rf"(?:\bdelta[ -]?|δ ?)(?P<axis>[labe])(?:\*|00|2000)?\s*(?:=|of|is|:)?\s*(?P<value>[+-]?{NUMBER})"),
        _judge_delta,
    ),
    Reader(
        "colour number",
        re.compile(rf"\bnoise(?: floor| level)?\s*(?:=|of|is|:)?\s*(?P<value>{NUMBER})"),
        _judge_noise,
    ),
)
