"""Where a region lies: a 3 x 3 grid, a clock and three radial zones, laid over the part or the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explainvad.explanation.bands import BANDS
from explainvad.types import XYXY

PLACES = (
    "upper left",
    "upper centre",
    "upper right",
    "middle left",
    "centre",
    "middle right",
    "lower left",
    "lower centre",
    "lower right",
)  # row by row
RADIAL_ZONES = ("centre", "middle", "rim")


@dataclass(frozen=True, slots=True)
class Location:
    """The members are those of :class:`explainvad.types.RegionFacts`."""

    place: str
    cells: tuple[str, ...]  # largest share first
    clock: int | None
    radial_zone: str


def locate(x: NDArray[np.intp], y: NDArray[np.intp], frame: XYXY) -> Location:
    """Name the place of the pixels (``x``, ``y``), int (N,), in ``frame`` (px, half-open).

    Pixels outside the frame count for its nearest cell. ``place`` is the cell that holds most of the
    region, at equal shares the one nearest to its centroid. The zone is that of the mean distance from the
    frame's centre; the clock is read at the centroid and left out where that is in the central zone.
    """
    x0, y0, x1, y1 = frame
    # Run from -1 to 1 across the frame, at pixel centres.
    u = (2 * x + 1 - x0 - x1) / (x1 - x0)
    v = (2 * y + 1 - y0 - y1) / (y1 - y0)
    u_mean, v_mean = float(u.mean()), float(v.mean())

    # Share the pixels among the cells.
    column = np.clip(np.floor(1.5 * (u + 1)), 0, 2).astype(np.intp)
    row = np.clip(np.floor(1.5 * (v + 1)), 0, 2).astype(np.intp)
    counts = np.bincount(3 * row + column, minlength=9)

    def rank(cell: int) -> tuple[int, float]:
        row, column = divmod(cell, 3)
        distance = np.hypot(u_mean - 2 / 3 * (column - 1), v_mean - 2 / 3 * (row - 1))
        return -int(counts[cell]), round(float(distance), 9)

    ranked = sorted(range(9), key=rank)

    # Read the clock in px, so that it is the angle a viewer sees.
    clock = None
    if np.hypot(u_mean, v_mean) >= BANDS.centre_radius:
        angle = np.degrees(np.arctan2(u_mean * (x1 - x0), -v_mean * (y1 - y0)))
        clock = int(np.floor(angle / 30 + 0.5)) % 12 or 12
    radius = float(np.hypot(u, v).mean())
    zone = (radius >= BANDS.centre_radius) + (radius >= BANDS.rim_radius)
    return Location(
        place=PLACES[ranked[0]],
        cells=tuple(PLACES[cell] for cell in ranked if counts[cell] >= BANDS.cell_share * x.size),
        clock=clock,
        radial_zone=RADIAL_ZONES[zone],
    )
