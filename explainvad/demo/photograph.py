"""Taking the picture: pose, light and camera of one shot, and the fixture under the part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from explainvad.demo.camera import developed, sensor_noise
from explainvad.demo.lighting import Light, shade, tool_mark_tilt
from explainvad.demo.surface import OVERSAMPLING, Array, Material, Surface, blur, canvas, inside, rgb, texture

WIDTH, HEIGHT = 400, 300  # px

_KEY = Light(azimuth=-128, elevation=52, colour=(1.0, 1.0, 1.0), spread=0.085, casts_shadow=True)
_FILL = (
    Light(azimuth=25, elevation=38, colour=(0.40, 0.355, 0.30), spread=0.10),
    Light(azimuth=-62, elevation=56, colour=(0.20, 0.225, 0.26), spread=0.08),
    Light(azimuth=-90, elevation=85, colour=(0.085, 0.088, 0.092), spread=0.35),
)
_PLATE = Material((0.019, 0.0195, 0.022), (0.012, 0.012, 0.0135), along=0.42, across=0.42)
_TAPPED = Material((0.006, 0.006, 0.0065), (0.012, 0.012, 0.012), along=0.3, across=0.3)
_HOLE_PITCH = 62.0  # px
_MARKS_SLOPE = 0.085  # standard deviation
_THICKNESS = 20.0  # px; what stands above the fixture
_LENS = 0.48  # px; standard deviation of the lens blur
_EXPOSURE = 1.8


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """Everything in which one photograph of a good part differs from the next."""

    shift: tuple[float, float]  # px
    rotation: float  # degrees
    scale: float
    key_azimuth: float  # degrees
    key_elevation: float  # degrees
    key_intensity: float
    fill_intensity: float
    white_balance: tuple[float, float, float]
    marks_phase: int
    marks_strength: float
    dust: NDArray[np.float64]  # (n, 4): x, y (px), size (px), brightness
    noise_seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Shot:
        """Draw the nuisances of one shot."""

        def varied(centre: float, deviation: float, limit: float) -> float:
            return centre + float(np.clip(rng.normal(0, deviation), -limit, limit))

        n_dust = int(rng.poisson(9))
        return cls(
            shift=(varied(0, 2.2, 5), varied(0, 2.2, 5)),
            rotation=varied(0, 1.3, 3),
            scale=varied(1, 0.004, 0.01),
            key_azimuth=varied(_KEY.azimuth, 2.5, 6),
            key_elevation=varied(_KEY.elevation, 1.2, 3),
            key_intensity=varied(1, 0.04, 0.1),
            fill_intensity=varied(1, 0.06, 0.15),
            white_balance=(varied(1, 0.012, 0.03), 1.0, varied(1, 0.015, 0.04)),
            marks_phase=int(rng.integers(512)),
            marks_strength=varied(1, 0.1, 0.25),
            dust=np.column_stack(
                [
                    rng.uniform(4, WIDTH - 4, n_dust),
                    rng.uniform(4, HEIGHT - 4, n_dust),
                    rng.uniform(0.35, 0.75, n_dust),
                    rng.uniform(0.02, 0.12, n_dust),
                ]
            ),
            noise_seed=int(rng.integers(2**63)),
        )


def photograph(surface: Surface, shot: Shot) -> NDArray[np.uint8]:
    """Return the picture, (HEIGHT, WIDTH, 3) sRGB, of a part on the fixture."""
    key = replace(_KEY, azimuth=shot.key_azimuth, elevation=shot.key_elevation)
    key = key.brightened(shot.key_intensity)
    fill = [lamp.brightened(shot.fill_intensity) for lamp in _FILL]

    # Light the part in its own frame, where nothing but the lamps has turned.
    tilt = tool_mark_tilt(surface.marks, shot.marks_phase, _MARKS_SLOPE * shot.marks_strength)
    lights = tuple(lamp.turned(-shot.rotation) for lamp in (key, *fill))
    radiance = shade(surface, lights, tilt)

    # Lay it on the fixture, with its shadow.
    outline, penumbra, surroundings = _outlines(surface)
    azimuth, elevation = np.deg2rad([key.azimuth, key.elevation])
    throw = -_THICKNESS / np.tan(elevation)
    shadow = _posed(penumbra, shot, (throw * np.cos(azimuth), throw * np.sin(azimuth)))
    floor = _fixture() * (1 - 0.72 * shadow) * (1 - 0.45 * _posed(surroundings, shot))
    part = np.stack([_posed(blur(channel * surface.silhouette, _LENS), shot) for channel in radiance])
    light = part + floor * (np.float32(shot.key_intensity) * (1 - _posed(outline, shot)))

    # Expose.
    light = _dusted(light, shot.dust) * (np.float32(_EXPOSURE) * _vignette())
    light *= rgb(shot.white_balance)
    picture = developed(light)
    picture += sensor_noise(picture, shot.noise_seed)
    return np.clip(np.rint(picture.transpose(1, 2, 0)), 0, 255).astype(np.uint8)


def _posed(layer: Array, shot: Shot, offset: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Resample a layer of the part's frame into the photograph, ``offset`` (x, y) pixels further on."""
    a = np.deg2rad(shot.rotation)
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])  # of (row, column) vectors
    matrix = rotation * OVERSAMPLING / shot.scale
    target = np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2]) + np.add(shot.shift, offset)[::-1]
    source = (np.array(layer.shape) - 1) / 2
    posed: Array = ndimage.affine_transform(
        layer, matrix, source - matrix @ target, (HEIGHT, WIDTH), order=1, mode="constant"
    )
    return posed


