"""Tables of all categories of a data set: plain values, Markdown and LaTeX, in per cent with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from explainvad.evaluation.metrics.resampling import interval_text

percent = partial(interval_text, digits=1, scale=100)

COLUMNS = {
    "image_auroc": "image AUROC",
    "image_aupr": "image AUPR",
    "image_f1_deployed": "image F1",
    "image_f1_max": "image F1max",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupr": "pixel AUPR",
    "pixel_f1_deployed": "pixel F1",
    "pixel_f1_max": "pixel F1max",
    "aupro_0.30": "AUPRO (FPR <= 0.30)",
    "aupro_0.05": "AUPRO (FPR <= 0.05)",
    "auspro_0.30": "AU-sPRO (FPR <= 0.30)",
    "auspro_0.05": "AU-sPRO (FPR <= 0.05)",
    "aupimo": "AUPIMO (FPR 1e-5 to 1e-4)",
    "pointing": "pointing game",
}
TIMES = {"fit_seconds": "fit, s", "image_milliseconds": "an image, ms"}


def summary(source: str, licence: str, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One row a category, and the mean of each metric over the categories that define it.

    The mean has no interval: the categories are these, not a sample of some.
    """
    rows = {category: _row(of_category) for category, of_category in results.items()}
    mean = {}
    for name in COLUMNS:
        defined = [row[name]["estimate"] for row in rows.values() if row[name] is not None]
        mean[name] = {"estimate": sum(defined) / len(defined), "n_categories": len(defined)} if defined else None
    made_with = {category: of_category["made_with"] for category, of_category in results.items()}
    return {
        "source": source,
        "licence": licence,
        "columns": COLUMNS,
        "categories": rows,
        "mean": mean,
        "times": {category: _times(of_category) for category, of_category in results.items()},
        "made_with": made_with,
    }


def markdown(suite: Mapping[str, Any]) -> str:
    """A table with a line for each category; metrics that no category defines are left out."""
    shown = _shown(suite)
    head = ["category", *(COLUMNS[name] for name in shown), *TIMES.values()]
    lines = [
        f"# {suite['source']}",
        "",
        f"Licence: {suite['licence']}. Per cent, with 95 % intervals over test images.",
    ]
    lines += ["", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for category, row in suite["categories"].items():
        cells = [category, *(percent(row[name]) for name in shown), *_time_cells(suite["times"][category])]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| {' | '.join(['mean', *(percent(suite['mean'][name]) for name in shown), *('' for _ in TIMES)])} |")
    return "\n".join([*lines, "", _NOTES, "", made_with(suite)]) + "\n"


def latex(suite: Mapping[str, Any]) -> str:
    """The same as a ``tabular`` with the rules of booktabs."""
    shown = _shown(suite)
    head = ["category", *(COLUMNS[name].replace("<=", r"$\leq$") for name in shown), *TIMES.values()]
    rows = []
    for category, row in suite["categories"].items():
        cells = [percent(row[name], brackets=("{\\scriptsize [", "]}")) for name in shown]
        rows.append(" & ".join([_escaped(category), *cells, *_time_cells(suite["times"][category])]) + r" \\")
    mean = " & ".join(["mean", *(percent(suite["mean"][name]) for name in shown), *("" for _ in TIMES)]) + r" \\"
    lines = [
        f"% {suite['source']}; licence: {suite['licence']}. {_NOTES} {made_with(suite)}",
        rf"\begin{{tabular}}{{l{'r' * (len(shown) + len(TIMES))}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *rows,
        r"\midrule",
        mean,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def made_with(suite: Mapping[str, Any]) -> str:
    """Profile, seed, versions and platform in a sentence; categories measured at different times may differ."""
    said = list(dict.fromkeys(_said(made) for made in suite["made_with"].values()))
    return said[0] if len(said) == 1 else f"Not all alike: {' / '.join(said)} See suite.json for each category."


def _said(made: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    return f"Profile {made['profile']}, seed {made['seed']}; {versions}; {made['platform']}."


_NOTES = "F1 is at the deployed threshold, F1max at the best one, chosen with the labels. '-' is not defined."


def _row(results: Mapping[str, Any]) -> dict[str, Any]:
    pixel = results["pixel"]
    values = {f"image_{name}": results[f"image_{name}"] for name in ("auroc", "aupr", "f1_deployed", "f1_max")}
    values |= {f"pixel_{name}": pixel[name] for name in ("auroc", "aupr", "f1_deployed", "f1_max")}
    values |= {f"aupro_{limit}": pixel["aupro"][limit] for limit in ("0.30", "0.05")}
    values |= {f"auspro_{limit}": pixel["auspro"][limit] for limit in ("0.30", "0.05")}
    return (
        values
        | {name: pixel[name] for name in ("aupimo", "pointing")}
        | {
            "n_good": results["n_good"],
            "n_defect": results["n_defect"],
        }
    )


def _times(results: Mapping[str, Any]) -> dict[str, float | None]:
    return {"fit_seconds": results["fit_seconds"], "image_milliseconds": 1000 * results["cost"]["median"]}


def _time_cells(times: Mapping[str, float | None]) -> list[str]:
    return ["-" if (value := times[name]) is None else f"{value:.0f}" for name in TIMES]


def _shown(suite: Mapping[str, Any]) -> list[str]:
    return [name for name, mean in suite["mean"].items() if mean is not None]


def _escaped(text: str) -> str:
    """A folder's name as LaTeX prints it."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
