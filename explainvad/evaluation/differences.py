"""What one scorer has over another on the same images, as an interval and in words that claim no more than it shows."""

from __future__ import annotations

from typing import Literal

from explainvad.evaluation.metrics.resampling import Measured, Resampling
from explainvad.types import Interval

Direction = Literal["higher", "lower", "not shown"]
_WORDS: dict[Direction, str] = {
    "higher": "the former finds more",
    "lower": "the former finds less",
    "not shown": "no difference is shown",
}


def interval_of(measured: Measured | None) -> Interval | None:
    """Of a metric; None where it is not defined, or was not resampled."""
    if measured is None or measured.lower is None or measured.upper is None or measured.confidence is None:
        return None
    return Interval(measured.estimate, measured.lower, measured.upper, measured.confidence)


def paired_difference(one: Measured | None, two: Measured | None, how: Resampling) -> Interval | None:
    """What ``one`` has over ``two``, both measured ``how`` on the same images; None where either is not defined."""
    if one is None or two is None or one.resampled is None or two.resampled is None:
        return None
    return interval_of(how.measured(one.estimate - two.estimate, one.resampled - two.resampled))


def compared(
    what: str, one: tuple[str, Interval | None], two: tuple[str, Interval | None], difference: Interval | None
) -> str:
    """A sentence on two arms by name, with words that claim no more than the interval of their difference shows."""
    (arm, first), (other, second) = one, two
    return (
        f"{what}: {arm} {said(first)}, {other} {said(second)}, a difference of {said(difference, signed=True)}: "
        f"**{_WORDS[direction(difference)]}**."
    )


def direction(difference: Interval | None) -> Direction:
    """Whether a difference is shown to be above or below zero: its whole interval lies there."""
    if difference is None or difference.lower <= 0 <= difference.upper:
        return "not shown"
    return "higher" if difference.lower > 0 else "lower"


def said(interval: Interval | None, signed: bool = False) -> str:
    """An interval in a sentence; ``signed`` for a difference."""
    if interval is None:
        return "not defined"
    style = "+.3f" if signed else ".2f"
    return f"{interval.estimate:{style}} [{interval.lower:{style}}, {interval.upper:{style}}]"
