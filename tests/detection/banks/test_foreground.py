"""Otsu's cut and the foreground mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu
from torch import Tensor

from explainvad.detection.banks.foreground import fit_foreground, foreground, otsu, sensible


def grids(count: int, seed: int, lit: tuple[slice, slice] | None = (slice(2, 8), slice(3, 9))) -> list[Tensor]:
    """Features (5, 10, 12) about one vector, and about another where the part is."""
    g = torch.Generator().manual_seed(seed)
    part, ground = torch.randn(2, 5, generator=torch.Generator().manual_seed(7))
    made = []
    for _ in range(count):
        grid = ground[:, None, None] + 0.1 * torch.randn(5, 10, 12, generator=g)
        if lit:
            grid[:, *lit] += (part - ground)[:, None, None]
        made.append(grid)
    return made


@pytest.mark.parametrize("seed", range(3))
def test_otsu_agrees_with_scikit_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate((rng.normal(0, 1, 700), rng.normal(4, 1, 300)))
    assert otsu(torch.tensor(values)) == pytest.approx(threshold_otsu(values), abs=0.05)


def test_a_gap_is_cut_in_its_middle() -> None:
    values = torch.cat((torch.full((30,), 1.0), torch.full((10,), 3.0)))
    assert otsu(values) == pytest.approx(2.0, abs=0.02)


def test_the_part_is_the_foreground() -> None:
    direction, cut, middle, rim = fit_foreground(grids(6, seed=0))
    assert middle > 0.7
    assert rim == 0.0 and sensible(middle, rim)
    expected = torch.zeros(10, 12, dtype=torch.bool)
    expected[1:9, 2:10] = True  # grown by one patch
    (grid,) = grids(1, seed=9)
    assert torch.equal(foreground(grid, direction, cut), expected)


def test_whichever_side_of_the_component_it_is_on() -> None:
    mirrored = [-grid for grid in grids(6, seed=0)]
    direction, cut, middle, rim = fit_foreground(mirrored)
    assert middle > 0.7 and rim == 0.0
    assert foreground(mirrored[0], direction, cut)[4, 5] and not foreground(mirrored[0], direction, cut)[0, 0]


@pytest.mark.parametrize(("apart", "closed"), [(3, True), (4, True), (5, False)])
def test_a_gap_of_two_patches_is_closed_and_a_larger_one_is_not(apart: int, closed: bool) -> None:
    grid = torch.zeros(1, 12, 12)
    grid[0, 5, 3] = grid[0, 5, 3 + apart + 1] = 1  # each grows by one towards the other
    part = foreground(grid, torch.tensor([1.0]), torch.tensor([0.5]))
    assert int(part.sum()) == (3 * (apart + 4) if closed else 18)


def test_a_part_that_reaches_the_border_is_kept_whole() -> None:
    grid = torch.zeros(1, 8, 8)
    grid[0, :3, :3] = 1
    part = foreground(grid, torch.tensor([1.0]), torch.tensor([0.5]))
    assert part[:4, :4].all() and int(part.sum()) == 16


def test_a_texture_has_no_sensible_foreground() -> None:
    _, _, middle, rim = fit_foreground(grids(6, seed=0, lit=None))
    assert not sensible(middle, rim)


@pytest.mark.parametrize(
    ("middle", "rim", "answer"), [(0.35, 0.1, True), (0.34, 0.0, False), (0.9, 0.45, True), (0.9, 0.46, False)]
)
def test_what_is_sensible(middle: float, rim: float, answer: bool) -> None:
    assert sensible(middle, rim) is answer
