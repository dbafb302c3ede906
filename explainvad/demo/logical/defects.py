"""Structural defects of the tray: damage to what lies in the light, wherever it falls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from explainvad.demo.logical.layout import SIDE
from explainvad.demo.logical.picture import MARGIN
from explainvad.demo.surface import Array, canvas, inside, texture

Damage = Callable[[Array, np.random.Generator], Array]


def scratch(light: Array, rng: np.random.Generator) -> Array:
    """A bright groove with a dark side, slightly bent."""
    x, y = _about(rng)
    turn, length, bend = rng.uniform(0, np.pi), rng.uniform(18, 36), rng.uniform(-0.012, 0.012)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    across = across - bend * along**2
    depth = inside(np.abs(along) - length / 2) * rng.uniform(0.25, 0.45)
    bright, dark = (np.exp(-(((across - at) / 0.6) ** 2)) for at in (0.0, 1.2))
    scored: Array = (light * (1 - 0.8 * depth * dark) + 0.35 * depth * bright).astype(np.float32)
    return scored


def stain(light: Array, rng: np.random.Generator) -> Array:
    """A film of oil with a ragged rim."""
    x, y = _about(rng)
    edge = np.hypot(x, y * rng.uniform(1.0, 1.5)) - rng.uniform(6, 10) + 1.6 * texture(rng, x.shape, 3.0)
    film = 0.5 - 0.5 * np.tanh(edge / 0.8)
    density = rng.uniform(0.7, 1.1) * film + 0.3 * np.exp(-(((edge + 1) / 1.0) ** 2))
    absorbed = np.exp(-density * np.array([0.35, 0.7, 1.5], np.float32)[:, None, None])
    stained: Array = (light * absorbed).astype(np.float32)
    return stained


def dent(light: Array, rng: np.random.Generator) -> Array:
    """A bowl: the side away from the lamp is brighter, the side towards it darker."""
    x, y = _about(rng)
    q = np.hypot(x, y) / rng.uniform(6, 9)
    slope = (x + y) / np.maximum(np.hypot(x, y), 1) * q * np.exp(-(q**4))
    bowl: Array = (light * np.clip(1 + rng.uniform(0.7, 1.0) * slope, 0.15, None)).astype(np.float32)
    return bowl


STRUCTURAL: dict[str, Damage] = {"scratch": scratch, "stain": stain, "dent": dent}


def _about(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return x and y (px) from a random place of the tray, away from its rim."""
    field = canvas(SIDE + 2 * MARGIN, SIDE + 2 * MARGIN)
    x, y = rng.uniform(18 - SIDE / 2, SIDE / 2 - 18, 2)
    return field.x - np.float32(x), field.y - np.float32(y)
