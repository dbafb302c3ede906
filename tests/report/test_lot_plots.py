"""Control chart and power curve: marks lie where their numbers say."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fabricated_statistics import CHART, chart_of, power_of
from fabricated_variants import with_statistics
from page_text import text_of

from explainvad.report.assets import template_environment
from explainvad.report.lot_plots import (
    LOTS_SHOWN,
    _round_sizes,
    chart_words,
    control_chart,
    power_curve,
    power_words,
)
from explainvad.report.render import ReportRenderer
from explainvad.types import ControlChart, DetectionPower, LotReport

LEFT, RIGHT, TOP, BOTTOM = 46.0, 438.0, 12.0, 112.0
_DIAMOND, _DOT = "l4 4l-4 4l-4 -4z", "h.01"


class Drawing:
    """An SVG's paths and texts, with the vertical axis read back from its ticks."""

    def __init__(self, svg: bytes) -> None:
        root = ElementTree.fromstring(svg)
        self.paths = [(e.get("d", ""), e) for e in root.iterfind(".//{*}path")]
        self.texts = [(e.text or "", e) for e in root.iterfind(".//{*}text")]
        self.ticks = {
            float(text.rstrip(" %")): float(e.get("y", "")) - 2.5
            for text, e in self.texts
            if e.get("text-anchor") == "end"
        }

    def share(self, y: float) -> float:
        """The share in per cent at a height, by the first and the last tick."""
        low, high = min(self.ticks), max(self.ticks)
        return low + (self.ticks[low] - y) / (self.ticks[low] - self.ticks[high]) * (high - low)

    def marks(self, shape: str) -> list[tuple[float, float]]:
        """Centres of the marks of one shape, from left to right."""
        found = [re.fullmatch(rf"M([\d.]+) (-?[\d.]+){re.escape(shape)}", d) for d, _ in self.paths]
        above = 4 if shape == _DIAMOND else 0
        return sorted((float(m[1]), float(m[2]) + above) for m in found if m)

    def path(self, **attributes: str) -> str:
        """The only path with these attributes."""
        (d,) = [d for d, e in self.paths if all(e.get(k.replace("_", "-")) == v for k, v in attributes.items())]
        return d

    def labels(self, y: float) -> list[tuple[float, str]]:
        """Names on the axis whose baseline lies at ``y``."""
        return [(float(e.get("x", "")), t) for t, e in self.texts if e.get("y") == str(y)]


def _chart(chart: ControlChart) -> Drawing:
    return Drawing(control_chart(template_environment(), chart))


def _power(power: DetectionPower) -> Drawing:
    return Drawing(power_curve(template_environment(), power))


def test_lots_stand_in_order_at_their_shares() -> None:
    drawing = _chart(CHART)
    marks = sorted(drawing.marks(_DOT) + drawing.marks(_DIAMOND))
    assert len(marks) == 12
    gaps = {round(b - a, 1) for (a, _), (b, _) in pairwise(marks)}
    assert gaps == {32.6, 32.7} or gaps == {32.7}
    assert marks[0][0] > LEFT and marks[-1][0] < RIGHT
    for (_, y), point in zip(marks, CHART.points, strict=True):
        assert drawing.share(y) == pytest.approx(100 * point.n_flagged / 120, abs=0.02)


def test_lots_outside_are_diamonds_and_only_they() -> None:
    drawing = _chart(CHART)
    ((x, y),) = drawing.marks(_DIAMOND)
    assert (x - LEFT) / (RIGHT - LEFT) * 12 == pytest.approx(6.5, abs=0.01)
    assert drawing.share(y) == pytest.approx(22.5, abs=0.02)
    assert len(drawing.marks(_DOT)) == 11


