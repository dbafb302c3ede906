"""Collects what a model says of labelled images, one after the other, and makes figures of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.evaluation.metrics.cost import measured_cost
from explainvad.evaluation.metrics.deployed import DeployedThreshold
from explainvad.evaluation.metrics.images import ImageScores, image_auroc, image_metrics
from explainvad.evaluation.metrics.pixels import PixelMetrics, PixelScores
from explainvad.evaluation.metrics.regions import DefectMask, iou, pointing_hit, region_hit
from explainvad.evaluation.metrics.resampling import Measured, Resampling
from explainvad.evaluation.verdicts import LabelledVerdicts
from explainvad.pipeline import Inspector
from explainvad.types import Decision, ImageRecord
from explainvad.uncertainty.lot_statistics import clopper_pearson

_NAMES = {"auroc": "AUROC", "aupr": "AUPR", "f1_deployed": "F1", "f1_max": "F1max"}


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is known of a test image: its defect's type (None for good) and masks, where there are any."""

    defect: str | None
    mask: NDArray[np.bool_] | None
    defects: Sequence[DefectMask]
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class DeployedThresholds:
    """As calibration set them on normal images: of the fused score, and of the fused map."""

    score: DeployedThreshold
    pixel: DeployedThreshold

    @classmethod
    def of(cls, inspector: Inspector) -> DeployedThresholds | None:
        """Those of a model, on which all of its reference images took part; None where each cell has its own."""
        calibration = inspector.card().calibration
        if calibration.cells:
            return None
        images = reference_files(inspector)
        alpha = f"of calibration images at alpha = {calibration.alpha:g}"
        return cls(
            DeployedThreshold(calibration.score_threshold, f"conformal quantile of the scores {alpha}", images),
            DeployedThreshold(calibration.pixel_threshold, f"conformal quantile of the largest pixels {alpha}", images),
        )

    def described(self) -> dict[str, Any]:
        """As plain values."""
        kinds = {"image": self.score, "pixel": self.pixel}
        described: dict[str, Any] = {n: {"value": t.value, "rule": t.rule} for n, t in kinds.items()}
        return described | {"n_reference_images": len(self.score.images)}


def reference_files(inspector: Inspector) -> dict[str, str]:
    """The files that a model was fitted to or calibrated on, by the sha256 of their contents."""
    facts = inspector.fitted
    images = dict(zip(facts["references"], facts["reference_files"], strict=True))
    return images | {sha256: file for extension in facts.get("further", ()) for file, sha256 in extension}


