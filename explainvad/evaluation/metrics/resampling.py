"""Bootstrap over images, within good and defect ones: one draw serves all metrics, which so stay paired.

Efron and Tibshirani, "An introduction to the bootstrap" (1993), chapter 13, percentile intervals. Images are drawn
whole, with all their pixels (a cluster bootstrap), so that pixels of one image never count as independent. It covers
the choice of test images, not that of training images or seeds. Where the classes separate perfectly an interval has
no width, which must not be read as certainty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric with its bootstrap interval, which is None where none was asked for.

    ``binning_error`` is a bound: the value over all thresholds, none of them joined, is not further away.
    """

    estimate: float
    lower: float | None
    upper: float | None
    confidence: float | None
    binning_error: float = 0.0
    resampled: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)  # its values, (n,)

    def plain(self) -> dict[str, Any]:
        """Without the resampled values, for JSON."""
        return {name: getattr(self, name) for name in ("estimate", "lower", "upper", "confidence", "binning_error")}


def interval_text(
    value: Mapping[str, Any] | None,
    digits: int,
    absent: str = "-",
    scale: float = 1,
    brackets: tuple[str, str] = ("[", "]"),
) -> str:
    """A metric as :meth:`Measured.plain` keeps it, for a table: the estimate, and its interval where there is one."""
    if value is None:
        return absent
    lower, upper = value.get("lower"), value.get("upper")
    text = f"{scale * value['estimate']:.{digits}f}"
    if lower is None or upper is None:
        return text
    return f"{text} {brackets[0]}{scale * lower:.{digits}f}, {scale * upper:.{digits}f}{brackets[1]}"


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made. Without resamples there are none."""

    n: int = N_RESAMPLES
    seed: int = 0
    confidence: float = CONFIDENCE

    def weights(self, defective: NDArray[np.bool_]) -> NDArray[np.float32]:
        """How often each image (n_images,) is drawn, in each resample: float32 (n, n_images) of whole numbers."""
        rng = np.random.default_rng(self.seed)
        drawn = np.zeros((self.n, len(defective)), dtype=np.float32)
        for members in (np.flatnonzero(defective), np.flatnonzero(~defective)):
            if len(members):
                chances = np.full(len(members), 1 / len(members))
                drawn[:, members] = rng.multinomial(len(members), chances, self.n)
        return drawn

    def measured(self, estimate: float, resampled: NDArray[np.float64] | None, binning_error: float = 0.0) -> Measured:
        """The estimate with the percentile interval of ``resampled`` (n,); values that are not defined are left out."""
        if resampled is None or not np.isfinite(resampled).any():
            return Measured(estimate, None, None, None, binning_error)
        tail = (1 - self.confidence) / 2
        lower, upper = np.nanquantile(resampled, [tail, 1 - tail])
        return Measured(estimate, float(lower), float(upper), self.confidence, binning_error, resampled)
