from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import polygon2mask
from skimage.measure import label, regionprops

from explainvad.explanation.geometry import SHAPES, describe_geometry


def _rectangle(angle_deg: float, length: float = 60, width: float = 12) -> NDArray[np.bool_]:
    """A rectangle whose long side points ``angle_deg`` counter-clockwise from the x axis."""
    angle = np.radians(angle_deg)
    along, across = np.array([np.cos(angle), -np.sin(angle)]), np.array([np.sin(angle), np.cos(angle)])
    corners = [(s * length * along + t * width * across) / 2 for s, t in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
    return polygon2mask((120, 120), np.array([(59.5 + y, 59.5 + x) for x, y in corners])).astype(bool)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 135, 170])
def test_rectangle_at_any_angle(angle: float) -> None:
    geometry = describe_geometry(_rectangle(angle))
    assert geometry.length == pytest.approx(np.hypot(60, 12), abs=1.5)
    assert geometry.width == pytest.approx(12, abs=1.2)
    assert geometry.orientation_deg is not None
    assert (geometry.orientation_deg - angle + 90) % 180 - 90 == pytest.approx(0, abs=1.0)
    assert geometry.solidity > 0.9  # a staircase edge costs some
    assert (geometry.holes, geometry.shape) == (0, "line-like" if geometry.elongation >= 5 else "elongated")


def test_hand_computed_rectangle() -> None:
    geometry = describe_geometry(np.ones((4, 10), dtype=bool))
    assert geometry.width == pytest.approx(4.0)
    assert geometry.length == pytest.approx(np.hypot(10, 3))  # edge midpoints: (0, 0.5) to (10, 3.5)
    assert geometry.solidity == 1.0
    assert geometry.orientation_deg == pytest.approx(0.0)


@pytest.mark.parametrize(("shape", "angle"), [((1, 40), 0.0), ((40, 1), 90.0)])
def test_straight_lines(shape: tuple[int, int], angle: float) -> None:
    geometry = describe_geometry(np.ones(shape, dtype=bool))
    assert (geometry.length, geometry.width) == (pytest.approx(40), pytest.approx(1))
    assert geometry.shape == "line-like" and geometry.orientation_deg == pytest.approx(angle)


def test_diagonals_run_counter_clockwise_as_seen() -> None:
    falling = describe_geometry(np.eye(40, dtype=bool))
    rising = describe_geometry(np.eye(40, dtype=bool)[:, ::-1])
    assert falling.orientation_deg == pytest.approx(135) and rising.orientation_deg == pytest.approx(45)
    assert falling.width == pytest.approx(np.sqrt(0.5))
    assert falling.solidity == pytest.approx(1.0, abs=0.02)


def _disk(radius: float, size: int = 101) -> NDArray[np.bool_]:
    y, x = np.indices((size, size)) - size // 2
    return np.hypot(x, y) <= radius


def test_disk() -> None:
    geometry = describe_geometry(_disk(30))
    assert geometry.length == pytest.approx(61, abs=0.5) and geometry.width == pytest.approx(60.5, abs=0.5)
    assert geometry.solidity > 0.97 and geometry.shape == "compact" and geometry.orientation_deg is None


def test_ring_has_one_hole() -> None:
    geometry = describe_geometry(_disk(30) & ~_disk(20))
    assert (geometry.holes, geometry.shape) == (1, "ring-shaped")
    assert geometry.solidity == pytest.approx(1 - (20 / 30) ** 2, abs=0.03)


def test_holes_are_counted_and_specks_are_not() -> None:
    mask = np.ones((40, 40), dtype=bool)
    mask[5:12, 5:12] = mask[20:30, 20:30] = False
    mask[35, 35] = False  # 1 px of 1600
    mask[0, 20:25] = False  # open to the outside
    assert describe_geometry(mask).holes == 2
    # A diagonal chain of pixels closes a hole, because the region is 8-connected.
    diamond = np.zeros((9, 9), dtype=bool)
    diamond[np.abs(np.indices((9, 9)) - 4).sum(axis=0) == 4] = True
    assert describe_geometry(diamond).holes == 1


def test_an_l_is_irregular() -> None:
    mask = np.zeros((60, 60), dtype=bool)
    mask[:, :12] = mask[-12:] = True
    geometry = describe_geometry(mask)
    assert geometry.shape == "irregular"
    assert geometry.solidity == pytest.approx((60 * 12 * 2 - 144) / (3600 - 48**2 / 2), abs=0.01)


@pytest.mark.parametrize("mask", [np.ones((1, 1), bool), np.ones((1, 2), bool), np.ones((2, 2), bool)])
def test_a_few_pixels_are_a_point(mask: NDArray[np.bool_]) -> None:
    geometry = describe_geometry(mask)
    assert geometry.shape == "point-like" and geometry.orientation_deg is None
    assert geometry.elongation >= 1 and 0 < geometry.solidity <= 1 and geometry.holes == 0


def test_against_scikit_image_on_random_blobs() -> None:
    blobs = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(150, 150)), 4) > 0.05
    regions = regionprops(label(blobs, connectivity=2))
    seen = set()
    for region in regions:
        geometry = describe_geometry(region.image)
        seen.add(geometry.shape)
        assert geometry.length == pytest.approx(region.feret_diameter_max, abs=1.0)  # of a rasterised hull
        assert geometry.solidity == pytest.approx(min(1, region.solidity), abs=0.05)
        assert geometry.elongation >= 1 - 1e-9 and geometry.width <= geometry.length
    assert len(regions) > 15 and len(seen) >= 3 and seen <= set(SHAPES)
