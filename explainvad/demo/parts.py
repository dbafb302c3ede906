"""The demo's machined parts: a turned aluminium flange, and a hex nut that has no business on its fixture."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from explainvad.demo.surface import Array, Canvas, Material, Surface, around, blur, canvas, inside

FIELD = 256  # px; the square in which a part is modelled, wider than the part
FLANGE_RADIUS = 119.0  # px; 95 mm across at 0.4 mm per pixel
BOLT_CIRCLE = 97.5
BOLT_ANGLES = tuple(30.0 + 60.0 * k for k in range(6))  # degrees
PIN_ANGLE, NOTCH_ANGLE = -60.0, 120.0

ALUMINIUM = Material((0.030, 0.0305, 0.032), (0.72, 0.727, 0.735), along=0.09, across=0.44, marks=1.0)
BROKEN_EDGE = Material((0.03, 0.03, 0.031), (0.95, 0.955, 0.96), along=0.16, across=0.26, marks=0.3)
STEEL = Material((0.03, 0.03, 0.032), (0.62, 0.60, 0.57), along=0.22, across=0.22)
ZINC = Material((0.05, 0.047, 0.036), (0.50, 0.47, 0.36), along=0.16, across=0.45, marks=0.8)
DARKNESS = Material((0.011, 0.011, 0.012), (0.012, 0.012, 0.012), along=0.4, across=0.4)
GROOVE = Material((0.03, 0.03, 0.031), (0.22, 0.22, 0.225), along=0.2, across=0.4)
ENGRAVED = Material((0.010, 0.010, 0.011), (0.055, 0.055, 0.056), along=0.12, across=0.44)

SEALS = {
    "rust": Material((0.25, 0.036, 0.020), (0.36, 0.345, 0.345), along=0.17, across=0.17),
    "green": Material((0.020, 0.110, 0.050), (0.36, 0.36, 0.36), along=0.17, across=0.17),
    "black": Material((0.012, 0.012, 0.013), (0.36, 0.36, 0.36), along=0.17, across=0.17),
}

# Radius (px) and height (px) of the turned profile, from the bore outwards.
_PROFILE = np.array(
    [
        (0, -40), (21, -40), (21.5, -17), (30, -17), (30.8, 2.5), (34.5, 5), (57, 5), (59, 4), (59.7, 0),
        (66.4, 0), (67.2, -4), (77.4, -4), (78.2, 0), (115.8, 0), (119, -1.9), (119.5, -24), (400, -24),
    ]
)  # fmt: skip
_SEAL_RADIUS, _SEAL_THICKNESS = 72.3, 4.4


@lru_cache(maxsize=8)
def flange(missing_hole: int | None = None, pin: bool = True, seal: str = "rust") -> Surface:
    """Return the flange; the defaults are the drawing.

    ``missing_hole`` is the index of a bolt hole that was never drilled, ``pin`` whether the locating pin is
    in its bore, ``seal`` a key of ``SEALS``.
    """
    field = canvas(FIELD, FIELD)
    r = field.radius

    # Turn the blank.
    height = np.interp(r, *_PROFILE.T).astype(np.float32)
    surface = Surface.of(height, inside(r - FLANGE_RADIUS), ALUMINIUM, around(field.x, field.y))
    for inner, outer in ((30.6, 34.6), (56.9, 59.6), (115.7, 121.0)):
        surface = surface.painted(_ring(r, inner, outer), BROKEN_EDGE)
    surface = surface.painted(inside(r - 21.3), DARKNESS)

    # Drill and countersink the bolt holes, bore and fill the pin's seat, mill the notch.
    for index, angle in enumerate(BOLT_ANGLES):
        if index != missing_hole:
            surface, height = _drilled(surface, height, field, angle)
    surface, height = _pinned(surface, height, field, pin)
    notch = np.hypot(*_about(field, NOTCH_ANGLE, FLANGE_RADIUS - 1.5)) - 4.8
    height = np.where(notch < 0, np.minimum(height, -24), height)
    surface = replace(surface, silhouette=surface.silhouette * (1 - inside(notch)))

    # Seat the seal in its groove.
    surface = surface.painted(_ring(r, 66.3, 78.3), GROOVE)
    across = r - _SEAL_RADIUS
    torus = np.sqrt(np.maximum(_SEAL_THICKNESS**2 - across**2, 0)) - 1.2
    height = np.where(np.abs(across) < _SEAL_THICKNESS, np.maximum(height, torus), height)
    surface = surface.painted(_ring(r, _SEAL_RADIUS - _SEAL_THICKNESS, _SEAL_RADIUS + _SEAL_THICKNESS), SEALS[seal])

    # Stamp the marking.
    marking = _lettering(field, "DN50 PN16", 180, 97.0, 10.0) + _lettering(field, "EP-4711 C", 0, 97.0, 10.0)
    surface = surface.painted(marking, ENGRAVED)
    return surface.shaped(blur(height, 0.4) - 0.1 * blur(marking, 0.4))


def _ring(r: Array, inner: float, outer: float) -> Array:
    """Return the coverage of a ring from its inner and outer radius (px)."""
    return inside(np.abs(r - (inner + outer) / 2) - (outer - inner) / 2)


def _about(field: Canvas, angle: float, radius: float) -> tuple[Array, Array]:
    """Return x and y (px) from the point at ``angle`` (degrees) and ``radius`` (px)."""
    x, y = radius * np.cos(np.deg2rad(angle)), radius * np.sin(np.deg2rad(angle))
    return field.x - np.float32(x), field.y - np.float32(y)


def _drilled(surface: Surface, height: Array, field: Canvas, angle: float) -> tuple[Surface, Array]:
    """Return surface and height with a countersunk bolt hole at ``angle``."""
    x, y = _about(field, angle, BOLT_CIRCLE)
    r = np.hypot(x, y)
    hole = np.interp(r, [0, 7.3, 7.9, 12.4, 12.5], [-32, -32, -4.2, 0, 99]).astype(np.float32)
    surface = surface.painted(inside(r - 12.4), BROKEN_EDGE, around(x, y)).painted(inside(r - 7.5), DARKNESS)
    return surface, np.minimum(height, hole)


def _pinned(surface: Surface, height: Array, field: Canvas, pin: bool) -> tuple[Surface, Array]:
    """Return surface and height with the locating pin, or with the empty bore that it belongs in."""
    x, y = _about(field, PIN_ANGLE, BOLT_CIRCLE)
    r = np.hypot(x, y)
    if pin:
        dome = np.interp(r, [0, 1, 2, 3, 4, 5.0, 5.6], [6.4, 6.3, 6.0, 5.5, 4.7, 3.4, 0]).astype(np.float32)
        return surface.painted(inside(r - 5.4), STEEL, around(x, y)), np.where(r < 5.6, dome, height)
    bore = np.interp(r, [0, 4.9, 5.4, 6.0, 6.1], [-18, -18, -0.5, 0, 99]).astype(np.float32)
    return surface.painted(inside(r - 5.2), DARKNESS), np.minimum(height, bore)


def _lettering(field: Canvas, text: str, angle: float, radius: float, size: float) -> Array:
    """Return the coverage of ``text`` set on a circle, its letters' feet towards the centre."""
    scale = 6
    font = ImageFont.load_default(round(size * scale * 1.35))
    stroke = 0.26 * scale
    left, top, right, bottom = font.getbbox(text, stroke_width=stroke)
    plate = Image.new("L", (round(right - left) + 8, round(bottom - top) + 8))
    ImageDraw.Draw(plate).text((4 - left, 4 - top), text, font=font, fill=255, stroke_width=stroke)
    glyphs = np.asarray(plate, dtype=np.float32) / 255
    rows, columns = glyphs.shape

    turn = (field.angle - np.deg2rad(angle) + np.pi) % (2 * np.pi) - np.pi
    column = turn * radius * scale + columns / 2
    row = (radius - field.radius) * scale + rows / 2
    sharp = ndimage.gaussian_filter(glyphs, scale / 4)
    coverage: Array = ndimage.map_coordinates(sharp, [row, column], order=1)
    return coverage


