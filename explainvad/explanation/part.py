"""The part's silhouette, where the background lets itself be told apart without doubt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from explainvad.types import InspectionImage

LONGEST_SIDE = 400  # px: a silhouette needs no more
MIN_CONTRAST = 12  # grey levels between background and threshold
MIN_SEPARABILITY = 0.75  # Otsu's eta: a linear ramp has exactly 0.75, two clean classes come near to 1
MIN_CLEAN_BORDER = 0.85  # share of the image border that is background
AREA_SHARE = (0.04, 0.92)  # of the image
MIN_LARGEST = 0.90  # share of the foreground that is one piece


def part_mask(image: InspectionImage) -> NDArray[np.bool_] | None:
    """Return the part's silhouette, holes filled, bool (H, W), or None where it cannot be told.

    The background is what has the colour of the image border. None, rather than a guess, when the border
    is not of one colour, when the two classes overlap (Otsu, "A threshold selection method from gray-level
    histograms", 1979: separability eta), or when the foreground is not one piece of plausible size.
    """
    step = max(1, -(-max(image.height, image.width) // LONGEST_SIDE))
    pixels = image.pixels[::step, ::step].astype(np.int16)
    if min(pixels.shape[:2]) < 8:
        return None

    # Measure every pixel's distance from the colour of the border.
    edge = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    background = np.median(edge, axis=0).astype(np.int16)
    distance = np.maximum.reduce([np.abs(pixels[..., c] - background[c]) for c in range(3)])
    if distance.min() == distance.max():
        return None
    threshold = float(threshold_otsu(distance))  # type: ignore[no-untyped-call]
    if threshold < MIN_CONTRAST or _separability(distance, threshold) < MIN_SEPARABILITY:
        return None
    if np.mean(np.abs(edge - background).max(axis=1) <= threshold) < MIN_CLEAN_BORDER:
        return None

    # Fill what the foreground encloses, then keep the largest piece.
    foreground = ndimage.binary_opening(distance > threshold, structure=np.ones((3, 3)))
    labels, _ = ndimage.label(_fill_holes(foreground))
    areas = np.bincount(labels.ravel())[1:]
    if areas.size == 0 or areas.max() < MIN_LARGEST * areas.sum():
        return None
    part: NDArray[np.bool_] = labels == 1 + int(areas.argmax())
    if not AREA_SHARE[0] <= part.mean() <= AREA_SHARE[1]:
        return None
    return part.repeat(step, axis=0).repeat(step, axis=1)[: image.height, : image.width]


def _separability(values: NDArray[np.int16], threshold: float) -> float:
    """Share of the variance that lies between the two classes, in [0, 1]."""
    high = values > threshold
    share = high.mean()
    between = share * (1 - share) * (values[high].mean() - values[~high].mean()) ** 2
    return float(between / values.var())


def _fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    filled: NDArray[np.bool_] = labels[1:-1, 1:-1] != labels[0, 0]
    return filled
