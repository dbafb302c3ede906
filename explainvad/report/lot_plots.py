"""Vector graphics of the lot statement and the model card: the control chart of lots, the power of detection."""

from __future__ import annotations

import math

from jinja2 import Environment

from explainvad.report.wording import count, elide, number, percent
from explainvad.types import ChartPoint, ControlChart, DetectionPower

_LEFT, _RIGHT, _TOP = 46.0, 438.0, 12.0
_CHART_BOTTOM, _POWER_BOTTOM = 112.0, 104.0
LOTS_SHOWN = 40  # at most, the latest
_NAME = 12  # characters of a lot's name
_CHARACTER, _GAP = 4.4, 6.0  # svg units: of a name's width, and between names


def control_chart(environment: Environment, chart: ControlChart) -> bytes:
    """Draw the latest lots' shares of flagged images between their control limits, the present lot last."""
    shown = chart.points[-LOTS_SHOWN:]
    names = [elide(p.lot_id, _NAME) for p in shown]
    step = (_RIGHT - _LEFT) / len(shown)
    every = math.ceil((_CHARACTER * max(map(len, names)) + _GAP) / step)
    highest = max(chart.centre, *(max(p.upper, _share(p)) for p in shown)) * 1.05 or 1.0

    def y(share: float) -> float:
        return round(_CHART_BOTTOM - share / highest * (_CHART_BOTTOM - _TOP), 2)

    points = [
        {
            "x": round(_LEFT + step * (i + 0.5), 2),
            "y": y(_share(p)),
            "lower": y(p.lower),
            "upper": y(p.upper),
            "outside": p.outside,
            "label": name if (len(shown) - 1 - i) % every == 0 else "",
        }
        for i, (p, name) in enumerate(zip(shown, names, strict=True))
    ]
    svg = environment.get_template("control_chart.svg").render(
        points=points,
        step=round(step, 2),
        ticks=[(y(share), percent(share)) for share in _round_steps(highest)],
        centre=y(chart.centre),
        centre_text=percent(chart.centre),
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_CHART_BOTTOM,
    )
    return svg.encode()


def chart_words(chart: ControlChart) -> str:
    """What the control chart shows, for who cannot see it."""
    shown, present = chart.points[-LOTS_SHOWN:], chart.points[-1]
    earlier = "" if len(shown) == len(chart.points) else f", the latest of {len(chart.points):,}"
    return (
        f"Control chart of {count(len(shown), 'lot')}{earlier}: the present lot, {percent(_share(present))} flagged, "
        f"is {'outside' if present.outside else 'inside'} its control limits {percent(present.lower)} to "
        f"{percent(present.upper)}; {sum(p.outside for p in shown)} of the lots shown lie outside theirs."
    )


def _share(point: ChartPoint) -> float:
    return point.n_flagged / point.n_inspected


def power_curve(environment: Environment, power: DetectionPower) -> bytes:
    """Draw the probability of detection over defect size with its band; ``power.curve`` must not be empty."""
    sizes = [size for size, *_ in power.curve]
    low, high = math.log(min(sizes)), math.log(max(sizes))

    def x(size: float) -> float:
        return round(_LEFT + (math.log(size) - low) / (high - low) * (_RIGHT - _LEFT), 2)

    def y(p: float) -> float:
        return round(_POWER_BOTTOM - p * (_POWER_BOTTOM - _TOP), 2)

    upper = [f"{x(size)} {y(top)}" for size, _, _, top in power.curve]
    lower = [f"{x(size)} {y(bottom)}" for size, _, bottom, _ in reversed(power.curve)]
    marks = [("a90", power.a90), ("a90/95", power.a90_95)]
    svg = environment.get_template("power_curve.svg").render(
        band="M" + "L".join([*upper, *lower]) + "z",
        line="M" + "L".join(f"{x(size)} {y(p)}" for size, p, _, _ in power.curve),
        x_ticks=[(x(size), f"{size:g}") for size in _round_sizes(min(sizes), max(sizes))],
        y_ticks=[(y(p), percent(p)) for p in (0, 0.25, 0.5, 0.75, 0.9, 1)],
        marks=[(x(size), f"{name} = {number(size)} px") for name, size in marks if size is not None],
        kind=power.kind,
        level=f"{power.level:g}",
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_POWER_BOTTOM,
    )
    return svg.encode()


def power_words(power: DetectionPower) -> str:
    """From which size defects of this kind are found nine times out of ten."""
    if not power.curve:
        return (
            "From which size they are found nine times out of ten is not determined: there are too few found or "
            "missed ones, or their sizes do not overlap"
        )
    a90 = "at a size outside those seen" if power.a90 is None else f"from {number(power.a90)} px"
    a90_95 = "not determined" if power.a90_95 is None else f"from {number(power.a90_95)} px"
    return f"Found nine times out of ten: {a90}; with 95 % confidence: {a90_95}"


def _round_sizes(low: float, high: float) -> list[float]:
    """Round sizes from ``low`` to ``high``: one or two digits, as few as leave three of them."""
    for steps in ((1, 2, 5), range(1, 10), [m / 10 for m in range(10, 100)]):
        sizes = [m * 10.0**e for e in range(-1, 5) for m in steps if low <= m * 10.0**e <= high]
        if len(sizes) >= 3:
            break
    return sizes


def _round_steps(highest: float) -> list[float]:
    """Up to five round shares from 0 to ``highest``."""
    step = next(m * 10.0**e for e in range(-5, 1) for m in (1, 2, 5) if highest / (m * 10.0**e) <= 5)
    return [step * i for i in range(int(highest / step) + 1)]
