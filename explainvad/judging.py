"""One image: scores -> verdict -> regions -> findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from explainvad.attribution.references import ReferenceGallery
from explainvad.attribution.regions import ThresholdAttributor
from explainvad.attribution.sam import SamRefiner
from explainvad.config import InspectionConfig
from explainvad.detection.ensemble import Ensemble
from explainvad.explanation.describers.model import ModelDescriber
from explainvad.inspection import acquired, describe, inspected
from explainvad.types import ImageRecord, ImageScore, InspectionImage
from explainvad.uncertainty.calibrator import Calibrator


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One image's record, what it was made from, and the picture of its nearest reference."""

    record: ImageRecord
    scores: Sequence[ImageScore]
    fused_map: NDArray[np.float32]  # (H, W)
    picture: bytes  # JPEG


def judge(
    image: InspectionImage,
    ensemble: Ensemble,
    calibrator: Calibrator,
    gallery: ReferenceGallery,
    config: InspectionConfig,
    cell: str,
    refiner: SamRefiner | None = None,
    model: ModelDescriber | None = None,
) -> Judged:
    """Judge one image at the levels of ``config``, by the calibration of its ``cell``.

    ``refiner`` draws outlines; ``model`` describes regions beside the measured sentences. Neither changes the verdict.
    """
    known = calibrator.cell(cell)
    scores = ensemble.score(image)
    fused_map = calibrator.scales.fusion.map(scores)
    reference, picture = gallery.nearest(image)
    verdict = calibrator.verdict(
        scores,
        acquired(image, gallery, reference),
        alpha=config.alpha,
        beta=config.beta,
        gamma=config.gamma,
        prior=config.prior,
        cell=cell,
    )
    record = inspected(image, scores, verdict, reference)
    if record.flagged:
        attributor = ThresholdAttributor(
            cluster_threshold=calibrator.scales.cluster_threshold,
            pixel_threshold=known.pixel_threshold(config.alpha),
            region_p_value=known.region_p_value,
            contributions=calibrator.scales.fusion.contributions,
            region_alpha=config.alpha,
            at_least=1 if verdict.p_value <= config.alpha else 0,
        )
        regions = attributor.regions(image, fused_map, scores)
        if refiner is not None:
            regions = refiner.refine(image, fused_map, regions, attributor.cluster_threshold)
        findings, alignment = describe(image, regions, model, picture)
        record = replace(record, findings=findings, reference=replace(reference, alignment=alignment))
    return Judged(record, scores, fused_map, picture)
