"""Layouts in which a list or a file name tells the class: VisA, Real-IAD, KolektorSDD2, and one's own CSV file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

from explainvad.errors import LotError
from explainvad.evaluation.datasets.items import LabelledItem, Marked, Split
from explainvad.evaluation.datasets.listing import IMAGE_SUFFIXES, files, folders
from explainvad.evaluation.datasets.masks import marks_nothing
from explainvad.lot import display_name

VISA_SPLIT = Path("split_csv", "1cls.csv")
_GOOD_WORDS = frozenset({"", "good", "normal", "ok"})
_REAL_IAD_SIZES = ("raw", "1024", "512", "256")  # the first that is there is read
_MASK_END = "_GT"  # of KolektorSDD2's mask files


def rows_of(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV file. Raises LotError when it cannot be read or lacks one of ``columns``."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = [{k: (v or "").strip() for k, v in row.items() if isinstance(k, str)} for row in reader]
            names = reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise LotError(f"{path}: cannot be read as CSV ({error})") from error
    missing = [name for name in columns if name not in names]
    if missing:
        raise LotError(f"{path}: no column {', '.join(missing)}; expected {', '.join(columns)}, got {', '.join(names)}")
    return rows


def csv_categories(path: Path) -> list[str]:
    """Names in the column ``category`` of one's own CSV file; none without that column.

    Raises LotError for one that could not be the name of a folder, which results get.
    """
    names = sorted({row["category"] for row in rows_of(path, ("image", "label")) if row.get("category")})
    if wrong := next((name for name in names if Path(name).name != name or name.startswith(".")), None):
        raise LotError(f"{path}: a category must be a plain name, got {wrong!r}")
    return names


def read_csv(path: Path, category: str | None, problems: list[str]) -> list[LabelledItem]:
    """One's own CSV file: a row for each image, paths relative to the file.

    Columns ``image`` and ``label`` (the defect's type; good, normal, ok or nothing for a good image), and if wanted
    ``split`` (train, validation or test, which it is without), ``mask`` (several parted by ``;``) and ``category``.
    """
    rows = [row for row in rows_of(path, ("image", "label")) if row.get("category", "") == (category or "")]
    items = [
        _item(path.parent, row["image"], row["label"], row.get("split") or "test", row.get("mask", ""), problems)
        for row in rows
    ]
    return [item for item in items if item is not None]


def visa_categories(root: Path) -> list[str]:
    """Objects in VisA's table of splits."""
    return sorted({row["object"] for row in rows_of(root / VISA_SPLIT, ("object",))})


def read_visa(root: Path, category: str | None, problems: list[str]) -> list[LabelledItem]:
    """VisA with the one-class splits of its ``split_csv/1cls.csv``: object, split, label, image, mask.

    All defects are one type, ``anomaly``: the table does not tell more. Masks hold a number for each kind of defect,
    so anything but 0 is one.
    """
    rows = rows_of(root / VISA_SPLIT, ("object", "split", "label", "image", "mask"))
    items = [
        _item(root, row["image"], row["label"], row["split"], row["mask"], problems, "nonzero")
        for row in rows
        if row["object"] == category
    ]
    return [item for item in items if item is not None]


def real_iad_lists(root: Path) -> dict[str, Path]:
    """Real-IAD's lists by category: ``realiad_jsons/realiad_jsons/<category>.json``, also without the inner folder."""
    outer = root / "realiad_jsons"
    inner = outer / "realiad_jsons"
    return {path.stem: path for path in sorted((inner if inner.is_dir() else outer).glob("*.json"))}


def read_real_iad(root: Path, category: str | None, problems: list[str]) -> list[LabelledItem]:
    """Real-IAD with the multi-view splits of its list: image_path, mask_path and anomaly_class of each image.

    Paths are below ``realiad_<size>/<category>``, of the largest size that is there. The class OK is good; the code
    of any other is the defect's type.
    """
    lists = real_iad_lists(root)
    base = next((f for size in _REAL_IAD_SIZES if (f := root / f"realiad_{size}" / str(category)).is_dir()), None)
    if base is None:
        problems.append(f"{root}: no images of {category}; expected realiad_1024/{category} or another size")
        return []
    try:
        listed = json.loads(lists[str(category)].read_text("utf-8"))
        rows: list[tuple[str, Mapping[str, Any]]] = [(s, row) for s in ("train", "test") for row in listed[s]]
        items = [
            _item(
                root,
                (base / row["image_path"]).relative_to(root).as_posix(),
                row["anomaly_class"],
                split,
                (base / row["mask_path"]).relative_to(root).as_posix() if row.get("mask_path") else "",
                problems,
                "nonzero",
            )
            for split, row in rows
        ]
        return [item for item in items if item is not None]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LotError(f"{lists[str(category)]}: cannot be read as a list of Real-IAD ({error!r})") from error


def fits_kolektor(root: Path) -> bool:
    """Whether ``root`` looks like KolektorSDD2: images and masks side by side in ``train`` and ``test``."""
    return all(any((root / split).glob(f"*{_MASK_END}.png")) for split in ("train", "test"))


def read_kolektor(root: Path, problems: list[str]) -> list[LabelledItem]:
    """KolektorSDD2: ``train/<n>.png`` and ``test/<n>.png``, each with its mask ``<n>_GT.png`` beside it.

    A mask that marks nothing means a good image. The training images with defects are kept as such, and nothing is
    fitted to them.
    """
    items = []
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        listed = files(root / split, IMAGE_SUFFIXES, problems)
        masks = {path.stem.removesuffix(_MASK_END): path for path in listed if path.stem.endswith(_MASK_END)}
        images = [path for path in listed if not path.stem.endswith(_MASK_END)]
        stems = {path.stem for path in images}
        problems += [f"{mask}: mask without image" for stem, mask in masks.items() if stem not in stems]
        for path in images:
            mask = masks.get(path.stem)
            if mask is None:
                problems.append(f"{path}: no mask; expected {path.stem}{_MASK_END}.png beside it")
                continue
            try:
                good = marks_nothing(mask)
            except LotError as error:
                problems.append(str(error))
                continue
            shown = display_name(path.relative_to(root))
            items.append(LabelledItem(path, shown, None if good else "defect", () if good else (mask,), split))
    problems += [f"{f}: expected only train and test here" for f in folders(root) if f.name not in splits]
    return items


def _item(
    root: Path, image: str, label: str, split: str, masks: str, problems: list[str], marked: Marked = "half"
) -> LabelledItem | None:
    """One row; None where a file is missing, outside of the data set or not needed, which is a problem."""
    known_before = len(problems)
    path = root / image
    defect = None if label.lower() in _GOOD_WORDS else label
    paths = tuple(root / mask.strip() for mask in masks.split(";") if mask.strip())
    for listed in (path, *paths):
        if not listed.resolve().is_relative_to(root.resolve()):
            problems.append(f"{listed}: listed, but outside of {root}")
        elif not listed.is_file():
            problems.append(f"{listed}: listed, but there is no such file")
    if split not in get_args(Split):
        problems.append(f"{path}: split must be train, validation or test, got {split!r}")
    if defect is None and paths:
        problems.append(f"{path}: a good image with the mask {paths[0].name}")
    if len(problems) > known_before:
        return None
    return LabelledItem(path, display_name(image), defect, paths, cast(Split, split), marked)
