"""Surfaces seen from straight above: a height map, and how each point of it reflects light.

Lengths are in pixels of the finished photograph; arrays are sampled ``OVERSAMPLING`` times finer, so that
edges come out anti-aliased. x points right, y down, heights towards the camera. Colours are linear RGB,
channels first. All arrays are float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

OVERSAMPLING = 2

Array = NDArray[np.float32]


class Material(NamedTuple):
    """Reflectance of one material; ``along`` and ``across`` are Ward roughnesses by its brushing direction."""

    diffuse: tuple[float, float, float]
    specular: tuple[float, float, float]
    along: float
    across: float
    marks: float = 0.0  # how far tool marks tilt the surface, 0 to 1


class Canvas(NamedTuple):
    """Coordinates of the samples, centred, in pixels; ``radius`` and ``angle`` (radians) are their polar form."""

    x: Array
    y: Array
    radius: Array
    angle: Array


@lru_cache(maxsize=4)
def canvas(width: int, height: int) -> Canvas:
    """Return the sample grid of a field of ``width`` x ``height`` pixels."""
    columns, rows = width * OVERSAMPLING, height * OVERSAMPLING
    across = (np.arange(columns) - (columns - 1) / 2) / OVERSAMPLING
    down = (np.arange(rows) - (rows - 1) / 2) / OVERSAMPLING
    x, y = np.meshgrid(across.astype(np.float32), down.astype(np.float32))
    return Canvas(x, y, np.hypot(x, y), np.arctan2(y, x))


def rgb(colour: tuple[float, float, float]) -> Array:
    """Return a colour as an array of shape (3, 1, 1), which broadcasts over an image."""
    return np.array(colour, dtype=np.float32).reshape(3, 1, 1)


def inside(signed_distance: NDArray[np.floating]) -> Array:
    """Return the coverage, 0 to 1, of a shape from its signed distance (px, negative inside)."""
    coverage: Array = np.clip(0.5 - signed_distance * OVERSAMPLING, 0, 1).astype(np.float32)
    return coverage


def blur(array: Array, sigma: float) -> Array:
    """Smooth with a Gaussian of ``sigma`` pixels."""
    blurred: Array = ndimage.gaussian_filter(array, sigma * OVERSAMPLING, mode="nearest", truncate=3.0)
    return blurred


def texture(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Array:
    """Return noise of standard deviation 1 and mean 0 that varies over about ``sigma`` pixels."""
    noise = blur(rng.standard_normal(shape, dtype=np.float32), sigma)
    standardised: Array = (noise - noise.mean()) / noise.std()
    return standardised


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A height map (H, W) with its materials; ``normal`` and ``occlusion`` follow from the height.

    ``silhouette`` is the part's coverage (0 to 1), ``tangent`` (2, H, W) the unit direction in which the
    surface is brushed, ``occlusion`` the share of ambient light (0 to 1) that reaches a point.
    """

    height: Array
    silhouette: Array
    diffuse: Array  # (3, H, W)
    specular: Array  # (3, H, W)
    along: Array
    across: Array
    marks: Array
    tangent: Array  # (2, H, W)
    normal: Array  # (3, H, W)
    occlusion: Array

    @classmethod
    def of(cls, height: Array, silhouette: Array, material: Material, tangent: Array) -> Surface:
        """Return a surface made of one material."""
        one = np.ones_like(height)
        normal, occlusion = _relief(height)
        return cls(
            height=height,
            silhouette=silhouette,
            diffuse=one * rgb(material.diffuse),
            specular=one * rgb(material.specular),
            along=one * np.float32(material.along),
            across=one * np.float32(material.across),
            marks=one * np.float32(material.marks),
            tangent=tangent,
            normal=normal,
            occlusion=occlusion,
        )

    def shaped(self, height: Array) -> Surface:
        """Return the same materials on another height map."""
        normal, occlusion = _relief(height)
        return replace(self, height=height, normal=normal, occlusion=occlusion)

    def painted(self, coverage: Array, material: Material, tangent: Array | None = None) -> Surface:
        """Return the surface with ``material`` where ``coverage`` (0 to 1) says, brushed along ``tangent``."""

        def mix(old: Array, new: float | Array) -> Array:
            return old + coverage * (new - old)

        return replace(
            self,
            diffuse=mix(self.diffuse, rgb(material.diffuse)),
            specular=mix(self.specular, rgb(material.specular)),
            along=mix(self.along, material.along),
            across=mix(self.across, material.across),
            marks=mix(self.marks, material.marks),
            tangent=self.tangent if tangent is None else np.where(coverage > 0.5, tangent, self.tangent),
        )


def around(x: Array, y: Array) -> Array:
    """Return the unit tangents (2, H, W) of circles about the origin of ``x`` and ``y``."""
    radius = np.maximum(np.hypot(x, y), 1e-3)
    return np.stack([-y / radius, x / radius])


def _relief(height: Array) -> tuple[Array, Array]:
    """Return unit normals (3, H, W) and ambient occlusion of a height map."""
    slope_y, slope_x = np.gradient(height, 1 / OVERSAMPLING)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(height)])
    normal /= np.sqrt((normal**2).sum(axis=0))

    # A point lies in shade as far as its surroundings, at several scales, rise above it.
    shade = np.zeros_like(height)
    for sigma in (1.2, 3.5):
        shade += np.maximum(blur(height, sigma) - height, 0) / sigma
    return normal.astype(np.float32), np.exp(-0.65 * shade).astype(np.float32)
