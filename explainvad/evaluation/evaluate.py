"""Run a model over a labelled data set and measure it. Nothing is fitted, scaled or thresholded on test images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.admission import cells_of, unknown_cell
from explainvad.config import InspectionConfig
from explainvad.describing import recorded_describer
from explainvad.errors import LotError, StorageError, UnreadableImageError
from explainvad.evaluation.datasets import load_dataset, read_mask
from explainvad.evaluation.metrics import (
    PixelMetrics,
    bootstrap_interval,
    image_aupr,
    image_auroc,
    iou,
    region_hit,
)
from explainvad.evaluation.splitting import for_fitting
from explainvad.evaluation.text import TextEvaluation
from explainvad.evaluation.text_arms import arms
from explainvad.evaluation.text_tables import console, write_text
from explainvad.evaluation.verdicts import LabelledVerdicts
from explainvad.lot import LotFile, read_image
from explainvad.pipeline import Inspector
from explainvad.types import Decision, ImageRecord, Interval, Progress
from explainvad.uncertainty.lot_statistics import clopper_pearson

AUPRO_LIMITS = (0.30, 0.05)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Results as plain values, for :meth:`table`. ``metrics.json`` holds ``results``, ``text.json`` ``text``."""

    results: dict[str, Any]
    text: dict[str, Any] | None = None  # of the words about regions, where they were evaluated

    def table(self) -> str:
        """The figures as aligned text."""
        r = self.results
        lines = [
            f"images      {r['n_good']} good, {r['n_defect']} defect, {len(r['not_inspected'])} not inspected; "
            f"{r['fitted_on']}",
            f"image AUROC {_interval(r['image_auroc'])}   AUPR {_interval(r['image_aupr'])}",
            "per scorer  " + ", ".join(f"{n} AUROC {v:.3f}" for n, v in r["scorer_auroc"].items() if v is not None),
        ]
        pixel = r["pixel"]
        if pixel["auroc"] is not None:
            aupro = ", ".join(f"AUPRO({limit}) {value:.3f}" for limit, value in pixel["aupro"].items())
            lines.append(f"pixel AUROC {pixel['auroc']:.3f}   {aupro}   ({pixel['n_regions']} defect regions)")
        if r["unmasked_defects"]:
            lines.append(f"no masks    {', '.join(r['unmasked_defects'])}: left out of the pixel metrics")
        lines.append(
            f"rejected    {_interval(r['good_reject_rate'])} of the good at alpha = {r['alpha']:g} "
            f"({r['n_cal']} calibration images)"
        )
        lines += _uncertainty(r["calibration"])
        lines.append(f"{'type':<24}{'n':>5}{'REJECT':>8}{'DEFER':>7}{'passed':>8}{'hit':>9}{'mean IoU':>10}{'peak':>9}")
        for name, row in r["by_type"].items():
            hit = f"{row['hits']}/{row['flagged_with_mask']}" if row["flagged_with_mask"] else "-"
            overlap = f"{row['mean_iou']:.2f}" if row["mean_iou"] is not None else "-"
            peak = f"{row['peaks']}/{row['with_mask']}" if row["with_mask"] else "-"
            lines.append(
                f"{name:<24}{row['n']:>5}{row['REJECT']:>8}{row['DEFER']:>7}{row['passed']:>8}{hit:>9}{overlap:>10}{peak:>9}"
            )
        lines.append("passed: NOT_FLAGGED or ACCEPT; hit: flagged images with a region that overlaps the true mask;")
        lines.append("peak: all images whose largest map value lies inside the true mask")
        if self.text is not None:
            lines.append(console(self.text))
        return "\n".join(lines)


