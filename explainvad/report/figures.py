"""Pictures of an image page: outlines, heat map, crops. Drawn with Pillow, written as JPEG.

Heat maps of a cell share one scale, 0 to ``map_max`` = 4 x its pixel threshold: it is fixed by calibration, so two
pages can be compared. Below the cluster threshold the photograph stays as it is.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from explainvad.encoding import encoded
from explainvad.types import XYXY, Alignment, CalibrationFacts, Region

COLOUR_MAP = "plasma"  # perceptually uniform, and visible on grey metal at its low end
PICTURE_PX = 760  # long side: 86 mm in print at 225 dpi
CROP_PX = 320
_OVERLAY_OPACITY = 0.75
_JPEG_QUALITY = 86
_INK, _PAPER = (20, 24, 28), (255, 255, 255)
_BEYOND = (128, 128, 128)  # where a picture has nothing to show

Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True, slots=True)
class HeatScale:
    """The fixed scale of a cell's heat maps, in fused-map units: 0 <= cluster, pixel <= top."""

    cluster: float
    pixel: float
    top: float

    @classmethod
    def of(cls, calibration: CalibrationFacts) -> HeatScale:
        """Take the scale from calibration, never from an image."""
        return cls(calibration.cluster_threshold, calibration.pixel_threshold, 4 * calibration.pixel_threshold)


def heat_scales(calibration: CalibrationFacts) -> dict[str, tuple[str, HeatScale]]:
    """The name of the colour bar and the scale of each cell's heat maps; the cell "" where there is only one."""
    facts = calibration.cells or (calibration,)
    return {f.cell: (f"colour-bar-{number}.svg", HeatScale.of(f)) for number, f in enumerate(facts, 1)}


def colour_stops(n: int) -> list[str]:
    """Return ``n`` equidistant colours of the map as ``#rrggbb``, lowest value first."""
    return ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in _colour_table()[np.linspace(0, 255, n).round().astype(int)]]


def photograph(data: bytes) -> Image.Image:
    """Decode a picture of the run folder, RGB."""
    with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as stored:
        return stored.convert("RGB")


def map_levels(data: bytes) -> NDArray[np.float32]:
    """Decode a map of the run folder, a 16-bit grey PNG, to float32 (H, W) in [0, 1]."""
    return _levels(_grey(data))


def _grey(data: bytes) -> NDArray[np.uint16]:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as stored:
        return np.asarray(stored, dtype=np.uint16)


def _levels(grey: NDArray[np.uint16]) -> NDArray[np.float32]:
    return grey.astype(np.float32) / np.float32(65535)


@lru_cache(maxsize=64)
def _reaching(threshold: float, top: float) -> int:
    """The lowest grey that reaches a threshold of a map; beyond the greys where none does."""
    reach = _levels(np.arange(1 << 16, dtype=np.uint16)) * top >= threshold
    return int(reach.argmax()) if reach.any() else 1 << 16


def fitted(picture: Image.Image, long_side: int = PICTURE_PX) -> Image.Image:
    """Scale to a long side of ``long_side`` px at most; to half of it at least, so that names can be read."""
    longest = max(picture.size)
    factor = min(max(longest, long_side / 2), long_side) / longest
    if factor == 1:
        return picture
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    if factor < 1:
        return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2)
    return picture.resize(size, Image.Resampling.BICUBIC)


def outlined(shown: Image.Image, regions: Sequence[Region]) -> bytes:
    """Draw every region's outline and name on the fitted picture. Returns a JPEG."""
    picture = shown.copy()
    drawing = ImageDraw.Draw(picture)
    scale = max(shown.size) / PICTURE_PX  # so that lines and names are as large on every page
    font = ImageFont.load_default(size=round(scale * PICTURE_PX / 36))
    for region in regions:
        mask = Image.fromarray(region.mask.to_array()).resize(picture.size, Image.Resampling.NEAREST)
        _stroke(picture, mask, inner=max(1, round(2 * scale)), outer=max(2, round(5 * scale)))
    # Name the regions after all outlines, so that no outline crosses a name.
    for region in regions:
        _label(drawing, region, picture.size, font)
    return jpeg(picture)


