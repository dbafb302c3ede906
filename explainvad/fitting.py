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
from explainvad.detection.ensemble import EmbeddedEnsemble
from explainvad.detection.synthesis.whole import with_defect
from explainvad.errors import LotError
from explainvad.inspection import acquired
from explainvad.lazy_images import LazyImages
from explainvad.lot import collect_references
from explainvad.model_card import versions
from explainvad.record.ledger import utc_now
from explainvad.types import ImageScore, InspectionImage, Progress
from explainvad.uncertainty.calibrator import Calibrator
from explainvad.uncertainty.conformal import images_needed, require_images
from explainvad.uncertainty.grouping import group_labels, rule_labels
from explainvad.uncertainty.scales import Scored
from explainvad.uncertainty.splits import (
    FEW_GROUPS,
    LEAVE_ONE_OUT,
    Split,
    grouped_split,
    leave_one_out_split,
    one_of_each,
)

_SYNTHETIC = 7  # part of the seeds of synthetic defects


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """All that an inspector is made of."""

    ensemble: EmbeddedEnsemble
    calibrator: Calibrator
    gallery: ReferenceGallery
    split: Split
    facts: dict[str, Any]  # when, how long, on what sizes, by what versions, and notes for the report


def fit(
    references: str | Path | Sequence[str | Path],
    config: InspectionConfig,
    *,
    defects: str | Path | None,
    group: str | None,
    progress: Progress | None,
) -> Fitted:
    """Fit all parts. Raises LotError, ConfigError and TooFewImagesError."""
    report = progress or (lambda *_: None)
    started = time.monotonic()
    images = _readable(references, "reference")
    cells = _cells(images, config.group_by)
    split = _split(images, cells, config, group)
    labelled, notes = _labelled(defects, list(split.cal), config, group)
    few = split.scheme == LEAVE_ONE_OUT
    fit_images = images.subset(split.fit)
    ensemble = EmbeddedEnsemble.fit(
        fit_images, config.seed, **config.detection.model_dump(), device=config.device, few=few, progress=progress
    )
    gallery = ReferenceGallery.fit(fit_images)
    n_made = -(-config.synthetic_defects // len(split.cal))  # of each cell
    n_scored = sum(map(len, (split.norm, *split.cal.values(), *labelled.values()))) + n_made * len(split.cal)
    counter = iter(range(1, n_scored + 1))

    def judges(index: int) -> tuple[EmbeddedEnsemble, ReferenceGallery]:
        """What a reference image is judged by: everything, or in leave-one-out all but its own group."""
        if not few:
            return ensemble, gallery
        own = [i for i, part in enumerate(split.parts) if part == split.parts[index]]
        return ensemble.without(own), gallery.without(own)

    def score(image: InspectionImage, by: EmbeddedEnsemble = ensemble) -> list[ImageScore]:
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
        norm = [i for i in split.norm if cells[i] == cell]
        for n in range(n_made):
            index, donor = norm[n % len(norm)], norm[(n + 1) % len(norm)]
            image, size = with_defect(images[index], images[donor], config.seed, _SYNTHETIC, number, n)
            yield score(image, judges(index)[0]), size

    calibrator = Calibrator.fit(
        scored(split.norm),
        {cell: scored(indices) for cell, indices in split.cal.items()},
        cluster_mass,
        {cell: map(score, found) for cell, found in labelled.items()},
        {cell: synthetic(number, cell) for number, cell in enumerate(split.cal)},
        config.alpha,
    )
    sizes = [(image.width, image.height) for image in images]
    facts = {
        "fitted_at": utc_now(),
        # under SOURCE_DATE_EPOCH the same input must give the same bytes, so no stopwatch either
        "fit_seconds": None if "SOURCE_DATE_EPOCH" in os.environ else round(time.monotonic() - started, 1),
        "sizes": [[min(side), max(side)] for side in zip(*sizes, strict=True)],
        "versions": versions(),
        "notes": [*notes, *(f"reference image left out: {file}: {reason}" for file, reason in images.skipped)],
    }
    return Fitted(ensemble, calibrator, gallery, split, facts)


def _readable(references: str | Path | Sequence[str | Path], what: str) -> LazyImages:
    """The readable images of folders and files; at least one, or LotError naming what was wrong."""
    paths = [references] if isinstance(references, str | Path) else list(references)
    images = LazyImages(collect_references([Path(p) for p in paths]))
    if not images:
        first = f"; the first: {images.skipped[0][0]}: {images.skipped[0][1]}" if images.skipped else ""
        raise LotError(f"no readable {what} image in {', '.join(str(p) for p in paths)}{first}")
    return images


def _cells(images: LazyImages, rule: str | None) -> list[str]:
    """The cell of each image: one for all without a rule."""
    return group_labels([file.file for file in images.files], rule)[0] if rule else [""] * len(images)


def _split(images: LazyImages, cells: Sequence[str], config: InspectionConfig, group: str | None) -> Split:
    labels, grouping = group_labels([file.file for file in images.files], group)
    few = len(set(labels)) < FEW_GROUPS if config.scheme == "auto" else config.scheme == LEAVE_ONE_OUT
    deal = leave_one_out_split if few else grouped_split
    return deal(labels, grouping, config.seed, images_needed(config.alpha), cells)


def _labelled(
    folder: str | Path | None, cells: Sequence[str], config: InspectionConfig, group: str | None
) -> tuple[dict[str, LazyImages], list[str]]:
    """Images of labelled defects by cell, one of each part, and what the report must say of them.

    Raises LotError for a data set's root, which holds good images and masks too, and TooFewImagesError when no
    cell has enough of them for beta.
    """
    if folder is None:
        return {}, []
    for other in ("good", "ground_truth"):
        if (Path(folder) / other).is_dir():
            raise LotError(f"{folder} holds a folder {other}/: name a folder that holds images of defects only")
    images = _readable(folder, "defect")
    notes = [f"defect image left out: {file}: {reason}" for file, reason in images.skipped]
    own = _cells(images, config.group_by)
    chosen: Sequence[int] = range(len(images))
    if group is not None:
        parts = rule_labels([file.file for file in images.files], group)
        if all(parts):
            chosen = one_of_each([f"{part} in {cell}" for part, cell in zip(parts, own, strict=True)], config.seed)
        else:
            notes.append("labelled defects: the grouping rule does not cover them, each counts as a part of its own")
    notes += [
        f"labelled defects of {cell}: left out, no reference images calibrate it"
        for cell in sorted(set(own) - set(cells))
    ]
    by_cell = {cell: images.subset([i for i in chosen if own[i] == cell]) for cell in cells}
    enough = {cell: found for cell, found in by_cell.items() if len(found) >= images_needed(config.beta)}
    if not enough:
        require_images(max(map(len, by_cell.values())), config.beta, "accepting (on labelled defects)")
    notes += [
        f"labelled defects of {cell}: {len(found)} are too few for beta = {config.beta:g}, so nothing of it is accepted"
        for cell, found in by_cell.items()
        if cell not in enough
    ]
    return enough, notes
