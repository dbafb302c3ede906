"""Vector graphics: the score plot and the colour bar. Geometry is computed here, templates draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment

from explainvad.report.figures import HeatScale, colour_stops
from explainvad.report.wording import number
from explainvad.types import Decision, LotReport

_LABELLED = 14  # with more flagged images than that, their numbers would cover one another


@dataclass(frozen=True, slots=True)
class _ScoreAxis:
    """Scores to svg units: even up to the decision threshold, logarithmic far above it (inverse sinh).

    A foreign part may score a hundred decades; near the threshold tenths of a decade must stay visible.
    """

    unit: float
    low: float
    high: float
    bottom: float
    top: float

    def __call__(self, score: float) -> float:
        low, high, at = (np.arcsinh(v / self.unit) for v in (self.low, self.high, score))
        return round(float(self.bottom + (at - low) / (high - low) * (self.top - self.bottom)), 2)

    def score_at(self, share: float) -> float:
        """The score at a share in [0, 1] of the axis: the inverse of calling it."""
        low, high = np.arcsinh(self.low / self.unit), np.arcsinh(self.high / self.unit)
        return float(np.sinh(low + share * (high - low)) * self.unit)

    def ticks(self, gap: float = 13.0) -> list[tuple[float, str]]:
        """Return round scores as (position, text), at least ``gap`` svg units apart."""
        candidates = [m * 10.0**e for e in range(-2, 6) for m in (1, 2, 5)]
        chosen: list[tuple[float, str]] = []
        for score in sorted({0.0, *candidates, *(-v for v in candidates)}, key=abs):
            at = self(score)
            if self.low <= score <= self.high and all(abs(at - other) >= gap for other, _ in chosen):
                chosen.append((at, f"{score:g}".replace("-", "−")))
        return sorted(chosen, reverse=True)


def score_plot(environment: Environment, report: LotReport) -> bytes:
    """Draw every inspected image's fused score beside the distribution of the calibration scores.

    Both panels share the score axis (decades of surprise) and the decision threshold. Images stand in
    lot order; each decision has its own shape and colour, files not inspected are crosses on the axis.
    """
    calibration = report.model.calibration
    scores = [r.verdict.score for r in report.records if r.verdict is not None]
    values = [*scores, *calibration.scores, calibration.score_threshold]
    unit = max(abs(calibration.score_threshold), 1.0)
    low, high = min(values), max(values)
    y = _ScoreAxis(unit, low - 0.1 * unit, high + 0.1 * (high - low) + 0.1 * unit, 168, 20)
    step = 350 / (len(report.records) + 1)

    # Mark each image; a flagged one carries its number while numbers do not collide.
    flagged = sum(r.flagged for r in report.records)
    marks = [
        {
            "decision": record.decision.value,
            "x": round(150 + step * position, 2),
            "y": y(record.verdict.score) if record.verdict is not None else y.bottom,
            "label": str(position) if record.flagged and flagged <= _LABELLED else "",
        }
        for position, record in enumerate(report.records, 1)
    ]
    # Round marks need no shape of their own: one path holds them all, one dot a printed point.
    dots = sorted({(m["x"], m["y"]) for m in marks if m["decision"] == Decision.NOT_FLAGGED})
    svg = environment.get_template("score_plot.svg").render(
        bars=_histogram(calibration.scores, y),
        n_cal=calibration.n_cal,
        y_ticks=y.ticks(),
        x_ticks=[(round(150 + step * i, 2), str(i)) for i in _positions(len(report.records))],
        threshold=y(calibration.score_threshold),
        threshold_text=number(calibration.score_threshold),
        alpha=f"{calibration.alpha:g}",
        dots=dots,
        marks=[m for m in marks if m["decision"] != Decision.NOT_FLAGGED],
        present=[d.value for d in Decision if report.statistics.counts.get(d, 0)],
    )
    return svg.encode()


def _positions(n: int) -> list[int]:
    """Return up to nine round positions of a lot of ``n`` files."""
    step = next(m * 10**e for e in range(9) for m in (1, 2, 5) if n / (m * 10**e) <= 9)
    return list(range(step, n + 1, step))


def _histogram(scores: Sequence[float], y: _ScoreAxis, widest: float = 88.0) -> list[tuple[float, float, float]]:
    """Return bars (y, width, height) in svg units; bins have equal height on the score axis."""
    edges = [y.score_at(share) for share in np.linspace(0, 1, 41)]
    counts, _ = np.histogram(scores, bins=edges)
    longest = max(1, int(counts.max()))
    return [
        (y(hi), round(float(n) / longest * widest, 2), round(y(lo) - y(hi), 2))
        for n, lo, hi in zip(counts, edges[:-1], edges[1:], strict=True)
        if n
    ]


def colour_bar(environment: Environment, scale: HeatScale) -> bytes:
    """Draw the fixed scale of all heat maps, with the cluster and the pixel threshold marked."""
    width = 240.0
    svg = environment.get_template("colour_bar.svg").render(
        stops=list(enumerate(colour_stops(21))),
        width=width,
        cluster=round(scale.cluster / scale.top * width, 2),
        pixel=round(scale.pixel / scale.top * width, 2),
        cluster_text=number(scale.cluster),
        pixel_text=number(scale.pixel),
        top_text=number(scale.top),
    )
    return svg.encode()
