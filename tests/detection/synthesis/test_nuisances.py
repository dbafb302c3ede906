"""What differs between pictures of normal things stays within its bounds and says so with strength 0."""

from __future__ import annotations

import pytest
import torch

from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.nuisances import relight, sense, usual_marks


def picture(seed: int = 0) -> torch.Tensor:
    """Something like a crop, some of it outside [0, 1]."""
    return 0.5 + 0.35 * Dice(seed, 99).normal(3, 24, 40)


def test_relighting_with_strength_0_changes_nothing() -> None:
    for seed in range(20):
        assert torch.equal(relight(Dice(seed), picture(), 0.0), picture())


def test_light_differs_more_with_more_strength() -> None:
    def change(strength: float) -> float:
        differences = [(relight(Dice(seed), picture(), strength) - picture()).abs().mean() for seed in range(20)]
        return float(torch.stack(differences).mean())

    assert 0 < change(0.05) < change(0.3) < change(1.0)
    assert change(0.05) < 0.05


def test_light_is_a_smooth_change_of_a_plain_ground() -> None:
    flat = torch.full((3, 24, 40), 0.5)
    for seed in range(20):
        lit = relight(Dice(seed), flat, 1.0)
        assert lit.shape == flat.shape and lit.isfinite().all()
        assert lit.diff(dim=1).abs().max() < 0.12 and lit.diff(dim=2).abs().max() < 0.12


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_a_sensor_gives_no_more_than_white_and_no_less_than_black(strength: float) -> None:
    for seed in range(20):
        seen = sense(Dice(seed), picture(seed), strength)
        assert seen.shape == (3, 24, 40)
        assert seen.min() >= 0 and seen.max() <= 1


def test_a_perfect_sensor_only_clips() -> None:
    for seed in range(10):
        assert torch.equal(sense(Dice(seed), picture(), 0.0), picture().clamp(0, 1))


def test_sensor_noise_has_no_mean_and_is_weak() -> None:
    flat = torch.full((3, 64, 64), 0.5)
    noise = torch.stack([sense(Dice(seed), flat, 1.0) - flat for seed in range(20)])
    deviation = noise.flatten(1).std(1)
    assert deviation.min() > 0.001 and deviation.max() < 0.09
    assert noise.flatten(1).mean(1).abs().max() < 0.01


def test_usual_marks_are_grey_and_lie_all_over_the_canvas() -> None:
    canvas = torch.full((3, 200, 200), 0.5)
    marked = 0
    for seed in range(20):
        marks = usual_marks(Dice(seed), canvas) - canvas
        assert marks.shape == canvas.shape and marks.isfinite().all()
        torch.testing.assert_close(marks[0], marks[2])
        assert marks.abs().max() <= 0.3 * 1.2
        quarters = marks[0].unflatten(0, (2, 100)).unflatten(2, (2, 100)).abs().amax((1, 3))
        marked += bool((quarters > 0.02).all())
    assert marked >= 15
