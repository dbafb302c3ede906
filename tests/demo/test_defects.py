"""Each defect is seen where its mask says, and nowhere else."""

import numpy as np
import pytest

from explainvad.demo.defects import DEFECTS, photograph_defect
from explainvad.demo.parts import flange
from explainvad.demo.photograph import Shot, photograph

PART_AREA = np.pi * 119**2  # px


def _defect(kind: str, number: int, seed: int = 3):
    shot = Shot.draw(np.random.default_rng([seed, number]))
    return photograph_defect(kind, number, shot, np.random.default_rng([seed, number, 1])), shot


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", DEFECTS)
def test_picture_differs_from_its_normal_twin_exactly_inside_the_mask(kind, number):
    part, shot = _defect(kind, number)
    step = np.abs(part.picture.astype(int) - part.normal_twin).max(axis=2)

    assert np.array_equal(part.normal_twin, photograph(flange(), shot))
    assert part.mask.dtype == np.bool_ and part.mask.shape == part.picture.shape[:2]
    assert not step[~part.mask].any()
    assert (step[part.mask] > 0).mean() > 0.95
    assert (step >= 20).sum() >= 60, "nobody would see it"


@pytest.mark.parametrize("kind", ["scratch", "dent", "stain", "missing_feature"])
def test_local_defects_are_local(kind):
    part, _ = _defect(kind, 0)
    rows, columns = np.nonzero(part.mask)

    assert part.mask.sum() < 0.08 * PART_AREA
    assert max(np.ptp(rows), np.ptp(columns)) < 100


def test_scratch_is_thin_and_long():
    part, _ = _defect("scratch", 0)
    rows, columns = np.nonzero(part.mask)
    length = np.hypot(np.ptp(rows), np.ptp(columns))

    assert length > 25
    assert part.mask.sum() / length < 9  # px wide, on average


def test_wrong_seal_is_a_ring_with_an_untouched_middle():
    part, shot = _defect("wrong_colour", 0)
    x, y = 199.5 + shot.shift[0], 149.5 + shot.shift[1]
    row, column = np.indices(part.mask.shape)
    radius = np.hypot(column - x, row - y) / shot.scale

    assert part.mask[(radius > 69) & (radius < 75)].all()
    assert not part.mask[(radius < 60) | (radius > 85)].any()


def test_mask_follows_the_pose():
    """The pin stands at -60 degrees on the bolt circle of radius 97.5, wherever the part lies."""
    for seed in (1, 2):
        part, shot = _defect("missing_feature", 1, seed=seed)
        angle = np.deg2rad(-60 + shot.rotation)
        expected = np.array([149.5, 199.5]) + 97.5 * shot.scale * np.array([np.sin(angle), np.cos(angle)])
        expected += shot.shift[::-1]

        assert part.mask[tuple(np.rint(expected).astype(int))]
        # The mask also covers the pin's shadow, to one side of it.
        assert np.linalg.norm(np.argwhere(part.mask).mean(axis=0) - expected) < 5


def test_two_missing_features_are_of_two_kinds():
    hole, pin = (_defect("missing_feature", number)[0] for number in (0, 1))
    filled = hole.picture[hole.mask].mean() - hole.normal_twin[hole.mask].mean()

    assert filled > 20  # bright metal where a dark hole belongs
    assert not np.array_equal(hole.mask, pin.mask)
