"""What a camera makes of light: developed grey levels, and the noise of its sensor."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from explainvad.demo.surface import Array


def developed(light: Array) -> Array:
    """Return sRGB values, 0 to 255, of linear light (3, H, W); highlights roll off instead of clipping."""
    exposed = 1 - np.exp(-light)
    encoded = np.where(exposed < 0.0031308, 12.92 * exposed, 1.055 * exposed ** (1 / 2.4) - 0.055)
    return (255 * encoded).astype(np.float32)


def sensor_noise(picture: Array, seed: int) -> Array:
    """Return sensor noise, in grey levels: photon noise, a read-out floor, and the grain of demosaicing."""
    raw = np.random.default_rng(seed).standard_normal(picture.shape, dtype=np.float32)
    grain = 0.7 * raw + 1.35 * ndimage.uniform_filter(raw, (1, 3, 3))
    noise: Array = grain * np.sqrt(1.5 + 0.011 * picture)
    return noise
