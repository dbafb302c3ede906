"""All categories of a data set in one run that can be cut short and resumed, and its tables.

A category is done when its ``metrics.json`` is there, which is written last. The same command measures only what is
missing, and ends with the same results as one that was not interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from explainvad.config import InspectionConfig
from explainvad.errors import RunConflictError, StorageError
from explainvad.evaluation.datasets.load import find_dataset, load_dataset
from explainvad.evaluation.evaluate import METRICS, Plan, evaluate_category
from explainvad.evaluation.suite_tables import latex, markdown, summary
from explainvad.types import Progress
from explainvad.whole_files import write_whole

ONLY = "all"  # the folder of a data set's only category


def evaluate_suite(
    root: Path,
    out: Path,
    *,
    layout: str | None = None,
    config: InspectionConfig | None = None,
    group: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit and test each category of the data set at ``root``; write ``suite.json``, ``.md`` and ``.tex`` to ``out``.

    ``out/<category>/`` holds what :func:`evaluate_dataset` writes. Raises as that does, and RunConflictError where
    a category was measured with other settings, images or another version.
    """
    found = find_dataset(root, layout)
    plan = Plan(None, config or InspectionConfig(), group)
    results: dict[str, Mapping[str, Any]] = {}
    for category in found.categories:
        dataset = load_dataset(root, category, layout)
        folder = out / (category or ONLY)
        done = _results_in(folder)
        if done is None:
            done = evaluate_category(dataset, folder, plan, progress).results
        elif done.get("fingerprint") != plan.fingerprint(dataset):
            raise RunConflictError(
                f"{folder / METRICS} was measured with other settings, images or another version: use another --out"
            )
        results[category or ONLY] = done
    whole = summary(found.source.name, str(found.source.licence), results)
    try:
        for name, text in (
            ("suite.json", json.dumps(whole, indent=1, sort_keys=True) + "\n"),
            ("suite.md", markdown(whole)),
            ("suite.tex", latex(whole)),
        ):
            write_whole(out / name, text.encode(), out / f".{name}.part")
    except OSError as error:
        raise StorageError(f"the results could not be written to {out}: {error.strerror or error}") from error
    return whole


def _results_in(folder: Path) -> dict[str, Any] | None:
    """What was measured before, None where that is not finished."""
    path = folder / METRICS
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunConflictError(f"{path} cannot be read ({error}): remove it to measure this category again") from error
    return results if isinstance(results, dict) else {}
