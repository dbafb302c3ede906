"""How well anomaly maps find defects, pixel by pixel, at the images' native resolution.

Masks are True where there is a defect; a larger value is more anomalous. A metric that the data cannot define (only
one class, no masks) is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explainvad.evaluation.metrics.deployed import DeployedThreshold
from explainvad.evaluation.metrics.pixel_counts import ImageCounts
from explainvad.evaluation.metrics.pixel_curves import PixelCurves
from explainvad.evaluation.metrics.ranked import STEP
from explainvad.evaluation.metrics.regions import DefectMask
from explainvad.evaluation.metrics.resampling import Measured, Resampling

FPR_LIMITS = (0.30, 0.05)
AUPIMO_BOUNDS = (1e-5, 1e-4)  # false positive rates
MAX_VALUES = 50_000_000  # kept of all images, 8 bytes each


@dataclass(frozen=True, slots=True)
class PixelScores:
    """Pixel metrics of a data set, and what they rest on.

    All but the counts are None unless normal and defect pixels occur. ``aupro`` and ``auspro`` are keyed by their
    limit of the false positive rate; ``auspro`` is None without annotated defects, ``aupimo`` without good images or
    where these have too few pixels to tell rates within AUPIMO_BOUNDS. ``aupimo_by_image`` follows the order of the
    images, None for good ones.
    """

    auroc: Measured | None
    aupr: Measured | None
    f1_max: Measured | None
    f1_deployed: Measured | None
    aupro: Mapping[float, Measured | None]
    auspro: Mapping[float, Measured | None]
    aupimo: Measured | None
    pointing: Measured | None
    aupimo_by_image: tuple[float | None, ...]
    n_images: int
    n_regions: int
    n_normal_pixels: int
    n_defect_pixels: int


class PixelMetrics:
    """Pixel metrics of a stream of anomaly maps, in bounded memory and without a known range of their values.

    - AUROC, average precision and largest F1 over all pixels.
    - AUPRO: the per-region overlap (PRO) at a threshold is the detected share of each connected (8-neighbour) region
      of the ground truth, averaged over the regions of all images, so that small defects count as much as large ones.
      AUPRO is its area over the false positive rate of all normal pixels, from 0 to a limit, divided by that limit
      (Bergmann et al., IJCV 129, 2021).
    - AU-sPRO: the same for annotated defects, each of which is found in full from its saturation area on (Bergmann et
      al., "Beyond dents and scratches", IJCV 2022).
    - AUPIMO: for each image with a defect, the mean of its true positive rate over the logarithm of the shared false
      positive rate, within AUPIMO_BOUNDS; shared is the mean of the rates of the good images. Then the mean over images
      (Bertoldo et al., "AUPIMO: redefining visual anomaly detection benchmarks with high speed and low tolerance", BMVC
      2024). Below the smallest rate that is not 0, the true positive rate at 0 is held.
    - Pointing game: see :func:`regions.pointing_hit`.

    Of each image some of its values are kept (see :mod:`ranked`): some 24,000 for a good one of 1024 x 1024 px, 190 kB.
    Beyond ``max_values`` of all images every other one is dropped. Each figure states a bound on what that changed:
    below 1e-4 on all kinds of maps that were tried, up to ``max_values``. The result does not depend on the range of
    the values, nor on the order of the images.
    """

    def __init__(self, threshold: DeployedThreshold | None = None, max_values: int = MAX_VALUES) -> None:
        if threshold is not None and not isinstance(threshold, DeployedThreshold):
            raise TypeError(f"threshold must be a DeployedThreshold, which says what it was set on, got {threshold!r}")
        self._threshold = threshold
        self._max_values = max_values
        self._step = STEP
        self._images: list[ImageCounts] = []
        self._n_values = 0

    def update(
        self,
        anomaly_map: NDArray[np.float32],
        gt_mask: NDArray[np.bool_],
        *,
        defects: Sequence[DefectMask] = (),
        sha256: str | None = None,
        name: str = "the image",
    ) -> None:
        """Add one image: finite float32 (H, W) and bool (H, W), all False for a good image.

        A defect image whose mask is not known must be left out: its pixels are of unknown class. ``defects`` are its
        annotated defects, whose masks make up ``gt_mask``, for data sets that have them. With a deployed threshold the
        ``sha256`` of the image's file must be given: raises LotError if the threshold was set on it.
        """
        if anomaly_map.dtype != np.float32 or anomaly_map.ndim != 2 or not np.isfinite(anomaly_map).all():
            raise ValueError(f"anomaly_map must be finite float32 (H, W), got {anomaly_map.dtype} {anomaly_map.shape}")
        if gt_mask.dtype != np.bool_ or gt_mask.shape != anomaly_map.shape:
            raise ValueError(
                f"gt_mask must be bool with the map's shape (H, W) = {anomaly_map.shape}, "
                f"got {gt_mask.dtype} {gt_mask.shape}"
            )
        for defect in defects:
            if defect.mask.shape != gt_mask.shape or not gt_mask[defect.mask].all():
                raise ValueError(
                    f"an annotated defect must lie within gt_mask {gt_mask.shape}, got {defect.mask.shape}"
                )
        if self._threshold is not None:
            self._threshold.refuse(sha256, name)
        deployed = self._threshold.value if self._threshold is not None else None
        image = ImageCounts.count(anomaly_map, gt_mask, defects, deployed, self._step)
        self._images.append(image)
        self._n_values += image.size
        while self._n_values > self._max_values and self._step < 0.5:
            self._step *= 2
            self._images = [each.coarser(self._step) for each in self._images]
            self._n_values = sum(each.size for each in self._images)

    def compute(self, fpr_limits: Sequence[float] = FPR_LIMITS, resampling: Resampling | None = None) -> PixelScores:
        """Evaluate what was added so far; ``fpr_limits`` in (0, 1]. Intervals come from resampling whole images."""
        if not all(0 < limit <= 1 for limit in fpr_limits):
            raise ValueError(f"fpr_limits must lie in (0, 1], got {tuple(fpr_limits)}")
        n_normal = sum(int(image.normal.total) for image in self._images)
        n_defect = sum(int(image.defect.total) for image in self._images)
        counts = len(self._images), sum(image.n_regions for image in self._images), n_normal, n_defect
        none: dict[float, Measured | None] = dict.fromkeys(fpr_limits)
        if not n_normal or not n_defect:
            nothing = (None,) * len(self._images)
            return PixelScores(None, None, None, None, none, dict(none), None, None, nothing, *counts)
        curves = PixelCurves(self._images, resampling or Resampling(), AUPIMO_BOUNDS)
        annotated = any(image.n_defects for image in self._images)
        aupimo, by_image = curves.aupimo()
        return PixelScores(
            auroc=curves.overlap("defect", 1.0),
            aupr=curves.aupr(),
            f1_max=curves.f1_max(),
            f1_deployed=curves.f1_deployed() if self._threshold is not None else None,
            aupro={limit: curves.overlap("regions", limit) for limit in fpr_limits},
            auspro={limit: curves.overlap("saturated", limit) if annotated else None for limit in fpr_limits},
            aupimo=aupimo,
            pointing=curves.pointing(),
            aupimo_by_image=by_image,
            n_images=counts[0],
            n_regions=counts[1],
            n_normal_pixels=n_normal,
            n_defect_pixels=n_defect,
        )
