from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from explainvad.explanation.place import PLACES, Location, locate

CELLS = "ABCDEFGHI"  # PLACES, row by row


def _locate(mask: NDArray[np.bool_], frame: tuple[int, int, int, int] | None = None) -> Location:
    y, x = np.nonzero(mask)
    return locate(x, y, frame or (0, 0, mask.shape[1], mask.shape[0]))


def _grid(*rows: str) -> NDArray[np.bool_]:
    return np.array([[c == "X" for c in row] for row in rows])


@pytest.mark.parametrize("size", [(9, 9), (10, 14), (300, 400)])
def test_every_pixel_has_the_cell_of_its_third(size: tuple[int, int]) -> None:
    height, width = size
    for y in range(0, height, max(1, height // 7)):
        for x in range(0, width, max(1, width // 7)):
            mask = np.zeros(size, dtype=bool)
            mask[y, x] = True
            expected = 3 * (y * 3 // height if height % 3 == 0 else int(3 * (y + 0.5) / height)) + int(
                3 * (x + 0.5) / width
            )
            found = _locate(mask)
            assert found.place == PLACES[expected] and found.cells == (PLACES[expected],)


@pytest.mark.parametrize(
    ("rows", "place", "cells"),
    [
        (("XX.......", *["........."] * 8), "A", "A"),
        ((*["........."] * 3, "XXXXXX...", *["........."] * 5), "D", "DE"),
        ((*["........."] * 4, "XXXXXXXXX", *["........."] * 4), "E", "EDF"),
        (("XXX......", "XXX......", "XXXX.....", *["........."] * 6), "A", "A"),  # B holds 1 of 10
        (("XXX......", "XXX......", "XX.XX....", *["........."] * 6), "A", "AB"),  # B holds 2 of 10
        ((*["........."] * 6, ".......XX", "......X.X", "......XXX"), "I", "I"),
        (("XXXXXXXXX", *["X.......X"] * 7, "XXXXXXXXX"), None, ""),  # nowhere a fifth
    ],
)
def test_letter_grids(rows: tuple[str, ...], place: str | None, cells: str) -> None:
    found = _locate(_grid(*rows))
    assert place is None or found.place == PLACES[CELLS.index(place)]
    assert found.cells == tuple(PLACES[CELLS.index(c)] for c in cells)


def test_twelve_points_on_the_clock() -> None:
    for hour in range(1, 13):
        angle = np.radians(30 * hour)
        x, y = round(100 + 80 * np.sin(angle)), round(100 - 80 * np.cos(angle))
        found = locate(np.array([x]), np.array([y]), (0, 0, 201, 201))
        assert (found.clock, found.radial_zone) == (hour, "rim")


def test_the_clock_is_read_in_pixels_not_in_shares_of_the_frame() -> None:
    found = locate(np.array([300]), np.array([0]), (0, 0, 401, 201))  # 100 px right, 100 px up
    assert found.clock in (1, 2)
    assert locate(np.array([399]), np.array([140]), (0, 0, 401, 201)).clock == 3


@pytest.mark.parametrize(("x", "zone", "clock"), [(60, "centre", None), (80, "middle", 3), (92, "rim", 3)])
def test_radial_zones(x: int, zone: str, clock: int | None) -> None:
    found = locate(np.array([x]), np.array([50]), (0, 0, 101, 101))
    assert (found.radial_zone, found.clock) == (zone, clock)


def test_a_ring_around_the_centre_lies_at_the_rim_but_in_no_direction() -> None:
    y, x = np.indices((101, 101)) - 50
    found = _locate((np.hypot(x, y) > 42) & (np.hypot(x, y) < 48))
    assert (found.radial_zone, found.clock, found.cells) == ("rim", None, ())


def test_the_frame_is_the_part_and_pixels_outside_count_for_the_nearest_cell() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    mask[60, 60] = True
    assert _locate(mask).place == "centre"
    assert _locate(mask, (50, 50, 110, 110)).place == "upper left"
    assert _locate(mask, (0, 0, 50, 50)).place == "lower right"


@pytest.mark.parametrize("seed", range(20))
def test_turning_the_picture_turns_the_words(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((60, 60), dtype=bool)
    x0, y0 = rng.integers(0, 50, 2)
    mask[y0 : y0 + rng.integers(3, 10), x0 : x0 + rng.integers(3, 10)] = True
    mask[y0, x0] = False
    grid = np.arange(9).reshape(3, 3)
    found = _locate(mask)
    for turn in (np.fliplr, np.flipud, np.rot90, np.transpose):
        turned = _locate(turn(mask))
        where = {old: new for new, old in enumerate(turn(grid).ravel())}  # type: ignore[operator]
        assert turned.place == PLACES[where[PLACES.index(found.place)]]
        assert set(turned.cells) == {PLACES[where[PLACES.index(cell)]] for cell in found.cells}
        assert turned.radial_zone == found.radial_zone and (turned.clock is None) == (found.clock is None)
