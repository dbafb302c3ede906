"""A defect of known size in a picture of a whole part: for measuring what is found, never for a verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from explainvad.detection.synthesis.defects import blend_defects
from explainvad.detection.synthesis.dice import Dice
from explainvad.types import InspectionImage


def with_defect(image: InspectionImage, donor: InspectionImage, *entropy: int) -> tuple[InspectionImage, float]:
    """A copy of ``image`` with a blended defect at a random place, and the defect's size: sqrt of its area, px.

    ``donor`` gives foreign material to defects that need it. A defect that nobody could see is drawn again.
    The same images and ``entropy`` give the same copy.
    """
    dice = Dice(*entropy)
    side = min(image.height, image.width, donor.height, donor.width)
    room = image.height - side, image.width - side
    top, left = (dice.integer(free + 1) for free in room)
    square = slice(top, top + side), slice(left, left + side)
    picture, material = _tensor(image, square), _tensor(donor, (slice(side), slice(side)))
    mask = torch.zeros(side, side, dtype=torch.bool)
    while not mask.any():
        altered, mask = blend_defects(dice, picture, material, count=1)
    pixels = image.pixels.copy()
    pixels[square] = (altered.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return replace(image, pixels=pixels), math.sqrt(int(mask.sum()))


def _tensor(image: InspectionImage, square: tuple[slice, slice]) -> Tensor:
    """Part of an image as float (3, side, side) on [0, 1]."""
    return torch.from_numpy(image.pixels[square].copy()).permute(2, 0, 1).float() / 255
