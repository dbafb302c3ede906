"""Layouts in which a folder names the class: one's own, MVTec AD (and MPDD), MVTec AD 2, MVTec LOCO, BTAD and BMAD.

Each reader lists the items of one category, and adds to ``problems`` what does not belong there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from explainvad.errors import LotError
from explainvad.evaluation.datasets.items import LabelledItem, Saturation, Split
from explainvad.evaluation.datasets.listing import (
    MASK_SUFFIXES,
    files,
    folders,
    images_of,
    items_of,
    pair_masks,
)

SATURATIONS = "defects_config.json"
_TRUTH = "ground_truth"


def read_flat(root: Path, problems: list[str]) -> list[LabelledItem]:
    """``good/*``, ``<defect>/*``, ``ground_truth/<defect>/<stem>.png`` (or ``_mask.png``); all of it for the test."""
    return _read_test(root, root, root / _TRUTH, "good", problems)


@dataclass(frozen=True, slots=True)
class Splits:
    """How the folders of a layout with splits are called."""

    normal: Mapping[str, Split]  # folder of normal images -> split
    good: str = "good"
    test: str = "test"
    truth: str = _TRUTH
    mask_suffixes: frozenset[str] = MASK_SUFFIXES

    def fits(self, root: Path) -> bool:
        """Whether ``root`` looks like a category in this layout."""
        return (root / self.test / self.good).is_dir() and any((root / n).is_dir() for n in self.normal)

    def read(self, root: Path, problems: list[str]) -> list[LabelledItem]:
        """Items of all splits, those for the fit first."""
        items = []
        for name, split in self.normal.items():
            items += items_of(root, images_of(root / name, problems), None, split)
            problems += [
                f"{folder}: training images must be normal, in {root / name}"
                for folder in folders((root / name).parent)
                if folder != root / name
            ]
        test, truth = root / self.test, root / self.truth
        return items + _read_test(root, test, truth, self.good, problems, self.mask_suffixes)


MVTEC_AD = Splits({"train/good": "train"})
# Its private test images have no public labels, and are left alone.
MVTEC_AD_2 = Splits(
    {"train/good": "train", "validation/good": "validation"}, test="test_public", truth=f"test_public/{_TRUTH}"
)
# Masks are PNG for two of the three products; that those of the third may be BMP is allowed for, not verified.
BTAD = Splits({"train/ok": "train"}, good="ok", mask_suffixes=frozenset({".png", ".bmp"}))


def fits_loco(root: Path) -> bool:
    """Whether ``root`` looks like a category of MVTec LOCO."""
    return (root / SATURATIONS).is_file() and (root / "test" / "good").is_dir()


def read_loco(root: Path, problems: list[str]) -> list[LabelledItem]:
    """MVTec LOCO AD: as MVTec AD with ``validation/good``, and a folder of masks for each image, one for each defect.

    ``ground_truth/<type>/<stem>/*.png``: the grey value of a mask names its kind in ``defects_config.json``.
    """
    items = []
    normal: tuple[Split, ...] = ("train", "validation")
    for split in normal:
        items += items_of(root, images_of(root / split / "good", problems), None, split)
    items += items_of(root, images_of(root / "test" / "good", problems), None, "test")
    for folder in folders(root / "test"):
        if folder.name == "good":
            continue
        images = images_of(folder, problems)
        truth = root / _TRUTH / folder.name
        masks = {image: tuple(files(truth / image.stem, MASK_SUFFIXES, problems)) for image in images}
        stems = {image.stem for image in images}
        problems += [f"{folder}: masks without image" for folder in folders(truth) if folder.name not in stems]
        items += items_of(root, images, folder.name, "test", masks, "nonzero")
    return items


def read_saturations(root: Path) -> dict[int, Saturation]:
    """MVTec LOCO's ``defects_config.json`` by grey value, empty where there is none. Raises LotError on a fault in it.

    A list of objects with ``pixel_value``, ``saturation_threshold`` and ``relative_saturation`` (Bergmann et al., IJCV
    2022): a share of the defect's area where it is relative, else a number of pixels.
    """
    path = root / SATURATIONS
    if not path.is_file():
        return {}
    try:
        kinds = json.loads(path.read_text("utf-8"))
        found = {
            int(k["pixel_value"]): Saturation(float(k["saturation_threshold"]), bool(k["relative_saturation"]))
            for k in kinds
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LotError(f"{path}: cannot be read ({error!r}); expected MVTec LOCO's list of defect kinds") from error
    wrong = [v for v, s in found.items() if not s.threshold > 0 or (s.relative and s.threshold > 1)]
    if wrong:
        raise LotError(f"{path}: saturation_threshold of pixel_value {wrong[0]} must be above 0, as a share at most 1")
    return found


def fits_bmad(root: Path) -> bool:
    """Whether ``root`` looks like a category of BMAD."""
    return (root / "test" / "Ungood").is_dir() and (root / "train" / "good").is_dir()


def read_bmad(root: Path, problems: list[str]) -> list[LabelledItem]:
    """BMAD: ``train/good``, ``valid/{good,Ungood}``, ``test/{good,Ungood}``, PNG.

    Where pixels are labelled, the images lie one folder deeper, in ``img/``, beside the masks of the same name in
    ``label/``; anything but 0 counts as a lesion there, which their authors do not state. The labelled validation
    images are for choices that are not made here: their good ones are used to fit, their others by nothing.
    """
    items = []
    splits: dict[str, Split] = {"train": "train", "valid": "validation", "test": "test"}
    for name, split in splits.items():
        for label in ("good", "Ungood"):
            folder = root / name / label
            if not folder.is_dir() and (name == "valid" or (name, label) == ("train", "Ungood")):
                continue
            deeper = (folder / "img").is_dir()
            images = images_of(folder / "img" if deeper else folder, problems)
            masks = {}
            if label == "Ungood" and deeper:
                masks = pair_masks(images, folder / "label", problems)
            items += items_of(root, images, None if label == "good" else label, split, masks, "nonzero")
    return items


def _read_test(
    root: Path,
    test: Path,
    truth: Path,
    good: str,
    problems: list[str],
    mask_suffixes: frozenset[str] = MASK_SUFFIXES,
) -> list[LabelledItem]:
    """Good images and one folder for each defect type in ``test``, masks in ``truth``."""
    items = items_of(root, images_of(test / good, problems), None, "test")
    defects = {
        folder.name: images_of(folder, problems) for folder in folders(test) if folder.name not in (good, _TRUTH)
    }
    if not defects:
        problems.append(f"{test}: no defects; expected a folder of images for each defect type")
    for name, images in defects.items():
        masks = pair_masks(images, truth / name, problems, mask_suffixes)
        items += items_of(root, images, name, "test", masks)
    problems += [
        f"{folder}: masks without images; expected a defect folder {test / folder.name}"
        for folder in folders(truth)
        if folder.name not in defects
    ]
    return items
