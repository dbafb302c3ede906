"""A defect in a picture of a whole part: seeded, in its place, and as large as it is said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from explainvad.detection.synthesis import whole
from explainvad.detection.synthesis.defects import KINDS, VISIBLE
from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.whole import with_defect
from explainvad.types import InspectionImage

SIZES = [(64, 64), (48, 96), (96, 48), (24, 40), (16, 16)]
SEEDS = range(30)


def part(seed: int, height: int, width: int) -> InspectionImage:
    """A bright disc on a dark ground, with noise and all that an image may carry."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (0.4 * min(height, width)) ** 2
    rgb = np.where(disc, 150, 60)[..., None] + rng.normal(0, 4, (height, width, 3))
    pixels = np.clip(rgb, 0, 255).astype(np.uint8)
    return InspectionImage(f"img-{seed}", "a.png", pixels, "0" * 64, 7, Path("a.png"), 0.5, ("a note",))


def changed(before: InspectionImage, after: InspectionImage) -> NDArray[np.float64]:
    """Largest change of any channel (H, W), on [0, 1]."""
    difference = after.pixels.astype(float) - before.pixels
    return np.asarray(np.abs(difference).max(axis=2) / 255)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_copy_has_a_visible_defect_and_the_original_none(height: int, width: int) -> None:
    image, donor = part(0, height, width), part(1, height, width)
    kept = image.pixels.copy(), donor.pixels.copy()
    for seed in SEEDS:
        copy, size = with_defect(image, donor, seed)
        assert copy.pixels.shape == (height, width, 3) and copy.pixels.dtype == np.uint8
        assert changed(image, copy).max() > VISIBLE
        assert 1 <= size <= min(height, width)
        assert (copy.image_id, copy.file, copy.sha256, copy.size_bytes, copy.source, copy.mm_per_pixel, copy.notes) == (
            image.image_id, image.file, image.sha256, image.size_bytes, image.source, image.mm_per_pixel, image.notes,
        )  # fmt: skip
    assert np.array_equal(image.pixels, kept[0]) and np.array_equal(donor.pixels, kept[1])


def test_the_same_images_and_entropy_give_the_same_copy() -> None:
    image, donor = part(0, 48, 64), part(1, 48, 64)
    first, size = with_defect(image, donor, 3, 7, 0)
    torch.rand(9)
    again, same = with_defect(image, donor, 3, 7, 0)
    assert np.array_equal(first.pixels, again.pixels) and size == same
    for entropy in ((3, 7, 1), (3, 7), (4, 7, 0)):
        assert not np.array_equal(first.pixels, with_defect(image, donor, *entropy)[0].pixels)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_size_is_that_of_the_changed_area(height: int, width: int) -> None:
    image, donor = part(2, height, width), part(3, height, width)
    sizes, ratios = [], []
    for seed in range(60):
        copy, size = with_defect(image, donor, 1, seed)
        assert size == pytest.approx(round(size**2) ** 0.5)  # the root of a whole number of pixels
        sizes.append(size)
        ratios.append(size**2 / (changed(image, copy) > VISIBLE).sum())
    # blending fades a defect beyond its mask, and of a faint one only the middle may stand out
    assert 0.6 < np.median(ratios) < 1
    assert np.mean([0.25 < ratio < 1.25 for ratio in ratios]) > 0.85
    assert max(sizes) > 3 * min(sizes)


def square(
    dice: Dice, picture: Tensor, donor: Tensor, kinds: object = (), count: int | None = None
) -> tuple[Tensor, Tensor]:
    """A red square of 5 x 5 in a corner, after an attempt that shows nothing."""
    assert count == 1
    mask = torch.zeros(picture.shape[1:], dtype=torch.bool)
    if dice.coin(0.5):
        return picture, mask
    mask[2:7, -6:-1] = True
    return torch.where(mask, torch.tensor([1.2, -0.1, 0.5])[:, None, None], picture), mask


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_only_the_mask_changes_and_it_lies_in_a_square_anywhere(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "blend_defects", square)
    image, donor = part(4, height, width), part(5, height, width)
    side, places = min(height, width), set()
    for seed in range(200):
        copy, size = with_defect(image, donor, seed)
        assert size == 5
        rows, cols = np.nonzero((copy.pixels == (255, 0, 128)).all(axis=2))
        top, left = int(rows.min()) - 2, int(cols.max()) + 2 - side
        assert (rows.max() - rows.min(), cols.max() - cols.min(), len(rows)) == (4, 4, 25)
        untouched = np.ones((height, width), dtype=bool)
        untouched[rows, cols] = False
        assert np.array_equal(copy.pixels[untouched], image.pixels[untouched])
        places.add((top, left))
    assert {top for top, _ in places} >= {0, height - side} and {left for _, left in places} >= {0, width - side}
    assert len(places) > 0.9 * (height - side + width - side + 1)
    assert all(0 <= top <= height - side and 0 <= left <= width - side for top, left in places)


def test_a_defect_takes_its_material_from_the_donor(monkeypatch: pytest.MonkeyPatch) -> None:
    def patched(dice: Dice, picture: Tensor, donor: Tensor, **_: object) -> tuple[Tensor, Tensor]:
        return donor, torch.ones(picture.shape[1:], dtype=torch.bool)

    monkeypatch.setattr(whole, "blend_defects", patched)
    image, donor = part(6, 40, 30), part(7, 50, 26)
    copy, size = with_defect(image, donor, 0)
    assert size == 26  # the largest square that both hold
    found = [
        (y, x)
        for y in range(40 - 26 + 1)
        for x in range(30 - 26 + 1)
        if np.array_equal(copy.pixels[y : y + 26, x : x + 26], donor.pixels[:26, :26])
    ]
    assert len(found) == 1


def test_each_kind_of_defect_comes_up_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    for name, make in list(KINDS.items()):

        def recorded(dice: Dice, picture: Tensor, donor: Tensor, name: str = name, make: object = make) -> object:
            drawn.append(name)
            return make(dice, picture, donor)  # type: ignore[operator]

        monkeypatch.setitem(KINDS, name, recorded)
    image, donor = part(8, 48, 64), part(9, 48, 64)
    for seed in range(150):
        with_defect(image, donor, seed)
    assert set(drawn) == set(KINDS)
