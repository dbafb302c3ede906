"""Fitting: reference images -> splits -> scorers on FIT -> scales on NORM -> calibration on CAL (and DEF)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explainvad.attribution.references import ReferenceGallery
from explainvad.attribution.regions import cluster_mass
from explainvad.config import InspectionConfig
from explainvad.detection.ensemble import Ensemble
from explainvad.detection.profiles import ensemble_fitter
from explainvad.detection.synthesis.whole import with_defect
from explainvad.errors import UsageError
from explainvad.fit_checks import check_fit
from explainvad.inspection import acquired
from explainvad.model_card import versions
from explainvad.record.ledger import utc_now
from explainvad.reference_images import ReferenceImages, readable
from explainvad.types import ImageScore, InspectionImage, Progress
from explainvad.uncertainty.calibrator import Calibrator
from explainvad.uncertainty.grouping import rule_labels
from explainvad.uncertainty.scales import Scored
from explainvad.uncertainty.splits import Split

_SYNTHETIC = 7  # part of the seeds of synthetic defects


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """All that an inspector is made of."""

    ensemble: Ensemble
    calibrator: Calibrator
    gallery: ReferenceGallery
    split: Split
    facts: dict[str, Any]  # when, how long, on what images, by what versions, and notes for the report


def fit(
    references: str | Path | Sequence[str | Path],
    config: InspectionConfig,
    *,
    defects: str | Path | None,
    group: str | None,
    progress: Progress | None,
) -> Fitted:
    """Fit all parts. Raises LotError, ConfigError, WeightsError and TooFewImagesError."""
    started = time.monotonic()
    fit_ensemble = ensemble_fitter(config, progress)
    given = ReferenceImages.read(references, config, defects=defects, group=group)
    fit_images = given.images.subset(given.split.fit)
    ensemble = fit_ensemble(fit_images, given.few)
    gallery = ReferenceGallery.fit(fit_images)
    calibrator = _calibrate(given, ensemble, gallery, config, progress)
    return Fitted(ensemble, calibrator, gallery, given.split, _facts(given, ensemble, calibrator, config, started))


def extend(
    fitted: Fitted,
    further: str | Path | Sequence[str | Path],
    references: str | Path | Sequence[str | Path],
    config: InspectionConfig,
    *,
    defects: str | Path | None,
    group: str | None,
    progress: Progress | None,
) -> Fitted:
    """Take ``further`` normal images into the memory banks, and calibrate anew on the images of the first fit.

    A larger bank gives smaller distances, so the calibration of the smaller one would not hold. ``references`` are
    the images that the model was fitted to, whatever their files are called now; the splits stay as they were.
    Raises UsageError when they are others, when a further image shows one of their parts, or when the model cannot be
    extended.
    """
    started = time.monotonic()
    known = fitted.facts["references"]
    given = ReferenceImages.read(references, config, defects=defects, group=group, dealt=(fitted.split, known))
    new = readable(further, "further reference")
    if twin := next((file.file for file, sha in zip(new.files, new.sha256, strict=True) if sha in set(known)), None):
        raise UsageError(f"{twin} is a reference image of this model already: name images that it has not seen")
    if group is not None:
        seen, parts = (rule_labels([file.file for file in images.files], group) for images in (given.images, new))
        if twin := next((f.file for f, part in zip(new.files, parts, strict=True) if part in set(seen)), None):
            raise UsageError(f"{twin} shows a part that calibrates this model: name images of parts it has not seen")
    ensemble = fitted.ensemble.extended(new)
    calibrator = _calibrate(given, ensemble, fitted.gallery, config, progress)
    facts = _facts(given, ensemble, calibrator, config, started)
    named = [[file.file, sha256] for file, sha256 in zip(new.files, new.sha256, strict=True)]
    facts["further"] = [*fitted.facts.get("further", ()), named]
    facts["notes"].append(f"extended by {len(new)} further reference images, and calibrated anew on the same images")
    return Fitted(ensemble, calibrator, fitted.gallery, fitted.split, facts)


def _calibrate(
    given: ReferenceImages,
    ensemble: Ensemble,
    gallery: ReferenceGallery,
    config: InspectionConfig,
    progress: Progress | None,
) -> Calibrator:
    """Scales on NORM, calibration on CAL (and DEF)."""
    images, split, labelled = given.images, given.split, given.labelled
    report = progress or (lambda *_: None)
    n_made = -(-config.synthetic_defects // len(split.cal))  # of each cell
    n_scored = sum(map(len, (split.norm, *split.cal.values(), *labelled.values()))) + n_made * len(split.cal)
    counter = iter(range(1, n_scored + 1))

    def judges(index: int) -> tuple[Ensemble, ReferenceGallery]:
        """What a reference image is judged by: everything, or in leave-one-out all but its own group."""
        if not given.few:
            return ensemble, gallery
        own = [i for i, part in enumerate(split.parts) if part == split.parts[index]]
        return ensemble.without(own), gallery.without(own)

    def score(image: InspectionImage, by: Ensemble = ensemble) -> list[ImageScore]:
        report("calibrating", next(counter), n_scored)
        return by.score(image)

    def scored(indices: Sequence[int]) -> Iterator[Scored]:
        # lazily, because the maps of all images at once would not fit; leave-one-out so scores its few images twice
        for index in indices:
            scorers, pictures = judges(index)
            image = images[index]
            yield score(image, scorers), acquired(image, pictures)

    def synthetic(number: int, cell: str) -> Iterator[tuple[list[ImageScore], float]]:
        """Defects made on NORM images, each judged by scorers that were not fitted to it."""
        norm = [i for i in split.norm if given.cells[i] == cell]
        for n in range(n_made):
            index, donor = norm[n % len(norm)], norm[(n + 1) % len(norm)]
            image, size = with_defect(images[index], images[donor], config.seed, _SYNTHETIC, number, n)
            yield score(image, judges(index)[0]), size

    return Calibrator.fit(
        scored(split.norm),
        {cell: scored(indices) for cell, indices in split.cal.items()},
        cluster_mass,
        {cell: map(score, found) for cell, found in labelled.items()},
        {cell: synthetic(number, cell) for number, cell in enumerate(split.cal)},
        config.alpha,
    )


def _facts(
    given: ReferenceImages, ensemble: Ensemble, calibrator: Calibrator, config: InspectionConfig, started: float
) -> dict[str, Any]:
    fit_images, norm = (given.images.subset(indices) for indices in (given.split.fit, given.split.norm))
    checks = check_fit(ensemble, calibrator, fit_images, () if given.few else norm, config.seed)
    return {
        "fitted_at": utc_now(),
        # under SOURCE_DATE_EPOCH the same input must give the same bytes, so no stopwatch either
        "fit_seconds": None if "SOURCE_DATE_EPOCH" in os.environ else round(time.monotonic() - started, 1),
        "sizes": given.sizes,
        "references": list(given.images.sha256),
        "reference_files": [file.file for file in given.images.files],
        "versions": versions(),
        "checks": checks,
        "notes": list(given.notes),
    }
