"""Every family of surfaces and scenes: canvases of the right form that their seed decides."""

from __future__ import annotations

import math

import pytest
import torch

from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.items import FAMILIES, SCENES, SURFACES
from explainvad.detection.synthesis.scenes import shape_distance
from explainvad.detection.synthesis.surfaces import spectral_profile

SEEDS = range(8)  # enough for every branch of a family to be taken by some


def test_the_registries_divide_the_families() -> None:
    assert set(SURFACES) | set(SCENES) == set(FAMILIES)
    assert not set(SURFACES) & set(SCENES)
    assert all(name == make.__name__ and make.__doc__ for name, make in FAMILIES.items())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [48, 81])
def test_a_canvas_is_a_picture_with_structure(family: str, n: int) -> None:
    for seed in SEEDS:
        canvas = FAMILIES[family](Dice(seed, n), n)
        assert canvas.shape == (3, n, n) and canvas.dtype == torch.float32
        assert canvas.isfinite().all()
        assert canvas.flatten(1).std(1).max() > 0.005
        assert -1 < canvas.mean() < 2 and canvas.abs().max() < 6  # about [0, 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_its_seed_decides_a_canvas(family: str) -> None:
    for seed in SEEDS:
        canvas = FAMILIES[family](Dice(seed), 48)
        assert torch.equal(FAMILIES[family](Dice(seed), 48), canvas)
        assert (FAMILIES[family](Dice(seed + 100), 48) - canvas).abs().mean() > 0.01


def test_profiles_are_standard() -> None:
    profile = spectral_profile(Dice(1), 512)
    assert profile.shape == (512,)
    assert profile.mean().item() == pytest.approx(0, abs=1e-4)
    assert profile.std().item() == pytest.approx(1, abs=1e-3)


def test_a_shape_lies_at_its_place_and_no_distance_grows_faster_than_the_way() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for seed in range(40):
        distance = shape_distance(Dice(seed), 64, 40.0, 24.0, 12.0)
        away = torch.hypot(y - 40, x - 24)
        assert distance[away < 13].min() < 0  # some of it is here
        assert (distance[away > 1.5 * math.sqrt(2) * 12] > 0).all()  # and none beyond the longest diagonal
        for step in (distance.diff(dim=0), distance.diff(dim=1)):
            assert step.abs().max() < 1 + 1e-4
