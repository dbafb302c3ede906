"""The four pictures that a model is shown of a region."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from explainvad.types import XYXY, Alignment, InspectionImage, Region

MARGIN = 0.5  # of the region's longer side, shown around it in a crop
LEAST_MARGIN = 16  # px
MARK = (255, 0, 255)  # on parts a rare colour; the prompt names it
LARGEST_SCALE = 8  # a crop is enlarged by no more: it would show nothing but interpolation


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """RGB with 8 bits a channel. ``reference`` is a whole normal part, ``marked`` the inspected one with a frame drawn
    around the region; ``crop`` and ``reference_crop`` show the region's place on both, without a frame."""

    reference: Image.Image
    marked: Image.Image
    crop: Image.Image
    reference_crop: Image.Image


def region_pictures(
    image: InspectionImage, region: Region, reference: bytes, side: int, alignment: Alignment | None = None
) -> Pictures:
    """Cut the pictures of ``region`` out of ``image`` and its nearest ``reference`` (JPEG bytes).

    Longer sides are at most ``side`` px. The reference's crop is the same share of its frame, moved as the
    ``alignment`` says where the two register.
    """
    normal = Image.open(io.BytesIO(reference)).convert("RGB")
    # ``pixels`` is 8-bit already: Pillow would clip the 16 bits of a file to white
    inspected = Image.fromarray(np.ascontiguousarray(image.pixels), "RGB")
    box = _around(region.xyxy, inspected.size)
    there = box if alignment is None else alignment.moved(box)
    share = [min(max(edge / inspected.size[i % 2], 0.0), 1.0) for i, edge in enumerate(there)]
    normal_box = _whole_pixels([edge * normal.size[i % 2] for i, edge in enumerate(share)], normal.size)
    return Pictures(
        reference=_fitted(normal, side, enlarge=1),
        marked=_marked(inspected, region.xyxy, side),
        crop=_fitted(inspected.crop(box), side, enlarge=LARGEST_SCALE),
        reference_crop=_fitted(normal.crop(normal_box), side, enlarge=LARGEST_SCALE),
    )


def _around(xyxy: XYXY, size: tuple[int, int]) -> XYXY:
    x0, y0, x1, y1 = xyxy
    margin = max(LEAST_MARGIN, round(MARGIN * max(x1 - x0, y1 - y0)))
    return max(0, x0 - margin), max(0, y0 - margin), min(size[0], x1 + margin), min(size[1], y1 + margin)


def _whole_pixels(box: list[float], size: tuple[int, int]) -> XYXY:
    """At least one pixel, inside a picture of ``size``."""
    x0, y0 = (min(int(box[i]), size[i] - 1) for i in (0, 1))
    x1, y1 = (min(max(round(box[i + 2]), low + 1), size[i]) for i, low in enumerate((x0, y0)))
    return x0, y0, x1, y1


def _fitted(picture: Image.Image, side: int, enlarge: int) -> Image.Image:
    scale = min(side / max(picture.size), enlarge)
    width, height = (max(1, round(scale * edge)) for edge in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _marked(inspected: Image.Image, xyxy: XYXY, side: int) -> Image.Image:
    """Draw the frame after scaling, so that it is as thin on every picture, and outside of the region."""
    shown = _fitted(inspected, side, enlarge=1)
    line = max(1, side // 256)
    x, y = (shown.size[i] / inspected.size[i] for i in (0, 1))
    box = (xyxy[0] * x - 2 * line, xyxy[1] * y - 2 * line, xyxy[2] * x + 2 * line, xyxy[3] * y + 2 * line)
    ImageDraw.Draw(shown).rectangle(box, outline=MARK, width=line)
    return shown