class Measuring:
    """Holds scores, counts and thinned maps of the images added so far, never all maps."""

    def __init__(self, thresholds: DeployedThresholds | None, resampling: Resampling) -> None:
        self.records: list[ImageRecord] = []
        self._thresholds = thresholds
        self._how = resampling
        self._truths: list[str | None] = []
        self._sha256: list[str] = []
        self._areas: list[int] = []  # px, of the defects' masks; 0 without one
        self._overlaps: list[tuple[bool, float] | None] = []  # of flagged defect images with a mask: hit, IoU
        self._peaks: list[float | None] = []  # of all defect images with a mask: whether the map's peak lies in it
        self._seconds: list[float] = []
        self._masked: list[int] = []  # numbers of the images that count for pixel metrics
        self._pixels = PixelMetrics(thresholds.pixel if thresholds else None)
        self._measured: dict[str, Measured] = {}

    def add(self, record: ImageRecord, fused_map: NDArray[np.float32], truth: Truth, seconds: float) -> None:
        """Add one inspected image, which took ``seconds``."""
        mask = truth.mask
        if mask is not None:
            self._pixels.update(fused_map, mask, defects=truth.defects, sha256=truth.sha256, name=record.file)
            self._masked.append(len(self.records))
        self.records.append(record)
        self._truths.append(truth.defect)
        self._sha256.append(truth.sha256)
        self._areas.append(int(mask.sum()) if mask is not None else 0)
        self._seconds.append(seconds)
        overlap = None
        if truth.defect is not None and mask is not None and record.flagged:
            found = np.zeros_like(mask)
            for finding in record.findings:
                found |= finding.region.mask.to_array()
            overlap = region_hit(found, mask), iou(found, mask) or 0.0
        self._overlaps.append(overlap)
        with_mask = truth.defect is not None and mask is not None
        self._peaks.append(pointing_hit(fused_map, mask) if with_mask and mask is not None else None)

    def verdicts(self, n_cal: int | None, seed: int) -> LabelledVerdicts:
        """For the evaluation of calibration."""
        verdicts = [record.verdict for record in self.records if record.verdict is not None]
        return LabelledVerdicts(verdicts, self._truths, self._areas, n_cal, seed)

    def results(self, gpu_peak_bytes: int | None = None) -> dict[str, Any]:
        """Everything as plain values; what the images cannot tell is None or empty."""
        y = np.array([label is not None for label in self._truths], dtype=np.bool_)
        verdicts = [r.verdict for r in self.records if r.verdict is not None]
        scores = np.array([v.score for v in verdicts], dtype=np.float64)
        threshold = self._thresholds.score if self._thresholds else None
        image = image_metrics(y, scores, threshold=threshold, sha256=self._sha256, resampling=self._how)
        rejected = [v.decision is Decision.REJECT for v in verdicts]
        n_good = int((~y).sum())
        cost = measured_cost(self._seconds, self._how, gpu_peak_bytes)
        pixel = self._pixels.compute(resampling=self._how)
        self._measured = _by_name(image, pixel)
        false_rejects = sum(r for r, d in zip(rejected, y, strict=True) if not d)
        return {
            "n_good": n_good,
            "n_defect": int(y.sum()),
            "image_auroc": _plain(image.auroc),
            "image_aupr": _plain(image.aupr),
            "image_f1_max": _plain(image.f1_max),
            "image_f1_deployed": _plain(image.f1_deployed),
            "thresholds": self._thresholds.described() if self._thresholds else None,
            "resamples": {"n": self._how.n, "seed": self._how.seed, "of": "images, within good and defect ones"},
            "scorer_auroc": {
                name: image_auroc(y, np.array([r.scores[name] for r in self.records]))
                for name in self.records[0].scores
            },
            "pixel": self._pixel_results(pixel),
            "cost": asdict(cost) | {"mean": cost.mean.plain()},
            "good_reject_rate": asdict(clopper_pearson(false_rejects, n_good)) if n_good else None,
            "by_type": {
                name or "good": self._row(name) | {"auroc": self._auroc_of(name, scores)}
                for name in sorted(set(self._truths), key=lambda n: n or "")
            },
        }

    def save_resamples(self, path: Path) -> None:
        """The resampled values of each metric of :meth:`results`, float64 (n,), and the test images' sha256.

        Two runs on the same images drew the same resamples, so that their differences can be judged in pairs.
        """
        arrays: dict[str, Any] = {"sha256": np.array(self._sha256), "seed": np.array(self._how.seed)}
        arrays |= {name: m.resampled for name, m in self._measured.items() if m.resampled is not None}
        arrays |= {f"estimate {name}": np.array(m.estimate) for name, m in self._measured.items()}
        np.savez_compressed(path, **arrays)

    def _pixel_results(self, pixel: PixelScores) -> dict[str, Any]:
        by_image = zip(self._masked, pixel.aupimo_by_image, strict=True)
        return {
            **{name: _plain(getattr(pixel, name)) for name in ("auroc", "aupr", "f1_max", "f1_deployed")},
            **{name: _plain(getattr(pixel, name)) for name in ("aupimo", "pointing")},
            "aupro": {f"{limit:.2f}": _plain(value) for limit, value in pixel.aupro.items()},
            "auspro": {f"{limit:.2f}": _plain(value) for limit, value in pixel.auspro.items()},
            "aupimo_by_image": {self.records[i].file: value for i, value in by_image if value is not None},
            "n_images": pixel.n_images,
            "n_regions": pixel.n_regions,
            "n_normal_pixels": pixel.n_normal_pixels,
            "n_defect_pixels": pixel.n_defect_pixels,
        }

    def _auroc_of(self, defect: str | None, scores: NDArray[np.float64]) -> float | None:
        """Image AUROC of one defect type against the good images."""
        truths = np.array([label or "" for label in self._truths])
        chosen = (truths == "") | (truths == (defect or ""))
        return image_auroc(truths[chosen] != "", scores[chosen])

    def _row(self, label: str | None) -> dict[str, Any]:
        chosen = [i for i, value in enumerate(self._truths) if value == label]
        decisions = Counter(self.records[i].decision for i in chosen)
        overlaps = [overlap for i in chosen if (overlap := self._overlaps[i]) is not None]
        peaks = [peak for i in chosen if (peak := self._peaks[i]) is not None]
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


def _plain(value: Measured | None) -> dict[str, Any] | None:
    return None if value is None else value.plain()


def _by_name(image: ImageScores, pixel: PixelScores) -> dict[str, Measured]:
    """All metrics that are defined, by the names that tables give them."""
    found = {f"image {name}": getattr(image, field) for field, name in _NAMES.items() if hasattr(image, field)}
    found |= {f"pixel {name}": getattr(pixel, field) for field, name in _NAMES.items()}
    found |= {f"AUPRO({limit:.2f})": value for limit, value in pixel.aupro.items()}
    found |= {f"AU-sPRO({limit:.2f})": value for limit, value in pixel.auspro.items()}
    found |= {"AUPIMO": pixel.aupimo, "pointing game": pixel.pointing}
    return {name: value for name, value in found.items() if value is not None}
