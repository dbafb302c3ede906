"""Pictures of trays: parts rendered once, laid on a blasted plate, and photographed.

Parts are shaded like the flange's surface, once for each turn, and kept as what they add to a picture: their light,
their coverage and the shadow around them. Composing a tray from them takes milliseconds. Layers are sampled
OVERSAMPLING times finer than the picture, and MARGIN px wider on each side, so that a turned tray still fills it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from explainvad.demo.camera import developed, sensor_noise
from explainvad.demo.lighting import Light, shade
from explainvad.demo.logical.layout import COLUMNS, MIRROR, ROWS, SIDE, TURNS, Item
from explainvad.demo.surface import OVERSAMPLING, Array, Material, Surface, around, blur, canvas, inside, texture

MARGIN = 8  # px
LAYER = (SIDE + 2 * MARGIN) * OVERSAMPLING  # samples a side
CELL = 36  # px of a part's own field, with its shadow

_LIGHTS = (
    Light(azimuth=-128, elevation=52, colour=(1.0, 1.0, 1.0), spread=0.1, casts_shadow=True),
    Light(azimuth=40, elevation=45, colour=(0.35, 0.35, 0.35), spread=0.15),
)
_PLATE = Material((0.05, 0.05, 0.055), (0.02, 0.02, 0.02), along=0.42, across=0.42)
_STEEL = Material((0.10, 0.10, 0.105), (0.55, 0.55, 0.56), along=0.3, across=0.3)
_BRASS = Material((0.30, 0.18, 0.03), (0.45, 0.30, 0.08), along=0.3, across=0.3)
_SPRING = Material((0.42, 0.13, 0.015), (0.10, 0.10, 0.10), along=0.35, across=0.35)
_COLOURS = {
    "red": Material((0.34, 0.025, 0.02), (0.06, 0.06, 0.06), along=0.25, across=0.25),
    "green": Material((0.02, 0.20, 0.045), (0.06, 0.06, 0.06), along=0.25, across=0.25),
    "blue": Material((0.02, 0.06, 0.36), (0.06, 0.06, 0.06), along=0.25, across=0.25),
}
_LENS = 0.45  # px; standard deviation of the lens blur
_EXPOSURE = 1.7
_SHEET = 3 * LAYER  # samples a side of the plate that trays are cut from
_GUIDE = 0.5  # px, half the width of the engraved lines


class Sprite(NamedTuple):
    """A part as it is laid on a layer: light (3, h, w), coverage and shade (h, w), 0 to 1."""

    light: Array
    coverage: Array
    shade: Array


@dataclass(frozen=True, slots=True)
class TrayShot:
    """Everything in which one picture of a layout differs from the next."""

    shift: tuple[float, float]  # px
    rotation: float  # degrees
    scale: float
    gain: float
    gradient: tuple[float, float]  # of the light, across the picture
    white_balance: tuple[float, float]  # red, blue
    sheet: tuple[int, int]  # samples, where the plate was cut
    noise_seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> TrayShot:
        """Draw the nuisances of one picture."""
        x, y, rotation, scale, gain = np.clip(rng.normal(size=5), -2, 2).tolist()
        slope_x, slope_y, red, blue = np.clip(rng.normal(size=4), -2, 2).tolist()
        row, column = rng.integers(_SHEET - LAYER, size=2).tolist()
        return cls(
            shift=(x, y),
            rotation=1.2 * rotation,
            scale=1 + 0.006 * scale,
            gain=1 + 0.04 * gain,
            gradient=(0.03 * slope_x, 0.03 * slope_y),
            white_balance=(1 + 0.012 * red, 1 + 0.012 * blue),
            sheet=(row, column),
            noise_seed=int(rng.integers(2**63)),
        )


def lay(items: Iterable[Item], shot: TrayShot) -> Array:
    """Return the light (3, LAYER, LAYER) of a tray with these parts."""
    row, column = shot.sheet
    light = _sheet()[:, row : row + LAYER, column : column + LAYER] * _guides()
    for item in items:
        part, y, x = sprite(item.part, item.turn), *_corner(item)
        rows, columns = slice(y, y + CELL * OVERSAMPLING), slice(x, x + CELL * OVERSAMPLING)
        below = light[:, rows, columns] * (1 - part.shade)
        light[:, rows, columns] = below * (1 - part.coverage) + part.light
    return light


def expose(light: Array, shot: TrayShot) -> NDArray[np.uint8]:
    """Return the picture, (SIDE, SIDE, 3) sRGB, of a tray's light."""
    posed = np.stack([_posed(channel, shot) for channel in light])
    across = np.linspace(-1, 1, SIDE, dtype=np.float32)
    lamp = shot.gain * (1 + shot.gradient[0] * across + shot.gradient[1] * across[:, None])
    red, blue = shot.white_balance
    posed *= np.float32(_EXPOSURE) * lamp.astype(np.float32)
    posed *= np.array([red, 1, blue], dtype=np.float32)[:, None, None]
    picture = developed(posed)
    picture += sensor_noise(picture, shot.noise_seed)
    return np.clip(np.rint(picture.transpose(1, 2, 0)), 0, 255).astype(np.uint8)


