"""Regions of the ground truth: found or not, and the share that each of their pixels has in per-region metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_EIGHT_CONNECTED = np.ones((3, 3), dtype=np.int8)

Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class DefectMask:
    """One annotated defect, which may consist of several pieces: bool (H, W), with at least one pixel.

    ``saturation`` is the area in px from which on it counts as found in full.
    """

    mask: Booleans
    saturation: float

    def __post_init__(self) -> None:
        if self.mask.dtype != np.bool_ or self.mask.ndim != 2 or not self.mask.any():
            raise ValueError(f"mask must be bool (H, W) and mark pixels, got {self.mask.dtype} {self.mask.shape}")
        area = np.count_nonzero(self.mask)
        if not 0 < self.saturation <= area:
            raise ValueError(f"saturation must be above 0 and at most the area, {area} px, got {self.saturation:g}")


def region_hit(mask_found: Booleans, mask_gt: Booleans) -> bool:
    """Whether what was found shares a pixel with the true defect; both bool (H, W).

    A mask of the whole image always hits: read it beside :func:`iou`.
    """
    _require_masks(mask_found, mask_gt)
    return bool((mask_found & mask_gt).any())


def iou(mask_found: Booleans, mask_gt: Booleans) -> float | None:
    """Intersection over union in [0, 1] of two bool (H, W) masks; None where both are empty."""
    _require_masks(mask_found, mask_gt)
    union = np.count_nonzero(mask_found | mask_gt)
    return np.count_nonzero(mask_found & mask_gt) / union if union else None


def pointing_hit(anomaly_map: NDArray[np.float32], mask_gt: Booleans) -> float:
    """Share of the map's largest values that lie inside the true defect, in [0, 1]; both (H, W).

    The pointing game (Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018) without its margin:
    with one largest value 0 or 1; among several it is what drawing one of them would hit on average, so that a map
    that says nothing scores as chance.
    """
    return float(mask_gt[anomaly_map == anomaly_map.max()].mean())


def region_shares(mask_gt: Booleans) -> tuple[NDArray[np.float64], int]:
    """1 / area of its region for each defect pixel, in row order (n,), and the number of regions (8-neighbours)."""
    regions, n_regions = ndimage.label(mask_gt, structure=_EIGHT_CONNECTED)
    region_of = regions[mask_gt]
    return np.asarray(1 / np.bincount(region_of)[region_of]) if n_regions else np.empty(0), int(n_regions)


def saturated_shares(
    anomaly_map: NDArray[np.float32], defects: Sequence[DefectMask]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Values (n,) of all pixels that can count, and their share (n,) in the saturated overlap of their defect.

    The saturated overlap of a defect at a threshold is min(pixels found / saturation, 1) (Bergmann et al., "Beyond
    dents and scratches", IJCV 2022). So its highest pixels count 1 / saturation each, until they add up
    to 1; among equal values it does not matter which. A pixel of two defects counts in both.
    """
    values, shares = [np.empty(0, np.float32)], [np.empty(0)]
    for defect in defects:
        of_defect = np.sort(anomaly_map[defect.mask])[::-1]
        n = min(len(of_defect), int(np.ceil(defect.saturation)))
        share = np.full(n, 1 / defect.saturation)
        share[-1] = 1 - (n - 1) / defect.saturation
        values.append(of_defect[:n])
        shares.append(share)
    return np.concatenate(values), np.concatenate(shares)


def _require_masks(mask_found: Booleans, mask_gt: Booleans) -> None:
    if mask_found.dtype != np.bool_ or mask_gt.dtype != np.bool_ or mask_found.shape != mask_gt.shape:
        raise ValueError(
            f"masks must be bool of one shape (H, W), got {mask_found.dtype} {mask_found.shape} "
            f"and {mask_gt.dtype} {mask_gt.shape}"
        )
