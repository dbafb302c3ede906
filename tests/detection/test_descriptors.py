"""Local descriptors: colours and edges that a hand can tell, on cells over the whole image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from patterned import pattern, picture

from explainvad.detection.descriptors import CELL, CHANNELS, SCALES, LocalDescriptors
from explainvad.types import InspectionImage

PER_SCALE = CHANNELS // len(SCALES)


def described(pixels: NDArray[np.uint8], resolution: int = 256) -> torch.Tensor:
    """Features (scale, 3 colours + 8 directions, rows, cols)."""
    return LocalDescriptors(resolution).features(picture(pixels)).unflatten(0, (len(SCALES), PER_SCALE))


def filled(red: int, green: int, blue: int, size: tuple[int, int] = (40, 56)) -> NDArray[np.uint8]:
    return np.full((*size, 3), (red, green, blue), dtype=np.uint8)


def test_a_plain_colour_has_its_luminance_and_opponents_and_no_edges() -> None:
    features = described(filled(255, 51, 0))
    assert features.shape == (len(SCALES), PER_SCALE, 40 // CELL, 56 // CELL)
    for colours in features[:, :3].permute(0, 2, 3, 1).reshape(-1, 3):
        torch.testing.assert_close(colours, torch.tensor([0.4, 0.8, 0.2]))
    assert features[:, 3:].abs().max() < 1e-6


@pytest.mark.parametrize("turn", range(4))
def test_an_edge_is_felt_by_the_direction_that_it_has(turn: int) -> None:
    dark_to_bright = filled(0, 0, 0, (48, 48))
    dark_to_bright[:, 24:] = 255
    features = described(np.rot90(dark_to_bright, turn).copy())[:, 3:]
    strength = features.sum((0, 2, 3))  # right, left, down, up, and the diagonals
    expected = [0, 3, 1, 2][turn]  # the bright side lies right, up, left, down
    assert int(strength.argmax()) == expected
    assert strength[[0, 1, 2, 3][expected ^ 1]] < 1e-5  # rectified: the opposite direction feels nothing


def test_features_do_not_depend_on_the_image_around_them() -> None:
    one, other = pattern(0, 80, 120), pattern(0, 80, 120)
    other[:, 90:] = 0
    a, b = described(one), described(other)
    unchanged = (90 - 3 * int(max(SCALES)) - 1) // CELL
    torch.testing.assert_close(a[..., :unchanged], b[..., :unchanged])
    assert not torch.equal(a, b)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 300), (301, 50), (1000, 900)])
def test_any_size_gives_a_finite_grid_over_the_whole_image(height: int, width: int) -> None:
    features = LocalDescriptors(128).features(picture(pattern(0, height, width)))
    assert features.shape[0] == CHANNELS and features.dtype == torch.float32
    assert torch.isfinite(features).all()
    aspect = features.shape[2] / features.shape[1]
    assert aspect == pytest.approx(width / height, rel=0.5 * (1 / features.shape[1] + 1 / features.shape[2]) + 0.05)


def test_flipping_the_image_flips_the_grid() -> None:
    pixels = pattern(3, 64, 64)
    for axis in (0, 1):
        flipped = described(np.flip(pixels, axis).copy())[:, :3].flip(2 + axis)
        torch.testing.assert_close(flipped, described(pixels)[:, :3], atol=1e-5, rtol=0)


def test_the_same_image_has_the_same_features() -> None:
    backbone, image = LocalDescriptors(64), picture(pattern(0, 100, 100))
    other: InspectionImage = picture(pattern(1, 70, 90))
    before = backbone.features(image)
    backbone.features(other)
    assert torch.equal(backbone.features(image), before)