def silhouettes(items: Iterable[Item], shot: TrayShot) -> NDArray[np.bool_]:
    """Return where in the picture (SIDE, SIDE) these parts are, or would be; a ring without its hole."""
    covered = np.zeros((LAYER, LAYER), np.float32)
    for item in items:
        y, x = _corner(item)
        side = CELL * OVERSAMPLING
        np.maximum(
            covered[y : y + side, x : x + side],
            sprite(item.part, item.turn).coverage,
            out=covered[y : y + side, x : x + side],
        )
    marked: NDArray[np.bool_] = ndimage.binary_fill_holes(_posed(covered, shot) > 0.5)
    return marked


@lru_cache(maxsize=128)
def sprite(part: str, turn: int) -> Sprite:
    """Render a part, turned ``turn`` of TURNS times; a clip, a flag and a cap are turned by few degrees only."""
    kind, _, colour = part.partition("-")
    angle = np.deg2rad(360 / TURNS * turn if kind in ("bolt", "ring") else 0.8 * (turn - (TURNS - 1) / 2))
    surface = _SHAPES[kind](float(angle), _COLOURS.get(colour, _SPRING))
    lit = shade(surface, _LIGHTS, np.zeros_like(surface.tangent))
    coverage = surface.silhouette
    shadow = 0.45 * np.roll(blur(coverage, 1.6), (3, 2), axis=(0, 1))
    light = np.stack([blur(channel * coverage, _LENS) for channel in lit])
    return Sprite(light, blur(coverage, _LENS), shadow)


def _bolt(angle: float, material: Material) -> Surface:
    """A hexagon head with a socket."""
    x, y, r = _field(angle)
    flats = np.max([np.abs(x * np.cos(d) + y * np.sin(d)) for d in np.deg2rad([0, 60, 120])], axis=0)
    socket = r - 2.6
    height = np.where(socket < 0, 0.0, 4.0 - 0.5 * np.maximum(r - 5.5, 0)).astype(np.float32)
    surface = Surface.of(height, inside(flats - 6.2), _STEEL, around(x, y))
    return surface.painted(inside(socket), _PLATE).shaped(blur(height, 0.3))


def _ring(angle: float, material: Material) -> Surface:
    """A washer with a round edge; it has no angle, only its brushing does."""
    x, _, r = _field(angle)
    height = np.sqrt(np.maximum(2.6**2 - (r - 5.0) ** 2, 0)).astype(np.float32)
    return Surface.of(height, inside(np.abs(r - 5.0) - 2.3), _BRASS, np.stack([np.ones_like(x), np.zeros_like(x)]))


