"""The results of the evaluation of text as files: strict JSON, a Markdown table, a CSV and a figure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from explainvad.evaluation.calibration_figures import CURVES, GREY, REFERENCE, STYLE, WHISKERS, WIDTH, save_figure
from explainvad.evaluation.metrics.resampling import interval_text
from explainvad.evaluation.text_probabilities import KINDS

_cell = partial(interval_text, digits=2)

COLUMNS = {  # on the console and in the figure; the other files have all measures
    "agreement_truth": "place",
    "agreement_map": "map",
    "agreement_shuffled": "shuffled",
    "follows_mark": "follows",
    "named_defect": "defect",
    "erased_defect": "erased",
    "invented_defect": "invented",
    "precision": "precision",
    "contradicted": "contradicted",
    "coverage": "coverage",
}
_RATES = [name for name in COLUMNS if not name.startswith("agreement")]


def write_text(results: Mapping[str, Any], out: Path) -> None:
    """Write ``text.json``, ``text.md``, ``text.csv`` and ``text.png`` into ``out``. OSError where that fails."""
    (out / "text.json").write_text(json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")
    (out / "text.md").write_text(markdown(results), "utf-8")
    (out / "text.csv").write_text(as_csv(results), "utf-8")
    if results["n_images"]:
        save_figure(text_figure(results), out / "text.png")


def console(results: Mapping[str, Any]) -> str:
    """The main figures as aligned text."""
    if not results["n_images"]:
        return "text        no image was flagged with a region: there is nothing to describe"
    lines = [
        f"text        {results['n_regions']} regions of {results['n_images']} images; {results['n_defects']} meet a "
        f"known defect, {results['n_moved']} normal patches marked",
        f"{'words by':<12}" + "".join(f"{title:>13}" for title in COLUMNS.values()),
    ]
    for name, arm in results["arms"].items():
        cells = [arm["measures"][measure] for measure in COLUMNS]
        shown = ["-" if cell is None else f"{cell['estimate']:.2f}" for cell in cells]
        lines.append(f"{name:<12}" + "".join(f"{cell:>13}" for cell in shown))
        if arm["unanswered"]:
            failed = "; ".join(f"{n} x {reason}" for reason, n in arm["unanswered"].items())
            lines.append(f"{'':<12}{sum(arm['unanswered'].values())} questions without a valid answer: {failed}")
    lines.append("place, map, shuffled: 1 is chance; the others are shares; intervals are in text.md and text.json")
    return "\n".join(lines)


def markdown(results: Mapping[str, Any]) -> str:
    """What was measured and how, and all intervals, as Markdown."""
    arms = results["arms"]
    lines = [
        "# Evaluation of text",
        "",
        f"{results['n_regions']} regions of {results['n_images']} flagged images; {results['n_defects']} regions meet "
        f"a known defect, and {results['n_moved']} times a normal patch was marked instead. Brackets hold "
        f"{100 * results['confidence']:g} % bootstrap intervals over images.",
        "",
        "| measure | what it is | " + " | ".join(arms) + " |",
        "|---" * (2 + len(arms)) + "|",
    ]
    for measure, meaning in results["measures"].items():
        cells = " | ".join(_cell(arm["measures"][measure]) for arm in arms.values())
        lines.append(f"| {measure} | {meaning} | {cells} |")
    lines += ["", *(f"Note: {note}." for note in results["notes"]), ""]
    lines += ["| claims by | kind | supported | partly | contradicted | unverifiable | precision |", "|---" * 7 + "|"]
    for name, arm in arms.items():
        for kind, row in arm["claims"].items():
            counts = " | ".join(str(row["claims"][s]) for s in ("supported", "partly", "contradicted", "unverifiable"))
            lines.append(f"| {name} | {kind} | {counts} | {_cell(row['precision'])} |")
    if any(arm["by_uncertainty"] for arm in arms.values()):
        lines += ["", "| words by | detector's uncertainty, bits | images | contradicted |", "|---" * 4 + "|"]
    for name, arm in arms.items():
        for row in arm["by_uncertainty"]:
            low, high = row["epistemic_bits"]
            lines.append(f"| {name} | {low:.3f} to {high:.3f} | {row['n_images']} | {_cell(row['contradicted'])} |")
    sampled = [(name, *row) for name, arm in arms.items() for row in arm["samples"].items()]
    if sampled:
        lines += ["", "| samples of | field | share of the commonest word | entropy, bits |", "|---" * 4 + "|"]
        lines += [
            f"| {name} | {field} | {_cell(row['vote_share'])} | {_cell(row['entropy_bits'])} |"
            for name, field, row in sampled
        ]
    lines += _probabilities(arms)
    lines.append("")
    for name, arm in arms.items():
        lines.append(f"- {name}: {_code(arm['author'])}")
        lines += [f"  - {n} questions without a valid answer: {_code(why)}" for why, n in arm["unanswered"].items()]
    return "\n".join(lines) + "\n"


def _probabilities(arms: Mapping[str, Any]) -> list[str]:
    """The table of how probable right and wrong words were; nothing where no model told."""
    rows = [
        f"| {name} | {field} | {kind} | {_cell(row[kind]['agree'])} | {_cell(row[kind]['disagree'])} "
        f"| {_cell(row[kind]['difference'])} | {_cell(row['removed']) if kind == 'raw' else ''} |"
        for name, arm in arms.items()
        for field, row in arm["probabilities"].items()
        for kind in KINDS
    ]
    if not rows:
        return []
    head = "| words by | field | probability | words that agree | that disagree | difference | removed by the grammar |"
    note = (
        "Mean probability that the model gave its chosen word, closing quote included, as the product over the word's "
        "tokens: raw in its own distribution, masked in that over the tokens which the grammar allowed. Raw ones of "
        "words of different length are not comparable, and no word was chosen by them."
    )
    return ["", head, "|---" * 7 + "|", *rows, "", note]


def as_csv(results: Mapping[str, Any]) -> str:
    """One row for each arm and measure; empty where the data cannot define it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fields = ("estimate", "lower", "upper", "n", "n_images")
    writer.writerow(("words_by", "measure", *fields))
    for name, arm in results["arms"].items():
        for measure, value in arm["measures"].items():
            writer.writerow((name, measure, *(("" if value is None else value[f]) for f in fields)))
    return stream.getvalue()


