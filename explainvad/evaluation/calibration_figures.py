"""Figures of calibrated uncertainty, as wide as a report's page: results in, a matplotlib figure out, nothing shown.

What differs in colour differs in shape, hatching or dashes too. Files written by :func:`save_figure` are the same
bytes for the same figure and the same matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike

from explainvad.evaluation.calibration import Floats, ReliabilityBin
from explainvad.evaluation.coverage import EmpiricalLevel, GroupRate
from explainvad.evaluation.selective_risk import SelectiveRisk
from explainvad.types import DetectionPower, Interval

WIDTH = 6.6  # inches, of 7 between the margins of the page
_INK, _DARK, GREY, _LINE, _PALE = "#1a2026", "#4a5560", "#7b8791", "#d5dade", "#f4f6f7"  # as in the report's style
_TINT, _RED, _AMBER, _GREEN = "#14506b", "#b3261e", "#b26a00", "#1d6b43"
CURVES = (  # colour, dashes, marker: each enough to tell the curves apart
    (_TINT, "-", "o"),
    (_AMBER, "--", "s"),
    (_GREEN, "-.", "^"),
    (_RED, (0, (1, 1)), "D"),
)
REFERENCE: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (4, 3))}
WHISKERS: dict[str, Any] = {"markersize": 4.5, "clip_on": False, "elinewidth": 1, "capsize": 2.5}
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": GREY,
    "axes.labelcolor": _DARK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.5,
    "xtick.color": _DARK,
    "ytick.color": _DARK,
    "text.color": _INK,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "explainvad",
}


def save_figure(figure: Figure, path: Path, dpi: int = 200) -> None:
    """Write a PNG or SVG, by the suffix of ``path``, without dates or versions. ValueError for another suffix."""
    metadata = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
    if path.suffix not in metadata:
        raise ValueError(f"a figure is written as .png or .svg, got {path.name}")
    with rc_context(STYLE):
        figure.savefig(path, dpi=dpi, metadata=metadata[path.suffix])


@rc_context(STYLE)
def reliability_figure(bins: Sequence[ReliabilityBin], labels: ArrayLike, probabilities: ArrayLike) -> Figure:
    """Reliability diagram above the histogram of the probabilities; arguments as of ``reliability_bins``."""
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))

    top.plot([0, 1], [0, 1], color=GREY, **REFERENCE, label="perfectly calibrated")
    at, low, high = np.array([(b.prediction, *b.consistent) for b in bins]).T
    name = "95 % of shares, if calibrated"
    top.bar(at, high - low, 0.022, low, color=_LINE, edgecolor=GREY, linewidth=0.5, label=name)
    for inside, marker, colour, face, name in (
        (True, "o", _TINT, _TINT, "observed, 95 % interval"),
        (False, "D", _RED, "white", "observed, outside the band"),
    ):
        shown = [b for b in bins if (b.consistent[0] <= b.observed.estimate <= b.consistent[1]) == inside]
        if shown:
            share, reach = _whiskers([b.observed for b in shown])
            at = np.array([b.prediction for b in shown])
            top.errorbar(at, share, reach, fmt=marker, color=colour, mfc=face, label=name, **WHISKERS)
    top.set(
        xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), ylabel="observed share of defects", title="Reliability of P(defect)"
    )

    edges = np.linspace(0, 1, 21)
    below.hist(
        [p[~y], p[y]],
        edges,
        stacked=True,
        label=[f"good ({int((~y).sum())})", f"defect ({int(y.sum())})"],
        color=[_LINE, _AMBER],
        edgecolor=_DARK,
        linewidth=0.5,
        hatch=["", "////"],
    )
    below.set(xlabel="predicted probability of a defect", ylabel="images")
    below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@rc_context(STYLE)
def risk_coverage_figure(curves: Mapping[str, SelectiveRisk], loss: str = "wrong") -> Figure:
    """Selective and generalised risk over coverage for up to four uncertainties, by their names.

    ``loss`` says what the risk is the share of. Raises ValueError for more curves, or for curves that do not end in
    the same risk, as those of one loss on one test set do.
    """
    if len(curves) > len(CURVES):
        raise ValueError(f"at most {len(CURVES)} curves can be told apart, got {len(curves)}: {', '.join(curves)}")
    risks_without_deferral = {measured.risk for measured in curves.values()}
    if len(risks_without_deferral) != 1:
        raise ValueError(f"curves must be of one loss on one test set, got risks {sorted(risks_without_deferral)}")
    (overall,) = risks_without_deferral
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, measured), (colour, dashes, marker) in zip(curves.items(), CURVES, strict=False):
        coverage, *risks = np.array(measured.curve).T
        every = max(1, len(coverage) // 8)
        for axes, factor in ((left, 1.0), (right, coverage)):
            risk, lower, upper = (r * factor for r in risks)
            axes.fill_between(coverage, lower, upper, color=colour, alpha=0.13, linewidth=0)
            axes.plot(
                coverage,
                risk,
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=3.5,
                clip_on=False,
                markevery=(every - 1, every),
                label=f"{name}, AUGRC {measured.augrc.estimate:.4f}" if axes is right else None,
            )
    left.axhline(overall, color=GREY, **REFERENCE)
    right.plot([0, 1], [0, overall], color=GREY, **REFERENCE, label=f"random, AUGRC {overall / 2:.4f}")
    left.set(title="Risk among accepted images", ylabel=f"{loss}, of the accepted images")
    right.set(title="Generalised risk", ylabel=f"accepted and {loss}, of all images")
    for axes in (left, right):
        axes.set(xlabel="coverage: images not deferred", xlim=(0, 1), ylim=(0, None))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))
    figure.legend(
        loc="outside lower center", ncols=2, title="bands: pointwise 95 % bootstrap intervals", title_fontsize=7.5
    )
    return figure


@rc_context(STYLE)
def level_figure(levels: Sequence[EmpiricalLevel]) -> Figure:
    """Empirical against nominal level of the p-values, levels by ascending alpha."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.subplots()
    alpha = [level.alpha for level in levels]
    axes.fill_between(
        alpha,
        *np.array([level.possible for level in levels]).T,
        color=_PALE,
        edgecolor=GREY,
        linewidth=0.6,
        linestyle=":",
        label="all but 1e-6 of outcomes if exchangeable",
    )
    axes.fill_between(
        alpha, *np.array([level.likely for level in levels]).T, color=_LINE, label="95 % of outcomes if exchangeable"
    )
    axes.plot(alpha, alpha, color=_DARK, **REFERENCE, label="nominal level alpha")
    rate, reach = _whiskers([level.rate for level in levels])
    axes.errorbar(
        alpha, rate, reach, fmt="o", color=_TINT, label="observed, 95 % interval for this calibration set", **WHISKERS
    )
    for scale in (axes.set_xscale, axes.set_yscale):
        scale("function", functions=(np.sqrt, np.square))  # opens up small levels, and keeps zero
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1]))
    axes.set(
        xlim=(0, 1.02 * max(alpha)),
        ylim=(0, None),
        xlabel="alpha",
        ylabel="share of normal images with p ≤ alpha",
        title="Level of the p-values",
    )
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@rc_context(STYLE)
def coverage_figure(rates: Sequence[GroupRate], quantity: str, bound: float | None = None) -> Figure:
    """Rates by group, the first at the top; ``quantity`` names them, ``bound`` is the one promised over all groups."""
    figure = Figure(figsize=(WIDTH, 1.1 + 0.27 * len(rates)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(rates))
    share, reach = _whiskers([r.rate for r in rates])
    axes.errorbar(share, rows, xerr=reach, fmt="o", color=_TINT, **WHISKERS)
    if bound is not None:
        axes.axvline(bound, color=_RED, **REFERENCE)
        axes.annotate(
            f"bound over all: {bound:g}",
            (bound, 1),
            (2, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
        )
    axes.set_yticks(rows, [r.group for r in rates])
    counts = axes.secondary_yaxis("right")
    counts.set_yticks(rows, [f"{round(r.rate.estimate * r.n)} of {r.n}" for r in rates])
    reached = max([r.rate.upper for r in rates] + ([bound] if bound is not None else []))
    axes.set(
        xlim=(-0.02 * reached, 1.02 * reached), ylim=(len(rates) - 0.5, -0.5), xlabel=f"{quantity}, with 95 % intervals"
    )
    return figure


@rc_context(STYLE)
def detection_power_figure(power: DetectionPower, sizes_px: ArrayLike, found: ArrayLike) -> Figure:
    """POD curve with its band; ``sizes_px`` (n,) and bool ``found`` (n,) of its defects stand as ticks.

    Either end of the band has 95 % confidence by itself, as a90/95 has. Without a curve the ticks stand alone.
    """
    size, hit = np.asarray(sizes_px, dtype=np.float64), np.asarray(found)
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.subplots()
    at, probability, lower, upper = np.array(power.curve).reshape(-1, 4).T  # no rows where no curve could be fitted
    axes.fill_between(at, lower, upper, color=_TINT, alpha=0.15, linewidth=0, label="band, either end at 95 %")
    axes.plot(at, probability, color=_TINT, label="probability of detection")
    axes.axhline(0.9, color=GREY, linewidth=0.8, linestyle=":")
    for name, value, dashes in (("a90", power.a90, "--"), ("a90/95", power.a90_95, "-.")):
        if value is None:
            axes.plot([], [], linestyle="none", label=f"{name}: not given by these data")
        else:
            axes.axvline(value, color=_RED, linewidth=1, linestyle=dashes, label=f"{name} = {value:.3g} px")
    for chosen, height, name in ((hit, 1.04, "found"), (~hit, -0.04, "missed")):
        axes.plot(size[chosen], np.full(chosen.sum(), height), "|", color=_INK, markersize=6, markeredgewidth=0.6)
        axes.annotate(
            f"{chosen.sum()} {name}", (1.01, height), xycoords=("axes fraction", "data"), va="center", color=_DARK
        )
    axes.set(
        xscale="log",
        ylim=(-0.09, 1.09),
        xlabel="defect size: square root of the area, px",
        ylabel=f"probability of p ≤ {power.level:g}",
        title=f"Probability of detection, {power.n} {power.kind} defects",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _whiskers(intervals: Sequence[Interval]) -> tuple[Floats, Floats]:
    """Estimates (n,), and how far their intervals reach below and above them (2, n)."""
    estimate, lower, upper = np.array([(i.estimate, i.lower, i.upper) for i in intervals]).T
    return estimate, np.stack([estimate - lower, upper - estimate])
