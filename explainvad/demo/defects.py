"""Defects of the demo part, each done to its surface or assembly and then photographed like any other part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from explainvad.demo.parts import BOLT_ANGLES, BOLT_CIRCLE, FIELD, PIN_ANGLE, flange, hex_nut
from explainvad.demo.photograph import Shot, photograph
from explainvad.demo.surface import Array, Material, Surface, blur, canvas, texture

_SCORED = Material((0.05, 0.05, 0.05), (0.85, 0.855, 0.86), along=0.20, across=0.55)

_STEP = 2  # grey levels; a step of 1 is lost in the sensor's noise
_SPECK_AREA = 6  # px; smaller islands and holes of a mask are nobody's finding
_CLEAR_STEP, _CLEAR_AREA = 20, 90  # grey levels, px: what a careful inspector cannot miss


@dataclass(frozen=True, slots=True, eq=False)
class DefectivePart:
    """A photograph (H, W, 3), the same shot of a good part, and the mask (H, W) of where the two differ."""

    picture: NDArray[np.uint8]
    normal_twin: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def photograph_defect(kind: str, number: int, shot: Shot, rng: np.random.Generator) -> DefectivePart:
    """Make defect ``kind`` (a key of ``DEFECTS``) and photograph it; ``number`` counts parts of this kind.

    A mark that the light happens to hide would not have been labelled by anybody: it is drawn again.
    """
    normal = photograph(flange(), shot)
    while True:
        defective = photograph(DEFECTS[kind](rng, number), shot)
        step = np.abs(defective.astype(np.int16) - normal).max(axis=2)
        mask = tidy_mask(step >= _STEP)
        if (step >= _CLEAR_STEP).sum() >= _CLEAR_AREA:
            return DefectivePart(np.where(mask[..., None], defective, normal), normal, mask)


def tidy_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Close the pinholes that noise left in a mask (H, W), and drop its specks."""
    closed = ndimage.binary_closing(np.pad(mask, 2), iterations=1)[2:-2, 2:-2]
    filled = ~_without_islands(~closed)
    return _without_islands(filled)


