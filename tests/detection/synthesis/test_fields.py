"""Scalar fields by hand: distances, phases, cells, spectra and colours."""

from __future__ import annotations

import math

import pytest
import torch

from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.fields import (
    cells,
    colour,
    coordinates,
    palette,
    rounded,
    smooth_noise,
    spectral_noise,
    spots,
    standardise,
    waves,
)


def test_coordinates_are_row_and_column() -> None:
    y, x = coordinates(3)
    assert y.tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert torch.equal(x, y.T)


def test_standardise_by_hand() -> None:
    assert standardise(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx([-1, 0, 1], abs=1e-5)
    assert standardise(torch.full((4,), 7.0)).tolist() == [0] * 4  # no deviation is no division by zero


def test_rounded_covers_the_inside_and_half_of_the_border() -> None:
    cover = rounded(torch.tensor([-3.0, 0.0, 3.0]))
    assert cover.tolist() == pytest.approx([1, 0.5, 0], abs=1e-5)
    soft = rounded(torch.tensor([-1.0, 1.0]), softness=4.0)
    assert soft.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))])


def test_smooth_noise_fills_the_frame_with_few_bumps() -> None:
    field = smooth_noise(Dice(1), 40, 60, 4)
    assert field.shape == (40, 60)
    assert 0.3 < field.std() < 2
    assert field.diff(dim=0).std() < 0.3 * field.std() and field.diff(dim=1).std() < 0.3 * field.std()  # of white: 1.4


@pytest.mark.parametrize("n", [47, 64])
def test_spectral_noise_is_standard(n: int) -> None:
    for seed in range(8):
        field = spectral_noise(Dice(seed), n, 3.0)
        assert field.shape == (n, n)
        assert field.mean().item() == pytest.approx(0, abs=1e-4)
        assert field.std().item() == pytest.approx(1, abs=1e-3)


def test_fineness_is_the_frequency_of_the_noise() -> None:
    n, frequency = 128, torch.fft.fftfreq(128)
    radius = torch.hypot(frequency[:, None], frequency[None])
    mean = []
    for fineness in (0.05, 0.25):
        power = torch.fft.fft2(spectral_noise(Dice(2), n, 1.0, fineness)).abs().square()
        mean.append(((power * radius).sum() / power.sum()).item())
    assert mean[0] < 0.12 < mean[1]


def test_stretched_noise_is_longer_along_than_across() -> None:
    def anisotropy(stretch: float) -> float:
        field = spectral_noise(Dice(3), 128, stretch, 0.1)
        dy, dx = torch.gradient(field)
        structure = torch.stack((dy.flatten(), dx.flatten())).cov()
        small, large = torch.linalg.eigvalsh(structure).tolist()
        return float(large / small)

    assert anisotropy(1.0) < 1.3
    assert anisotropy(16.0) > 8


def test_waves_without_warp_are_straight_and_have_their_period() -> None:
    for seed in range(6):
        first, second = waves(Dice(seed), 32, 10.0, 0.0)
        for phase, ratios in ((first, (1.0, 1.0)), (second, (0.5, 2.0))):
            dy, dx = phase.diff(dim=0)[:, 0], phase.diff(dim=1)[0]
            assert (dy - dy[0]).abs().max() < 1e-4 and (dx - dx[0]).abs().max() < 1e-4
            rate = math.hypot(dy[0].item(), dx[0].item()) * 10 / (2 * math.pi)
            assert ratios[0] - 1e-3 <= rate <= ratios[1] + 1e-3


def test_cells_of_a_lattice_are_unit_squares() -> None:
    first, second, value = cells(Dice(4), 64, 16.0, 0.0)
    assert first.min() >= 0 and first.max() <= math.sqrt(0.5) + 1e-5  # from the centre of a square to its corner
    assert (first <= second).all()
    assert second.max() <= math.hypot(1.0, 0.5) + 0.2
    assert value.shape == (3, 64, 64)
    assert value.min() >= 0 and value.max() < 1


def test_values_are_constant_on_a_cell() -> None:
    first, second, value = cells(Dice(5), 64, 20.0, 1.0, 2.0)
    changes = (value.diff(dim=2) != 0).any(0)
    lead = (second - first).unfold(1, 2, 1).amin(2)  # of the nearest site, at two neighbouring pixels
    assert 100 < changes.sum() < 1000
    assert lead[changes].max() < 2 * math.sqrt(2) / 20  # two distances that change by a pixel's length
    assert lead[~changes].max() > 0.5


def test_spots_are_copies_of_their_stamp() -> None:
    assert spots(Dice(6), 9, 9, 0.0, torch.ones(3, 3)).abs().max() == 0
    points = spots(Dice(6), 20, 30, 0.05, torch.ones(1, 1))
    assert points.shape == (20, 30)
    strengths = points[points > 0]
    assert 10 < len(strengths) < 60
    assert strengths.min() >= 0.4 and strengths.max() <= 1
    crosses = spots(Dice(6), 20, 30, 0.05, torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]))
    padded = torch.nn.functional.pad(points, (1, 1, 1, 1))
    expected = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    torch.testing.assert_close(crosses, expected)


def test_a_palette_keeps_its_contrast() -> None:
    field = standardise(Dice(7).normal(32, 32))
    for seed in range(12):
        picture = palette(Dice(seed), field, 0.1)
        assert picture.shape == (3, 32, 32)
        assert 0.05 < picture.flatten(1).std(1).square().mean().sqrt() < 0.3
        flat = palette(Dice(seed), field, 0.0)
        assert (flat == flat[:, :1, :1]).all()  # no contrast is one colour
        assert flat.min() > 0 and flat.max() < 1


def test_colours_are_neither_black_nor_white() -> None:
    drawn = torch.stack([colour(Dice(seed)) for seed in range(100)])
    assert drawn.shape == (100, 3)
    assert drawn.min() >= 0.03 and drawn.max() <= 0.97
    assert (drawn.amax(1) - drawn.amin(1)).max() > 0.1  # some are saturated
