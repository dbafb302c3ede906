"""A backbone that a hand can compute, and the plainest bank on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from patterned import picture
from pydantic import Field
from torch import Tensor

from explainvad.detection.backbones import Backbones
from explainvad.detection.banks.patch_bank import BankOptions, PatchBank
from explainvad.types import InspectionImage

CELL = 8


class MeanColours:
    """Mean colour on [0, 1] of cells of 8 px (layer 0), and of 16 px (layer 1 and the last)."""

    name, weights, device, resolution = "mean colours", "none", "cpu", 64
    facts: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.batches: list[int] = []

    def request(self, layers: Sequence[int]) -> None: ...

    def size(self, image: InspectionImage) -> tuple[int, int]:
        return image.height, image.width

    def see(self, images: Sequence[InspectionImage]) -> None:
        self.batches.append(len(images))

    def levels(self, image: InspectionImage, layers: Sequence[int]) -> list[Tensor]:
        pixels = torch.tensor(image.pixels).permute(2, 0, 1).float() / 255
        return [torch.nn.functional.avg_pool2d(pixels, CELL if layer == 0 else 2 * CELL) for layer in layers]


class Pool:
    """Gives the toy backbone whatever it is asked for."""

    def __init__(self) -> None:
        self.toy = MeanColours()

    def extractor(self, name: str, resolution: int) -> MeanColours:
        return self.toy


def pool() -> Backbones:
    return cast(Backbones, Pool())


class ToyOptions(BankOptions):
    backbone: str = Field("mean colours")


class ToyBank(PatchBank[ToyOptions]):
    """Patches are mean colours; an image scores its largest distance."""

    name, summary, source, options_type = "toy", "a toy", "none", ToyOptions

    def chosen_layers(self) -> tuple[int, ...]:
        return (0,)

    def assembled(self, levels: Sequence[Tensor]) -> Tensor:
        return levels[0]

    def image_score(self, distance: Tensor) -> float:
        return float(distance.max())


def toy_bank(**options: Any) -> ToyBank:
    return ToyBank(ToyOptions(**options), pool())


def squares(colours: NDArray[np.float64]) -> InspectionImage:
    """Cells (rows, cols, 3) of one colour each, on [0, 255]."""
    return picture(colours.round().astype(np.uint8).repeat(CELL, 0).repeat(CELL, 1))


def random_squares(count: int, seed: int, rows: int = 8, cols: int = 8, spread: float = 40.0) -> list[InspectionImage]:
    """Pictures of random squares about grey."""
    rng = np.random.default_rng(seed)
    return [squares(np.clip(rng.normal(128, spread, (rows, cols, 3)), 0, 255)) for _ in range(count)]


def patches_of(images: Sequence[InspectionImage]) -> Tensor:
    """(images * rows * cols, 3)."""
    return torch.cat([MeanColours().levels(image, (0,))[0].flatten(1).T for image in images])
