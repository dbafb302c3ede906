"""Files and folders of a data set in a stable order; what does not belong there is a problem, never passed over."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from explainvad.evaluation.datasets.items import LabelledItem, Marked, Split
from explainvad.lot import display_name

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MASK_SUFFIXES = frozenset({".png"})
_DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini"})


def folders(parent: Path) -> list[Path]:
    """The folders in ``parent``, none where there is no such folder."""
    if not parent.is_dir():
        return []
    found = (entry for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(folder for folder in found if folder.suffix != ".evad")  # a model may lie beside its images


def files(folder: Path, suffixes: frozenset[str], problems: list[str]) -> list[Path]:
    """The files in ``folder`` by name; an entry that is not such a file is a problem."""
    if not folder.is_dir():
        return []
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name.lower() in _DESKTOP_FILES:
            continue
        if entry.is_file() and entry.suffix.lower() in suffixes:
            found.append(entry)
        else:
            problems.append(f"{entry}: expected only files ending in {', '.join(sorted(suffixes))} here")
    return found


def images_of(folder: Path, problems: list[str]) -> list[Path]:
    """The images in ``folder``; none is a problem."""
    images = files(folder, IMAGE_SUFFIXES, problems)
    if not images:
        problems.append(f"{folder}: no images")
    return images


def items_of(
    root: Path,
    images: Iterable[Path],
    defect: str | None,
    split: Split,
    masks: dict[Path, tuple[Path, ...]] | None = None,
    marked: Marked = "half",
) -> list[LabelledItem]:
    """Items of images that have the same label."""
    return [
        LabelledItem(path, display_name(path.relative_to(root)), defect, (masks or {}).get(path, ()), split, marked)
        for path in images
    ]


def pair_masks(
    images: Iterable[Path], folder: Path, problems: list[str], suffixes: frozenset[str] = MASK_SUFFIXES
) -> dict[Path, tuple[Path, ...]]:
    """Map each image of one defect type to its mask, or none of them where the type has no masks."""
    by_stem: dict[str, Path] = {}
    for image in images:
        namesake = by_stem.setdefault(image.stem, image)
        if namesake != image:
            problems.append(f"{image}: a mask cannot tell it from {namesake.name}; rename one of them")
    masks: dict[Path, tuple[Path, ...]] = {}
    for mask in files(folder, suffixes, problems):
        owner = by_stem.get(mask.stem) or by_stem.get(mask.stem.removesuffix("_mask"))
        if owner is None:
            problems.append(f"{mask}: mask without image")
        elif masks.setdefault(owner, (mask,)) != (mask,):
            problems.append(f"{mask}: second mask of {owner.name}, beside {masks[owner][0].name}")
    if masks:
        problems += [
            f"{image}: no mask in {folder}; expected masks for all images of a defect type, or for none"
            for image in by_stem.values()
            if image not in masks
        ]
    return masks
