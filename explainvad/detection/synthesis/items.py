"""Training items: normal crops of a generated surface, and other crops of it with defects blended in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.data import Dataset

from explainvad.detection.synthesis.defects import blend_defects
from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.nuisances import relight, sense, usual_marks
from explainvad.detection.synthesis.scenes import assembly, printed, shaded_part
from explainvad.detection.synthesis.surfaces import (
    coloured_noise,
    grains,
    lattice,
    scattered_objects,
    strata,
    tooled_metal,
)

Family = Callable[[Dice, int], Tensor]
SURFACES: dict[str, Family] = {
    f.__name__: f for f in (coloured_noise, lattice, grains, tooled_metal, strata, scattered_objects)
}
SCENES: dict[str, Family] = {f.__name__: f for f in (printed, shaded_part, assembly)}
FAMILIES = SURFACES | SCENES
SURFACE_CANVAS, SCENE_CANVAS = 2.5, 1.5  # sides of a canvas, in crops
INTACT = 0.15  # share of test crops that get no defect


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """Crops of one process: ``normal`` (k, 3, s, s) and ``test`` (m, 3, s, s) on [0, 1], ``mask`` bool (m, s, s)."""

    normal: Tensor
    test: Tensor
    mask: Tensor
    family: str


def make_item(dice: Dice, family: str, *, normal: int, test: int, side: int) -> Item:
    """Generate one item of ``family``: ``normal`` and ``test`` crops of ``side`` px."""
    layout = family in SCENES
    n = round((SCENE_CANVAS if layout else SURFACE_CANVAS) * side)
    canvas = FAMILIES[family](dice, n)
    if dice.coin():
        canvas = usual_marks(dice, canvas)
    crops = _crops(dice, canvas, normal, test, side, layout)
    strength = dice.rand().item() ** 1.5
    lit = [relight(dice, crop, strength) for crop in crops]
    normals = [sense(dice, crop, strength) for crop in lit[:normal]]
    tests, masks = [], []
    for i, crop in enumerate(lit[normal:]):
        mask = torch.zeros(side, side, dtype=torch.bool)
        crop = crop.clamp(0, 1)
        if not dice.coin(INTACT):
            donor = lit[normal + (i + 1) % test].clamp(0, 1)
            crop, mask = blend_defects(dice, crop, donor)
        tests.append(sense(dice, crop, strength))
        masks.append(mask)
    return Item(torch.stack(normals), torch.stack(tests), torch.stack(masks), family)


def _crops(dice: Dice, canvas: Tensor, normal: int, test: int, side: int, layout: bool) -> Tensor:
    """Crops (normal + test, 3, side, side): of the same view where there is a layout, else of separate halves."""
    n = canvas.shape[1]
    count = normal + test
    zoom = dice.log_uniform(0.75, 1.35)
    swing = dice.choice((0.01, 0.03, 0.08)) if not dice.coin(0.15) or layout else math.pi
    angle = (dice.choice((0, 1, 2, 3)) * math.pi / 2 if dice.coin() else 0.0) + swing * (2 * dice.rand(count) - 1)
    scale = zoom * (1 + 0.04 * (2 * dice.rand(count) - 1)) * side / n
    if layout:
        centre = dice.uniform(-0.1, 0.1) + dice.log_uniform(0.5, 8) / n * dice.normal(count, 2)
    else:
        half = torch.where(torch.arange(count) < normal, -0.5, 0.5)
        centre = torch.stack((half + 0.1 * (2 * dice.rand(count) - 1), 0.6 * (2 * dice.rand(count) - 1)), dim=1)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack((cos, -sin, centre[:, 0], sin, cos, centre[:, 1]), dim=1).reshape(count, 2, 3)
    grid = F.affine_grid(theta, [count, 3, side, side], align_corners=False)
    return F.grid_sample(canvas[None].expand(count, -1, -1, -1), grid, padding_mode="reflection", align_corners=False)


class GeneratedItems(Dataset[Item]):
    """Items by number: each is a function of ``seed`` and its index alone, so training can resume anywhere."""

    def __init__(
        self, seed: int, count: int, families: Sequence[str], *, normal: int = 3, test: int = 3, side: int = 128
    ) -> None:
        self.seed, self.count, self.families = seed, count, tuple(families)
        self.normal, self.test, self.side = normal, test, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        family = self.families[index % len(self.families)]
        return make_item(Dice(self.seed, index), family, normal=self.normal, test=self.test, side=self.side)
