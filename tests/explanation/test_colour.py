from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2lab

from explainvad.explanation.colour import (
    COLOURS,
    NO_BASELINE,
    REFERENCE,
    RING,
    SAME_BRIGHTNESS,
    compare_colour,
    surroundings,
)

GREY = (128, 128, 128)


def _scene(rgb: tuple[int, int, int], base: tuple[int, int, int] = GREY, noise: float = 0.0, size: int = 12):  # type: ignore[no-untyped-def]
    """A square of one colour on a ground of another; the mask of the square."""
    mask = np.zeros((120, 160), dtype=bool)
    mask[50 : 50 + size, 70 : 70 + size] = True
    rng = np.random.default_rng(0)
    pixels = np.where(mask[..., None], rgb, base) + rng.normal(0, noise, (120, 160, 3))
    return pixels.clip(0, 255).astype(np.uint8), mask


def _compare(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], **options):  # type: ignore[no-untyped-def]
    window, ring = surroundings(mask, options.pop("normal", None))
    reference = options.pop("reference", None)
    return compare_colour(pixels[window], mask[window], ring, None if reference is None else reference[window])


def test_differences_are_region_minus_surroundings() -> None:
    found = _compare(*_scene((100, 60, 60)))
    expected = rgb2lab(np.array([[100, 60, 60]], np.uint8))[0] - rgb2lab(np.array([GREY], np.uint8))[0]
    np.testing.assert_allclose([found.delta_l, found.delta_a, found.delta_b], expected, atol=1e-9)
    assert (found.brightness, found.colour, found.baseline) == ("darker", "redder and yellower", RING)
    assert found.noise_delta_e == pytest.approx(0, abs=1e-9) and found.delta_e > 10


@pytest.mark.parametrize(("level", "word"), [(90, "darker"), (170, "brighter"), (130, SAME_BRIGHTNESS)])
def test_brightness_words(level: int, word: str) -> None:
    found = _compare(*_scene((level,) * 3))
    assert (found.brightness, found.colour) == (word, None)


@pytest.mark.parametrize("sector", range(8))
def test_colour_words_follow_the_hue_angle(sector: int) -> None:
    from skimage.color import lab2rgb

    angle = np.radians(45 * sector + 15)
    lab = np.array([55.0, 25 * np.cos(angle), 25 * np.sin(angle)])
    rgb = tuple(int(v) for v in np.round(255 * lab2rgb(lab)))
    grey = tuple(int(v) for v in np.round(255 * lab2rgb(np.array([55.0, 0.0, 0.0]))))
    found = _compare(*_scene(rgb, grey))  # type: ignore[arg-type]
    assert (found.colour, found.brightness) == (COLOURS[sector], SAME_BRIGHTNESS)


def test_a_constant_image_gives_no_colour_claim() -> None:
    found = _compare(*_scene(GREY))
    assert found.delta_e == pytest.approx(0, abs=1e-9)
    assert (found.colour, found.brightness) == (None, SAME_BRIGHTNESS)


def test_noise_hides_what_would_be_seen_on_a_quiet_ground() -> None:
    quiet, loud = _compare(*_scene((118,) * 3, size=2)), _compare(*_scene((118,) * 3, noise=25.0, size=2))
    assert quiet.brightness == "darker"
    assert loud.noise_delta_e > 4 and loud.brightness == SAME_BRIGHTNESS


def test_false_words_on_plain_noise_are_rare() -> None:
    rng = np.random.default_rng(5)
    mask = np.zeros((60, 60), dtype=bool)
    mask[28:31, 28:31] = True
    said = 0
    for _ in range(200):
        pixels = rng.normal(128, 30, (60, 60, 1)).clip(0, 255).astype(np.uint8).repeat(3, axis=2)
        said += _compare(pixels, mask).brightness != SAME_BRIGHTNESS
    assert said <= 24  # about 1 in 17 by rank among 16 samples; 24 of 200 is beyond five in a thousand


def test_a_gradient_counts_as_noise() -> None:
    pixels, mask = _scene(GREY)
    ramp = np.linspace(60, 200, 160, dtype=np.uint8)[None, :, None]
    pixels = np.broadcast_to(ramp, pixels.shape).copy()
    pixels[mask] += 4
    assert _compare(pixels, mask).brightness == SAME_BRIGHTNESS


def test_soft_edges_and_excluded_pixels_stay_out_of_the_ring() -> None:
    pixels, mask = _scene((60, 60, 60))
    other = np.zeros_like(mask)
    other[40:46, 60:90] = True
    pixels[other] = 255
    pixels[49, 70:82] = 0  # the region's own soft edge
    assert _compare(pixels, mask, normal=~other).delta_l == pytest.approx(_compare(*_scene((60, 60, 60))).delta_l)
    assert _compare(pixels, mask).delta_l < _compare(pixels, mask, normal=~other).delta_l - 5


def test_against_a_reference_image() -> None:
    pixels, mask = _scene((100, 100, 100))
    reference = np.full_like(pixels, 128)
    reference[mask] = 60  # the normal part has a darker feature here
    found = _compare(pixels, mask, reference=reference)
    assert (found.baseline, found.brightness) == (REFERENCE, "brighter")
    assert _compare(pixels, mask).brightness == "darker"
    shifted = _compare(pixels, mask, reference=(reference - 40).astype(np.uint8))
    assert shifted.noise_delta_e > 10  # the two pictures differ everywhere by as much


def test_without_surroundings_nothing_is_said() -> None:
    pixels, _ = _scene((90, 40, 40))
    found = _compare(pixels, np.ones(pixels.shape[:2], dtype=bool))
    assert (found.baseline, found.brightness, found.colour) == (NO_BASELINE, SAME_BRIGHTNESS, None)
    assert found.delta_e == found.noise_delta_e == 0.0