@rc_context(STYLE)
def text_figure(results: Mapping[str, Any]) -> Figure:
    """Every arm's measures with their intervals: agreement of places against chance, and shares."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    left.axvline(1, color=GREY, **REFERENCE, label="chance")
    names = list(results["arms"])
    for axes, measures in ((left, [m for m in COLUMNS if m not in _RATES]), (right, _RATES)):
        for i, name in enumerate(names):
            colour, _, marker = CURVES[i % len(CURVES)]
            rows = [
                (row + (i - (len(names) - 1) / 2) * 0.5 / len(names), value)
                for row, measure in enumerate(measures)
                if (value := results["arms"][name]["measures"][measure]) is not None
            ]
            at = [value["estimate"] for _, value in rows]
            # A percentile interval need not hold the estimate
            low = [max(0.0, v["estimate"] - _or(v["lower"], v["estimate"])) for _, v in rows]
            high = [max(0.0, _or(v["upper"], v["estimate"]) - v["estimate"]) for _, v in rows]
            face = colour if i < len(CURVES) else "white"
            y = [place for place, _ in rows]
            axes.errorbar(at, y, xerr=[low, high], fmt=marker, color=colour, mfc=face, label=name, **WHISKERS)
        axes.set_yticks(range(len(measures)), [COLUMNS[m] for m in measures])
        axes.set_ylim(len(measures) - 0.5, -0.5)
    left.set(title="Agreement of places", xlabel="mass over area")
    left.set_xlim(left=0)
    right.set(title="Shares", xlabel="share", xlim=(-0.02, 1.02))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=1 + len(names))
    return figure


def _or(value: float | None, other: float) -> float:
    return other if value is None else float(value)


def _code(text: str) -> str:
    """A text of others as Markdown shows it and never reads it."""
    return f"`{text.replace('`', chr(39))}`"
