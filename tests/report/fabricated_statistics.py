"""What a fabricated report says of a lot as a whole: drift, control chart, audit, power of detection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from explainvad.types import AuditResult, ChartPoint, ControlChart, DetectionPower, Drift, DriftStream

CALM = Drift(
    streams=(
        DriftStream("scores", log10_wealth=-0.62, log10_peak=0.377, delta=0.005, alarm=None),
        DriftStream("acquisition", log10_wealth=0.0607, log10_peak=0.593, delta=0.005, alarm=None),
    ),
    n_lots=11,
    n_images=1302,
)

AUDIT = AuditResult(
    n_population=21,
    sample=tuple(f"img-{k:05d}" for k in (1, 3, 6, 7, 12, 13, 17, 24)),
    defective=("img-00012",),
    confidence=0.95,
    limit=0.1,
    upper_count=8,
    auditor="K. Lindqvist",
    n_draws=1,
)


def drifted(alarm: str = "lot 2026-0341, img-00107") -> Drift:
    """The acquisition stream has raised its alarm in an earlier lot."""
    late = DriftStream("acquisition", log10_wealth=1.914, log10_peak=6.3, delta=0.005, alarm=alarm)
    return Drift((CALM.streams[0], late), CALM.n_lots, CALM.n_images)


def chart_of(n_flagged: Sequence[int], n_inspected: int = 120, outside: Sequence[int] = ()) -> ControlChart:
    """A chart of lots of one size; limits are roughly right, and ``outside`` lists the lots that lie outside."""
    points = [
        ChartPoint(f"2026-{331 + k:04d}", n_inspected, x, lower=2 / n_inspected, upper=20 / n_inspected, outside=False)
        for k, x in enumerate(n_flagged)
    ]
    for k in outside:
        p = points[k]
        points[k] = ChartPoint(p.lot_id, p.n_inspected, p.n_flagged, p.lower, p.upper, outside=True)
    return ControlChart(sum(n_flagged[:-1]) / (n_inspected * (len(n_flagged) - 1)), tuple(points))


CHART = chart_of([9, 12, 7, 10, 11, 8, 27, 9, 13, 10, 6, 12], outside=[6])


def power_of(kind: str, curve: bool = True) -> DetectionPower:
    """Forty defects of 4 to 60 px; without a curve where all but one were found."""
    if not curve:
        return DetectionPower(40, 39, 0.05, (), None, None, kind)
    size = np.geomspace(4, 60, 50)
    at = np.log(size / 12) * 2.6
    points = zip(size.tolist(), expit(at).tolist(), expit(at - 0.9).tolist(), expit(at + 0.8).tolist(), strict=True)
    return DetectionPower(40, 27, 0.05, tuple(points), a90=27.9, a90_95=39.5, kind=kind)
