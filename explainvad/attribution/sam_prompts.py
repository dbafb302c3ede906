"""What Segment Anything is asked about a region: a box, points in it where the evidence peaks, and points beside it.

All of it comes from the fused map, nothing from the kind of product or defect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from explainvad.types import XYXY

MOST_PEAKS = 3
SPACING = 0.25  # of the box's longer side: peaks closer than that are one
NEAR, FAR = 0.25, 1.0  # of the box's longer side: how far outside of the box nominal points are looked for
LEAST_NEAR, LEAST_FAR = 4, 12  # px, the same for small boxes; maps are blurred over about that much


@dataclass(frozen=True, slots=True, eq=False)
class SamPrompt:
    """One region's prompt; x, y in px of the image, pixel centres as whole numbers."""

    box: NDArray[np.float32]  # (4,), x0, y0, x1, y1: the centres of the first and last pixels
    points: NDArray[np.float32]  # (n, 2), x, y
    labels: NDArray[np.int64]  # (n,), 1 in the region, 0 nominal


def prompt_for(
    fused_map: NDArray[np.float32],
    component: NDArray[np.bool_],
    xyxy: XYXY,
    peak_xy: tuple[int, int],
    cluster_threshold: float,
) -> SamPrompt:
    """The prompt of one threshold component, bool (H, W), of a fused map float32 (H, W); ``xyxy`` half-open, px."""
    inside = peaks(fused_map, component, xyxy, peak_xy)
    outside = nominal_points(fused_map, xyxy, cluster_threshold)
    x0, y0, x1, y1 = xyxy
    return SamPrompt(
        np.array([x0, y0, x1 - 1, y1 - 1], dtype=np.float32),
        np.array([*inside, *outside], dtype=np.float32),
        np.array([1] * len(inside) + [0] * len(outside), dtype=np.int64),
    )


def peaks(
    fused_map: NDArray[np.float32], component: NDArray[np.bool_], xyxy: XYXY, peak_xy: tuple[int, int]
) -> list[tuple[int, int]]:
    """(x, y) of the highest local maxima in a component, its own peak first; at most MOST_PEAKS, apart by SPACING."""
    x0, y0, x1, y1 = xyxy
    window = slice(y0, y1), slice(x0, x1)
    values = np.where(component[window], fused_map[window], -np.inf)
    y, x = np.nonzero((values == ndimage.maximum_filter(values, size=3)) & component[window])
    order = np.lexsort((x, y, -values[y, x]))
    apart = max(2.0, SPACING * max(x1 - x0, y1 - y0))
    found = [peak_xy]
    for candidate in zip((x[order] + x0).tolist(), (y[order] + y0).tolist(), strict=True):
        if len(found) == MOST_PEAKS:
            break
        if all(np.hypot(candidate[0] - known[0], candidate[1] - known[1]) >= apart for known in found):
            found.append(candidate)
    return found


def nominal_points(fused_map: NDArray[np.float32], xyxy: XYXY, cluster_threshold: float) -> list[tuple[int, int]]:
    """(x, y) of the lowest map value beside the box on each of its four sides, where that side has a nominal place.

    Of equally low places the nearest to the box's centre is taken; what is above the threshold is no nominal place.
    """
    x0, y0, x1, y1 = xyxy
    centre = (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2
    found = []
    for rows, columns in _beside(xyxy, fused_map.shape):
        strip = fused_map[rows, columns]
        if strip.size == 0 or (lowest := float(strip.min())) > cluster_threshold:
            continue
        y, x = np.nonzero(strip == lowest)
        y, x = y + rows.start, x + columns.start
        nearest = np.lexsort((x, y, np.hypot(x - centre[0], y - centre[1])))[0]
        found.append((int(x[nearest]), int(y[nearest])))
    return found


def _beside(xyxy: XYXY, shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the strips above, below, left and right of the grown box, within the image."""
    x0, y0, x1, y1 = xyxy
    height, width = shape
    side = max(x1 - x0, y1 - y0)
    near, far = max(LEAST_NEAR, round(NEAR * side)), max(LEAST_FAR, round(FAR * side))

    def span(start: int, stop: int, length: int) -> slice:
        return slice(min(max(start, 0), length), min(max(stop, 0), length))

    yield span(y0 - far, y0 - near, height), span(x0, x1, width)
    yield span(y1 + near, y1 + far, height), span(x0, x1, width)
    yield span(y0, y1, height), span(x0 - far, x0 - near, width)
    yield span(y0, y1, height), span(x1 + near, x1 + far, width)
