"""Figures are drawn from the numbers they are given, legible at a report's width, and the same bytes each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from explainvad.evaluation.calibration import reliability_bins
from explainvad.evaluation.calibration_figures import (
    coverage_figure,
    detection_power_figure,
    level_figure,
    reliability_figure,
    risk_coverage_figure,
    save_figure,
)
from explainvad.evaluation.coverage import conditional_coverage, empirical_level
from explainvad.evaluation.selective_risk import SelectiveRisk, measure_selective_risk
from explainvad.types import DetectionPower

SETTINGS = {name: mpl.rcParams[name] for name in mpl.rcParams if name != "backend"}  # chosen when it is looked at
RNG = np.random.default_rng(0)
Q = RNG.beta(0.5, 0.6, 300)
Y = RNG.random(300) < Q
P = Q**2  # too low in the middle
BINS = reliability_bins(Y, P, 8)
LOSSES = ((P > 0.5) != Y).astype(np.float64)
CURVES = {
    "entropy": measure_selective_risk(LOSSES, -np.abs(P - 0.5), Y, n_resamples=50),
    "epistemic part": measure_selective_risk(LOSSES, RNG.random(300), Y, n_resamples=50),
    "acquisition": measure_selective_risk(LOSSES, RNG.integers(0, 3, 300), Y, n_resamples=50),
    "score": measure_selective_risk(LOSSES, P, Y, n_resamples=50),
}
LEVELS = empirical_level(np.linspace(0.02, 1, 50), [0.01, 0.05, 0.1, 0.3], 99)
RATES = conditional_coverage(["blowhole"] * 40 + ["crack"] * 20 + ["uneven"] * 5, [*[True] * 4, *[False] * 61])
SIZES = np.geomspace(3, 200, 40)
FOUND = SIZES > 20
GRID = np.geomspace(3, 200, 25)
POD = 1 / (1 + (18 / GRID) ** 3)
POWER = DetectionPower(
    40, 21, 0.05, tuple(zip(GRID, POD, POD**1.3, POD**0.7, strict=True)), a90=37.4, a90_95=52.1, kind="synthetic"
)
UNKNOWN = DetectionPower(40, 21, 0.05, (), a90=None, a90_95=None, kind="labelled")

FIGURES: dict[str, Callable[[], Figure]] = {
    "reliability": lambda: reliability_figure(BINS, Y, P),
    "risk_coverage": lambda: risk_coverage_figure(CURVES),
    "level": lambda: level_figure(LEVELS),
    "coverage": lambda: coverage_figure(RATES, "P(accept | type)", bound=0.1),
    "coverage_far_bound": lambda: coverage_figure(RATES, "P(accept | type)", bound=0.9),
    "power": lambda: detection_power_figure(POWER, SIZES, FOUND),
    "power_unknown": lambda: detection_power_figure(UNKNOWN, SIZES, FOUND),
}
every = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)


def errorbars(axes: Axes) -> list[ErrorbarContainer]:
    return [c for c in axes.containers if isinstance(c, ErrorbarContainer)]


def points(bars: ErrorbarContainer) -> NDArray[np.float64]:
    return np.asarray(bars.lines[0].get_xydata())


def reach(bars: ErrorbarContainer, axis: int) -> NDArray[np.float64]:
    """Ends of the whiskers, (n, 2)."""
    return np.array([segment[:, axis] for segment in bars.lines[2][0].get_segments()])


def laid_out(draw: Callable[[], Figure]) -> Figure:
    """The figure at the resolution of its file, on which the width of text depends."""
    figure = draw()
    figure.set_dpi(200)
    figure.draw_without_rendering()
    return figure


def names(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


# --- All figures


@every
def test_every_axis_is_named_and_every_text_legible(draw: Callable[[], Figure]) -> None:
    figure = laid_out(draw)
    for axes in figure.axes:
        assert axes.get_ylabel() or len(axes.get_yticklabels()) == len(RATES)  # groups name themselves
    assert figure.axes[-1].get_xlabel()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    assert len(texts) > 10
    for text in texts:
        assert text.get_fontsize() >= 7, text


@every
def test_nothing_is_cut_off(draw: Callable[[], Figure]) -> None:
    figure = laid_out(draw)
    axes = [*figure.axes, *[child for axes in figure.axes for child in axes.child_axes]]
    drawn = [*[a.get_tightbbox() for a in axes], *[legend.get_window_extent() for legend in figure.legends]]
    for box in drawn:
        assert box.x0 >= -0.5 and box.x1 <= figure.bbox.x1 + 0.5
        assert box.y0 >= -0.5 and box.y1 <= figure.bbox.y1 + 0.5


@every
def test_legends_cover_nothing(draw: Callable[[], Figure]) -> None:
    figure = laid_out(draw)
    for axes in figure.axes:
        assert axes.get_legend() is None
        assert not any(legend.get_window_extent().overlaps(axes.get_tightbbox()) for legend in figure.legends)


@pytest.mark.parametrize("draw", [FIGURES["reliability"], FIGURES["risk_coverage"], FIGURES["level"]])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_files_are_the_same_bytes_each_time(draw: Callable[[], Figure], suffix: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for path in paths:
        save_figure(draw(), path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert not any(word in first for word in (mpl.__version__.encode(), b"dc:date", b"Software"))


def test_a_png_fills_the_width_of_a_page(tmp_path: Path) -> None:
    save_figure(FIGURES["level"](), tmp_path / "level.png")
    with Image.open(tmp_path / "level.png") as picture:
        assert picture.width == 1320  # 168 mm at 200 dpi
        assert len(set(picture.convert("RGB").resize((132, 78)).get_flattened_data())) > 20


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"written as .png or .svg, got figure.pdf"):
        save_figure(FIGURES["level"](), tmp_path / "figure.pdf")


def test_settings_of_matplotlib_stay_as_they_were(tmp_path: Path) -> None:
    save_figure(FIGURES["level"](), tmp_path / "figure.svg")
    assert {name: mpl.rcParams[name] for name in SETTINGS} == SETTINGS


# --- Reliability


def test_reliability_shows_bins_bands_and_who_leaves_them() -> None:
    figure = reliability_figure(BINS, Y, P)
    top, below = figure.axes
    outside = [b for b in BINS if not b.consistent[0] <= b.observed.estimate <= b.consistent[1]]
    assert 0 < len(outside) < len(BINS)
    good, bad = errorbars(top)
    assert points(bad) == pytest.approx(np.array([(b.prediction, b.observed.estimate) for b in outside]))
    assert reach(bad, 1) == pytest.approx(np.array([(b.observed.lower, b.observed.upper) for b in outside]))
    assert len(points(good)) == len(BINS) - len(outside)
    assert good.lines[0].get_marker() != bad.lines[0].get_marker()
    bands = [(r.get_x() + r.get_width() / 2, r.get_y(), r.get_y() + r.get_height()) for r in top.patches]
    assert np.array(bands) == pytest.approx(np.array([(b.prediction, *b.consistent) for b in BINS]))
    heights = np.array([[r.get_height() for r in bars] for bars in below.containers])
    assert heights.sum(axis=1).tolist() == [(~Y).sum(), Y.sum()]
    assert f"defect ({Y.sum()})" in names(figure)


def test_reliability_without_outliers_names_none() -> None:
    bins = reliability_bins([True, False], [0.5, 0.5], 1)
    assert not any("outside" in name for name in names(reliability_figure(bins, [True, False], [0.5, 0.5])))


# --- Risk and coverage


def test_risk_coverage_shows_both_risks_and_random_deferral() -> None:
    figure = risk_coverage_figure(CURVES, "missed")
    left, right = figure.axes
    curve = np.array(CURVES["entropy"].curve)
    assert left.lines[0].get_xydata() == pytest.approx(curve[:, :2])
    assert right.lines[0].get_xydata() == pytest.approx(np.stack([curve[:, 0], curve[:, 0] * curve[:, 1]], axis=1))
    for axes, factor in ((left, 1), (right, curve[:, 0])):
        corners = axes.collections[0].get_paths()[0].vertices
        for bound in (curve[:, 2] * factor, curve[:, 3] * factor):
            nearest = np.abs(corners[:, None] - np.stack([curve[:, 0], bound], axis=1)).sum(axis=2).min(axis=0)
            assert nearest == pytest.approx(np.zeros(len(curve)), abs=1e-12)
    risk = LOSSES.mean()
    assert left.lines[-1].get_ydata() == pytest.approx([risk, risk])
    assert right.lines[-1].get_xydata() == pytest.approx(np.array([[0, 0], [1, risk]]))
    assert names(figure)[0] == f"entropy, AUGRC {CURVES['entropy'].augrc.estimate:.4f}"
    assert names(figure)[-1] == f"random, AUGRC {risk / 2:.4f}"
    assert (left.get_ylabel(), right.get_ylabel()) == (
        "missed, of the accepted images",
        "accepted and missed, of all images",
    )


def test_curves_differ_in_dashes_and_markers_as_well_as_colour() -> None:
    for axes in risk_coverage_figure(CURVES).axes:
        looks = [(to_hex(line.get_color()), str(line._dash_pattern), line.get_marker()) for line in axes.lines]
        assert all(len(set(of_a_kind)) == 5 for of_a_kind in zip(*looks, strict=True))


def test_more_curves_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 4 curves can be told apart, got 5: entropy"):
        risk_coverage_figure({**CURVES, "another": CURVES["score"]})


def test_curves_of_different_test_sets_are_refused() -> None:
    other: SelectiveRisk = measure_selective_risk(1 - LOSSES, P, Y, n_resamples=5)
    with pytest.raises(ValueError, match="of one loss on one test set"):
        risk_coverage_figure({"entropy": CURVES["entropy"], "other": other})


# --- Levels, groups, detection


def test_level_shows_rates_and_bands() -> None:
    (axes,) = level_figure(LEVELS).axes
    (bars,) = errorbars(axes)
    assert points(bars) == pytest.approx(np.array([(level.alpha, level.rate.estimate) for level in LEVELS]))
    assert reach(bars, 1) == pytest.approx(np.array([(level.rate.lower, level.rate.upper) for level in LEVELS]))
    for filled, band in zip(axes.collections, ("possible", "likely"), strict=False):
        corners = {(round(float(x), 9), round(float(y), 9)) for x, y in filled.get_paths()[0].vertices}
        ends = {(level.alpha, round(end, 9)) for level in LEVELS for end in getattr(level, band)}
        assert ends <= corners
    nominal = axes.lines[0].get_xydata()
    assert nominal[:, 0] == pytest.approx(nominal[:, 1])
    assert axes.get_ylim()[0] == axes.get_xlim()[0] == 0


def test_coverage_shows_groups_from_the_top_with_their_counts() -> None:
    axes = coverage_figure(RATES, "P(accept | type)", bound=0.1).axes[0]
    (bars,) = errorbars(axes)
    assert points(bars) == pytest.approx(np.array([(0.1, 0), (0, 1), (0, 2)]))
    assert reach(bars, 0) == pytest.approx(np.array([(r.rate.lower, r.rate.upper) for r in RATES]))
    assert axes.yaxis_inverted()
    assert [t.get_text() for t in axes.get_yticklabels()] == ["blowhole", "crack", "uneven"]
    counts = axes.child_axes[0]
    assert [t.get_text() for t in counts.get_yticklabels()] == ["4 of 40", "0 of 20", "0 of 5"]
    assert axes.lines[-1].get_xdata() == [0.1, 0.1]
    assert [t.get_text() for t in axes.texts] == ["bound over all: 0.1"]
    assert axes.get_xlim()[1] >= max(r.rate.upper for r in RATES)
    assert axes.get_xlabel() == "P(accept | type), with 95 % intervals"


def test_coverage_without_a_bound_shows_none() -> None:
    axes = coverage_figure(RATES, "P(accept | type)").axes[0]
    assert not axes.texts


def test_power_shows_curve_limits_hits_and_misses() -> None:
    figure = detection_power_figure(POWER, SIZES, FOUND)
    (axes,) = figure.axes
    curve = np.array(POWER.curve)
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["probability of detection"].get_xydata() == pytest.approx(curve[:, :2])
    corners = {tuple(np.round(v, 9)) for v in axes.collections[0].get_paths()[0].vertices}
    assert {tuple(np.round(v, 9)) for column in (2, 3) for v in curve[:, [0, column]]} <= corners
    assert lines["a90 = 37.4 px"].get_xdata() == [37.4, 37.4]
    assert lines["a90/95 = 52.1 px"].get_xdata() == [52.1, 52.1]
    assert lines["a90 = 37.4 px"].get_linestyle() != lines["a90/95 = 52.1 px"].get_linestyle()
    hits, misses = axes.lines[-2:]
    assert hits.get_xdata() == pytest.approx(SIZES[FOUND]) and min(hits.get_ydata()) > 1
    assert misses.get_xdata() == pytest.approx(SIZES[~FOUND]) and max(misses.get_ydata()) < 0
    assert [t.get_text() for t in axes.texts] == [f"{FOUND.sum()} found", f"{(~FOUND).sum()} missed"]
    assert "40 synthetic defects" in axes.get_title(loc="left")
    assert axes.get_ylabel() == "probability of p ≤ 0.05"
    assert axes.get_xscale() == "log"


def test_sizes_that_the_data_cannot_give_are_said_to_be_missing() -> None:
    figure = detection_power_figure(UNKNOWN, SIZES, FOUND)
    assert figure.axes[0].lines[-2].get_xdata() == pytest.approx(SIZES[FOUND])
    assert names(figure)[-2:] == ["a90: not given by these data", "a90/95: not given by these data"]
