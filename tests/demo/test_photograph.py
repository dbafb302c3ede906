"""Photographs of good parts vary in the stated nuisances, and in nothing that a seed does not fix."""

from dataclasses import replace

import numpy as np
import pytest

from explainvad.demo.parts import flange
from explainvad.demo.photograph import HEIGHT, WIDTH, Shot, photograph


@pytest.fixture(scope="module")
def shot() -> Shot:
    return Shot.draw(np.random.default_rng(5))


def _centre(picture: np.ndarray) -> np.ndarray:
    """Return the centre (row, column) of the seal, which is the only red thing."""
    red = picture[..., 0].astype(int) - picture[..., 1] > 40
    return np.argwhere(red).mean(axis=0)


def test_picture_is_rgb_with_a_dark_fixture_and_bright_metal(shot):
    picture = photograph(flange(), shot)

    assert picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
    assert picture[:40, :40].mean() < 90
    assert picture[100:200, 150:250].max() > 170
    assert (picture == 255).mean() < 0.001  # highlights roll off


def test_same_shot_gives_the_same_picture(shot):
    assert np.array_equal(photograph(flange(), shot), photograph(flange(), shot))


def test_turned_metal_shines_along_the_light(shot):
    """A concentric finish reflects in a bow tie: bright towards and away from the lamp, dark across."""
    still = replace(shot, shift=(0.0, 0.0), rotation=0.0, scale=1.0, key_azimuth=-128.0)
    grey = photograph(flange(), still).mean(axis=2)

    def boss(degrees: float) -> float:
        a, r = np.deg2rad(degrees), np.arange(42, 52)
        rows, columns = 149.5 + r * np.sin(a), 199.5 + r * np.cos(a)
        return float(grey[np.rint(rows).astype(int), np.rint(columns).astype(int)].mean())

    assert min(boss(-128), boss(52)) > max(boss(-20), boss(160)) + 40


def test_shift_moves_the_part_but_not_the_fixture(shot):
    still = replace(shot, shift=(0.0, 0.0))
    moved = replace(shot, shift=(4.0, -3.0))
    before, after = photograph(flange(), still), photograph(flange(), moved)

    assert np.allclose(_centre(after) - _centre(before), [-3, 4], atol=0.2)
    assert np.abs(before[:, :40].astype(int) - after[:, :40]).max() <= 1


def test_rotation_turns_the_part_clockwise_in_the_image(shot):
    """The pin at -60 degrees goes right and down when the angle grows."""

    def pin(rotation: float) -> np.ndarray:
        still = replace(shot, shift=(0.0, 0.0), scale=1.0, rotation=rotation)
        with_pin, without = photograph(flange(), still), photograph(flange(pin=False), still)
        return np.argwhere(np.abs(with_pin.astype(int) - without).max(axis=2) > 30).mean(axis=0)

    down, right = pin(3.0) - pin(-3.0)
    arc = 97.5 * np.deg2rad(6)
    assert np.allclose([down, right], [arc * np.cos(np.deg2rad(60)), arc * np.sin(np.deg2rad(60))], atol=1.0)


def test_nuisances_stay_within_their_limits():
    shots = [Shot.draw(np.random.default_rng([9, index])) for index in range(300)]

    assert np.abs([s.shift for s in shots]).max() <= 5
    assert 2 < np.abs([s.rotation for s in shots]).max() <= 3
    assert np.abs(np.array([s.scale for s in shots]) - 1).max() <= 0.01 + 1e-12
    assert np.std([s.key_intensity for s in shots]) > 0.02
    for s in shots:
        assert ((s.dust[:, 0] >= 4) & (s.dust[:, 0] < WIDTH - 3)).all()
        assert ((s.dust[:, 1] >= 4) & (s.dust[:, 1] < HEIGHT - 3)).all()
