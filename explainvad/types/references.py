"""The normal picture that an image is compared with, and how it lies over it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """The similarity that takes the centre of an image's pixel (x, y, 1) to that of a reference, px.

    The reference is thought of as brought to the image's size.
    """

    matrix: tuple[tuple[float, float, float], tuple[float, float, float]]
    agreement: float  # correlation of the lengths of both gradients outside the regions, in [-1, 1]

    def coefficients(
        self, frame: tuple[int, int], shown: tuple[int, int], reference: tuple[int, int]
    ) -> tuple[float, float, float, float, float, float]:
        """For Pillow's affine transform, which counts from the corners of pixels.

        From a picture of the image to one of the reference, of sizes ``shown`` and ``reference``; all are
        (width, height), px, that of the image itself is ``frame``.
        """
        (a, b, x), (c, d, y) = self.matrix
        x, y = x + 0.5 - (a + b) / 2, y + 0.5 - (c + d) / 2
        right, down = frame[0] / shown[0], frame[1] / shown[1]
        wide, high = reference[0] / frame[0], reference[1] / frame[1]
        return wide * a * right, wide * b * down, wide * x, high * c * right, high * d * down, high * y

    def moved(self, xyxy: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Where a box lies on the reference: about its moved centre, neither turned nor scaled."""
        (a, b, dx), (c, d, dy) = self.matrix
        x, y = (xyxy[0] + xyxy[2] - 1) / 2, (xyxy[1] + xyxy[3] - 1) / 2
        right, down = a * x + b * y + dx - x, c * x + d * y + dy - y
        return xyxy[0] + right, xyxy[1] + down, xyxy[2] + right, xyxy[3] + down


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceMatch:
    """The nearest nominal image of the bundle, shown beside the finding."""

    reference_id: str
    sha256: str
    distance: float  # trimmed root mean square difference of standardised thumbnails, >= 0
    alignment: Alignment | None = None  # None where it does not register, or was not asked for
