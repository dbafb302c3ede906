"""Turned copies of an image, and which cell of it each patch shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from patterned import pattern, picture

from explainvad.detection.banks.views import View, turned


def test_quarter_turns_are_exact_and_anticlockwise() -> None:
    image = picture(pattern(0, 40, 64))
    views = turned(image, 4)
    assert views[0].image is image
    for k, view in enumerate(views):
        assert np.array_equal(view.image.pixels, np.rot90(image.pixels, k))
    assert len(turned(image, 1)) == 1 and len(turned(image, 8)) == 8


@pytest.mark.parametrize("number", range(8))
def test_every_cell_shows_the_cell_that_it_names(number: int) -> None:
    # colours that change slowly, so that interpolation hardly matters
    y, x = np.mgrid[:48, :80]
    image = picture(np.stack([2 * y + 20, 2 * x + 20, y + x + 20], axis=2).astype(np.uint8))
    view = turned(image, 8)[number]
    cells = view.cells(view.image.height // 4, view.image.width // 4)
    means = torch.tensor(view.image.pixels).float().unfold(0, 4, 4).unfold(1, 4, 4).mean((3, 4))
    original = torch.tensor(image.pixels).float().unfold(0, 4, 4).unfold(1, 4, 4).mean((3, 4))
    shown = cells[..., 0] >= 0
    assert shown.all() if number < 4 else 0.5 < shown.float().mean() < 0.9
    assert torch.equal(shown, cells[..., 1] >= 0)
    difference = means[shown] - original[*cells[shown].T]
    assert float(difference.abs().max()) < (1e-3 if number < 4 else 8)  # half a cell's diagonal


def test_a_cell_that_reaches_over_the_border_is_left_out() -> None:
    # of 2 x 2 cells each lies over the middle of one side of the unturned image
    image = picture(np.zeros((16, 16, 3), np.uint8))
    assert (View(image, eighth=True).cells(2, 2) == -1).all()
    # of 3 x 3 those at the corners do; what is above the middle was to its right and above
    cells = View(image, eighth=True).cells(3, 3)
    assert cells.tolist() == [
        [[-1, -1], [0, 2], [-1, -1]],
        [[0, 0], [1, 1], [2, 2]],
        [[-1, -1], [2, 0], [-1, -1]],
    ]


def test_what_lies_outside_of_the_image_is_mirrored_not_black() -> None:
    bright = picture(np.full((32, 48, 3), 200, np.uint8))
    for view in turned(bright, 8):
        assert view.image.pixels.min() == 200


def test_a_turned_image_keeps_its_name_and_scale() -> None:
    image = picture(pattern(0))
    assert all(view.image.image_id == image.image_id and view.image.sha256 == image.sha256 for view in turned(image, 8))
