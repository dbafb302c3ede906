"""What would falsify a result: masks that are missing or do not fit, and content that is in two places."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from explainvad.errors import LotError
from explainvad.evaluation.datasets.items import LabelledItem, Saturation, Source
from explainvad.evaluation.datasets.masks import image_shape, read_defects, read_truth

_SPLITS = {"train": "training", "validation": "validation", "test": "test"}


def mask_problems(items: Iterable[LabelledItem], saturations: Mapping[int, Saturation]) -> list[str]:
    """Each item whose mask has another size, is empty or undecodable."""
    problems = []
    for item in items:
        if item.mask_paths:
            try:
                shape = image_shape(item.path)
                read_truth(item, shape)
                read_defects(item, shape, saturations)
            except LotError as error:
                problems.append(str(error))
    return problems


def missing_masks(items: Iterable[LabelledItem], source: Source, paired: bool) -> list[str]:
    """Each defect without a mask, where others of its type have one, or all of the ``source`` have.

    The former is left out where it was said already, when masks were ``paired``.
    """
    defective = [item for item in items if item.defect is not None]
    masked = {(item.split, item.defect) for item in defective if item.mask_paths}
    problems = []
    for item in defective:
        others = (item.split, item.defect) in masked
        if not item.mask_paths and others and not paired:
            problems.append(f"{item.path}: no mask; expected masks for all images of a defect type, or for none")
        elif not item.mask_paths and not others and source.all_masked:
            problems.append(f"{item.path}: no mask; {source.name} has one for every defect")
    return problems


def content_problems(items: Iterable[LabelledItem], flat: bool) -> tuple[list[str], dict[Path, str]]:
    """Equal files where they would falsify a result, and the sha256 of each.

    Compared are the bytes of the files: that takes a fraction of decoding them, and finds copies, but not the same
    picture saved anew. Repeats within a class of one split are no leak; in a ``flat`` data set, whose good images
    are still to be split, they are.
    """
    problems: list[str] = []
    first: dict[str, LabelledItem] = {}
    known: dict[Path, str] = {}
    for item in items:
        try:
            with item.path.open("rb") as file:
                known[item.path] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            problems.append(f"{item.path}: cannot be read ({error})")
            continue
        earlier = first.setdefault(known[item.path], item)
        same = f"{item.path}: same content as {earlier.path}"
        if earlier is item:
            continue
        if earlier.split != item.split:
            problems.append(f"{same}; a leak from {_SPLITS[earlier.split]} into {_SPLITS[item.split]}")
        elif earlier.defect != item.defect:
            problems.append(f"{same}, under another label")
        elif flat and item.defect is None:
            problems.append(f"{same}; a leak once the good images are split, keep one of them")
    return problems, known
