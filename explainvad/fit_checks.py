"""What can be wrong with a fitted scorer, measured at the end of a fit: the survey's signatures of failure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from explainvad.detection.ensemble import Ensemble
from explainvad.detection.scorer import FrozenScorer
from explainvad.detection.signatures import (
    LEAST_PAIRS,
    FailureSignature,
    bank_latency,
    domain_gap,
    identity_mapping,
    overfitting,
    planted,
)
from explainvad.detection.synthesis.whole import with_defect
from explainvad.types import InspectionImage, Scorer
from explainvad.uncertainty.calibrator import Calibrator

PAIRS = 8  # held-out images that a defect is planted in
FITTED = 24  # images of the fit whose scores are compared with those of the calibration images
TIMED = 5  # images
RECONSTRUCTION, TRAINED = "reconstruction", ("reconstruction", "distillation")  # families
_PLANTED = 11  # part of the seeds of the defects

Checks = dict[str, list[dict[str, Any]]]  # by scorer, as JSON


def check_fit(
    ensemble: Ensemble,
    calibrator: Calibrator,
    fit_images: Sequence[InspectionImage],
    held_out: Sequence[InspectionImage],
    seed: int,
) -> Checks:
    """The signatures of every scorer that has one; ``held_out`` are the NORM images, which nothing was fitted to.

    Of a model fitted by leaving images out there are no such images; only what needs none is measured.
    """
    checks: Checks = {}
    for scorer in ensemble.scorers:
        found = list(_signatures(scorer, calibrator, fit_images, held_out, seed))
        if found:
            checks[scorer.card().name] = [
                {"name": s.name, "value": s.value, "failed": s.failed, "sentence": s.sentence} for s in found
            ]
    return checks


def _signatures(
    scorer: Scorer,
    calibrator: Calibrator,
    fit_images: Sequence[InspectionImage],
    held_out: Sequence[InspectionImage],
    seed: int,
) -> Iterator[FailureSignature]:
    card = scorer.card()
    if card.family.startswith(RECONSTRUCTION) and len(held_out) >= LEAST_PAIRS:
        yield _identity(scorer, held_out, seed)
    if card.family.startswith(TRAINED) and held_out:
        spread = np.linspace(0, len(fit_images) - 1, min(FITTED, len(fit_images))).round().astype(int)
        fitted = [scorer.score([fit_images[int(i)]])[0].value for i in spread]
        yield overfitting(fitted, np.concatenate([cell.by_scorer[card.name] for cell in calibrator.cells.values()]))
    if not isinstance(scorer, FrozenScorer):
        return
    if scorer.separation:
        yield domain_gap(*scorer.separation)
    # a stopwatch would make two bundles of the same input differ
    if "SOURCE_DATE_EPOCH" not in os.environ:
        times = [scorer.latency(fit_images[i]) for i in range(min(TIMED, len(fit_images)))]
        if measured := [t for t in times if t is not None]:
            search, forward, rows = zip(*measured, strict=True)
            yield bank_latency(search, forward, rows[0])


def _identity(scorer: Scorer, held_out: Sequence[InspectionImage], seed: int) -> FailureSignature:
    images = [held_out[i] for i in range(min(PAIRS, len(held_out)))]
    defective = [
        with_defect(image, images[(i + 1) % len(images)], seed, _PLANTED, i)[0] for i, image in enumerate(images)
    ]
    normal_maps, defect_maps = ([s.anomaly_map for s in scorer.score(each)] for each in (images, defective))
    masks = [planted(image.pixels, copy.pixels) for image, copy in zip(images, defective, strict=True)]
    return identity_mapping(normal_maps, defect_maps, masks)
