"""Regions: what stands out of a fused map, cut at a threshold that was fixed before calibration.

A region is a cluster of pixels above the cluster threshold. Its mass, the sum of what exceeds the
threshold, is compared with the *largest* mass of every calibration image, which bounds the probability
of any false region on a normal image (the maximum-statistic argument of cluster inference; Bullmore et
al., "Global, voxel, and cluster tests", IEEE Trans. Med. Imaging 18, 1999). That holds only while
calibration and inspection cluster alike: both go through :func:`propose`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from explainvad.types import XYXY, ImageScore, InspectionImage, Mask, Region

JOIN_RADIUS = 0.004  # of the longer side: pieces up to twice this apart are one region (4 px at 400 px)

Contributions = Callable[[Sequence[ImageScore]], Mapping[str, NDArray[np.float32]]]


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """One cluster of a fused map. ``mask`` is bool (y1 - y0, x1 - x0), cropped to ``xyxy`` (half-open)."""

    xyxy: XYXY
    mask: NDArray[np.bool_]
    mass: float
    peak_xy: tuple[int, int]
    peak_value: float

    @property
    def window(self) -> tuple[slice, slice]:
        """Index of the box in an array of shape (H, W)."""
        x0, y0, x1, y1 = self.xyxy
        return slice(y0, y1), slice(x0, x1)

    def full_mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Paste the mask into an empty one of ``shape`` (H, W)."""
        full = np.zeros(shape, dtype=np.bool_)
        full[self.window] = self.mask
        return full


def propose(fused_map: NDArray[np.floating], cluster_threshold: float) -> list[Proposal]:
    """Cluster the pixels above ``cluster_threshold``, heaviest cluster first.

    Pixels are 8-connected, and so are pieces at most ``2 * JOIN_RADIUS`` of the longer side apart: the dashes of one
    scratch are one finding. Raises ValueError unless ``fused_map`` is a floating array of shape (H, W).
    """
    labels, n, masses = _clusters(fused_map, cluster_threshold)
    if n == 0:
        return []
    boxes = ndimage.find_objects(labels)
    y, x = np.nonzero(labels)
    by_value = np.lexsort((fused_map[y, x], labels[y, x]))
    last = np.cumsum(np.bincount(labels[y, x])[1:]) - 1  # the largest value of each label comes last
    peaks = zip(y[by_value[last]], x[by_value[last]], strict=True)
    found = [
        Proposal(
            xyxy=(box[1].start, box[0].start, box[1].stop, box[0].stop),
            mask=labels[box] == label,
            mass=float(mass),
            peak_xy=(int(x), int(y)),
            peak_value=float(fused_map[y, x]),
        )
        for label, (box, (y, x), mass) in enumerate(zip(boxes, peaks, masses, strict=True), start=1)
    ]
    return sorted(found, key=lambda proposal: -proposal.mass)


def cluster_mass(fused_map: NDArray[np.floating], cluster_threshold: float) -> float:
    """Return the mass of the heaviest cluster of an image, 0.0 when nothing exceeds the threshold.

    This is the statistic that calibration collects; it equals ``propose(...)[0].mass``.
    """
    _, _, masses = _clusters(fused_map, cluster_threshold)
    return float(masses.max(initial=0.0))


def _clusters(
    fused_map: NDArray[np.floating], cluster_threshold: float
) -> tuple[NDArray[np.signedinteger], int, NDArray[np.float64]]:
    """Label the clusters 1..n and weigh them all in one pass: labels (H, W), n, masses (n,)."""
    if fused_map.ndim != 2 or not np.issubdtype(fused_map.dtype, np.floating):
        raise ValueError(f"fused_map must be floating with shape (H, W), got {fused_map.dtype} {fused_map.shape}")
    above = fused_map > cluster_threshold
    radius = max(1, round(JOIN_RADIUS * max(above.shape)))
    joined = ndimage.maximum_filter(above.view(np.uint8), size=2 * radius + 1)
    labels, n = ndimage.label(joined, structure=np.ones((3, 3)))
    labels[~above] = 0
    excess = fused_map[above].astype(np.float64) - cluster_threshold
    masses = np.bincount(labels[above], weights=excess, minlength=n + 1)[1:]
    return labels, int(n), masses.astype(np.float64)


