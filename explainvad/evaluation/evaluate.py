"""Run a model over a labelled data set and measure it. Nothing is fitted, scaled or thresholded on test images."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from explainvad.admission import cells_of, unknown_cell
from explainvad.config import InspectionConfig
from explainvad.describing import recorded_describer
from explainvad.errors import LotError, StorageError, UnreadableImageError
from explainvad.evaluation.console import results_table
from explainvad.evaluation.datasets.items import LabelledDataset
from explainvad.evaluation.datasets.load import load_dataset
from explainvad.evaluation.datasets.masks import read_defects, read_truth
from explainvad.evaluation.measuring import DeployedThresholds, Measuring, Truth, reference_files
from explainvad.evaluation.metrics.resampling import N_RESAMPLES, Resampling
from explainvad.evaluation.splitting import for_fitting
from explainvad.evaluation.text import TextEvaluation
from explainvad.evaluation.text_arms import arms
from explainvad.evaluation.text_tables import console, write_text
from explainvad.lot import LotFile, read_image
from explainvad.model_card import versions
from explainvad.pipeline import Inspector
from explainvad.types import Progress
from explainvad.whole_files import write_whole

RESAMPLES = N_RESAMPLES
METRICS, RESAMPLED = "metrics.json", "resamples.npz"  # in the folder of results


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Results as plain values, for :meth:`table`. ``metrics.json`` holds ``results``, ``text.json`` ``text``."""

    results: dict[str, Any]
    text: dict[str, Any] | None = None  # of the words about regions, where they were evaluated

    def table(self) -> str:
        """The figures as aligned text."""
        return "\n".join([*results_table(self.results), *([console(self.text)] if self.text is not None else [])])


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is evaluated, and how; ``group`` tells which images show one part."""

    model: Path | None
    config: InspectionConfig
    group: str | None = None
    text: bool = False

    def fingerprint(self, dataset: LabelledDataset) -> str:
        """sha256 of all that results depend on: settings, program, and the contents of images and model."""
        model = None
        if self.model is not None:
            model = hashlib.sha256((self.model / "manifest.json").read_bytes()).hexdigest()
        known = {
            "software": version("explainvad"),
            "config": self.config.model_dump(mode="json", exclude={"model", "device"}),
            "group": self.group,
            "text": self.text,
            "resamples": RESAMPLES,
            "model": model,
            "items": [[i.file, i.split, i.defect, dataset.sha256[i.path]] for i in dataset.items],
        }
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def evaluate_dataset(
    root: Path,
    out: Path,
    *,
    category: str | None = None,
    layout: str | None = None,
    model: Path | None = None,
    config: InspectionConfig | None = None,
    group: str | None = None,
    text: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a bundle, or fit one first on the data set's normal images; write results and figures to ``out``.

    ``category`` and ``layout`` are as in :func:`load_dataset`. Without ``model`` the fit uses the normal training and
    validation images, or, in a flat folder, two thirds of the good images (whole groups of ``group``); only the others
    are then tested. ``text`` evaluates the words about regions too, also those of the describer of ``config``. Raises
    LotError, also for a test image that the model was fitted to or calibrated on; ConfigError, StorageError, and
    WeightsError for a describer.
    """
    dataset = load_dataset(root, category, layout)
    plan = Plan(model, config or InspectionConfig(), group, text)
    return evaluate_category(dataset, out, plan, progress)


