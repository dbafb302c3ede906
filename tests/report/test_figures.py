"""Pictures of an image page: fixed scale, honest crops."""

from __future__ import annotations

import io

import numpy as np
import pytest
from fabricated_lot import findings_of
from fabricated_model import PIXEL_THRESHOLD
from fabricated_pictures import HEIGHT, WIDTH, encoded, fused_map, stored_map
from PIL import Image

from explainvad.report.figures import (
    CROP_PX,
    PICTURE_PX,
    HeatScale,
    colour_stops,
    crop_pair,
    fitted,
    heat_overlay,
    outlined,
    photograph,
)
from explainvad.types import Alignment

SCALE = HeatScale(cluster=2.9, pixel=PIXEL_THRESHOLD, top=4 * PIXEL_THRESHOLD)
PHOTO = Image.new("RGB", (WIDTH, HEIGHT), (120, 120, 120))
GREY = fitted(PHOTO)


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)), dtype=int)


def _flat(value: float) -> bytes:
    return stored_map(np.full((HEIGHT, WIDTH), value, np.float32))


def test_map_below_the_cluster_threshold_leaves_the_photograph_alone() -> None:
    overlay, above = heat_overlay(GREY, _flat(2.8), SCALE)
    assert not above
    assert np.abs(_pixels(overlay) - 120).max() <= 2


def test_scale_is_fixed_and_never_follows_the_image() -> None:
    faint, _ = heat_overlay(GREY, _flat(3.5), SCALE)
    peak = np.full((HEIGHT, WIDTH), 3.5, np.float32)
    peak[:40, :40] = 40
    strong, above = heat_overlay(GREY, stored_map(peak), SCALE)
    assert above
    np.testing.assert_allclose(_pixels(faint)[-100:], _pixels(strong)[-100:], atol=3)


def test_overlay_colour_is_the_one_the_colour_bar_shows() -> None:
    overlay, _ = heat_overlay(GREY, _flat(SCALE.top / 2), SCALE)
    bar = colour_stops(21)[10]
    expected = [0.75 * int(bar[i : i + 2], 16) + 0.25 * 120 for i in (1, 3, 5)]
    np.testing.assert_allclose(_pixels(overlay)[300, 400], expected, atol=6)


@pytest.mark.parametrize(("value", "above"), [(PIXEL_THRESHOLD - 0.01, False), (PIXEL_THRESHOLD + 0.01, True)])
def test_pixel_threshold_is_told(value: float, above: bool) -> None:
    assert heat_overlay(GREY, _flat(value), SCALE)[1] is above


@pytest.mark.parametrize("long_side", [PICTURE_PX, PICTURE_PX // 2])
def test_outline_surrounds_the_region_and_spares_its_inside(long_side: int) -> None:
    fused = fused_map([(320, 240, 40, 40)], 9.0)
    (finding,) = findings_of(fused, None)
    size = (long_side, round(long_side * HEIGHT / WIDTH))
    picture = _pixels(outlined(GREY.resize(size), [finding.region]))
    assert picture.shape == (size[1], size[0], 3)
    inside = finding.region.mask.to_array()
    assert np.abs(picture[size[1] // 2, size[0] // 2] - 120).max() <= 3
    row = picture[size[1] // 2, : size[0] // 2, 0]
    x0 = np.flatnonzero(inside[240])[0] * size[0] / WIDTH
    assert row[int(x0) - 12 : int(x0) + 4].max() > 200  # the white line
    assert row[int(x0) - 12 : int(x0) + 4].min() < 80  # its dark edge


def test_crops_show_the_same_place_of_a_reference_of_another_size() -> None:
    inspected, reference = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)), Image.new("RGB", (320, 240), (90, 90, 90))
    inspected.paste((250, 250, 250), (100, 60, 140, 100))
    reference.paste((250, 250, 250), (50, 30, 70, 50))
    crop, nominal = crop_pair(inspected, reference, (100, 60, 140, 100), (WIDTH, HEIGHT))
    assert nominal is not None
    a, b = _pixels(crop), _pixels(nominal)
    assert a.shape == b.shape == (CROP_PX, CROP_PX, 3)
    assert a[CROP_PX // 2, CROP_PX // 2].min() > 240
    assert np.mean(np.abs(a - b) > 60) < 0.04  # only blurred edges differ


@pytest.mark.parametrize("shift", [0.1 + 0.2, -0.7, 33.3, -900.0, 900.0])
@pytest.mark.parametrize("xyxy", [(0, 0, 4, 4), (0, 0, 640, 480), (300, 3, 340, 470)])
def test_a_crop_that_moves_with_a_reference_stays_inside_it(xyxy: tuple[int, int, int, int], shift: float) -> None:
    lying = Alignment(((1.0, 0.0, shift), (0.0, 1.0, -shift / 3)), 1.0)
    for size in ((WIDTH, HEIGHT), (333, 250)):
        _, nominal = crop_pair(PHOTO, PHOTO.resize(size), xyxy, (WIDTH, HEIGHT), lying)
        assert nominal is not None and np.abs(_pixels(nominal) - 120).max() <= 2


@pytest.mark.parametrize("xyxy", [(0, 0, 4, 4), (636, 476, 640, 480), (0, 200, 640, 210), (0, 0, 640, 480)])
def test_crop_stays_inside_the_picture(xyxy: tuple[int, int, int, int]) -> None:
    crop, nominal = crop_pair(PHOTO, None, xyxy, (WIDTH, HEIGHT))
    assert nominal is None
    assert np.abs(_pixels(crop) - 120).max() <= 2


@pytest.mark.parametrize(
    ("side", "shown"),
    [(1, PICTURE_PX // 2), (PICTURE_PX - 100, PICTURE_PX - 100), (PICTURE_PX, PICTURE_PX), (3000, PICTURE_PX)],
)
def test_tiny_picture_is_scaled_up_and_a_large_one_down(side: int, shown: int) -> None:
    photo = photograph(encoded(Image.new("L", (side, side), 9), "PNG"))
    assert photo.mode == "RGB"
    assert fitted(photo).size == (shown, shown)


def test_drawing_leaves_the_fitted_picture_alone() -> None:
    picture = fitted(PHOTO)
    (finding,) = findings_of(fused_map([(320, 240, 40, 40)], 9.0), None)
    outlined(picture, [finding.region])
    heat_overlay(picture, _flat(9.0), SCALE)
    assert np.abs(np.asarray(picture, dtype=int) - 120).max() == 0
