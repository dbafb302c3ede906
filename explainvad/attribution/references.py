"""Nominal pictures to show beside a finding: the reference image that looks most like the inspected one.

Their thumbnails also tell how unlike the references a picture is, and how far it is displaced against them.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainvad.encoding import encoded
from explainvad.types import InspectionImage, ReferenceMatch

THUMBNAIL = 24  # px a side
KEPT = 0.9  # share of the thumbnails' differences, the smallest, that make the distance
LARGEST = 64  # pictures kept; more add weight to the bundle and hardly a better match
LONG_SIDE = 1024  # px of a kept picture
QUALITY = 92  # of its JPEG
REACH = 6  # thumbnail px, a quarter of the side: largest displacement that is searched

# Down and right; the smallest first, so that of equally good displacements the smallest is found
_SEARCHED = sorted(itertools.product(range(-REACH, REACH + 1), repeat=2), key=lambda s: s[0] ** 2 + s[1] ** 2)
_MEASURED = list(itertools.product(range(-REACH - 1, REACH + 2), repeat=2))  # with the neighbours of those


def decoded(picture: bytes) -> NDArray[np.uint8]:
    """A kept picture (JPEG), uint8 RGB (H, W, 3)."""
    with Image.open(io.BytesIO(picture), formats=["JPEG"]) as stored:
        return np.asarray(stored.convert("RGB"))


def brought_to(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) at the size of another picture, (height, width, 3); bicubic, proportions are not kept."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


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

    def __init__(
        self, thumbnails: NDArray[np.float32], pictures: Mapping[str, bytes], sources: Sequence[int] | None = None
    ) -> None:
        self.thumbnails, self.pictures = thumbnails, dict(pictures)
        self._sources = range(len(thumbnails)) if sources is None else sources  # which image each one shows
        self._ids = list(self.pictures)
        self._usual = np.median(thumbnails, axis=0)

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
            pictures[f"ref-{number:03d}"] = encoded(picture, "JPEG", quality=QUALITY)
        return cls(np.stack(thumbnails), pictures, chosen.tolist())

    def without(self, images: Sequence[int]) -> ReferenceGallery:
        """The gallery without some of the images that it was fitted to. Only a gallery just fitted knows them.

        ValueError when none would be left.
        """
        kept = [place for place, source in enumerate(self._sources) if source not in images]
        if not kept:
            raise ValueError(f"a gallery needs a picture, but all {len(self._ids)} were left out")
        pictures = {self._ids[place]: self.pictures[self._ids[place]] for place in kept}
        return ReferenceGallery(self.thumbnails[kept], pictures, [self._sources[place] for place in kept])

    def nearest(self, image: InspectionImage) -> tuple[ReferenceMatch, bytes]:
        """The most similar reference and its JPEG bytes."""
        squared = np.sort((self.thumbnails - thumbnail(image.pixels)) ** 2, axis=1)
        # without the largest tenth: a local defect, however strong, hardly moves the rest; another part does
        distance = np.sqrt(squared[:, : round(KEPT * squared.shape[1])].mean(axis=1))
        best = int(distance.argmin())
        picture = self.pictures[self._ids[best]]
        match = ReferenceMatch(self._ids[best], hashlib.sha256(picture).hexdigest(), float(distance[best]))
        return match, picture

    def displacement(self, image: InspectionImage) -> float:
        """How far the picture is displaced against the references, as a share of its sides: in [0, 0.39].

        The norm of (downward share of the height, rightward share of the width). The picture's thumbnail is laid over
        the median thumbnail at every shift up to a quarter of the side; the shift with the smallest mean absolute
        difference over the overlap counts, refined by a parabola through its neighbours. Absolute differences keep a
        defect from pulling: what is local adds nearly the same at every shift. What has no place in the picture (a
        texture), no end in it (a strip) or repeats (a grid) fits at several shifts: the value is then arbitrary, for
        references as for any other picture.
        """
        picture = thumbnail(image.pixels)
        misfit = {shift: _misfit(picture, self._usual, *shift) for shift in _MEASURED}
        down, right = min(_SEARCHED, key=misfit.__getitem__)
        down_more = _vertex(*(misfit[down + step, right] for step in (-1, 0, 1)))
        right_more = _vertex(*(misfit[down, right + step] for step in (-1, 0, 1)))
        return float(np.hypot(down + down_more, right + right_more)) / THUMBNAIL


def _misfit(picture: NDArray[np.float32], usual: NDArray[np.float32], down: int, right: int) -> float:
    """Mean absolute difference, over the overlap, of the picture and ``usual`` moved ``down`` and ``right``."""
    return float(np.abs(_cut(picture, down, right) - _cut(usual, -down, -right)).mean())


def _cut(flat: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
    """What of a thumbnail a frame still shows that is moved ``down`` and ``right``."""
    rows, columns = (slice(max(by, 0), THUMBNAIL + min(by, 0)) for by in (down, right))
    return flat.reshape(THUMBNAIL, THUMBNAIL)[rows, columns]


def _vertex(before: float, at: float, after: float) -> float:
    """Where a parabola through three equidistant values is smallest, in steps from the middle one: [-0.5, 0.5]."""
    return float(np.clip((before - after) / (2 * max(before - 2 * at + after, 1e-9)), -0.5, 0.5))
