"""Labelled folders: images of known quality with pixel masks, checked when they are loaded.

Two layouts are recognised by their folders::

    ROOT/good/*                             ROOT/train/good/*
    ROOT/<defect>/*                         ROOT/test/good/*
    ROOT/ground_truth/<defect>/<stem>.png   ROOT/test/<defect>/*
                                            ROOT/ground_truth/<defect>/<stem>_mask.png

The right one is MVTec AD's (Bergmann et al., CVPR 2019). Masks may end in ``_mask`` or not in either of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from explainvad.errors import LotError
from explainvad.lot import display_name

_LAYOUTS = """\
  ROOT/good/*                               images without defects
  ROOT/<defect>/*                           one folder per defect type
  ROOT/ground_truth/<defect>/<stem>.png     masks, white = defect (also <stem>_mask.png)
or MVTec AD's:
  ROOT/train/good/*                         images without defects, to fit on
  ROOT/test/good/*                          images without defects, to test on
  ROOT/test/<defect>/*                      one folder per defect type
  ROOT/ground_truth/<defect>/<stem>_mask.png"""

_IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
_MASK_SUFFIXES = frozenset({".png"})
_DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini"})
_GOOD = "good"
_MASKS = "ground_truth"
_MAX_PROBLEMS = 10  # named in one message
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """One test image. ``file`` is its path below the root, escaped for display; ``defect`` is None for good.

    ``mask_path`` is None for a good image, and for a defect type that has no masks at all.
    """

    path: Path
    file: str
    defect: str | None
    mask_path: Path | None


@dataclass(frozen=True, slots=True)
class LabelledDataset:
    """A checked data set: normal images to fit on, and labelled items to test on.

    ``train`` is empty in the flat layout, whose good items the caller splits. No content is in both.
    """

    root: Path
    train: tuple[Path, ...]
    items: tuple[LabelledItem, ...]

    @property
    def unmasked_defects(self) -> tuple[str, ...]:
        """Defect types without masks: image metrics count them, pixel metrics leave them out."""
        return tuple(sorted({i.defect for i in self.items if i.defect is not None and i.mask_path is None}))


def load_dataset(root: Path) -> LabelledDataset:
    """Read the labelled folder ``root`` in either layout, in a stable order, and check all of it.

    Raises :class:`LotError` that names each problem: no good or no defect images; a file that is not an image;
    an image without a mask (unless its defect type has none at all); a mask without an image; a mask of another
    size, empty or undecodable; content that occurs where it would falsify a result (in training and test,
    under two labels, or twice among good images that are still to be split).
    """
    mvtec, flat = (root / "test").is_dir(), (root / _GOOD).is_dir()
    if mvtec == flat:
        found = "both fit" if mvtec else "neither fits"
        raise LotError(f"{root} must be a labelled data set in one of two layouts, but {found}:\n{_LAYOUTS}")
    problems: list[str] = []

    # List the images of each class
    train = _class_images(root / "train" / _GOOD, problems) if mvtec else []
    if mvtec:
        problems += [
            f"{folder}: training images must be normal, in {root / 'train' / _GOOD}"
            for folder in _folders(root / "train")
            if folder.name != _GOOD
        ]
    test_root = root / "test" if mvtec else root
    good = _class_images(test_root / _GOOD, problems)
    defects = {
        folder.name: _class_images(folder, problems)
        for folder in _folders(test_root)
        if folder.name not in (_GOOD, _MASKS)
    }
    if not defects:
        problems.append(f"{test_root}: no defects; expected a folder of images for each defect type")

    # Pair defect images with masks
    items = [LabelledItem(path, display_name(path.relative_to(root)), None, None) for path in good]
    for name, images in defects.items():
        masks = _pair_masks(images, root / _MASKS / name, problems)
        items += [LabelledItem(p, display_name(p.relative_to(root)), name, masks.get(p)) for p in images]
    problems += [
        f"{folder}: masks without images; expected a defect folder {test_root / folder.name}"
        for folder in _folders(root / _MASKS)
        if folder.name not in defects
    ]

    # Look inside the files
    problems += _mask_problems(items)
    problems += _content_problems(root, [*train, *(item.path for item in items)])
    if problems:
        shown = "".join(f"\n  - {problem}" for problem in problems[:_MAX_PROBLEMS])
        more = f"\n  and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise LotError(f"the labelled data set {root} cannot be used as it is:{shown}{more}")
    return LabelledDataset(root, tuple(train), tuple(items))


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode the PNG mask ``path`` to bool (H, W): True (defect) above half of the full range.

    ``shape`` is the (H, W) of the image that it belongs to, and so the limit of what is decoded. Colour is
    converted to grey, alpha is ignored. Raises :class:`LotError` naming the file if the mask has another
    shape, marks nothing or cannot be decoded.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            got = (image.height, image.width)
            if got != shape:
                raise LotError(f"{path}: the mask must have its image's shape (H, W) = {shape}, got {got}")
            wide = image.mode.startswith("I")  # 16 bit
            grey = np.asarray(image if wide else image.convert("L"))
    except _DECODING_ERRORS as error:
        raise LotError(f"{path}: the mask cannot be decoded ({error}); save it again as PNG") from error
    full = 65535 if wide else 255
    mask: NDArray[np.bool_] = grey > full / 2
    if not mask.any():
        raise LotError(f"{path}: no defect is marked; expected pixels above half of {full}, got at most {grey.max()}")
    return mask


def _class_images(folder: Path, problems: list[str]) -> list[Path]:
    images = _files(folder, _IMAGE_SUFFIXES, problems)
    if not images:
        problems.append(f"{folder}: no images")
    return images


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    folders = (entry for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(folder for folder in folders if folder.suffix != ".evad")  # a model may lie beside its images


def _files(folder: Path, suffixes: frozenset[str], problems: list[str]) -> list[Path]:
    """List ``folder`` by name; an entry that is not such a file is a problem, never passed over."""
    if not folder.is_dir():
        return []
    files = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name.lower() in _DESKTOP_FILES:
            continue
        if entry.is_file() and entry.suffix.lower() in suffixes:
            files.append(entry)
        else:
            problems.append(f"{entry}: expected only files ending in {', '.join(sorted(suffixes))} here")
    return files


def _pair_masks(images: Iterable[Path], folder: Path, problems: list[str]) -> dict[Path, Path]:
    """Map each image of one defect type to its mask, or none of them where the type has no masks."""
    by_stem: dict[str, Path] = {}
    for image in images:
        namesake = by_stem.setdefault(image.stem, image)
        if namesake != image:
            problems.append(f"{image}: a mask cannot tell it from {namesake.name}; rename one of them")
    masks: dict[Path, Path] = {}
    for mask in _files(folder, _MASK_SUFFIXES, problems):
        owner = by_stem.get(mask.stem) or by_stem.get(mask.stem.removesuffix("_mask"))
        if owner is None:
            problems.append(f"{mask}: mask without image")
        elif masks.setdefault(owner, mask) != mask:
            problems.append(f"{mask}: second mask of {owner.name}, beside {masks[owner].name}")
    if masks:
        problems += [
            f"{image}: no mask in {folder}; expected masks for all images of a defect type, or for none"
            for image in by_stem.values()
            if image not in masks
        ]
    return masks


def _mask_problems(items: Iterable[LabelledItem]) -> list[str]:
    problems = []
    for item in items:
        if item.mask_path is not None:
            try:
                read_mask(item.mask_path, _image_shape(item.path))
            except LotError as error:
                problems.append(str(error))
    return problems


def _image_shape(path: Path) -> tuple[int, int]:
    """(H, W) of an image after its EXIF orientation is applied, from the header alone."""
    try:
        with Image.open(path, formats=_IMAGE_FORMATS) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # 5..8 swap the axes
            return (image.width, image.height) if turned else (image.height, image.width)
    except _DECODING_ERRORS as error:
        raise LotError(f"{path}: the image cannot be read ({error})") from error


def _content_problems(root: Path, paths: Iterable[Path]) -> list[str]:
    """Find equal contents (sha256) that would falsify a result; repeats within a class of MVTec's do not."""
    problems = []
    first: dict[str, Path] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                earlier = first.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), path)
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error})")
            continue
        same = f"{path}: same content as {earlier}"
        if earlier.parent == root / "train" / _GOOD != path.parent:
            problems.append(f"{same}; a leak from training into test")
        elif earlier.parent != path.parent:
            problems.append(f"{same}, under another label")
        elif earlier != path and path.parent == root / _GOOD:
            problems.append(f"{same}; a leak once the good images are split, keep one of them")
    return problems
