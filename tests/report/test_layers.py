"""What is laid over a photograph: transparent where it says nothing, outlined to the pixel."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from fabricated_lot import findings_of
from fabricated_model import PIXEL_THRESHOLD
from fabricated_pictures import HEIGHT, WIDTH, encoded, fused_map, photo, stored_map
from PIL import Image

from explainvad.report.figures import HeatScale, colour_stops
from explainvad.report.layers import (
    LIGHT,
    MAP_PX,
    PHOTO_PX,
    UNITS,
    Layer,
    doubt_layer,
    heat_layer,
    outline,
    shown_photograph,
    thumbnail,
)

SCALE = HeatScale(cluster=2.9, pixel=PIXEL_THRESHOLD, top=4 * PIXEL_THRESHOLD)


def _rgba(layer: Layer) -> np.ndarray:
    picture = Image.open(io.BytesIO(layer.data))
    assert picture.size == (layer.width, layer.height)
    return np.asarray(picture.convert("RGBA"), dtype=int)


def _flat(value: float) -> bytes:
    return stored_map(np.full((HEIGHT, WIDTH), value, np.float32))


def _points(path: str) -> np.ndarray:
    return np.array(re.findall(r"([\d.]+) ([\d.]+)", path), dtype=float)


def test_heat_is_transparent_below_the_cluster_threshold_and_opaque_above() -> None:
    below, _ = heat_layer(_flat(2.8), SCALE)
    above, _ = heat_layer(_flat(3.0), SCALE)
    assert _rgba(below)[..., 3].max() == 0
    assert _rgba(above)[..., 3].min() == 255
    assert max(below.width, below.height) == MAP_PX


def test_heat_has_the_colours_of_the_scale() -> None:
    layer, _ = heat_layer(_flat(SCALE.top / 2), SCALE)
    middle = colour_stops(21)[10]
    np.testing.assert_allclose(_rgba(layer)[9, 9, :3], [int(middle[i : i + 2], 16) for i in (1, 3, 5)], atol=4)


@pytest.mark.parametrize("size", [1, 40])
def test_contour_surrounds_what_reaches_the_pixel_threshold_however_small(size: int) -> None:
    values = np.full((HEIGHT, WIDTH), 3.5, np.float32)
    assert heat_layer(stored_map(values), SCALE)[1] == ""
    values[200 : 200 + size, 320 : 320 + size] = 9.0
    points = _points(heat_layer(stored_map(values), SCALE)[1])
    unit = UNITS / WIDTH
    np.testing.assert_allclose(points.min(axis=0), [320 * unit, 200 * unit], atol=0.2)
    np.testing.assert_allclose(points.max(axis=0), [(320 + size) * unit, (200 + size) * unit], atol=0.2)


def test_doubt_fades_out_towards_none() -> None:
    levels = np.array([[0, 0.125, 0.25, 1]])
    data = encoded(Image.fromarray((levels * 65535).astype(np.uint16)), "PNG")
    assert _rgba(doubt_layer(data))[0, :, 3].tolist() == [0, 128, 255, 255]


def test_outline_covers_what_the_mask_covers() -> None:
    (finding,) = findings_of(fused_map([(320, 240, 40, 25)], 9.0), None)
    found = outline(finding.region)
    polygon = Image.new("1", (UNITS, UNITS * HEIGHT // WIDTH))
    from PIL import ImageDraw

    ImageDraw.Draw(polygon).polygon([tuple(p) for p in _points(found.path)], fill=1)
    drawn = np.asarray(polygon.resize((WIDTH, HEIGHT)))
    mask = finding.region.mask.to_array()
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.97
    assert len(found.path) < 2_000


def test_hole_of_a_mask_is_outlined_too() -> None:
    (finding,) = findings_of(fused_map([(320, 240, 40, 40)], 9.0), None)
    assert outline(finding.region).path.count("M") == 1
    values = fused_map([(320, 240, 40, 40)], 9.0)
    values[235:245, 315:325] = 0
    (ring,) = findings_of(values, None)
    assert outline(ring.region).path.count("M") == 2


@pytest.mark.parametrize(
    ("mark", "magnification"), [((320, 240, 4, 4), 8.0), ((320, 240, 60, 60), 1.6), ((320, 240, 260, 200), 1.0)]
)
def test_view_of_a_region_has_it_in_the_middle_and_whole(mark: tuple[int, int, int, int], magnification: float) -> None:
    (finding,) = findings_of(fused_map([mark], 9.0), None)
    x, y, scale = outline(finding.region).view
    assert (x, y) == pytest.approx((0.5, 0.5), abs=0.01)
    assert scale == pytest.approx(magnification, rel=0.35)
    x0, y0, x1, y1 = finding.region.xyxy
    assert scale == 1 or (scale * (x1 - x0) < WIDTH and scale * (y1 - y0) < HEIGHT)


def test_small_picture_is_shown_as_it_is_kept() -> None:
    data = encoded(photo(1).resize((320, 240)), "JPEG")
    assert len(data) < LIGHT
    assert shown_photograph(data) == Layer(data, "image/jpeg", 320, 240)


def test_large_picture_is_made_light() -> None:
    data = encoded(photo(1).resize((2000, 1500)), "JPEG")
    shown = shown_photograph(data)
    assert (shown.media, shown.width, shown.height) == ("image/webp", PHOTO_PX, PHOTO_PX * 3 // 4)
    assert len(shown.data) < 100_000
    kept = np.asarray(Image.open(io.BytesIO(data)).resize((PHOTO_PX, PHOTO_PX * 3 // 4)), dtype=int)
    assert np.abs(_rgba(shown)[..., :3] - kept).mean() < 6
    assert len(thumbnail(data).data) < 4_000