def heat_overlay(shown: Image.Image, heat_map: bytes, scale: HeatScale) -> tuple[bytes, bool]:
    """Lay the anomaly map over the fitted picture.

    ``heat_map`` is a 16-bit grey PNG with value = map / top * 65535. Returns a JPEG, and whether any
    pixel reaches the pixel threshold (outlined in white).
    """
    grey = _grey(heat_map)
    visible_from, outlined_from = _reaching(scale.cluster, scale.top), _reaching(scale.pixel, scale.top)
    overlay = shown.copy()
    box = _box_of(grey >= visible_from, shown.size)
    if box is not None:
        # Only the surroundings of what is visible are drawn: most of a map is not.
        sx, sy = grey.shape[1] / shown.width, grey.shape[0] / shown.height
        reach = 2 + math.ceil(max(sx, sy))  # of the interpolation
        x, y = max(0, math.floor(box[0] * sx) - reach), max(0, math.floor(box[1] * sy) - reach)
        around = grey[y : math.ceil(box[3] * sy) + reach, x : math.ceil(box[2] * sx) + reach]
        part = Image.fromarray(_levels(around)).resize(
            (box[2] - box[0], box[3] - box[1]),
            Image.Resampling.BILINEAR,
            box=(box[0] * sx - x, box[1] * sy - y, box[2] * sx - x, box[3] * sy - y),
        )
        level = np.asarray(part)
        visible = level * scale.top >= scale.cluster
        pixels = np.array(shown.crop(box))
        colours = _colour_table()[np.clip(level[visible] * 255, 0, 255).astype(np.uint8)]
        blend = _OVERLAY_OPACITY * colours + (1 - _OVERLAY_OPACITY) * pixels[visible]
        pixels[visible] = blend.round().astype(np.uint8)
        coloured = Image.fromarray(pixels)
        _stroke(coloured, Image.fromarray(level * scale.top >= scale.pixel), inner=0, outer=2)
        overlay.paste(coloured, box[:2])
    return jpeg(overlay, subsampling=0), bool(grey.max() >= outlined_from)