def test_limits_lie_beside_their_lot() -> None:
    points = tuple(replace(p, lower=k / 200, upper=(20 + k) / 120) for k, p in enumerate(CHART.points))
    drawing = _chart(replace(CHART, points=points))
    pieces = re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", drawing.path(stroke="#7b8791"))
    assert len(pieces) == 24
    for k, point in enumerate(points):
        (x, upper, width), (other_x, lower, _) = pieces[2 * k : 2 * k + 2]
        assert x == other_x and float(x) == pytest.approx(LEFT + k * (RIGHT - LEFT) / 12, abs=0.02)
        assert float(width) == pytest.approx((RIGHT - LEFT) / 12, abs=0.01)
        assert drawing.share(float(upper)) == pytest.approx(100 * point.upper, abs=0.02)
        assert drawing.share(float(lower)) == pytest.approx(100 * point.lower, abs=0.02)


def test_mean_is_a_dashed_line_with_its_value() -> None:
    drawing = _chart(CHART)
    y = re.fullmatch(r"M46\.0 ([\d.]+)H438\.0", drawing.path(stroke_dasharray="4 2.4"))
    assert y and drawing.share(float(y[1])) == pytest.approx(100 * CHART.centre, abs=0.02)
    assert "mean 9.24 %" in [text for text, _ in drawing.texts]  # 122 of 11 x 120


@pytest.mark.parametrize("n", [2, 12, 25, 40, 57])
def test_names_thin_out_keep_apart_and_end_with_the_present_lot(n: int) -> None:
    chart = chart_of([8 + k % 5 for k in range(n)])
    drawing = _chart(chart)
    labels = drawing.labels(BOTTOM + 10.5)
    assert labels[-1][1] == chart.points[-1].lot_id
    assert all(b - a >= 4.4 * 9 for (a, _), (b, _) in pairwise(labels))
    assert len(labels) >= min(n, 2)
    shown = [p.lot_id for p in chart.points[-LOTS_SHOWN:]]
    step = (RIGHT - LEFT) / len(shown)
    assert all(shown[int((x - LEFT) / step)] == name for x, name in labels)


def test_short_names_all_find_room_and_long_ones_are_shortened() -> None:
    short = replace(CHART, points=tuple(replace(p, lot_id=str(k)) for k, p in enumerate(CHART.points)))
    assert [name for _, name in _chart(short).labels(BOTTOM + 10.5)] == [str(k) for k in range(12)]
    long = replace(CHART, points=tuple(replace(p, lot_id="lot-" * 20 + str(k)) for k, p in enumerate(CHART.points)))
    labels = [name for _, name in _chart(long).labels(BOTTOM + 10.5)]
    assert labels and all(len(name) == 12 and "…" in name for name in labels)


def test_only_the_latest_lots_are_drawn() -> None:
    chart = chart_of([10] * 3 + [11] * 54, outside=[0, 20, 56])
    drawing = _chart(chart)
    assert len(drawing.marks(_DOT)) + len(drawing.marks(_DIAMOND)) == LOTS_SHOWN == 40
    assert len(drawing.marks(_DIAMOND)) == 2  # the first lot is beyond the chart
    assert "40 lots, the latest of 57" in chart_words(chart) and "2 of the lots shown" in chart_words(chart)


def test_nothing_leaves_the_frame_and_ticks_are_round() -> None:
    full = chart_of([0, 120, 60])
    wide = replace(full, points=tuple(replace(p, lower=0.0, upper=1.0) for p in full.points))
    for chart in (CHART, wide, chart_of([0, 0, 0])):
        drawing = _chart(chart)
        heights = [y for _, y in drawing.marks(_DOT) + drawing.marks(_DIAMOND)]
        assert all(TOP <= y <= BOTTOM for y in heights)
        assert drawing.ticks[0] == BOTTOM and 3 <= len(drawing.ticks) <= 6


def test_chart_of_lots_without_any_flag_or_limit_can_be_drawn() -> None:
    chart = chart_of([0, 0])
    bare = ControlChart(0.0, tuple(replace(p, lower=0.0, upper=0.0) for p in chart.points))
    assert [y for _, y in _chart(bare).marks(_DOT)] == [BOTTOM, BOTTOM]


