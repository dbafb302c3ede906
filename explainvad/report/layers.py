"""Pictures of an image on the screen: the photograph untouched, everything that is laid over it in layers of its own.

A map is a palette picture that is transparent where there is nothing to show. Outlines are paths in units of a
thousandth of the picture's long side, so that they stay sharp at any zoom and weigh nothing.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainvad.encoding import encoded
from explainvad.report.figures import HeatScale, colour_stops, fitted, laid_over, map_levels, photograph
from explainvad.types import XYXY, Alignment, Region

RAISES, LOWERS = "#e8590c", "#1c6fd6"  # colours of a signed map: told apart by people who see few colours, too
UNITS = 1000  # of a path, along the picture's long side
PHOTO_PX, THUMBNAIL_PX, MAP_PX, EXPLAINING_PX = 1024, 80, 512, 256  # long sides
LIGHT = 64_000  # bytes: a kept picture up to this size is shown as it is
_TOLERANCE = 0.8  # of a simplified outline, in units
_CLOSEST = 8.0  # times that a region is magnified at most
_SURROUNDINGS = 1.7  # times the longer side of a region's box
_WEBP_QUALITY, _THUMBNAIL_QUALITY, _EXPLAINING_QUALITY = 80, 60, 70
# Doubt of one bit is the most there is; from a quarter on it covers the photograph
_RAMP = bytes(min(255, 4 * step) for step in range(256))


@dataclass(frozen=True, slots=True)
class Layer:
    """An encoded picture with its media type and size in px."""

    data: bytes
    media: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Outline:
    """A region's outline with the place of its name, and the view that zooming to it shows.

    ``path``, ``x`` and ``y`` are in units; ``view`` is (centre x, centre y, magnification), the centre in shares of
    width and height.
    """

    region_id: str
    path: str
    x: int
    y: int
    view: tuple[float, float, float]


def shown_photograph(data: bytes) -> Layer:
    """A kept picture for the screen: its own bytes where they are few, else smaller and as WebP."""
    with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as stored:
        kept = Layer(data, Image.MIME[stored.format or ""], *stored.size)
    if len(data) <= LIGHT and max(kept.width, kept.height) <= PHOTO_PX:
        return kept
    picture = photograph(data)
    return _webp(fitted(picture, min(PHOTO_PX, max(picture.size))), _WEBP_QUALITY)


def shown_reference(data: bytes, alignment: Alignment | None, frame: tuple[int, int], photo: Layer) -> Layer:
    """A kept reference: laid over the ``photo`` of an image of ``frame`` = (width, height) px, where it registers."""
    if alignment is None:
        return shown_photograph(data)
    return _webp(laid_over(photograph(data), alignment, frame, (photo.width, photo.height)), _WEBP_QUALITY)


def thumbnail(data: bytes) -> Layer:
    """A kept picture for a row of a list."""
    return _webp(fitted(photograph(data), THUMBNAIL_PX), _THUMBNAIL_QUALITY)


def heat_layer(heat_map: bytes, scale: HeatScale) -> tuple[Layer, str]:
    """The fused map (a 16-bit grey PNG, 65535 standing for ``scale.top``) as transparent layer.

    It shows nothing below the cluster threshold. Beside it the path around all pixels that reach the pixel threshold,
    in units; empty where none does.
    """
    levels = map_levels(heat_map)
    contour = _path(levels * scale.top >= scale.pixel)
    levels = _shrunk(levels)
    steps = 1 + np.clip(levels * 254, 0, 254).astype(np.uint8)
    steps[levels * scale.top < scale.cluster] = 0
    return _palette_layer(steps, bytes([0])), contour


def doubt_layer(doubt_map: bytes) -> Layer:
    """A map on [0, 1] (a 16-bit grey PNG) as layer that is the more transparent the nearer it is to 0."""
    return _palette_layer((_shrunk(map_levels(doubt_map)) * 255).round().astype(np.uint8), _RAMP)


def explaining_layer(kept_map: bytes, signed: bool) -> tuple[Layer, tuple[float, float]]:
    """A kept explanation map (KeptMap, a grey PNG) as layer that is the more transparent the less it says.

    It is small, for there are many and their grids are coarse. A signed one is RAISES above 0 and LOWERS below.
    Beside it (x, y) of its strongest place, in shares of the sides.
    """
    with Image.open(io.BytesIO(kept_map), formats=["PNG"]) as stored:
        grey = np.asarray(stored.convert("L"))
    says = ((grey - 128.0) / 127 if signed else grey / 255).astype(np.float32)
    strongest = np.unravel_index(np.abs(says).argmax(), says.shape)
    place = ((strongest[1] + 0.5) / says.shape[1], (strongest[0] + 0.5) / says.shape[0])
    says = _shrunk(says, EXPLAINING_PX).clip(-1, 1)
    if signed:
        colours = np.array([list(bytes.fromhex(colour[1:])) for colour in (LOWERS, RAISES)], np.uint8)
        rgb = colours[(says > 0).astype(np.uint8)]
    else:
        table = np.array([list(bytes.fromhex(colour[1:])) for colour in colour_stops(256)], np.uint8)
        rgb = table[(says * 255).round().astype(np.uint8)]
    alpha = (np.abs(says) * 255).round().astype(np.uint8)
    return _webp(Image.fromarray(np.dstack([rgb, alpha])), _EXPLAINING_QUALITY), place


def outline(region: Region) -> Outline:
    """The outline of a region, cut out of its mask."""
    mask = region.mask
    factor = UNITS / max(mask.width, mask.height)
    x, y = (round(at * factor) for at in region.xyxy[:2])
    view = _view(region.xyxy, mask.width, mask.height)
    return Outline(region.region_id, _path(mask.to_array()), x, y, view)


def _view(xyxy: XYXY, width: int, height: int) -> tuple[float, float, float]:
    """Centre and magnification that show a box with some surroundings."""
    x0, y0, x1, y1 = xyxy
    share = _SURROUNDINGS * max((x1 - x0) / width, (y1 - y0) / height)
    magnification = min(_CLOSEST, max(1.0, 1 / share))
    return round((x0 + x1) / 2 / width, 4), round((y0 + y1) / 2 / height, 4), round(magnification, 2)


def _path(mask: NDArray[np.bool_]) -> str:
    """SVG path around the set pixels of ``mask``, in units; empty only where none is set."""
    from skimage.measure import approximate_polygon, find_contours

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return ""
    y0, x0 = rows[0], columns[0]
    part = np.pad(mask[y0 : rows[-1] + 1, x0 : columns[-1] + 1], 1).astype(np.float32)
    parts = []
    for contour in find_contours(part, 0.5):  # type: ignore[no-untyped-call]
        # Pixel k of the padded part has its centre at k - 1/2 of the part
        at = (contour - 0.5 + (y0, x0)) * UNITS / max(mask.shape)
        simple = approximate_polygon(at, _TOLERANCE)  # type: ignore[no-untyped-call]
        points = simple if len(simple) > 3 else at  # a speck stays as it is; the last point is the first
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for y, x in points[:-1]) + "Z")
    return "".join(parts)


def _shrunk(levels: NDArray[np.float32], longest: int = MAP_PX) -> NDArray[np.float32]:
    height, width = levels.shape
    factor = min(1.0, longest / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BILINEAR))


def _palette_layer(steps: NDArray[np.uint8], alpha: bytes) -> Layer:
    """A PNG whose palette is the colour map; ``alpha`` holds the opacity of its first colours."""
    picture = Image.fromarray(steps).convert("P")
    picture.putpalette(bytes.fromhex("".join(colour[1:] for colour in colour_stops(256))))
    return Layer(encoded(picture, "PNG", transparency=alpha, optimize=True), "image/png", *picture.size)


def _webp(picture: Image.Image, quality: int) -> Layer:
    return Layer(encoded(picture, "WEBP", quality=quality, method=4), "image/webp", *picture.size)