def evaluate_dataset(
    root: Path,
    out: Path,
    *,
    model: Path | None = None,
    config: InspectionConfig | None = None,
    group: str | None = None,
    text: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a bundle, or fit one first on the data set's normal images; write ``out/metrics.json`` and figures.

    Without ``model`` the fit uses ``train/good``, or, in the flat layout, two thirds of the good images (whole
    groups of ``group``); only the others are then tested. ``text`` evaluates the words about regions too, also
    those of the describer of ``config``. Raises LotError, ConfigError, StorageError, and WeightsError for a describer.
    """
    dataset = load_dataset(root)
    config = config or InspectionConfig()
    words = TextEvaluation(arms(config), config.seed) if text else None
    fitting: Sequence[Path] = ()
    if model is not None:
        inspector, fitted_on = Inspector.load(model, config.device), f"fitted before ({model.name})"
    else:
        fitting = dataset.train or for_fitting(dataset, group, config.seed)
        inspector = Inspector.fit(fitting, config=config, group=group, progress=progress)
        fitted_on = f"fitted on {len(fitting)} good images"
    measured = _Measured()
    used = set(fitting)
    items = [item for item in dataset.items if item.path not in used]
    cells = cells_of([item.file for item in items], inspector.config.group_by, inspector.calibrator.cells)
    for number, (item, cell) in enumerate(zip(items, cells, strict=True), start=1):
        if progress:
            progress("evaluating", number, len(items))
        try:
            image = read_image(LotFile(f"img-{number:05d}", item.file, item.path, root))
        except UnreadableImageError as error:
            measured.not_inspected.append(f"{item.file}: {error}")
            continue
        mask = read_mask(item.mask_path, (image.height, image.width)) if item.mask_path else None
        if item.defect is None:
            mask = np.zeros((image.height, image.width), dtype=np.bool_)
        if (unknown := unknown_cell(cell, inspector.calibrator.cells)) is not None:
            measured.not_inspected.append(f"{item.file}: {unknown}")
            continue
        record, fused_map = inspector.inspect_with_map(image, cell)
        measured.add(item.defect, record, fused_map, mask)
        if words is not None and record.verdict is not None:
            reference = inspector.gallery.nearest(image)[1]
            words.add(image, record.findings, record.verdict.epistemic, fused_map, mask, reference)
    if not measured.records:
        raise LotError(f"none of the {len(items)} images could be inspected; the first: {measured.not_inspected[0]}")
    calibration = inspector.card().calibration
    verdicts = measured.verdicts(None if calibration.cells else calibration.n_cal, inspector.config.seed)
    evaluation = Evaluation(
        {
            "dataset": root.resolve().name,
            "fitted_on": fitted_on,
            "alpha": inspector.config.alpha,
            "n_cal": calibration.n_cal,
            "unmasked_defects": list(dataset.unmasked_defects),
            "calibration": verdicts.results(),
            **measured.results(inspector.config.seed),
        },
        None if words is None else words.results() | _context(root, fitted_on, config),
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        verdicts.save_figures(out)
        (out / "metrics.json").write_text(json.dumps(evaluation.results, indent=1, sort_keys=True) + "\n", "utf-8")
        if evaluation.text is not None:
            write_text(evaluation.text, out)
        (out / "metrics.txt").write_text(evaluation.table() + "\n", "utf-8")
    except OSError as error:
        raise StorageError(f"the results could not be written to {out}: {error.strerror or error}") from error
    return evaluation


def _context(root: Path, fitted_on: str, config: InspectionConfig) -> dict[str, Any]:
    """What the results of text rest on."""
    describer = recorded_describer(config.describer)
    return {"dataset": root.resolve().name, "fitted_on": fitted_on, "describer": describer}


class _Measured:
    """Collects one image after the other; holds scores and small counts, never all maps."""

    def __init__(self) -> None:
        self.labels: list[str | None] = []
        self.records: list[ImageRecord] = []
        self.areas: list[int] = []  # px, of the defects' masks; 0 without one
        self.overlaps: list[tuple[bool, float] | None] = []  # of flagged defect images with a mask: hit, IoU
        self.peaks: list[bool | None] = []  # of all defect images with a mask: whether the map's peak lies in it
        self.not_inspected: list[str] = []
        self.pixels = PixelMetrics()

    def add(
        self, defect: str | None, record: ImageRecord, fused_map: NDArray[np.float32], mask: NDArray[np.bool_] | None
    ) -> None:
        self.labels.append(defect)
        self.records.append(record)
        self.areas.append(int(mask.sum()) if mask is not None else 0)
        if mask is not None:
            self.pixels.update(fused_map, mask)
        overlap = None
        if defect is not None and mask is not None and record.flagged:
            found = np.zeros_like(mask)
            for finding in record.findings:
                found |= finding.region.mask.to_array()
            overlap = region_hit(found, mask), iou(found, mask) or 0.0
        self.overlaps.append(overlap)
        with_mask = defect is not None and mask is not None
        self.peaks.append(bool(mask.flat[int(fused_map.argmax())]) if with_mask and mask is not None else None)

    def verdicts(self, n_cal: int | None, seed: int) -> LabelledVerdicts:
        """For the evaluation of calibration."""
        verdicts = [record.verdict for record in self.records if record.verdict is not None]
        return LabelledVerdicts(verdicts, self.labels, self.areas, n_cal, seed)

    def results(self, seed: int) -> dict[str, Any]:
        y = np.array([label is not None for label in self.labels], dtype=np.bool_)
        verdicts = [r.verdict for r in self.records if r.verdict is not None]
        scores = np.array([v.score for v in verdicts], dtype=np.float64)
        rejected = [v.decision is Decision.REJECT for v in verdicts]
        n_good = int((~y).sum())
        pixel = self.pixels.compute(AUPRO_LIMITS)
        return {
            "n_good": n_good,
            "n_defect": int(y.sum()),
            "not_inspected": self.not_inspected,
            "image_auroc": _with_interval(image_auroc, y, scores, seed),
            "image_aupr": _with_interval(image_aupr, y, scores, seed),
            "scorer_auroc": {
                name: image_auroc(y, np.array([r.scores[name] for r in self.records]))
                for name in self.records[0].scores
            },
            "pixel": {
                "auroc": pixel.auroc,
                "aupro": {f"{limit:.2f}": value for limit, value in pixel.aupro.items()},
                "n_regions": pixel.n_regions,
            },
            "good_reject_rate": _as_dict(
                clopper_pearson(sum(r for r, d in zip(rejected, y, strict=True) if not d), n_good) if n_good else None
            ),
            "by_type": {name or "good": self._row(name) for name in sorted(set(self.labels), key=lambda n: n or "")},
        }

    def _row(self, label: str | None) -> dict[str, Any]:
        chosen = [i for i, value in enumerate(self.labels) if value == label]
        decisions = Counter(self.records[i].decision for i in chosen)
        overlaps = [overlap for i in chosen if (overlap := self.overlaps[i]) is not None]
        peaks = [peak for i in chosen if (peak := self.peaks[i]) is not None]
        return {
            "n": len(chosen),
            "REJECT": decisions[Decision.REJECT],
            "DEFER": decisions[Decision.DEFER],
            "passed": decisions[Decision.NOT_FLAGGED] + decisions[Decision.ACCEPT],
            "flagged_with_mask": len(overlaps),
            "hits": sum(hit for hit, _ in overlaps),
            "with_mask": len(peaks),
            "peaks": sum(peaks),
            "mean_iou": float(np.mean([value for _, value in overlaps])) if overlaps else None,
        }


def _with_interval(
    metric: Any, labels: NDArray[np.bool_], scores: NDArray[np.float64], seed: int
) -> dict[str, Any] | None:
    """A metric with its bootstrap interval, as plain values."""
    return _as_dict(bootstrap_interval(metric, labels, scores, seed=seed))


def _as_dict(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {n: getattr(interval, n) for n in ("estimate", "lower", "upper", "confidence")}


def _uncertainty(calibration: dict[str, Any]) -> list[str]:
    """Deferral, and what it gains; the figures in full are in the JSON."""
    lines = [f"deferred    {calibration['deferral_rate']:.3f} of all images"]
    if (risk := calibration["selective_risk"]) is not None:
        lines += [
            f"AUGRC       deferring by the epistemic part less by {other} "
            f"{_interval(risk[f'augrc_within_less_{other}'])}, negative is better"
            for other in ("random", "score")
        ]
    if (probability := calibration["probability"]) is not None:
        lines.append(f"P(defect)   ECE {probability['ece']:.3f}, Brier {probability['brier']['score']:.3f}")
    if (power := calibration["detection_power"]) is not None and power["a90"] is not None:
        bound = f", with 95 % confidence from {power['a90_95']:.1f} px" if power["a90_95"] is not None else ""
        lines.append(f"power       nine in ten found from {power['a90']:.1f} px{bound} (sqrt of the area)")
    return lines


def _interval(value: dict[str, Any] | None) -> str:
    if value is None:
        return "not defined"
    return f"{value['estimate']:.3f} [{value['lower']:.3f}, {value['upper']:.3f}]"