def test_alternative_text_tells_what_the_chart_shows(lot_report: LotReport, tmp_path: Path) -> None:
    words = chart_words(CHART)
    assert words.startswith("Control chart of 12 lots: the present lot, 10 % flagged, is inside its control limits")
    assert "limits 1.67 % to 16.7 %; 1 of the lots shown" in words
    assert "is outside its" in chart_words(chart_of([9, 9, 44], outside=[2]))
    ReportRenderer().render(with_statistics(lot_report, chart=chart_of([9] * 57)), tmp_path, ["html"])
    html = (tmp_path / "report.html").read_text("utf-8")
    assert 'alt="Control chart of 40 lots, the latest of 57:' in html
    assert "the latest 40 of 57 lots of this model" in text_of(html)


def test_power_curve_and_band_lie_at_their_probabilities() -> None:
    power = power_of("labelled")
    drawing = _power(power)
    line = [tuple(map(float, p.split())) for p in drawing.path(stroke_width="1.2")[1:].split("L")]
    assert len(line) == 50 and line[0][0] == LEFT and line[-1][0] == RIGHT
    assert all(b > a for (a, _), (b, _) in pairwise(line))
    for (_, y), (_, p, _, _) in zip(line, power.curve, strict=True):
        assert drawing.share(y) == pytest.approx(100 * p, abs=0.02)
    band = [tuple(map(float, p.split())) for p in drawing.path(fill_opacity=".16")[1:-1].split("L")]
    assert len(band) == 100
    for (_, y), (_, _, _, upper) in zip(band[:50], power.curve, strict=True):
        assert drawing.share(y) == pytest.approx(100 * upper, abs=0.02)
    for (_, y), (_, _, lower, _) in zip(band[50:], reversed(power.curve), strict=True):
        assert drawing.share(y) == pytest.approx(100 * lower, abs=0.02)


def test_marked_sizes_lie_on_the_logarithmic_axis() -> None:
    drawing = _power(power_of("labelled"))
    ticks = {text: x for x, text in drawing.labels(104.0 + 10.5)}
    assert list(ticks) == ["5", "10", "20", "50"]
    assert ticks["10"] - ticks["5"] == pytest.approx(ticks["20"] - ticks["10"], abs=0.02)
    marked = [re.fullmatch(r"M([\d.]+) 12\.0V104\.0", d) for d, e in drawing.paths if e.get("stroke-dasharray")]
    names = [text for text, _ in drawing.texts if text.startswith("a90")]
    assert names == ["a90 = 27.9 px", "a90/95 = 39.5 px"]
    # ln(27.9 / 20) and ln(39.5 / 20) against ln(50 / 20)
    for m, share in zip(marked, (0.36332, 0.74277), strict=True):
        assert m
        assert (float(m[1]) - ticks["20"]) / (ticks["50"] - ticks["20"]) == pytest.approx(share, abs=2e-3)


def test_sizes_that_are_not_determined_are_not_marked() -> None:
    power = replace(power_of("labelled"), a90_95=None)
    assert [t for t, _ in _power(power).texts if t.startswith("a90")] == ["a90 = 27.9 px"]
    assert power_words(power) == "Found nine times out of ten: from 27.9 px; with 95 % confidence: not determined"
    neither = replace(power, a90=None)
    assert not [t for t, _ in _power(neither).texts if t.startswith("a90")]
    assert "at a size outside those seen" in power_words(neither)
    assert "not determined" in power_words(power_of("labelled", curve=False))
    assert "px" not in power_words(power_of("labelled", curve=False))


def test_curve_of_synthetic_defects_says_so_in_the_picture() -> None:
    assert any("synthetic defect" in text for text, _ in _power(power_of("synthetic")).texts)
    assert not any("synthetic" in text for text, _ in _power(power_of("labelled")).texts)
    assert "P(p ≤ 0.1 | size)" in [t for t, _ in _power(replace(power_of("labelled"), level=0.1)).texts]


@pytest.mark.parametrize(
    ("low", "high", "sizes"),
    [(4, 60, [5, 10, 20, 50]), (21, 62, [30, 40, 50, 60]), (31, 34.5, [31, 32, 33, 34]), (0.5, 2.4, [0.5, 1, 2])],
)
def test_size_ticks_are_few_and_round(low: float, high: float, sizes: list[float]) -> None:
    assert _round_sizes(low, high) == pytest.approx(sizes)
