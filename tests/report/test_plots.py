"""The score plot and the colour bar."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fabricated_lot import Builder, quiet_lot

from explainvad.report.assets import template_environment
from explainvad.report.figures import HeatScale
from explainvad.report.plots import _positions, _ScoreAxis, colour_bar, score_plot
from explainvad.types import LotReport


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
    assert "decision threshold 1.42 (p = 0.05)" in svg
    assert {">5<", ">9<", ">15<", ">19<", ">22<", ">27<"} <= set(re.findall(r">\d+<", svg))


def test_rejected_marks_lie_above_the_threshold_line(lot_report: LotReport) -> None:
    svg = score_plot(template_environment(), lot_report).decode()
    threshold = float(re.search(r"M40 ([\d.]+)H138M150 [\d.]+H500\" stroke=\"#1a2026\"", svg)[1])  # type: ignore[index]
    tops = [float(y) for y in re.findall(r'<path d="M[\d.]+ ([\d.]+)l4 4l-4 4', svg)]
    assert all(y + 4 < threshold for y in tops[:4])


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
