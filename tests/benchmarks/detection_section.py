"""Writes the README's table of detection from results of ``explainvad evaluate``: ours, others', and what was not run.

    python tests/benchmarks/detection_section.py NAME=RESULTS...

RESULTS is a folder with ``metrics.json``, or with ``suite.json`` of ``--suite``, whose mean over categories is taken.
Published figures are copied from the papers and stand apart: other weights, other images, other protocols.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from readme_section import write_section

from explainvad.detection.weights import WeightStore
from explainvad.errors import WeightsError
from explainvad.evaluation.datasets.load import LAYOUTS
from explainvad.evaluation.suite_tables import made_with, percent

README = Path(__file__).resolve().parents[2] / "README.md"
# the networks that a profile cannot do without
NEEDED = {
    "standard": ("dinov2-small-reg", "clip-vit-b-16-plus-240"),
    "zero-shot": ("clip-vit-b-16-plus-240",),
    "edge": ("mobilevit-s",),
}
# system, its paper, then MVTec AD and VisA: I image AUROC, PRO AUPRO at 0.30
PUBLISHED = (
    ("PatchCore", "Roth et al., CVPR 2022", "I 99.2, PRO 94.4", "I 95.1"),
    ("EfficientAD-M", "Batzner et al., WACV 2024", "I 99.1", "I 98.1"),
    ("Dinomaly, one model for all classes", "Guo et al., CVPR 2025", "I 99.6, PRO 94.8", "I 98.7, PRO 94.5"),
    ("AnomalyDINO, 1 and 4 shots", "Damm et al., WACV 2025", "I 96.6, 97.7", "I 87.4, 92.6"),
    ("WinCLIP, 0 and 4 shots", "Jeong et al., CVPR 2023", "I 91.8, 95.2", "I 78.1, 87.3"),
    ("MuSc, batched zero-shot", "Li et al., ICLR 2024", "I 97.8, PRO 93.8", "I 92.8"),
)


def ours(name: str, folder: Path) -> tuple[str, str]:
    """A line of the table, and what the figures were made with."""
    suite = folder / "suite.json"
    if suite.is_file():
        whole = json.loads(suite.read_text("utf-8"))
        rows, mean = whole["categories"], whole["mean"]
        n = [sum(row[kind] for row in rows.values()) for kind in ("n_good", "n_defect")]
        cells = [percent(mean["image_auroc"]), percent(mean["aupro_0.30"]), "-"]
        return _line(f"{name}, mean of {len(rows)} categories", n, cells), made_with(whole)
    results = json.loads((folder / "metrics.json").read_text("utf-8"))
    rejects = sum(row["REJECT"] for kind, row in results["by_type"].items() if kind != "good")
    good = results["by_type"]["good"]["REJECT"] if "good" in results["by_type"] else 0
    decided = f"{rejects} of {results['n_defect']} and {good} of {results['n_good']} at alpha = {results['alpha']:g}"
    cells = [percent(results["image_auroc"]), percent(results["pixel"]["aupro"]["0.30"]), decided]
    how = made_with({"made_with": {name: results["made_with"]}})
    return _line(name, [results["n_good"], results["n_defect"]], cells), how


def _line(name: str, n: list[int], cells: list[str]) -> str:
    return f"| {name} | {n[0]}, {n[1]} | {' | '.join(cells)} |"


def lacking() -> list[str]:
    """Of each profile that cannot run here, the weights that are missing."""
    store, found = WeightStore(), []
    for profile, names in NEEDED.items():
        missing = []
        for name in names:
            try:
                store.weights(name)
            except WeightsError:
                missing.append(name)
        if missing:
            found.append(f"`{profile}` ({', '.join(missing)})")
    return found


def main() -> None:
    """Write the section from the results that were named."""
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if not named:
        raise SystemExit("no results: give NAME=FOLDER for each folder that `explainvad evaluate` wrote")
    lines, made = [], {}
    for name, folder in named.items():
        line, how = ours(name, Path(folder))
        lines.append(line)
        made.setdefault(how, []).append(name)
    sources = {layout.source.name for layout in LAYOUTS.values() if layout.source.page}
    absent = sorted(source for source in sources if not any(source in name for name in named))
    profiles = lacking()
    text = [
        "Ours, in per cent with 95 % bootstrap intervals over test images:",
        "",
        "| data | good, defects | image AUROC | AUPRO(0.30) | rejected: defects and good |",
        "|---|---|---|---|---|",
        *lines,
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d}. "
        + " ".join(f"{' and '.join(names)}: {how}" if len(made) > 1 else how for how, names in made.items()),
        *(["Not run for want of weights: " + "; ".join(profiles) + "."] if profiles else []),
        *(["Not run for want of the images: " + ", ".join(absent) + "."] if absent else []),
        "",
        "Published by others on those images (one-class; I: image AUROC, PRO: AUPRO at 0.30), not measured here:",
        "",
        "| system | MVTec AD | VisA |",
        "|---|---|---|",
        *(f"| {system} ({paper}) | {mvtec} | {visa} |" for system, paper, mvtec, visa in PUBLISHED),
    ]
    write_section(README, "detection table", "\n".join(text))


if __name__ == "__main__":
    main()
