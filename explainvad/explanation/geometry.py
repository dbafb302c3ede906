"""Size and shape of a mask: Feret diameters, solidity, holes, orientation, and the word for it all.

The outline follows scikit-image's convention for Feret diameters: a pixel contributes the midpoints of its
four edges, so that a straight line of n pixels is n long and 1 wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.measure import regionprops

from explainvad.explanation.bands import BANDS

SHAPES = ("compact", "elongated", "line-like", "irregular", "ring-shaped", "point-like")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Lengths in px; the other members as in :class:`explainvad.types.RegionFacts`."""

    length: float
    width: float
    elongation: float
    solidity: float
    holes: int
    shape: str
    orientation_deg: float | None


def describe_geometry(mask: NDArray[np.bool_]) -> Geometry:
    """Measure a mask, bool (H, W) with at least one set pixel; crop it first, time follows its size."""
    area = int(mask.sum())
    length, width, hull_area = _hull_measures(mask)
    elongation = length / width
    solidity = min(1.0, area / hull_area)
    holes, filled_area = _holes(mask)
    point = area < BANDS.point_area
    if point:
        shape = "point-like"
    elif elongation >= BANDS.line_like:
        shape = "line-like"
    elif area / filled_area < BANDS.ring_fill:
        shape = "ring-shaped"
    elif elongation >= BANDS.elongated:
        shape = "elongated"
    elif solidity < BANDS.irregular_solidity:
        shape = "irregular"
    else:
        shape = "compact"
    oriented = elongation >= BANDS.elongated and not point
    return Geometry(length, width, elongation, solidity, holes, shape, _orientation(mask) if oriented else None)


def _hull_measures(mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return the largest and smallest Feret diameter (px) and the area of the convex hull (px²)."""
    rows = np.flatnonzero(mask.any(axis=1))
    left = mask[rows].argmax(axis=1)
    right = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.concatenate((np.stack((left, rows), axis=1), np.stack((right, rows), axis=1)))
    midpoints = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])
    hull = ConvexHull((ends[:, None] + midpoints).reshape(-1, 2))
    corners = hull.points[hull.vertices]

    # The smallest width is always across an edge of the hull (rotating calipers; Shamos, 1978).
    across = corners @ hull.equations[:, :2].T
    width = float(np.ptp(across, axis=0).min())
    return float(pdist(corners).max()), width, float(hull.volume)


def _holes(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Count the holes worth the name, and return the area with every hole filled."""
    outside = np.pad(~mask, 1, constant_values=True)
    labels, _ = ndimage.label(outside)  # 4-connected, because the mask is 8-connected
    areas = np.bincount(labels.ravel())[2:]  # 0 is the mask, 1 the outside: it holds the first pixel
    filled = int(mask.sum() + areas.sum())
    return int((areas >= BANDS.hole_share * filled).sum()), filled


def _orientation(mask: NDArray[np.bool_]) -> float:
    """Angle of the major axis in degrees, from the x axis, counter-clockwise as seen, in [0, 180)."""
    (region,) = regionprops(mask.astype(np.uint8))  # type: ignore[no-untyped-call]
    return float((90 + np.degrees(region.orientation)) % 180)
