"""Vector graphics of the lot statement and the model card: the control chart of lots, the power of detection."""

from __future__ import annotations

import math

from jinja2 import Environment

from explainvad.report.wording import elide, number, percent
from explainvad.types import ControlChart, DetectionPower

_LEFT, _RIGHT, _TOP = 46.0, 438.0, 12.0
_CHART_BOTTOM, _POWER_BOTTOM = 112.0, 118.0
_LOTS = 40  # shown at most, the latest
_LABELLED = 12  # lots that have room for their names


def control_chart(environment: Environment, chart: ControlChart) -> bytes:
    """Draw the latest lots' shares of flagged images between their control limits, the present lot last."""
    shown = chart.points[-_LOTS:]
    step = (_RIGHT - _LEFT) / len(shown)
    highest = max(max(p.upper, p.n_flagged / max(p.n_inspected, 1)) for p in shown) * 1.05 or 1.0

    def y(share: float) -> float:
        return round(_CHART_BOTTOM - share / highest * (_CHART_BOTTOM - _TOP), 2)

    every = -(-len(shown) // _LABELLED)
    points = [
        {
            "x": round(_LEFT + step * (i + 0.5), 2),
            "y": y(p.n_flagged / max(p.n_inspected, 1)),
            "lower": y(p.lower),
            "upper": y(p.upper),
            "outside": p.outside,
            "label": elide(p.lot_id, 12) if (len(shown) - 1 - i) % every == 0 else "",
        }
        for i, p in enumerate(shown)
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
    round_sizes = [m * 10.0**e for e in range(5) for m in (1, 2, 5)]
    marks = [("a90", power.a90), ("a90/95", power.a90_95)]
    svg = environment.get_template("power_curve.svg").render(
        band="M" + "L".join([*upper, *lower]) + "z",
        line="M" + "L".join(f"{x(size)} {y(p)}" for size, p, _, _ in power.curve),
        x_ticks=[(x(size), f"{size:g}") for size in round_sizes if low <= math.log(size) <= high],
        y_ticks=[(y(p), percent(p)) for p in (0, 0.25, 0.5, 0.75, 0.9, 1)],
        marks=[(x(size), f"{name} = {number(size)} px") for name, size in marks if size is not None],
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_POWER_BOTTOM,
    )
    return svg.encode()


def _round_steps(highest: float) -> list[float]:
    """Up to five round shares from 0 to ``highest``."""
    step = next(m * 10.0**e for e in range(-5, 1) for m in (1, 2, 5) if highest / (m * 10.0**e) <= 5)
    return [step * i for i in range(int(highest / step) + 1)]
