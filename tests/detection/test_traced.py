"""Where a number lies in the window that is explained, and gradients through every scorer that promises them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from patterned import defective_picture, normal_pictures

from explainvad.detection.backbones import Backbones
from explainvad.detection.banks.patchcore import PatchCore
from explainvad.detection.registry import scorer_type
from explainvad.detection.traced import Spot


def window(top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
    return slice(top, bottom), slice(left, right)


def test_a_spot_is_told_in_cells_of_its_window() -> None:
    spot = Spot.of((64, 96), [window(0, 64, 0, 96)], (0.5, 0.25))
    assert (spot.y, spot.x, spot.shape) == (32, 24, (64, 96))
    assert spot.cell(8, 12) == (4, 3) and spot.cell(4, 6) == (2, 1)
    assert Spot.of((64, 96), [window(0, 64, 0, 96)], (1.0, 2.0)).cell(8, 12) == (7, 11)  # the last of each


def test_of_overlapping_windows_the_one_counts_that_sees_most_around() -> None:
    windows = [window(0, 64, 0, 64), window(0, 64, 32, 96)]
    left, right = (Spot.of((64, 96), windows, (0.5, x / 96)) for x in (40, 56))
    assert left.window == windows[0] and left.cell(8, 8) == (4, 5)
    assert right.window == windows[1] and right.cell(8, 8) == (4, 3) and right.origin(8) == (0, 4)


@pytest.mark.parametrize("name", ["mem-ae", "masked-vit", "vit-ae", "unet"])
def test_gradients_reach_the_pixels_of_reconstructions(name: str, backbones: Backbones) -> None:
    kind = scorer_type(name)
    scorer: Any = kind(kind.options_type(resolution=32, side=32, steps=1, batch=1), backbones)
    images = normal_pictures(2)
    scorer.fit(images, seed=0)
    image = defective_picture(7)
    (score,) = scorer.score([image])
    function = scorer.pixel_function(image, score, images[0])
    frame = function.frame[None].clone().requires_grad_()
    value = function.value(frame)
    (gradient,) = torch.autograd.grad(value.sum(), frame)
    assert gradient.shape == (1, 3, *function.size) and bool(gradient.any())
    assert float(value.detach()) == pytest.approx(float(score.anomaly_map.max()), rel=0.2)  # enlarging flattens a peak
    assert cast(Any, scorer.network).training is False


def test_another_row_than_the_nearest_is_never_taken(backbones: Backbones) -> None:
    """At the image the function is the bank's own distance at every place, not only at the worst."""
    options: Any = PatchCore.options_type(backbone="tiny-resnet", resolution=64, layers=(1, 2))
    bank = PatchCore(options, backbones)
    images = normal_pictures(2)
    bank.fit(images, seed=0)
    image = defective_picture(7)
    (score,) = bank.score([image])
    distance = score.evidence["distance"]
    rows, cols = distance.shape
    for row, col in ((0, 0), (3, 5), (rows - 1, cols - 1)):
        function = bank.pixel_function(image, score, images[0], ((row + 0.5) / rows, (col + 0.5) / cols))
        assert float(function.value(function.frame[None])) == pytest.approx(float(distance[row, col]), rel=1e-3)
