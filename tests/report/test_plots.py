"""The score plot and the colour bar."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fabricated_lot import Builder, quiet_lot, verdict_of
from fabricated_variants import cell_lot

from explainvad.report.assets import template_environment
from explainvad.report.figures import HeatScale
from explainvad.report.plots import _Mark, _numbers, _positions, _ScoreAxis, colour_bar, score_plot
from explainvad.types import Decision, LotReport


def test_score_axis_is_monotone_and_invertible() -> None:
    axis = _ScoreAxis(unit=1.4, low=-0.2, high=240, bottom=168, top=20)
    heights = [axis(s) for s in np.linspace(-0.2, 240, 200)]
    assert heights[0] == 168 and heights[-1] == 20
    assert all(a > b for a, b in pairwise(heights))
    assert axis(axis.score_at(0.37)) == pytest.approx(168 - 0.37 * 148, abs=0.01)


def test_ticks_are_round_and_keep_their_distance() -> None:
    ticks = _ScoreAxis(unit=1.4, low=-0.2, high=240, bottom=168, top=20).ticks()
    assert {"0", "10", "100"} <= {text for _, text in ticks}
    assert "−0" not in {text for _, text in ticks}
    assert all(a - b >= 13 for (a, _), (b, _) in pairwise(ticks))


def test_plot_marks_every_decision_with_its_own_shape(lot_report: LotReport) -> None:
    svg = score_plot(template_environment(), lot_report).decode()
    ElementTree.fromstring(svg)
    assert svg.count('fill="#b3261e"') == 4 + 1  # marks and legend
    assert svg.count('fill="#b26a00"') == 2 + 1
    assert svg.count("l4.8 4.8m0 -4.8l-4.8 4.8") == 3 + 1
    dots = re.search(r'<path d="((M[\d.]+ [\d.]+h\.01)+)"', svg)
    assert dots and dots[1].count("M") == 21
    assert ">decision threshold<" in svg and ">1.42 (p = 0.05)<" in svg
    assert {">5<", ">9<", ">15<", ">19<", ">22<", ">27<"} <= set(re.findall(r">\d+<", svg))


def test_rejected_marks_lie_above_the_threshold_line(lot_report: LotReport) -> None:
    svg = score_plot(template_environment(), lot_report).decode()
    threshold = float(re.search(r"M40 ([\d.]+)H138M150.0 [\d.]+H438.0\" stroke=\"#1a2026\"", svg)[1])  # type: ignore[index]
    tops = [float(y) for y in re.findall(r'<path d="M[\d.]+ ([\d.]+)l4 4l-4 4', svg)]
    assert all(y + 4 < threshold for y in tops[:4])


def test_name_of_the_threshold_stands_where_no_mark_can(lot_report: LotReport) -> None:
    svg = score_plot(template_environment(), lot_report).decode()
    starts = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="[\d.]+" fill="#1a2026">(?:decision|1\.42)', svg)]
    marks = [float(x) for x in re.findall(r'<path d="M([\d.]+) [\d.]+(?:l|h)', svg)]
    assert len(starts) == 2 and min(starts) > 438
    assert max(marks) < 438


def test_threshold_of_several_cells_is_named_the_largest(tmp_path: Path) -> None:
    svg = score_plot(template_environment(), cell_lot(tmp_path)).decode()
    assert ">largest threshold<" in svg and ">1.42 (p = 0.05)<" in svg and ">decision threshold<" not in svg


def test_numbers_cover_neither_marks_nor_each_other_nor_the_threshold() -> None:
    rng = np.random.default_rng(3)
    flagged = [_Mark(Decision.REJECT, 160 + 7 * k, float(y), str(k)) for k, y in enumerate(rng.uniform(60, 100, 30))]
    others = [_Mark(Decision.NOT_FLAGGED, float(x), 101.0, "") for x in range(152, 430, 3)]
    placed = _numbers([*flagged, *others], threshold=95.0)
    assert 10 <= len(placed) <= 30
    boxes = [(x, y - 4.9, x + 3.9 * len(text), y + 0.3) for x, y, text in placed]
    marks = [(m.x - 4, m.y - 4, m.x + 4, m.y + 4) for m in flagged] + [(m.x - 2, 99, m.x + 2, 103) for m in others]
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        assert not y0 < 95 < y1
        for a0, b0, a1, b1 in [*marks, *boxes[:k]]:
            assert x1 <= a0 or a1 <= x0 or y1 <= b0 or b1 <= y0


def test_number_without_any_room_is_left_out() -> None:
    crowd = [_Mark(Decision.NOT_FLAGGED, x, y, "") for x in range(180, 260, 4) for y in range(40, 140, 4)]
    assert _numbers([*crowd, _Mark(Decision.DEFER, 220, 90, "7")], threshold=30) == []
    assert _numbers([_Mark(Decision.DEFER, 220, 90, "7")], threshold=30) == [(225.4, 92.3, "7")]


def test_accepted_images_are_squares_in_one_path(tmp_path: Path) -> None:
    b = Builder(tmp_path)
    for k in range(5):
        b.inspected(f"{k}.png", verdict_of(Decision.ACCEPT, 0.2 + k / 10, 0.7))
    svg = score_plot(template_environment(), b.report()).decode()
    squares = re.search(r'<path d="((M[\d.]+ [\d.]+h4v4h-4z)+)" fill="#1d6b43"', svg)
    assert squares and squares[1].count("M") == 5


def test_plot_of_a_lot_without_any_inspected_image(tmp_path: Path) -> None:
    b = Builder(tmp_path)
    b.missed("a.png", "the file is empty")
    ElementTree.fromstring(score_plot(template_environment(), b.report()))


def test_equal_scores_still_give_an_axis(tmp_path: Path) -> None:
    report = quiet_lot(tmp_path)
    calibration = replace(report.model.calibration, scores=(1.0,), score_threshold=1.0)
    flat = replace(report, model=replace(report.model, calibration=calibration), records=())
    ElementTree.fromstring(score_plot(template_environment(), flat))


@pytest.mark.parametrize(("n", "expected"), [(0, []), (1, [1]), (9, list(range(1, 10))), (30, [5, 10, 15, 20, 25, 30])])
def test_positions_are_round(n: int, expected: list[int]) -> None:
    assert _positions(n) == expected
    assert len(_positions(123_456)) <= 9


def test_colour_bar_marks_both_thresholds() -> None:
    svg = colour_bar(template_environment(), HeatScale(2.9, 4.2, 16.8)).decode()
    ElementTree.fromstring(svg)
    assert "pixel threshold 4.20" in svg and "shown from 2.90 upwards" in svg and "≥ 16.8" in svg
    assert "M60.0 10v12.5" in svg  # a quarter of 240: the scale ends at four pixel thresholds


@pytest.mark.parametrize(("cluster", "anchor"), [(0.48, ""), (12.0, ' text-anchor="end"')])
def test_colour_bar_labels_stay_inside_and_apart(cluster: float, anchor: str) -> None:
    svg = colour_bar(template_environment(), HeatScale(cluster, 4.2, 16.8)).decode()
    at = f'<text x="{round(cluster / 16.8 * 240, 2)}" y="6.4"{anchor}>shown'
    assert at in svg