def _without_islands(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    areas = np.bincount(labels.ravel())
    kept: NDArray[np.bool_] = mask & (areas >= _SPECK_AREA)[labels]
    return kept


def scratch(rng: np.random.Generator, number: int) -> Surface:
    """A groove of varying depth that something hard drew across a machined face, with burrs on its sides."""
    surface, field = flange(), canvas(FIELD, FIELD)
    centre = np.array(_free_spot(rng))
    heading = np.arctan2(centre[1], centre[0]) + rng.choice([-1, 1]) * rng.uniform(
        0.25, 1.2
    )  # 0 is across the tool marks
    length, bend = rng.uniform(40, 75), rng.uniform(-0.12, 0.12)

    t = np.linspace(-0.5, 0.5, 400)
    forward, sideways = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
    wobble = ndimage.gaussian_filter1d(rng.standard_normal(t.size), 25) * 1.2
    path = centre + length * np.outer(t, forward) + np.outer(length * bend * 4 * t**2 + wobble, sideways)
    direction = np.gradient(path, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    pressure = ndimage.gaussian_filter1d(rng.standard_normal(t.size), 18)
    pressure = (1 + 0.25 * pressure / pressure.std()) * np.minimum(1, (0.5 - np.abs(t)) * 7) ** 0.7

    # Cut the groove along the path; beyond a few pixels of it the distance is infinite and nothing happens.
    points = np.column_stack([field.x.ravel(), field.y.ravel()])
    distance, nearest = KDTree(path).query(points, distance_upper_bound=6.0)
    distance = distance.reshape(field.x.shape)
    nearest = np.minimum(nearest, t.size - 1).reshape(field.x.shape)
    width = rng.uniform(0.6, 0.85)
    depth = rng.uniform(0.45, 0.8) * np.clip(pressure, 0, None)[nearest] * _metal(surface)
    across = distance / width
    groove = depth * (0.35 * np.exp(-(((across - 1.9) / 0.6) ** 2)) - np.exp(-(across**2)))
    coverage = np.clip(2 * depth, 0, 1) * np.exp(-((across / 1.15) ** 4))
    along = direction[nearest].transpose(2, 0, 1).astype(np.float32)
    scored = surface.painted(coverage.astype(np.float32), _SCORED, along)
    return scored.shaped((surface.height + groove).astype(np.float32))


def dent(rng: np.random.Generator, number: int) -> Surface:
    """A bowl that a blow left, with the rim that it threw up; the tool marks in it are half flattened."""
    surface, field = flange(), canvas(FIELD, FIELD)
    centre_x, centre_y = _free_spot(rng)
    turn, long, short = rng.uniform(0, np.pi), rng.uniform(9.0, 13.0), rng.uniform(6.0, 9.0)
    x, y = field.x - centre_x, field.y - centre_y
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    q = np.hypot(u / long, v / short) + 0.13 * texture(rng, x.shape, 2.5) * np.exp(-np.hypot(u, v) / long)
    steep = 1 + 0.35 * np.tanh(u / long)  # the blow came at a slant
    bowl = 0.15 * np.exp(-(((q - 1.1) / 0.2) ** 2)) - steep * np.clip(1 - q**2, 0, 1) ** 1.5
    height = surface.height + rng.uniform(0.9, 1.5) * bowl * _metal(surface)
    flattened = surface.marks * (1 - 0.5 * (q < 1))
    return replace(surface, marks=flattened.astype(np.float32)).shaped(height.astype(np.float32))


def stain(rng: np.random.Generator, number: int) -> Surface:
    """A film of old cutting oil with a ragged, darker rim, and a few drops beside it."""
    surface, field = flange(), canvas(FIELD, FIELD)
    centre_x, centre_y = _free_spot(rng)
    x, y = field.x - centre_x, field.y - centre_y
    size = rng.uniform(12, 19)
    ragged = 5.0 * texture(rng, x.shape, 7.0) + 1.2 * texture(rng, x.shape, 2.5)
    edge = np.hypot(x * rng.uniform(0.6, 1.0), y) - size + ragged
    for _ in range(int(rng.integers(2, 5))):
        away, drop = rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 2.8)
        reach = size + rng.uniform(3, 9)
        edge = np.minimum(edge, np.hypot(x - reach * np.cos(away), y - reach * np.sin(away)) - drop)
    film = 0.5 - 0.5 * np.tanh(edge / 0.7)
    rim = np.exp(-(((edge + 1.3) / 1.1) ** 2))
    density = (rng.uniform(0.7, 1.0) * film * (0.85 + 0.03 * ragged) + 0.35 * rim) * (surface.silhouette > 0)
    absorbed = np.exp(-np.maximum(density, 0) * np.array([0.55, 0.80, 1.45])[:, None, None]).astype(np.float32)
    return replace(
        surface,
        diffuse=surface.diffuse * absorbed,
        specular=surface.specular * absorbed,
        along=(surface.along + 0.06 * film).astype(np.float32),
        marks=(surface.marks * (1 - 0.6 * film)).astype(np.float32),
    )


def missing_feature(rng: np.random.Generator, number: int) -> Surface:
    """A bolt hole that was not drilled, or a bore without its locating pin, by turns."""
    hole = int(rng.integers(len(BOLT_ANGLES)))
    return flange(missing_hole=hole) if number % 2 == 0 else flange(pin=False)


def wrong_colour(rng: np.random.Generator, number: int) -> Surface:
    """A seal of another compound."""
    return flange(seal=("green", "black")[number % 2])


def foreign_part(rng: np.random.Generator, number: int) -> Surface:
    """Another part altogether."""
    return hex_nut()


DEFECTS: dict[str, Callable[[np.random.Generator, int], Surface]] = {
    "scratch": scratch,
    "dent": dent,
    "stain": stain,
    "missing_feature": missing_feature,
    "wrong_colour": wrong_colour,
    "foreign_part": foreign_part,
}


def _free_spot(rng: np.random.Generator) -> tuple[float, float]:
    """Draw a place, as x and y from the centre (px), on the boss or on the outer face between the holes."""
    occupied = np.deg2rad([*BOLT_ANGLES, PIN_ANGLE])
    on_boss = rng.random() < 0.35
    while True:
        angle = rng.uniform(0, 2 * np.pi)
        radius = rng.uniform(43, 49) if on_boss else rng.uniform(89, 106)
        x, y = float(radius * np.cos(angle)), float(radius * np.sin(angle))
        gaps = np.hypot(x - BOLT_CIRCLE * np.cos(occupied), y - BOLT_CIRCLE * np.sin(occupied))
        if gaps.min() > 22:
            return x, y


def _metal(surface: Surface) -> Array:
    """Return where tool marks, and so bare machined faces, are: 0 to 1, with soft borders."""
    return blur((surface.marks > 0.05).astype(np.float32), 0.4)
