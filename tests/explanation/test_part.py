from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from region_examples import make_image

from explainvad.explanation.part import part_mask


def _scene(height: int = 300, width: int = 400, noise: float = 4.0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A textured grey ellipse on a light background."""
    rng = np.random.default_rng(0)
    y, x = np.indices((height, width))
    part = ((x - width * 0.45) / (width * 0.3)) ** 2 + ((y - height / 2) / (height * 0.4)) ** 2 < 1
    pixels = np.where(part[..., None], (110, 105, 95), (228, 230, 233)) + rng.normal(0, noise, (height, width, 1))
    return pixels.clip(0, 255).astype(np.uint8), part


@pytest.mark.parametrize(("height", "width"), [(300, 400), (900, 1250)])
def test_the_silhouette_is_found(height: int, width: int) -> None:
    pixels, part = _scene(height, width)
    found = part_mask(make_image(pixels))
    assert found is not None and found.shape == part.shape and found.dtype == np.bool_
    assert (found & part).sum() / (found | part).sum() > 0.97


def test_holes_belong_to_the_part() -> None:
    pixels, part = _scene()
    pixels[140:160, 150:180] = 230  # a bore that shows the background
    found = part_mask(make_image(pixels))
    assert found is not None and found[150, 165] and (found != part).mean() < 0.01


def test_pieces_inside_a_ring_are_one_part() -> None:
    pixels, part = _scene()
    y, x = np.indices(part.shape)
    groove = np.abs(np.hypot(x - 180, y - 150) - 60) < 6
    pixels[groove] = 228
    found = part_mask(make_image(pixels))
    assert found is not None and (found != part).mean() < 0.01


def test_a_dark_background_works_as_well() -> None:
    pixels, part = _scene()
    found = part_mask(make_image(255 - pixels))
    assert found is not None and (found != part).mean() < 0.01


def _ramp() -> NDArray[np.uint8]:
    return np.repeat(np.linspace(40, 220, 400, dtype=np.uint8)[None, :, None], 300, axis=0).repeat(3, axis=2)


def _texture() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(60, 180, (300, 400, 1), dtype=np.uint8).repeat(3, axis=2)


def _two_parts() -> NDArray[np.uint8]:
    pixels = np.full((300, 400, 3), 230, dtype=np.uint8)
    pixels[100:200, 50:150] = pixels[100:200, 250:350] = 60
    return pixels


def _bled_off() -> NDArray[np.uint8]:
    pixels = np.full((300, 400, 3), 230, dtype=np.uint8)
    pixels[:, 150:] = 60
    return pixels


def _low_contrast() -> NDArray[np.uint8]:
    pixels = np.full((300, 400, 3), 128, dtype=np.uint8)
    pixels[100:200, 100:300] = 138
    return pixels


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((300, 400, 3), 128, dtype=np.uint8),
        np.full((1, 1, 3), 128, dtype=np.uint8),
        _ramp(),
        _texture(),
        _two_parts(),
        _bled_off(),
        _low_contrast(),
    ],
    ids=["constant", "one pixel", "ramp", "texture", "two parts", "bled off", "low contrast"],
)
def test_no_guess_without_a_clear_background(pixels: NDArray[np.uint8]) -> None:
    assert part_mask(make_image(pixels)) is None
