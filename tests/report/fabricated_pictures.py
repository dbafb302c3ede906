"""Pictures that no camera took: a brushed flange, dark marks on it, and the maps that mark them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from fabricated_model import PIXEL_THRESHOLD
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 640, 480

Marks = Sequence[tuple[int, int, int, int]]  # dark ellipses: x, y, horizontal and vertical radius, in px


def photo(seed: int, marks: Marks = ()) -> Image.Image:
    """Draw a brushed round flange with bolt holes and dark marks."""
    rng = np.random.default_rng(seed)
    grain = np.cumsum(rng.normal(size=(HEIGHT, WIDTH)), axis=1)
    grain -= np.linspace(0, 1, WIDTH) * grain[:, -1:]
    shade = np.tile(92 + 20 * np.linspace(0, 1, HEIGHT)[:, None], (1, WIDTH))
    base = Image.fromarray(shade.astype(np.uint8)).convert("RGB")
    drawing = ImageDraw.Draw(base)

    def disc(x: float, y: float, rx: float, ry: float, fill: tuple[int, int, int]) -> None:
        drawing.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    cx, cy = WIDTH / 2 + 3 * rng.normal(), HEIGHT / 2 + 3 * rng.normal()
    disc(cx, cy, 214, 214, (122, 124, 128))
    disc(cx, cy, 210, 210, (178, 182, 186))
    disc(cx, cy, 84, 84, (66, 68, 72))
    for angle in np.arange(6) * np.pi / 3 + 0.2:
        disc(cx + 151 * np.cos(angle), cy + 151 * np.sin(angle), 19, 19, (58, 60, 64))
    for mark in marks:
        disc(*mark, (92, 74, 58))
    soft = np.asarray(base.filter(ImageFilter.GaussianBlur(1.1)), dtype=np.float64)
    noise = 1.1 * np.clip(grain, -7, 7)[..., None] + rng.normal(scale=2.2, size=(HEIGHT, WIDTH, 1))
    return Image.fromarray(np.clip(soft + noise, 0, 255).astype(np.uint8))


def encoded(picture: Image.Image, kind: str) -> bytes:
    """Return the picture's bytes as JPEG or PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return buffer.getvalue()


def fused_map(marks: Marks, strength: float) -> np.ndarray:
    """A fused map: low noise, and a smooth bump over each mark."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    total = 0.6 + 0.2 * np.sin(x / 37) * np.cos(y / 29)
    for k, (cx, cy, rx, ry) in enumerate(marks):
        distance = ((x - cx) / (1.1 * rx + 4)) ** 2 + ((y - cy) / (1.1 * ry + 4)) ** 2
        total += strength * 0.88**k * np.exp(-0.5 * distance)
    return total


def stored_map(fused: np.ndarray) -> bytes:
    """Encode a fused map as the run folder holds it."""
    scaled = np.clip(fused / (4 * PIXEL_THRESHOLD) * 65535, 0, 65535).astype(np.uint16)
    return encoded(Image.fromarray(scaled), "PNG")
