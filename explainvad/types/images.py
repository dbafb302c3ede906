"""An image, what a scorer says of it, and a mask over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

XYXY = tuple[int, int, int, int]  # of a box, px, half-open


def require(condition: bool, message: str) -> None:
    """Raise ValueError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True, eq=False)
class InspectionImage:
    """One decoded image. ``pixels`` is uint8 RGB with shape (H, W, 3), EXIF orientation applied."""

    image_id: str
    file: str  # path below the lot, escaped for display
    pixels: NDArray[np.uint8]
    sha256: str  # of the file's bytes
    size_bytes: int
    source: Path
    mm_per_pixel: float | None = None
    notes: tuple[str, ...] = ()  # what decoding did: "16-bit, shown as value / 257", "first of 3 frames"

    def __post_init__(self) -> None:
        p = self.pixels
        require(
            p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 and p.size > 0,
            f"pixels must be uint8 with shape (H, W, 3), got {p.dtype} {p.shape}",
        )

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class ImageScore:
    """What one scorer says of one image.

    ``value`` is in the scorer's own unit, >= -inf. ``anomaly_map`` is float32 (H, W) in the image's frame.
    ``evidence`` names further arrays that attribution may use (each with its frame in the scorer's docs).
    ``members`` (B,) and ``member_maps`` (B, rows, cols), on a grid of the scorer's own over the whole image, are
    what the members of the scorer's family say instead (resampled banks, thinned decoders); empty where it has none.
    """

    scorer: str
    value: float
    anomaly_map: NDArray[np.float32]
    evidence: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    members: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    member_maps: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 1, 1), np.float32))

    def __post_init__(self) -> None:
        m = self.anomaly_map
        require(
            m.dtype == np.float32 and m.ndim == 2,
            f"anomaly_map of {self.scorer} must be float32 with shape (H, W), got {m.dtype} {m.shape}",
        )
        require(
            bool(np.isfinite(self.value)) and bool(np.isfinite(m).all()),
            f"the score and map of {self.scorer} must be finite",
        )
        require(
            self.members.ndim == 1 and self.member_maps.ndim == 3 and len(self.members) == len(self.member_maps),
            f"members of {self.scorer} must have shape (B,) and maps (B, rows, cols), got {self.members.shape} "
            f"and {self.member_maps.shape}",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A binary mask as run lengths, row by row, starting with a run of zeros (which may be empty)."""

    height: int
    width: int
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        require(
            sum(self.counts) == self.height * self.width,
            f"run lengths must add up to {self.height} x {self.width}, got {sum(self.counts)}",
        )

    @classmethod
    def from_array(cls, mask: NDArray[np.bool_]) -> Mask:
        """Encode a bool array of shape (H, W)."""
        require(
            mask.dtype == np.bool_ and mask.ndim == 2,
            f"mask must be bool with shape (H, W), got {mask.dtype} {mask.shape}",
        )
        flat = np.concatenate(([False], mask.ravel()))
        edges = np.flatnonzero(flat[1:] != flat[:-1])
        counts = np.diff(np.concatenate(([0], edges, [mask.size])))
        return cls(mask.shape[0], mask.shape[1], tuple(int(c) for c in counts))

    def to_array(self) -> NDArray[np.bool_]:
        """Decode to a bool array of shape (H, W)."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.height, self.width)

    @property
    def area(self) -> int:
        """Number of set pixels."""
        return sum(self.counts[1::2])