class ThresholdAttributor:
    """Regions by threshold and cluster mass (types.Attributor).

    A region is returned when its ``p_value`` is at most ``region_alpha``, or when its peak exceeds
    ``pixel_threshold``. Each rule alone keeps P(any false region | normal) at its own level, so both
    together at no more than the sum. At most ``max_regions`` are returned, the heaviest.

    Args:
        cluster_threshold: in the fused map's unit; the one that ``region_p_value`` was calibrated with.
        pixel_threshold: in the fused map's unit; P(any pixel above | normal) is bounded by calibration.
        region_p_value: p-value of a cluster mass, in (0, 1], never rising with the mass.
        contributions: each scorer's additive part of the fused map, float32 (H, W) by scorer name.
        region_alpha: level of the mass rule, in (0, 1).
        max_regions: cap on what a page can show, >= 1.
        at_least: heaviest regions returned even where they are not significant, as their p-values then say: where to
            look first on an image that was rejected as a whole.
    """

    def __init__(
        self,
        cluster_threshold: float,
        pixel_threshold: float,
        region_p_value: Callable[[float], float],
        contributions: Contributions,
        region_alpha: float = 0.05,
        max_regions: int = 20,
        at_least: int = 0,
    ) -> None:
        if not 0 < region_alpha < 1:
            raise ValueError(f"region_alpha must lie in (0, 1), got {region_alpha}")
        if max_regions < 1:
            raise ValueError(f"max_regions must be at least 1, got {max_regions}")
        self.cluster_threshold = cluster_threshold
        self.pixel_threshold = pixel_threshold
        self.region_p_value = region_p_value
        self.contributions = contributions
        self.region_alpha = region_alpha
        self.max_regions = max_regions
        self.at_least = at_least

    def regions(
        self, image: InspectionImage, fused_map: NDArray[np.float32], scores: Sequence[ImageScore]
    ) -> tuple[Region, ...]:
        """Cut significant regions (and the ``at_least`` heaviest) out of ``fused_map`` (H, W): "R1" is the heaviest.

        Raises ValueError when the map does not have the image's shape.
        """
        shape = (image.height, image.width)
        if fused_map.shape != shape:
            raise ValueError(f"fused_map must have the image's shape (H, W) = {shape}, got {fused_map.shape}")
        kept: list[tuple[Proposal, float]] = []
        for proposal in propose(fused_map, self.cluster_threshold):
            p_value = self.region_p_value(proposal.mass)
            significant = p_value <= self.region_alpha or proposal.peak_value > self.pixel_threshold
            if significant or len(kept) < self.at_least:
                kept.append((proposal, p_value))
            if len(kept) == self.max_regions:
                break
        if not kept:
            return ()
        parts = self.contributions(scores)
        scale = image.mm_per_pixel
        regions = []
        for number, (proposal, p_value) in enumerate(kept, start=1):
            area = int(proposal.mask.sum())
            regions.append(
                Region(
                    region_id=f"R{number}",
                    mask=Mask.from_array(proposal.full_mask(shape)),
                    xyxy=proposal.xyxy,
                    peak_xy=proposal.peak_xy,
                    peak_value=proposal.peak_value,
                    mass=proposal.mass,
                    area_px=area,
                    area_mm2=None if scale is None else area * scale**2,
                    p_value=p_value,
                    refined_by="threshold",
                    evidence_share=_evidence_share(proposal, parts),
                )
            )
        return tuple(regions)


def _evidence_share(proposal: Proposal, parts: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """Share each scorer's positive evidence inside the mask; evenly where no scorer has any."""
    evidence = {
        name: float(np.maximum(part[proposal.window][proposal.mask], 0).sum(dtype=np.float64))
        for name, part in parts.items()
    }
    total = sum(evidence.values())
    return {name: value / total if total > 0 else 1 / len(evidence) for name, value in evidence.items()}