def _box_of(mask: NDArray[np.bool_], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Where in a picture of ``size`` the mask is set, with the room that a line around it takes."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    sx, sy = size[0] / mask.shape[1], size[1] / mask.shape[0]
    margin = 6 + math.ceil(max(sx, sy))
    return (
        max(0, math.floor(columns[0] * sx) - margin),
        max(0, math.floor(rows[0] * sy) - margin),
        min(size[0], math.ceil((columns[-1] + 1) * sx) + margin),
        min(size[1], math.ceil((rows[-1] + 1) * sy) + margin),
    )


def crop_pair(
    photo: Image.Image,
    reference: Image.Image | None,
    xyxy: XYXY,
    frame: tuple[int, int],
    alignment: Alignment | None = None,
) -> tuple[bytes, bytes | None]:
    """Cut a square around ``xyxy`` (px in ``frame`` = (width, height)) out of picture and reference.

    The reference may have another size: the same relative place is cut, moved as the ``alignment`` says. Returns JPEGs
    of equal size.
    """
    square = _square_around(xyxy, frame)
    nominal = None
    if reference is not None:
        there = square if alignment is None else _moved_inside(alignment.moved(square), frame)
        nominal = jpeg(_cut(reference, there, frame))
    return jpeg(_cut(photo, square, frame)), nominal


def jpeg(picture: Image.Image, subsampling: int = 2) -> bytes:
    """Encode for the report. ``subsampling`` 0 keeps each pixel's colour, which a heat map needs."""
    return encoded(picture, "JPEG", quality=_JPEG_QUALITY, subsampling=subsampling)


def _stroke(picture: Image.Image, mask: Image.Image, inner: int, outer: int) -> None:
    """Draw a line around ``mask``: white, with a dark inner edge when ``inner`` > 0."""
    box = mask.getbbox()
    if box is None:
        return
    # Work on the mask's surroundings only: filters cost time by the pixel.
    margin = outer + 1
    x0, y0 = max(0, box[0] - margin), max(0, box[1] - margin)
    x1, y1 = min(mask.width, box[2] + margin), min(mask.height, box[3] + margin)
    core = mask.crop((x0, y0, x1, y1)).convert("L")
    rim = core.filter(ImageFilter.BoxBlur(outer))  # above 0 where the mask is set within reach
    part = np.array(picture.crop((x0, y0, x1, y1)))
    line = (np.asarray(rim) > 0) & (np.asarray(core) == 0)
    part[line] = _PAPER
    if inner:
        edge = np.asarray(core.filter(ImageFilter.BoxBlur(inner))) > 0
        part[edge & (np.asarray(core) == 0)] = _INK
    picture.paste(Image.fromarray(part), (x0, y0))


def _label(
    drawing: ImageDraw.ImageDraw,
    region: Region,
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write the region's name beside its box, inside the picture."""
    sx, sy = size[0] / region.mask.width, size[1] / region.mask.height
    x0, y0, x1, _ = region.xyxy
    left, top, right, bottom = drawing.textbbox((0, 0), region.region_id, font=font)
    width, height = right - left + 14, bottom - top + 12
    x = x1 * sx + 8 if x1 * sx + 8 + width <= size[0] else x0 * sx - 8 - width
    x = min(max(0, x), size[0] - width)
    y = min(max(0, y0 * sy - height / 2), size[1] - height)
    drawing.rectangle((x, y, x + width, y + height), fill=_INK, outline=_PAPER, width=2)
    drawing.text((x + 7 - left, y + 6 - top), region.region_id, font=font, fill=_PAPER)


def _square_around(xyxy: XYXY, frame: tuple[int, int]) -> Box:
    """Return a square with some surroundings of the box, moved and cut to lie inside the frame."""
    x0, y0, x1, y1 = xyxy
    smallest = 0.16 * max(frame)  # a speck needs surroundings to be recognised
    side = min(max(1.7 * max(x1 - x0, y1 - y0), smallest), *frame)
    left = min(max(0.0, (x0 + x1 - side) / 2), frame[0] - side)
    top = min(max(0.0, (y0 + y1 - side) / 2), frame[1] - side)
    return left, top, left + side, top + side


def _moved_inside(box: Box, frame: tuple[int, int]) -> Box:
    right, down = (max(0.0, -box[i]) - max(0.0, box[i + 2] - frame[i]) for i in (0, 1))
    return box[0] + right, box[1] + down, box[2] + right, box[3] + down


def laid_over(
    reference: Image.Image, alignment: Alignment, frame: tuple[int, int], size: tuple[int, int]
) -> Image.Image:
    """The reference in the frame of the inspected picture, (width, height) px, at ``size``; grey where it ends."""
    coefficients = alignment.coefficients(frame, size, reference.size)
    return reference.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC, fillcolor=_BEYOND)


def _cut(picture: Image.Image, square: Box, frame: tuple[int, int]) -> Image.Image:
    sx, sy = picture.width / frame[0], picture.height / frame[1]
    # rounding may leave a corner of the square outside
    box = (
        max(0.0, square[0] * sx),
        max(0.0, square[1] * sy),
        min(float(picture.width), square[2] * sx),
        min(float(picture.height), square[3] * sy),
    )
    return picture.resize((CROP_PX, CROP_PX), Image.Resampling.BICUBIC, box=box)


@cache
def _colour_table() -> NDArray[np.uint8]:
    """Return the colour map as uint8 RGB with shape (256, 3)."""
    from matplotlib import colormaps

    table: NDArray[np.uint8] = colormaps[COLOUR_MAP](np.arange(256), bytes=True)[:, :3]
    return table