def _flag(angle: float, material: Material) -> Surface:
    """A flat plate of colour."""
    x, y, _ = _field(angle)
    outline = np.maximum(np.abs(x) - 9, np.abs(y) - 4.5)
    return Surface.of(np.minimum(2.0, -outline).astype(np.float32), inside(outline), material, around(x, y))


def _cap(angle: float, material: Material) -> Surface:
    """A dome of colour."""
    x, y, r = _field(angle)
    dome = np.sqrt(np.maximum(12.0**2 - r**2, 0)).astype(np.float32) - 9
    return Surface.of(dome, inside(r - 6.8), material, around(x, y))


def _clip(angle: float, material: Material) -> Surface:
    """A spring clip with two holes."""
    x, y, _ = _field(angle)
    outline = np.hypot(np.maximum(np.abs(x) - 10, 0), y) - 4.0
    hole = np.hypot(np.abs(x) - 8, y) - 1.8
    height = np.where(hole < 0, 0.0, np.minimum(2.0, -outline)).astype(np.float32)
    surface = Surface.of(height, inside(outline), material, around(x, y))
    return surface.painted(inside(hole), _PLATE)


_SHAPES = {"bolt": _bolt, "ring": _ring, "flag": _flag, "cap": _cap, "clip": _clip}


def _field(angle: float) -> tuple[Array, Array, Array]:
    """Return x, y and radius (px) of a part's own field, turned."""
    field = canvas(CELL, CELL)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return field.x * c + field.y * s, field.y * c - field.x * s, field.radius


def _corner(item: Item) -> tuple[int, int]:
    """Return the row and column of a layer where the part's field begins."""
    y, x = (round((at + MARGIN - CELL / 2) * OVERSAMPLING) for at in (item.y, item.x))
    return y, x


def _posed(layer: Array, shot: TrayShot) -> Array:
    """Resample a layer into the picture."""
    a = np.deg2rad(shot.rotation)
    matrix = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) * OVERSAMPLING / shot.scale
    target = np.full(2, (SIDE - 1) / 2) + shot.shift[::-1]
    posed: Array = ndimage.affine_transform(
        layer, matrix, (LAYER - 1) / 2 - matrix @ target, (SIDE, SIDE), order=1, mode="nearest"
    )
    return posed


@lru_cache(maxsize=1)
def _sheet() -> Array:
    """Return the light (3, _SHEET, _SHEET) of a large blasted plate."""
    rng = np.random.default_rng(1733)
    flat = np.ones((_SHEET, _SHEET), np.float32)
    grain = 0.10 * texture(rng, flat.shape, 0.6) + 0.10 * texture(rng, flat.shape, 1.3)
    plate = Surface.of(grain, flat, _PLATE, np.stack([flat, np.zeros_like(flat)]))
    lights = tuple(Light(lamp.azimuth, lamp.elevation, lamp.colour, lamp.spread) for lamp in _LIGHTS)
    light = shade(plate, lights, np.zeros_like(plate.tangent))
    return np.stack([blur(channel, _LENS) for channel in light])


@lru_cache(maxsize=1)
def _guides() -> Array:
    """Return what the lines between header, fields and footer leave of the light (LAYER, LAYER)."""
    side = SIDE + 2 * MARGIN
    field = canvas(side, side)
    x, y = field.x + SIDE / 2, field.y + SIDE / 2
    top, bottom, reach = ROWS[0] - 15, ROWS[-1] + 11, MIRROR - COLUMNS[0] + 15
    between = np.maximum(np.abs(x - MIRROR), np.maximum(top - y, y - bottom))
    across = np.maximum(np.minimum(np.abs(y - top), np.abs(y - bottom)), np.abs(x - MIRROR) - reach)
    lines = blur(inside(np.minimum(between, across) - _GUIDE), _LENS)
    return (1 - 0.6 * lines).astype(np.float32)
