"""Vector graphics: the score plot and the colour bar. Geometry is computed here, templates draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment

from explainvad.report.figures import HeatScale, colour_stops
from explainvad.report.wording import number
from explainvad.types import Decision, LotReport

# The plot's frame in svg units; right of it stands the name of the threshold line, where no mark can meet it
_LEFT, _RIGHT, _TOP, _BOTTOM = 150.0, 438.0, 20.0, 150.0
_NUMBERED = 40  # with more flagged images than that, most numbers would find no room
_SMALL = (Decision.NOT_FLAGGED, Decision.ACCEPT)  # the many; all marks of a kind make one path
_STEPS = 80  # of the colour bar
_REACH_SMALL, _REACH = 2.4, 4.6  # of a mark from its centre


@dataclass(frozen=True, slots=True)
class _Mark:
    """One image in the plot: its place in svg units, and its number where it is flagged."""

    decision: Decision
    x: float
    y: float
    number: str


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
    y = _ScoreAxis(unit, low - 0.1 * unit, high + 0.1 * (high - low) + 0.1 * unit, _BOTTOM, _TOP)
    step = (_RIGHT - _LEFT) / (len(report.records) + 1)
    marks = [
        _Mark(
            decision=record.decision,
            x=round(_LEFT + step * position, 2),
            y=y(record.verdict.score) if record.verdict is not None else y.bottom,
            number=str(position) if record.flagged else "",
        )
        for position, record in enumerate(report.records, 1)
    ]
    threshold = y(calibration.score_threshold)
    svg = environment.get_template("score_plot.svg").render(
        bars=_histogram(calibration.scores, y),
        n_cal=calibration.n_cal,
        y_ticks=y.ticks(),
        x_ticks=[(round(_LEFT + step * i, 2), str(i)) for i in _positions(len(report.records))],
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_BOTTOM,
        threshold=threshold,
        threshold_name="largest threshold" if calibration.cells else "decision threshold",
        threshold_text=number(calibration.score_threshold),
        alpha=f"{calibration.alpha:g}",
        small={d.value: sorted({(m.x, m.y) for m in marks if m.decision is d}) for d in _SMALL},
        marks=[m for m in marks if m.decision not in _SMALL],
        numbers=_numbers(marks, threshold),
        present=[d.value for d in Decision if report.statistics.counts.get(d, 0)],
    )
    return svg.encode()


def _numbers(marks: Sequence[_Mark], threshold: float) -> list[tuple[float, float, str]]:
    """Place each flagged image's number beside its mark, as (x, y of the baseline, text) in svg units.

    A number without room right, left, above or below its mark is left out: nothing may cover a mark, the
    threshold line or another number.
    """
    numbered = [m for m in marks if m.number]
    if len(numbered) > _NUMBERED:
        return []
    reach = np.array([_REACH_SMALL if m.decision in _SMALL else _REACH for m in marks])[:, None]
    centres = np.array([(m.x, m.y) for m in marks]).reshape(-1, 2)
    taken = np.vstack([np.hstack([centres - reach, centres + reach]), [(_LEFT, threshold - 1, _RIGHT, threshold + 1)]])
    placed: list[tuple[float, float, str]] = []
    for m in numbered:
        width, height = 3.9 * len(m.number), 5.2
        corners = (
            (m.x + 5.4, m.y - height / 2),
            (m.x - 5.4 - width, m.y - height / 2),
            (m.x - width / 2, m.y - 5.4 - height),
            (m.x - width / 2, m.y + 5.4),
        )
        for x, y in corners:
            inside = x > _LEFT and x + width < _RIGHT and y > _TOP - 6 and y + height < _BOTTOM
            box = np.array((x, y, x + width, y + height))
            free = not np.any(np.all(taken[:, :2] < box[2:], axis=1) & np.all(box[:2] < taken[:, 2:], axis=1))
            if inside and free:
                placed.append((round(x, 2), round(y + height - 0.3, 2), m.number))
                taken = np.vstack([taken, box])
                break
    return placed


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
    cluster = round(scale.cluster / scale.top * width, 2)
    # Each step reaches to the end, under those that follow, so that no seam shows. A gradient would be placed on its
    # page, and drawn anew on each; steps of a millimetre look the same.
    starts = [(k * width / _STEPS, colour) for k, colour in enumerate(colour_stops(_STEPS))]
    steps = [(round(max(x, cluster), 2), colour) for x, colour in starts if x + width / _STEPS > cluster]
    svg = environment.get_template("colour_bar.svg").render(
        steps=steps,
        width=width,
        cluster=cluster,
        pixel=round(scale.pixel / scale.top * width, 2),
        cluster_text=number(scale.cluster),
        pixel_text=number(scale.pixel),
        top_text=number(scale.top),
    )
    return svg.encode()
