"""Acquisition gates: was this picture taken like the reference pictures?

A p-value holds for images exchangeable with the calibration images. A blurred, overexposed or foreign picture is
not; then the honest answer is to defer. Every feature is robust over the picture (a percentile, a trimmed mean, a best
fit), so that a defect, which is local, hardly moves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import laplace

from explainvad.types import GateResult, InspectionImage

MEANINGS = {
    "sharpness": "log of the 80th percentile of the absolute Laplacian of the luminance",
    "exposure": "mean luminance without the darkest and brightest tenth, 0 to 255",
    "contrast": "interquartile range of the luminance, grey levels",
    "likeness": "difference from the most similar reference image, standardised thumbnails",
    "framing": "displacement against the median reference image, as a share of the picture's sides",
}
ONE_SIDED = {"likeness", "framing"}  # no picture is too similar to its references, or too exactly in their place


def acquisition_features(image: InspectionImage, likeness: float, framing: float) -> dict[str, float]:
    """The gates' features of an image.

    ``likeness`` is the distance to its nearest reference, ``framing`` its displacement against the references as a
    share of its sides; both >= 0.
    """
    luminance = image.pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    low, quarter, three_quarters, high = np.percentile(luminance, (10, 25, 75, 90))
    middle = luminance[(luminance >= low) & (luminance <= high)]
    return {
        "sharpness": float(np.log(np.percentile(np.abs(laplace(luminance, mode="nearest")), 80) + 1e-3)),
        "exposure": float(middle.mean()),
        "contrast": float(three_quarters - quarter),
        "likeness": likeness,
        "framing": framing,
    }


@dataclass(frozen=True, slots=True, eq=False)
class AcquisitionGates:
    """Features standardised on NORM; one limit for the largest deviation, so that one level covers all gates."""

    centre: Mapping[str, float]
    scale: Mapping[str, float]

    @classmethod
    def fit(cls, features: Mapping[str, NDArray[np.float64]]) -> AcquisitionGates:
        """Fit to NORM: feature name -> values (n,)."""
        centre = {name: float(np.median(v)) for name, v in features.items()}
        # 1.4826 * MAD estimates a normal's deviation; the floor keeps identical images from having none
        scale = {
            name: max(1.4826 * float(np.median(np.abs(v - centre[name]))), 0.05 * float(np.std(v)), 1e-3)
            for name, v in features.items()
        }
        return cls(centre, scale)

    def deviation(self, features: Mapping[str, float]) -> float:
        """Largest standardised deviation over the gates: what CAL sets a limit for."""
        return max(self._deviation(name, value) for name, value in features.items())

    def _deviation(self, name: str, value: float) -> float:
        z = (value - self.centre[name]) / self.scale[name]
        return z if name in ONE_SIDED else abs(z)

    def results(self, features: Mapping[str, float], limit: float) -> tuple[GateResult, ...]:
        """Each gate with its limits in the feature's own unit; all pass exactly when ``deviation`` is <= ``limit``."""
        results = []
        for name, value in features.items():
            reach = limit * self.scale[name]
            lower = 0.0 if name in ONE_SIDED else self.centre[name] - reach
            passed = self._deviation(name, value) <= limit
            results.append(GateResult(name, value, lower, self.centre[name] + reach, passed, MEANINGS[name]))
        return tuple(results)
