"""Colour difference between a region and what is normal, with the noise floor below which it says nothing.

Differences are in CIELAB (D65) and CIEDE2000 (Sharma, Wu, Dalal, 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import deltaE_ciede2000, rgb2lab

from explainvad.explanation.bands import BANDS

RING = "surrounding ring"
REFERENCE = "reference image"
NO_BASELINE = "none: no normal surroundings"
DARKER, BRIGHTER = "darker", "brighter"
SAME_BRIGHTNESS = "not measurably different in brightness"

# Hue angle of (delta a, delta b) in steps of 45 degrees, from +a counter-clockwise.
COLOURS = (
    "redder",
    "redder and yellower",
    "yellower",
    "greener and yellower",
    "greener",
    "greener and bluer",
    "bluer",
    "redder and bluer",
)

_MIN_RING = 16  # px: fewer cannot be split into samples
_MAX_PIXELS = 20_000  # a mean needs no more; keeps time independent of the camera


@dataclass(frozen=True, slots=True)
class ColourDifference:
    """Region minus baseline; the members are those of :class:`explainvad.types.RegionFacts`."""

    delta_l: float
    delta_a: float
    delta_b: float
    delta_e: float
    noise_delta_e: float
    baseline: str
    brightness: str
    colour: str | None


def surroundings(
    mask: NDArray[np.bool_], normal: NDArray[np.bool_] | None
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Return a window of the image and, inside it, the ring around ``mask`` (bool (H, W)).

    A small gap keeps soft edges out of the ring. ``normal``, bool (H, W), restricts it.
    """
    diagonal = float(np.hypot(*mask.shape))
    gap = max(2, round(BANDS.ring_gap * diagonal))
    reach = gap + max(4, round(BANDS.ring_width * diagonal))
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    window = (
        slice(max(0, box[0].start - reach), box[0].stop + reach),
        slice(max(0, box[1].start - reach), box[1].stop + reach),
    )
    inside = mask[window].view(np.uint8)
    near = ndimage.maximum_filter(inside, size=2 * gap + 1, mode="constant")
    far = ndimage.maximum_filter(inside, size=2 * reach + 1, mode="constant")
    ring: NDArray[np.bool_] = far > near
    return window, ring if normal is None else ring & normal[window]


def compare_colour(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    ring: NDArray[np.bool_],
    reference: NDArray[np.uint8] | None = None,
) -> ColourDifference:
    """Compare the mean colour inside ``mask`` with that of ``ring``, or of ``reference`` inside ``mask``.

    All share one window: ``pixels`` and ``reference`` are uint8 RGB (h, w, 3), the masks bool (h, w).
    The noise floor is the largest difference that samples of the ring show, each as large as the region
    where room allows, against the rest of the ring (or the same pixels of the reference). Without enough ring
    there is no noise floor, therefore no comparison: zero differences and ``NO_BASELINE``.
    """
    if ring.sum() < _MIN_RING:
        return ColourDifference(0.0, 0.0, 0.0, 0.0, 0.0, NO_BASELINE, SAME_BRIGHTNESS, None)
    region = _lab(pixels[mask]).mean(axis=0)
    order = _by_angle(mask, ring)
    around = _lab(pixels[ring], order)
    splits = _splits(len(around), int(mask.sum()))
    samples = np.array([around[part].mean(axis=0) for part in splits])
    if reference is None:
        base = around.mean(axis=0)
        total = around.sum(axis=0)
        expected = np.array([(total - around[p].sum(axis=0)) / (len(around) - len(p)) for p in splits])
    else:
        base = _lab(reference[mask]).mean(axis=0)
        normal = _lab(reference[ring], order)
        expected = np.array([normal[part].mean(axis=0) for part in splits])
    noise = float(_ciede2000(samples, expected).max())

    # Judge lightness and chroma apart, each in units of CIEDE2000.
    delta_l, delta_a, delta_b = (float(d) for d in region - base)
    lightness = (region[0] + base[0]) / 2
    floor = max(noise, BANDS.just_noticeable)
    brightness, colour = SAME_BRIGHTNESS, None
    if _ciede2000(region * (1, 0, 0), base * (1, 0, 0)) > floor:
        brightness = DARKER if delta_l < 0 else BRIGHTER
    if _ciede2000(np.array([lightness, *region[1:]]), np.array([lightness, *base[1:]])) > floor:
        colour = COLOURS[round(np.degrees(np.arctan2(delta_b, delta_a)) / 45) % 8]
    return ColourDifference(
        delta_l=delta_l,
        delta_a=delta_a,
        delta_b=delta_b,
        delta_e=float(_ciede2000(region, base)),
        noise_delta_e=noise,
        baseline=RING if reference is None else REFERENCE,
        brightness=brightness,
        colour=colour,
    )


def _ciede2000(lab1: NDArray[np.float64], lab2: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIEDE2000 between CIELAB colours (..., 3)."""
    difference: NDArray[np.float64] = deltaE_ciede2000(lab1, lab2)  # type: ignore[no-untyped-call]
    return difference


def _lab(pixels: NDArray[np.uint8], order: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
    """Convert RGB (N, 3) to CIELAB, in ``order`` where given, thinned evenly to ``_MAX_PIXELS``."""
    step = -(-len(pixels) // _MAX_PIXELS)
    chosen = pixels[::step] if order is None else pixels[order[::step]]
    lab: NDArray[np.float64] = rgb2lab(chosen)
    return lab


def _by_angle(mask: NDArray[np.bool_], ring: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Order the ring's pixels around the region, so that neighbours in the order are neighbours in place."""
    y, x = np.nonzero(ring)
    cy, cx = (coordinates.mean() for coordinates in np.nonzero(mask))
    return np.argsort(np.arctan2(y - cy, x - cx), kind="stable")


def _splits(n_ring: int, n_region: int) -> list[NDArray[np.intp]]:
    """Cut 0..n_ring-1 into 4 to 16 runs, each cut down to the size of the region."""
    n_runs = min(max(n_ring // n_region, 4), 16)
    return [run[:n_region] for run in np.array_split(np.arange(n_ring), n_runs)]
