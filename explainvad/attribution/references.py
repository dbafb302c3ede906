"""Nominal pictures to show beside a finding: the reference image that looks most like the inspected one."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainvad.types import InspectionImage, ReferenceMatch

THUMBNAIL = 24  # px a side
KEPT = 0.9  # share of the thumbnails' differences, the smallest, that make the distance
LARGEST = 64  # pictures kept; more add weight to the bundle and hardly a better match
LONG_SIDE = 1024  # px of a kept picture
QUALITY = 92  # of its JPEG


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luminance of uint8 (H, W, 3), reduced to THUMBNAIL x THUMBNAIL and standardised: float32 (THUMBNAIL ** 2,).

    Centre and deviation are those of the values between the 5th and 95th percentile: a defect, being local, must not
    change how the rest of the picture looks.
    """
    small = Image.fromarray(pixels).convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    x = np.asarray(small, dtype=np.float32).ravel()
    usual = np.clip(x, *np.percentile(x, (5, 95)))
    return np.asarray((x - usual.mean()) / max(float(usual.std()), 1.0), dtype=np.float32)


class ReferenceGallery:
    """Pictures of the FIT split, found by their thumbnails."""

    def __init__(self, thumbnails: NDArray[np.float32], pictures: Mapping[str, bytes]) -> None:
        self.thumbnails, self.pictures = thumbnails, dict(pictures)
        self._ids = list(self.pictures)

    @classmethod
    def fit(cls, images: Sequence[InspectionImage]) -> ReferenceGallery:
        """Keep up to LARGEST pictures, evenly spaced over ``images``."""
        chosen = np.unique(np.linspace(0, len(images) - 1, min(LARGEST, len(images))).round().astype(int))
        thumbnails, pictures = [], {}
        for number, i in enumerate(chosen, start=1):
            image = images[int(i)]
            thumbnails.append(thumbnail(image.pixels))
            picture = Image.fromarray(image.pixels)
            picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=QUALITY)
            pictures[f"ref-{number:03d}"] = stream.getvalue()
        return cls(np.stack(thumbnails), pictures)

    def nearest(self, image: InspectionImage) -> tuple[ReferenceMatch, bytes]:
        """The most similar reference and its JPEG bytes."""
        squared = np.sort((self.thumbnails - thumbnail(image.pixels)) ** 2, axis=1)
        # without the largest tenth: a local defect, however strong, hardly moves the rest; another part does
        distance = np.sqrt(squared[:, : round(KEPT * squared.shape[1])].mean(axis=1))
        best = int(distance.argmin())
        picture = self.pictures[self._ids[best]]
        match = ReferenceMatch(self._ids[best], hashlib.sha256(picture).hexdigest(), float(distance[best]))
        return match, picture
