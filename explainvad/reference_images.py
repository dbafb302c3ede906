"""What a fit is given: reference images, dealt to splits by part, and labelled defects beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explainvad.config import InspectionConfig
from explainvad.errors import LotError, UsageError
from explainvad.lazy_images import LazyImages
from explainvad.lot import collect_references
from explainvad.uncertainty.conformal import images_needed, require_images
from explainvad.uncertainty.grouping import group_labels, rule_labels
from explainvad.uncertainty.splits import (
    FEW_GROUPS,
    LEAVE_ONE_OUT,
    Split,
    grouped_split,
    leave_one_out_split,
    one_of_each,
)


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceImages:
    """Readable normal images with their cells and splits, labelled defects by cell, and notes for the report."""

    images: LazyImages
    cells: Sequence[str]  # of each image
    split: Split
    labelled: Mapping[str, LazyImages]
    notes: tuple[str, ...]

    @classmethod
    def read(
        cls,
        references: str | Path | Sequence[str | Path],
        config: InspectionConfig,
        *,
        defects: str | Path | None = None,
        group: str | None = None,
        dealt: tuple[Split, Sequence[str]] | None = None,
    ) -> ReferenceImages:
        """Read and deal them; ``dealt`` is the split of an earlier fit, with the sha256 of its images in order.

        Raises LotError, ConfigError and TooFewImagesError, and UsageError when they are not the images of that fit.
        """
        images = readable(references, "reference")
        if dealt:
            images = _same(images, dealt[1])
        cells = _cells(images, config.group_by)
        split = dealt[0] if dealt else _split(images, cells, config, group)
        labelled, notes = _labelled(defects, list(split.cal), config, group)
        skipped = (f"reference image left out: {file}: {reason}" for file, reason in images.skipped)
        return cls(images, cells, split, labelled, (*notes, *skipped))

    @property
    def few(self) -> bool:
        """Whether there are so few that each is calibrated against all others."""
        return self.split.scheme == LEAVE_ONE_OUT

    @property
    def sizes(self) -> list[list[int]]:
        """Least and most width, and height, px."""
        sides = zip(*((image.width, image.height) for image in self.images), strict=True)
        return [[min(side), max(side)] for side in sides]


def readable(paths: str | Path | Sequence[str | Path], what: str) -> LazyImages:
    """The readable images of folders and files; at least one, or LotError naming what was wrong."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    images = LazyImages(collect_references([Path(p) for p in given]))
    if not images:
        first = f"; the first: {images.skipped[0][0]}: {images.skipped[0][1]}" if images.skipped else ""
        raise LotError(f"no readable {what} image in {', '.join(str(p) for p in given)}{first}")
    return images


def reference_names(split: Split, facts: Mapping[str, Any]) -> Callable[[int], tuple[str, str]]:
    """What gives file and sha256 of the image that scorers know by its number in their fit, further ones included.

    Both are empty where the model did not keep them: models of earlier versions kept no file names, and of extensions
    neither.
    """
    hashes = facts["references"]
    files = facts.get("reference_files", [""] * len(hashes))
    known = [(files[i], hashes[i]) for i in split.fit]
    further = facts.get("further", [])
    if len(further) == len(facts.get("extends", further)):  # else an extension went unnoted, and numbers are not sure
        known += [(file, sha256) for extension in further for file, sha256 in extension]
    return lambda number: known[number] if number < len(known) else ("", "")


def _same(images: LazyImages, known: Sequence[str]) -> LazyImages:
    """The images with the hashes ``known``, in that order, whatever their files are called now."""
    place = {sha256: i for i, sha256 in enumerate(images.sha256)}
    found = [place[sha256] for sha256 in known if sha256 in place]
    if len(found) < len(known) or len(found) < len(images):
        raise UsageError(
            f"expected the {len(known)} reference images that the model was fitted to, got {len(images)}, of which "
            f"{len(found)} are among them: name the folder of the first fit"
        )
    return images.subset(found)


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
    images = readable(folder, "defect")
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