@lru_cache(maxsize=1)
def hex_nut() -> Surface:
    """Return a large zinc-plated hex nut."""
    field = canvas(FIELD, FIELD)
    x, y, r = field.x, field.y, field.radius
    flats = 74.0
    directions = np.deg2rad([11.0, 71.0, 131.0])
    hexagon = np.max([np.abs(x * np.cos(d) + y * np.sin(d)) for d in directions], axis=0).astype(np.float32) - flats

    # The chamfer is a cone; where the hexagon's corners leave it, the curves that every nut has appear.
    cone = -np.maximum(r - flats + 4, 0) * np.float32(np.tan(np.deg2rad(30)))
    thread = 2.6 * np.abs((r * 0.36 + field.angle / (2 * np.pi)) % 1 - 0.5)
    bore = np.interp(r, [0, 33, 34, 43, 47], [-30, -30, -12, -3.5, 0]).astype(np.float32)
    height = cone + np.where(r < 47, bore, 0) - np.where((r > 34) & (r < 44), thread, 0)
    height = np.where(hexagon > 0, -24, height).astype(np.float32)
    surface = Surface.of(height, inside(hexagon), ZINC, around(x, y))
    surface = surface.painted(inside(r - 46.5), ZINC._replace(marks=0.0)).painted(inside(r - 34.5), DARKNESS)
    return surface.shaped(blur(height, 0.35))