@lru_cache(maxsize=4)
def _outlines(surface: Surface) -> tuple[Array, Array, Array]:
    """Return the silhouette as the lens sees it, as it softens the key light's shadow, and the ambient one."""
    return blur(surface.silhouette, _LENS), blur(surface.silhouette, 4.0), blur(surface.silhouette, 9.0)


@lru_cache(maxsize=1)
def _fixture() -> Array:
    """Return the radiance (3, HEIGHT, WIDTH) of the empty fixture: a blasted plate with a grid of tapped holes."""
    field = canvas(WIDTH, HEIGHT)
    rng = np.random.default_rng(1931)
    x = (field.x + _HOLE_PITCH / 2 + 8) % _HOLE_PITCH - _HOLE_PITCH / 2
    y = (field.y + _HOLE_PITCH / 2 - 5) % _HOLE_PITCH - _HOLE_PITCH / 2
    r = np.hypot(x, y)
    flat, brushed = np.ones_like(r), np.stack([np.ones_like(r), np.zeros_like(r)])

    # Blast the plate and tap its holes.
    grain = 0.13 * texture(rng, r.shape, 0.5) + 0.13 * texture(rng, r.shape, 1.1) + 0.02 * texture(rng, r.shape, 5)
    hole = np.interp(r, [0, 5.0, 5.6, 7.4], [-14, -14, -1.8, 0]).astype(np.float32)
    plate = Surface.of(0.27 * grain + hole, flat, _PLATE, brushed).painted(inside(r - 5.75), _TAPPED)

    # Light it: brighter towards the lamp, and not quite evenly worn.
    radiance = shade(plate, (_KEY, *_FILL), np.zeros_like(brushed))
    radiance *= 1 + (0.072 * field.x - 0.096 * field.y) / 200 + 0.014 * texture(rng, r.shape, 9.0)
    smooth = np.stack([blur(channel, _LENS) for channel in radiance])
    fixture: Array = smooth.reshape(3, HEIGHT, OVERSAMPLING, WIDTH, OVERSAMPLING).mean(axis=(2, 4))
    return fixture


@lru_cache(maxsize=1)
def _vignette() -> Array:
    """Return how much of the light (HEIGHT, WIDTH) the lens passes, 1 at the centre."""
    y, x = np.indices((HEIGHT, WIDTH), dtype=np.float32)
    squared_radius = ((x - WIDTH / 2) ** 2 + (y - HEIGHT / 2) ** 2) / (WIDTH / 2) ** 2
    passed: Array = (1 - 0.15 * squared_radius).astype(np.float32)
    return passed


def _dusted(light: Array, dust: NDArray[np.float64]) -> Array:
    """Add specks that scatter light, each a small blob."""
    y, x = np.indices((7, 7)) - 3
    for cx, cy, size, brightness in dust:
        column, row = int(cx), int(cy)
        speck = np.exp(-((x - cx % 1) ** 2 + (y - cy % 1) ** 2) / (2 * size**2)) * brightness
        light[:, row - 3 : row + 4, column - 3 : column + 4] += speck.astype(np.float32)
    return light
