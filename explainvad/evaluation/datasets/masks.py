"""Masks of a labelled data set, decoded within the limits of the image that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from explainvad.errors import LotError
from explainvad.evaluation.datasets.items import LabelledItem, Marked, Saturation
from explainvad.evaluation.metrics.regions import DefectMask

_IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
_MASK_FORMATS = {".png": "PNG", ".bmp": "BMP"}  # by suffix
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_mask(path: Path, shape: tuple[int, int], marked: Marked = "half") -> NDArray[np.bool_]:
    """Decode the PNG (or ``.bmp``) mask ``path`` to bool (H, W): True (defect) above half of the full range.

    With ``marked`` "nonzero" any value but 0 is a defect. ``shape`` is the (H, W) of the image that it belongs to, and
    so the limit of what is decoded. Colour is converted to grey, alpha is ignored. Raises :class:`LotError` naming the
    file if the mask has another shape, marks nothing or cannot be decoded.
    """
    grey, full = _grey(path, shape)
    mask: NDArray[np.bool_] = grey > (full / 2 if marked == "half" else 0)
    if not mask.any():
        what = f"above half of {full}" if marked == "half" else "above 0"
        raise LotError(f"{path}: no defect is marked; expected pixels {what}, got at most {grey.max()}")
    return mask


def read_truth(item: LabelledItem, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """What is defective in an image of ``shape`` (H, W): bool (H, W), None where that is not known.

    Raises :class:`LotError` as :func:`read_mask` does.
    """
    truth = np.zeros(shape, dtype=np.bool_)
    for path in item.mask_paths:
        truth |= read_mask(path, shape, item.marked)
    return truth if item.defect is None or item.mask_paths else None


def read_defects(
    item: LabelledItem, shape: tuple[int, int], saturations: Mapping[int, Saturation]
) -> tuple[DefectMask, ...]:
    """Each annotated defect of an image of ``shape`` (H, W), none for a data set without ``saturations``.

    Raises :class:`LotError` naming the mask, also where its grey values are not one of the known ones.
    """
    if not saturations:
        return ()
    found = []
    for path in item.mask_paths:
        grey, _ = _grey(path, shape)
        values = np.unique(grey[grey > 0]).tolist()
        if len(values) != 1 or values[0] not in saturations:
            known = ", ".join(map(str, sorted(saturations)))
            raise LotError(f"{path}: expected 0 and one of the grey values {known}, got {values}")
        mask = grey > 0
        found.append(DefectMask(mask, saturations[values[0]].area(int(mask.sum()))))
    return tuple(found)


def marks_nothing(path: Path) -> bool:
    """Whether a mask, of whatever size, marks no defect. Raises LotError when it cannot be decoded."""
    grey, full = _grey(path, None)
    return not (grey > full / 2).any()


def image_shape(path: Path) -> tuple[int, int]:
    """(H, W) of an image after its EXIF orientation is applied, from the header alone."""
    try:
        with Image.open(path, formats=_IMAGE_FORMATS) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # 5..8 swap the axes
            return (image.width, image.height) if turned else (image.height, image.width)
    except _DECODING_ERRORS as error:
        raise LotError(f"{path}: the image cannot be read ({error})") from error


def _grey(path: Path, shape: tuple[int, int] | None) -> tuple[NDArray[np.integer], int]:
    """Grey values (H, W) and the largest that there can be."""
    form = _MASK_FORMATS.get(path.suffix.lower(), "PNG")
    try:
        with Image.open(path, formats=(form,)) as image:
            got = (image.height, image.width)
            if shape is not None and got != shape:
                raise LotError(f"{path}: the mask must have its image's shape (H, W) = {shape}, got {got}")
            wide = image.mode.startswith("I")  # 16 bit
            return np.asarray(image if wide else image.convert("L")), 65535 if wide else 255
    except _DECODING_ERRORS as error:
        raise LotError(f"{path}: the mask cannot be decoded ({error}); save it again as {form}") from error
