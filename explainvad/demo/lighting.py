"""Shading of a surface under an inspection light: anisotropic metal, soft shadows, tool marks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from explainvad.demo.surface import OVERSAMPLING, Array, Surface, canvas, rgb


@dataclass(frozen=True, slots=True)
class Light:
    """A lamp far away. ``azimuth`` (degrees) turns from x to y in the image; ``spread`` softens its highlights."""

    azimuth: float
    elevation: float
    colour: tuple[float, float, float]
    spread: float
    casts_shadow: bool = False

    def brightened(self, factor: float) -> Light:
        """Return the lamp with ``factor`` times its output."""
        red, green, blue = self.colour
        return replace(self, colour=(red * factor, green * factor, blue * factor))

    def turned(self, degrees: float) -> Light:
        """Return the lamp turned about the camera's axis."""
        return replace(self, azimuth=self.azimuth + degrees)


AMBIENT = 0.22
_SHADOW_REACH = (1.0, 2.0, 3.5, 5.5, 8.0, 11.0, 15.0, 20.0, 27.0, 36.0)  # px


def shade(surface: Surface, lights: tuple[Light, ...], tilt: Array) -> Array:
    """Return the radiance (3, H, W) of a surface towards the camera above it.

    ``tilt`` (2, H, W) is added to the normals' x and y: the marks that a tool left. Highlights follow
    G. J. Ward, "Measuring and modeling anisotropic reflection", SIGGRAPH 1992, in its half-vector form.
    """
    nx, ny = surface.normal[:2] + tilt
    nz = surface.normal[2]
    tx, ty = surface.tangent
    n_t = surface.normal[0] * tx + surface.normal[1] * ty
    scattered = np.empty_like(surface.diffuse)
    scattered[:] = AMBIENT * surface.occlusion
    mirrored = np.zeros_like(surface.specular)

    for light in lights:
        azimuth, elevation = np.deg2rad([light.azimuth, light.elevation])
        direction = np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)],
            dtype=np.float32,
        )
        half = direction + np.array([0, 0, 1], dtype=np.float32)
        half /= np.linalg.norm(half)

        lit = _shadow(surface.height, light) if light.casts_shadow else surface.occlusion
        facing = np.maximum(nx * direction[0] + ny * direction[1] + nz * direction[2], 0)
        h_n = np.maximum(nx * half[0] + ny * half[1] + nz * half[2], 1e-2)
        h_t = tx * half[0] + ty * half[1] - n_t * h_n
        h_n2, h_t2 = h_n * h_n, h_t * h_t
        along = surface.along**2 + light.spread**2
        across = surface.across**2 + light.spread**2
        exponent = (h_t2 / along + np.maximum(1 - h_n2 - h_t2, 0) / across) / h_n2
        highlight = np.exp(-exponent) * lit * (facing > 0)
        facing *= lit
        scattered += rgb(light.colour) * facing
        mirrored += rgb(light.colour) * highlight

    return surface.diffuse * scattered + surface.specular * mirrored * surface.occlusion


def _shadow(height: Array, light: Light) -> Array:
    """Return the share (0 to 1) of a lamp that is seen from each point of a height map."""
    azimuth = np.deg2rad(light.azimuth)
    rise = np.tan(np.deg2rad(light.elevation))
    margin = int(_SHADOW_REACH[-1] * OVERSAMPLING) + 1
    padded = np.pad(height, margin, mode="edge")
    rows, columns = height.shape
    hidden = np.zeros_like(height)
    for reach in _SHADOW_REACH:
        # The half-shadow widens with the distance to the edge that casts it.
        row = margin + round(np.sin(azimuth) * reach * OVERSAMPLING)
        column = margin + round(np.cos(azimuth) * reach * OVERSAMPLING)
        above = padded[row : row + rows, column : column + columns] - height - np.float32(reach * rise)
        np.maximum(hidden, above / np.float32(0.6 + 0.12 * reach), out=hidden)
    lit: Array = ndimage.uniform_filter(1 - np.minimum(hidden, 1), 3, mode="nearest")
    return lit


_RINGS_PER_PX, _SECTORS = 4, 512


@lru_cache(maxsize=1)
def _tool_marks() -> Array:
    """Return how a facing tool tilts the surface outwards: (rings, sectors), standard deviation 1."""
    rng = np.random.default_rng(1809)
    rings = 260 * _RINGS_PER_PX
    marks = np.zeros((rings, _SECTORS))
    for amount, along_radius, around in ((1.0, 0.22, None), (0.8, 0.7, None), (0.95, 0.4, 22.0)):
        noise = rng.standard_normal((rings, 1 if around is None else _SECTORS))
        fine = ndimage.gaussian_filter1d(noise, along_radius * _RINGS_PER_PX, axis=0)
        band = fine - ndimage.gaussian_filter1d(fine, 2 * along_radius * _RINGS_PER_PX, axis=0)
        if around is not None:
            band = ndimage.gaussian_filter1d(band, around, axis=1, mode="wrap")
        marks += amount * band / band.std()
    scaled: Array = (marks / marks.std()).astype(np.float32)
    return scaled


def tool_mark_tilt(amplitude: Array, phase: int, strength: float) -> Array:
    """Return the tilt (2, H, W) that turning about the centre left on a surface.

    ``amplitude`` (H, W) says where, 0 to 1; ``phase`` (sectors, any integer) how the part sat in the lathe;
    ``strength`` is the standard deviation of the slope.
    """
    rows, columns = amplitude.shape
    ring, sector, outwards = _polar(columns // OVERSAMPLING, rows // OVERSAMPLING)
    slope = _tool_marks()[ring, (sector + phase) % _SECTORS] * amplitude * np.float32(strength)
    tilt: Array = -slope * outwards
    return tilt


@lru_cache(maxsize=1)
def _polar(width: int, height: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Return each sample's ring and sector of the tool marks, and its unit vector (2, H, W) from the centre."""
    field = canvas(width, height)
    turn = field.angle / (2 * np.pi)
    feed = 0.7  # px per revolution: the marks are one spiral
    ring = np.maximum((field.radius + feed * turn) * _RINGS_PER_PX, 0).astype(np.intp)
    sector = (turn * _SECTORS).astype(np.intp) % _SECTORS
    outwards = np.stack([field.x, field.y]) / np.maximum(field.radius, 1)
    return ring, sector, outwards.astype(np.float32)
