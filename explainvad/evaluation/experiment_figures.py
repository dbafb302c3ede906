"""Figures of experiments: metrics with their intervals, kinds of defects, and maps side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from explainvad.evaluation.experiments import GOOD, METRICS, Comparison

WIDTH = 6.6  # inches
_COLOURS, _MARKS = ("#14506b", "#b26a00", "#1d6b43"), ("o", "s", "D")
_CHANCE = 0.5  # of AUROC


def interval_figure(comparison: Comparison) -> Figure:
    """AUROC and AUPRO of every arm, a mark a group of defects, with 95 % intervals."""
    arms = [s.arm for s in comparison.scored]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.36 * len(arms)), layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharey=True)
    for axes, metric in zip(panels, METRICS, strict=True):
        for g, group in enumerate(comparison.present):
            rows = [(y, i) for y, arm in enumerate(arms) if (i := comparison.interval(arm, group, metric)) is not None]
            if not rows:
                continue
            at = np.array([y for y, _ in rows]) + 0.16 * (g - (len(comparison.present) - 1) / 2)
            low, value, high = np.array([(i.lower, i.estimate, i.upper) for _, i in rows]).T
            errors = np.maximum([value - low, high - value], 0)
            axes.errorbar(value, at, xerr=errors, fmt=_MARKS[g % 3], color=_COLOURS[g % 3], capsize=2, label=group)
        axes.set(xlabel=metric, xlim=(0, 1.02))
    panels[0].axvline(_CHANCE, color="0.6", linestyle=":")
    panels[0].set_yticks(range(len(arms)), arms)
    panels[0].invert_yaxis()
    panels[0].legend(loc="lower left", frameon=False)
    return figure


def kinds_figure(comparison: Comparison) -> Figure:
    """AUROC of every arm for every kind of defect, as a table of colours with its numbers."""
    table = comparison.by_kind()
    kinds = list(next(iter(table.values())))
    values = np.array([[row[kind] for kind in kinds] for row in table.values()])
    figure = Figure(figsize=(WIDTH, 1.1 + 0.34 * len(table)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="PuOr", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        axes.text(x, y, f"{value:.2f}", ha="center", va="center", color="white" if abs(value - 0.5) > 0.35 else "black")
    axes.set_xticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds], rotation=20)
    axes.set_yticks(range(len(table)), list(table))
    axes.spines[:].set_visible(False)
    axes.set_title("AUROC by kind of defect; 0.5 is chance", loc="left")
    return figure


def maps_figure(comparison: Comparison, kinds: Sequence[str] = ()) -> Figure:
    """One image of each kind with its mask, and each arm's map of it.

    An arm's colours end at the largest value of its maps of good test images, so that what is brighter than any good
    image has shows, whatever the arm's unit.
    """
    data = comparison.data
    kinds = kinds or [kind for group in comparison.present for kind in comparison.groups[group]]
    chosen = [int(np.flatnonzero(data.kinds == kind)[0]) for kind in kinds if kind in data.kinds]
    good = np.flatnonzero(data.kinds == GOOD).tolist()
    rows = 1 + len(comparison.scored)
    figure = Figure(figsize=(WIDTH, WIDTH / len(chosen) * rows), layout="constrained")
    panels = figure.subplots(rows, len(chosen), squeeze=False)
    for column, i in enumerate(chosen):
        panels[0, column].imshow(data.test[i].pixels)
        panels[0, column].set_title(str(data.kinds[i]).replace("_", " "), fontsize=7)
        for s, axes in zip(comparison.scored, panels[1:, column], strict=True):
            low, high = (float(f([f(s.maps[j]) for j in good])) for f in (np.min, np.max))
            axes.imshow(s.maps[i], cmap="inferno", vmin=low, vmax=high)
        if (mask := data.masks[i]) is not None and mask.any():
            for axes in panels[:, column]:
                axes.contour(mask, [0.5], colors="#ff00ff", linewidths=0.7)
    for row, name in zip(panels, ("image", *(s.arm for s in comparison.scored)), strict=True):
        row[0].set_ylabel(name, fontsize=6.5)
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
    return figure


def scores_figure(comparison: Comparison) -> Figure:
    """Every test image's score by arm, in deviations from the median of the good test images; for the eye alone."""
    names = (GOOD, *comparison.present)
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    panels = figure.subplots(1, len(comparison.scored), squeeze=False, sharey=True)[0]
    jitter = np.random.default_rng(0)
    for axes, s in zip(panels, comparison.scored, strict=True):
        good = s.values[comparison.data.kinds == GOOD]
        middle = float(np.median(good))
        spread = 1.4826 * float(np.median(np.abs(good - middle))) or 1.0  # of a Gaussian, its standard deviation
        for x, name in enumerate(names):
            kinds = [GOOD] if name == GOOD else list(comparison.groups[name])
            values = (s.values[np.isin(comparison.data.kinds, kinds)] - middle) / spread
            colour = "0.45" if name == GOOD else _COLOURS[(x - 1) % 3]
            axes.plot(x + jitter.uniform(-0.2, 0.2, len(values)), values, ".", color=colour, markersize=4)
        axes.set_xticks(range(len(names)), names, fontsize=6.5)
        axes.set_yscale("symlog", linthresh=3)
        axes.set_title(s.arm, fontsize=7)
    panels[0].set_ylabel("deviations")
    return figure


def difference_figure(comparison: Comparison, pairs: Sequence[tuple[str, str]]) -> Figure:
    """What the first arm of each pair has over the second, by group, with 95 % intervals over the same images."""
    groups = comparison.present
    figure = Figure(figsize=(WIDTH, 1.0 + 0.36 * len(pairs)), layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharey=True)
    for axes, metric in zip(panels, METRICS, strict=True):
        for g, group in enumerate(groups):
            for y, (arm, other) in enumerate(pairs):
                if (found := comparison.difference(arm, other, group, metric)) is not None:
                    at = y + 0.16 * (g - (len(groups) - 1) / 2)
                    errors = np.maximum([[found.estimate - found.lower], [found.upper - found.estimate]], 0)
                    label = group if y == 0 else None
                    colour, mark = _COLOURS[g % 3], _MARKS[g % 3]
                    axes.errorbar(found.estimate, at, xerr=errors, fmt=mark, color=colour, capsize=2, label=label)
        axes.axvline(0, color="0.6", linestyle=":")
        axes.set_xlabel(f"difference in {metric}")
    panels[0].set_yticks(range(len(pairs)), [f"{arm}\nover {other}" for arm, other in pairs])
    panels[0].invert_yaxis()
    panels[0].legend(frameon=False)
    return figure