def evaluate_category(dataset: LabelledDataset, out: Path, plan: Plan, progress: Progress | None = None) -> Evaluation:
    """The same for a category that is loaded already; ``metrics.json`` is written last, and whole."""
    config, group = plan.config, plan.group
    fitting: Sequence[Path] = ()
    fit_seconds: float | None = None
    if plan.model is not None:
        inspector, fitted_on = Inspector.load(plan.model, config.device), f"fitted before ({plan.model.name})"
        config = config.model_copy(update={"seed": inspector.config.seed})
    words = TextEvaluation(arms(config), config.seed) if plan.text else None  # no fit for a describer that is unusable
    if plan.model is None:
        fitting = dataset.train or for_fitting(dataset, group, config.seed)
        started = time.perf_counter()
        inspector = Inspector.fit(fitting, config=config, group=group, progress=progress)
        fit_seconds = time.perf_counter() - started
        fitted_on = f"fitted on {len(fitting)} good images"
    used = set(fitting)
    items = [item for item in dataset.test if item.path not in used]
    known = reference_files(inspector)
    for item in items:
        if (twin := known.get(dataset.sha256[item.path])) is not None:
            raise LotError(
                f"{item.file} has the same content as {twin}, to which the model was fitted or on which its threshold "
                "was set: test on images that took no part in it"
            )
    measuring = Measuring(DeployedThresholds.of(inspector), Resampling(RESAMPLES, inspector.config.seed))
    not_inspected: list[str] = []
    cells = cells_of([item.file for item in items], inspector.config.group_by, inspector.calibrator.cells)
    for number, (item, cell) in enumerate(zip(items, cells, strict=True), start=1):
        if progress:
            progress("evaluating", number, len(items))
        try:
            image = read_image(LotFile(f"img-{number:05d}", item.file, item.path, dataset.root))
        except UnreadableImageError as error:
            not_inspected.append(f"{item.file}: {error}")
            continue
        if (unknown := unknown_cell(cell, inspector.calibrator.cells)) is not None:
            not_inspected.append(f"{item.file}: {unknown}")
            continue
        shape = image.height, image.width
        defects = read_defects(item, shape, dataset.saturations)
        truth = Truth(item.defect, read_truth(item, shape), defects, image.sha256)
        started = time.perf_counter()
        record, fused_map = inspector.inspect_with_map(image, cell)
        measuring.add(record, fused_map, truth, time.perf_counter() - started)
        if words is not None and record.verdict is not None:
            reference = inspector.gallery.nearest(image)[1]
            words.add(image, record.findings, record.verdict.epistemic, fused_map, truth.mask, reference)
    if not measuring.records:
        raise LotError(f"none of the {len(items)} images could be inspected; the first: {not_inspected[0]}")
    calibration = inspector.card().calibration
    verdicts = measuring.verdicts(None if calibration.cells else calibration.n_cal, inspector.config.seed)
    evaluation = Evaluation(
        {
            "dataset": dataset.root.resolve().name,
            "source": _source(dataset),
            "fingerprint": plan.fingerprint(dataset),
            "fitted_on": fitted_on,
            "fit_seconds": fit_seconds,
            "made_with": _made_with(inspector.config),
            "alpha": inspector.config.alpha,
            "n_cal": calibration.n_cal,
            "unmasked_defects": list(dataset.unmasked_defects),
            "not_inspected": not_inspected,
            "calibration": verdicts.results(),
            **measuring.results(_gpu_peak_bytes()),
        },
        None if words is None else words.results() | _context(dataset.root, fitted_on, config),
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        verdicts.save_figures(out)
        if evaluation.text is not None:
            write_text(evaluation.text, out)
        measuring.save_resamples(out / RESAMPLED)
        (out / "metrics.txt").write_text(evaluation.table() + "\n", "utf-8")
        text = json.dumps(evaluation.results, indent=1, sort_keys=True) + "\n"
        write_whole(out / METRICS, text.encode(), out / f".{METRICS}.part")
    except OSError as error:
        raise StorageError(f"the results could not be written to {out}: {error.strerror or error}") from error
    return evaluation


def _made_with(config: InspectionConfig) -> dict[str, Any]:
    """What else the results depend on."""
    return {
        "profile": config.profile,
        "seed": config.seed,
        "versions": {"explainvad": version("explainvad"), **versions()},
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _source(dataset: LabelledDataset) -> dict[str, Any]:
    """Where the images come from, and on what terms."""
    licence = dataset.source.licence
    return {
        "name": dataset.name,
        "category": dataset.category,
        "page": dataset.source.page or None,
        "licence": str(licence),
        "commercial_use": licence.commercial,
    }


def _gpu_peak_bytes() -> int | None:
    """The most that torch held on a GPU."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None


def _context(root: Path, fitted_on: str, config: InspectionConfig) -> dict[str, Any]:
    """What the results of text rest on."""
    describer = recorded_describer(config.describer)
    return {"dataset": root.resolve().name, "fitted_on": fitted_on, "describer": describer}
