from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from region_examples import make_image, make_region

from explainvad.explanation.colour import NO_BASELINE
from explainvad.explanation.facts import measure
from explainvad.explanation.place import PLACES
from explainvad.types import RegionFacts


def _box(x0: int, y0: int, x1: int, y1: int, shape: tuple[int, int] = (90, 120)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _measure(mask: NDArray[np.bool_], mm: float | None = None, **options: Any) -> RegionFacts:
    pixels = np.full((*mask.shape, 3), 150, dtype=np.uint8)
    pixels[mask] = 80
    return measure(make_image(pixels, mm), make_region(mask), **options)


def test_a_box_in_px_and_mm() -> None:
    facts = _measure(_box(10, 5, 40, 9), mm=0.1)
    assert (facts.place, facts.cells, facts.frame, facts.clock) == ("upper left", ("upper left",), "image", 11)
    assert facts.area_px == 120 and facts.area_mm2 == pytest.approx(1.2)
    assert facts.area_share == pytest.approx(120 / (90 * 120))
    assert facts.width_px == pytest.approx(4) and facts.width_mm == pytest.approx(0.4)
    assert facts.length_mm == pytest.approx(0.1 * facts.length_px) and facts.elongation > 5
    assert (facts.shape, facts.brightness, facts.touches_edge) == ("line-like", "darker", False)


def test_without_a_scale_nothing_is_in_mm() -> None:
    facts = _measure(_box(10, 5, 40, 9))
    assert facts.length_mm is facts.width_mm is facts.area_mm2 is None


def test_the_part_is_the_frame_where_the_region_lies_on_it() -> None:
    part = _box(60, 30, 120, 90)
    on_part = _measure(_box(64, 34, 70, 40), part_mask=part)
    assert (on_part.place, on_part.frame) == ("upper left", "part")
    assert on_part.area_share == pytest.approx(36 / 3600)
    assert (on_part.image_place, on_part.image_cells) == ("centre", ("centre",))
    beside = _measure(_box(4, 34, 10, 40), part_mask=part)
    assert (beside.place, beside.frame, beside.image_place) == ("middle left", "image", "middle left")
    assert beside.area_share == pytest.approx(36 / 10800)


def test_surroundings_are_those_on_the_part() -> None:
    part = _box(40, 20, 110, 80)
    mask = _box(40, 40, 52, 52)  # at the part's left edge
    pixels = np.full((90, 120, 3), 250, dtype=np.uint8)
    pixels[part] = 90
    pixels[mask] = 130
    image, region = make_image(pixels), make_region(mask)
    assert measure(image, region, part_mask=part).brightness == "brighter"
    assert measure(image, region).delta_l < measure(image, region, part_mask=part).delta_l - 20


def test_a_region_that_touches_every_border() -> None:
    mask = ~_box(5, 5, 115, 85)
    facts = _measure(mask)
    assert facts.touches_edge and facts.holes == 1 and facts.shape == "ring-shaped"
    assert (facts.radial_zone, facts.clock, facts.cells) == ("rim", None, ())


@pytest.mark.parametrize("corner", [(0, 40), (119, 40), (60, 0), (60, 89)])
def test_each_border_counts_as_an_edge(corner: tuple[int, int]) -> None:
    x, y = corner
    assert _measure(_box(x, y, x + 1, y + 1)).touches_edge


def test_one_pixel() -> None:
    facts = _measure(_box(60, 45, 61, 46))
    assert (facts.place, facts.shape, facts.orientation_deg, facts.holes) == ("centre", "point-like", None, 0)
    assert facts.brightness == "darker" and facts.length_px == pytest.approx(1)


def test_a_region_as_large_as_the_image() -> None:
    facts = _measure(np.ones((90, 120), dtype=bool))
    assert (facts.baseline, facts.colour, facts.area_share) == (NO_BASELINE, None, 1.0)
    assert facts.cells == () and facts.place == "centre"
    assert _measure(np.ones((1, 1), dtype=bool)).baseline == NO_BASELINE


def test_turning_the_image_turns_the_place() -> None:
    mask = _box(10, 5, 30, 20, (120, 120))
    grid = np.array(PLACES, dtype=object).reshape(3, 3)
    assert _measure(mask).place == grid[0, 0]
    assert _measure(np.fliplr(mask)).place == grid[0, 2]
    assert _measure(np.flipud(mask)).place == grid[2, 0]
    assert _measure(np.rot90(mask)).place == grid[2, 0]
    assert _measure(np.rot90(mask, 2)).place == grid[2, 2]


def test_facts_are_deterministic_and_plain_values() -> None:
    first, second = (_measure(_box(3, 50, 40, 61), mm=0.2) for _ in range(2))
    assert dataclasses.astuple(first) == dataclasses.astuple(second)
    for value in dataclasses.astuple(first):
        assert type(value) in (str, int, float, bool, tuple, type(None)), value
        assert not isinstance(value, float) or np.isfinite(value)


def test_wrong_input_is_refused() -> None:
    mask = _box(3, 50, 40, 61)
    with pytest.raises(ValueError, match=r"R1: mask must have the image's shape \(H, W\) = \(90, 120\)"):
        measure(make_image(np.zeros((90, 120, 3), np.uint8)), make_region(mask[:, :100]))
    with pytest.raises(ValueError, match="0 set"):
        measure(make_image(np.zeros((90, 120, 3), np.uint8)), make_region(mask & False))
    with pytest.raises(ValueError, match="part_mask must be bool"):
        _measure(mask, part_mask=mask.astype(np.uint8))
    with pytest.raises(ValueError, match="exclude must be bool"):
        _measure(mask, exclude=mask[1:])
