"""Measured facts of a region: deterministic, and the only ground on which a sentence is judged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from explainvad.explanation.alignment import AlignedReference
from explainvad.explanation.colour import compare_colour, surroundings
from explainvad.explanation.geometry import describe_geometry
from explainvad.explanation.place import PLACES, locate
from explainvad.types import XYXY, InspectionImage, Region, RegionFacts

__all__ = ["PLACES", "frame_of", "measure"]

_MIN_NORMAL = 64  # px of ring inside the part: fewer, and the ring may leave the part


def measure(
    image: InspectionImage,
    region: Region,
    *,
    reference: AlignedReference | None = None,
    part_mask: NDArray[np.bool_] | None = None,
    exclude: NDArray[np.bool_] | None = None,
) -> RegionFacts:
    """Measure one region.

    Args:
        image: the inspected image, (H, W).
        region: its mask must have the image's shape and at least one pixel.
        reference: a normal picture laid over the image, see :func:`explainvad.explanation.alignment.align`; colours
            are then compared with it instead of the surrounding ring, where it reaches that far.
        part_mask: the part's silhouette, bool (H, W), see :func:`explainvad.explanation.part.part_mask`.
            Place and area refer to it when at least half of the region lies in its bounding box, else to
            the whole image. The area share is the ratio of areas, at most 1.
        exclude: other anomalous pixels, bool (H, W), kept out of the surroundings.

    Raises:
        ValueError: a shape or dtype is not as above, or the region is empty.
    """
    shape = (image.height, image.width)
    mask = region.mask.to_array()
    if mask.shape != shape or not mask.any():
        raise ValueError(
            f"{region.region_id}: mask must have the image's shape (H, W) = {shape} and a set pixel, "
            f"got {mask.shape} with {int(mask.sum())} set"
        )
    for name, given in (("part_mask", part_mask), ("exclude", exclude)):
        if given is not None and (given.dtype != np.bool_ or given.shape != shape):
            raise ValueError(f"{name} must be bool with shape {shape}, got {given.dtype} {given.shape}")

    y, x = np.nonzero(mask)
    area = int(x.size)
    frame, box, frame_area = frame_of(x, y, shape, part_mask)
    location = locate(x, y, box)
    in_image = location if frame == "image" else locate(x, y, (0, 0, image.width, image.height))
    geometry = describe_geometry(mask[y.min() : y.max() + 1, x.min() : x.max() + 1])

    # Compare colours with what is normal nearby, on the part where there is enough of it.
    window, ring = surroundings(mask, None if exclude is None else ~exclude)
    if frame == "part" and part_mask is not None:
        on_part = ring & part_mask[window]
        ring = on_part if on_part.sum() >= _MIN_NORMAL else ring
    normal = None if reference is None else reference.crop(window)
    colour = compare_colour(image.pixels[window], mask[window], ring, normal)

    scale = image.mm_per_pixel
    return RegionFacts(
        place=location.place,
        cells=location.cells,
        frame=frame,
        image_place=in_image.place,
        image_cells=in_image.cells,
        clock=location.clock,
        radial_zone=location.radial_zone,
        touches_edge=bool(x.min() == 0 or y.min() == 0 or x.max() == image.width - 1 or y.max() == image.height - 1),
        area_px=area,
        area_mm2=None if scale is None else area * scale**2,
        area_share=min(1.0, area / frame_area),
        length_px=geometry.length,
        width_px=geometry.width,
        length_mm=None if scale is None else geometry.length * scale,
        width_mm=None if scale is None else geometry.width * scale,
        elongation=geometry.elongation,
        solidity=geometry.solidity,
        holes=geometry.holes,
        shape=geometry.shape,
        orientation_deg=geometry.orientation_deg,
        delta_l=colour.delta_l,
        delta_a=colour.delta_a,
        delta_b=colour.delta_b,
        delta_e=colour.delta_e,
        noise_delta_e=colour.noise_delta_e,
        baseline=colour.baseline,
        brightness=colour.brightness,
        colour=colour.colour,
    )


def frame_of(
    x: NDArray[np.intp], y: NDArray[np.intp], shape: tuple[int, int], part_mask: NDArray[np.bool_] | None
) -> tuple[str, XYXY, int]:
    """Choose what the grid is laid over for the pixels (``x``, ``y``): its name, box and area in px."""
    height, width = shape
    if part_mask is not None and part_mask.any():
        rows = np.flatnonzero(part_mask.any(axis=1))
        columns = np.flatnonzero(part_mask.any(axis=0))
        x0, y0, x1, y1 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        if np.mean((x >= x0) & (x < x1) & (y >= y0) & (y < y1)) >= 0.5:
            return "part", (x0, y0, x1, y1), int(part_mask.sum())
    return "image", (0, 0, width, height), height * width
