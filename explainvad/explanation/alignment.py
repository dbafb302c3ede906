"""Lays a reference picture over an inspected image, where the two show one part in nearly one pose.

A similarity (turn, scale, shift) is found by inverse compositional Gauss-Newton (Baker & Matthews, "Lucas-Kanade 20
Years On: A Unifying Framework", IJCV 2004, section 3.2), first on blurred pictures, from the shift that phase
correlation gives. Both pictures are standardised at each step, so that exposure and contrast do not count. What does
not agree afterwards is not used: a texture has no place that a reference could share.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from explainvad.types import Alignment, InspectionImage

LONGEST_SIDE = 160  # px of the pictures that are compared
MIN_AGREEMENT = 0.6
LARGEST_SHIFT, LARGEST_TURN, LARGEST_SCALE = 0.15, 12.0, 1.12  # share of the longer side, degrees, either way
_BLURS = (3.0, 1.0)  # px, coarse to fine
_STEPS = 12  # at each
_STILL = 0.02  # px that a corner moves by in the last step
_MIN_OVERLAP = 0.7  # share of what could be compared that both pictures show
_LEAST = 256  # px that are compared
_CONTRAST = 1.0  # grey levels, standard deviation: with less there is nothing to see
_GAIN = (0.5, 2.0)

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class AlignedReference:
    """A normal picture that can be looked up at the places of an image of ``frame`` = (width, height) px.

    ``gain`` and ``offset`` (3,) bring its channels to the image's exposure.
    """

    picture: Image.Image
    frame: tuple[int, int]
    alignment: Alignment
    gain: Float
    offset: Float

    def crop(self, window: tuple[slice, slice]) -> NDArray[np.uint8] | None:
        """What is normal in a window (rows, columns) of the image, uint8 (h, w, 3); None where the picture ends."""
        rows, columns = window
        a, b, x, c, d, y = self.alignment.coefficients(self.frame, self.frame, self.picture.size)
        x, y = x + a * columns.start + b * rows.start, y + c * columns.start + d * rows.start
        width, height = columns.stop - columns.start, rows.stop - rows.start
        for right, down in product((0, width), (0, height)):
            across, along = a * right + b * down + x, c * right + d * down + y
            if not (0 <= across <= self.picture.width and 0 <= along <= self.picture.height):
                return None
        cut = self.picture.transform(
            (width, height), Image.Transform.AFFINE, (a, b, x, c, d, y), Image.Resampling.BILINEAR
        )
        levels = np.arange(256) * self.gain[:, None] + self.offset[:, None]
        return np.asarray(cut.point(levels.round().clip(0, 255).astype(int).ravel().tolist()))


def align(
    image: InspectionImage, reference: bytes, anomalous: NDArray[np.bool_], part: NDArray[np.bool_] | None = None
) -> AlignedReference | None:
    """Lay the picture of a ``reference`` (JPEG bytes) over ``image``; None where they do not register.

    Compared is what lies on the ``part``, bool (H, W), where it is known: a background stays where it is when a part is
    turned. ``anomalous``, bool (H, W), is left out, of the fit of the exposure too. They register where no more than
    LARGEST_SHIFT, LARGEST_TURN and LARGEST_SCALE part them and edges then agree by MIN_AGREEMENT at least.
    """
    with Image.open(io.BytesIO(reference), formats=["JPEG"]) as stored:
        picture = stored.convert("RGB")
    shrink = min(1.0, LONGEST_SIDE / max(image.width, image.height))
    size = max(8, round(shrink * image.width)), max(8, round(shrink * image.height))
    colours = [np.asarray(p.resize(size, Image.Resampling.BOX), dtype=np.float64) for p in _both(image, picture)]
    normal = ~ndimage.binary_dilation(_shrunk(anomalous, size) > 0, iterations=2)
    if part is not None:
        normal &= _shrunk(part, size) > 0.5
    grey = [colour @ (0.299, 0.587, 0.114) for colour in colours]

    found = np.eye(3)
    for blur in _BLURS:
        fixed, moving = (_blurred(g, blur) - _blurred(g, 4 * blur) for g in grey)  # light lies still when a part turns
        if min(fixed.std(), moving.std()) < _CONTRAST:
            return None
        if blur == _BLURS[0]:
            shift, *_ = phase_cross_correlation(fixed, moving, upsample_factor=4)  # type: ignore[no-untyped-call]
            found[[1, 0], 2] = -shift
        refined = _refined(fixed, moving, normal, found)
        if refined is None:
            return None
        found = refined

    inside = normal & _inside(found, size)
    agreement = _correlation(*(_edges(g)[inside] for g in (fixed, _warped(moving, found))))
    matched = _exposure(colours[0], np.dstack([_warped(colours[1][..., c], found) for c in range(3)]), inside)
    if agreement < MIN_AGREEMENT or matched is None:
        return None
    to_image = _resized((image.width, image.height), size)
    matrix = np.linalg.inv(to_image) @ found @ to_image
    return AlignedReference(picture, (image.width, image.height), _alignment(matrix, agreement), *matched)


def _alignment(matrix: Float, agreement: float = 0.0) -> Alignment:
    first, second = ((float(a), float(b), float(c)) for a, b, c in matrix[:2])
    return Alignment((first, second), agreement)


def _shrunk(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.float32]:
    """Share of set pixels in each of those of ``size`` (width, height)."""
    return np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX))


def _both(image: InspectionImage, picture: Image.Image) -> Iterator[Image.Image]:
    yield Image.fromarray(np.ascontiguousarray(image.pixels))
    yield picture


def _resized(before: tuple[int, int], after: tuple[int, int]) -> Float:
    """Matrix (3, 3) of pixel centres between two sizes (width, height) of one picture."""
    x, y = after[0] / before[0], after[1] / before[1]
    return np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])


def _refined(fixed: Float, moving: Float, normal: NDArray[np.bool_], start: Float) -> Float | None:
    """The similarity (3, 3) from pixels of ``fixed`` to ``moving`` (h, w); None where it leaves the limits."""
    height, width = fixed.shape
    centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    down, right = np.gradient(fixed)
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2]).reshape(2, 1, 1)
    # by the parameters of ((1 + p0, -p1), (p1, 1 + p0)) about the centre, and of the shift (p2, p3)
    steepest = np.stack([right * x + down * y, down * x - right * y, right, down], axis=-1)
    found = np.linalg.inv(centre) @ start @ centre
    for _ in range(_STEPS):
        whole = centre @ found @ np.linalg.inv(centre)
        compared = normal & _inside(whole, (width, height))
        if compared.sum() < max(_MIN_OVERLAP * normal.sum(), _LEAST) or not _within_limits(found, max(width, height)):
            return None
        target, seen = fixed[compared], _warped(moving, whole)[compared]
        if min(target.std(), seen.std()) < _CONTRAST:
            return None
        error = (seen - seen.mean()) * (target.std() / seen.std()) - (target - target.mean())
        slopes = steepest[compared]
        slopes = slopes - slopes.mean(axis=0)
        p = np.linalg.lstsq(slopes.T @ slopes, slopes.T @ error, rcond=None)[0]
        step = np.array([[1 + p[0], -p[1], p[2]], [p[1], 1 + p[0], p[3]], [0, 0, 1]])
        found = found @ np.linalg.inv(step)
        if np.hypot(*p[2:]) + np.hypot(*p[:2]) * max(width, height) / 2 < _STILL:
            break
    return centre @ found @ np.linalg.inv(centre) if _within_limits(found, max(width, height)) else None


def _within_limits(similarity: Float, longer_side: int) -> bool:
    """Of a similarity about the picture's centre."""
    scale = float(np.hypot(similarity[0, 0], similarity[1, 0]))
    turn = np.degrees(np.arctan2(similarity[1, 0], similarity[0, 0]))
    shift = np.hypot(similarity[0, 2], similarity[1, 2]) / longer_side
    return bool(shift <= LARGEST_SHIFT and abs(turn) <= LARGEST_TURN and 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE)


def _warped(moving: Float, matrix: Float) -> Float:
    picture = Image.fromarray(moving.astype(np.float32))
    size = picture.size
    coefficients = _alignment(matrix).coefficients(size, size, size)
    warped = picture.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.array(warped, dtype=np.float64)


def _inside(matrix: Float, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where a picture of ``size`` (width, height) still has something to show, bool (h, w)."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    across = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    along = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    inside: NDArray[np.bool_] = (across >= 0) & (across <= width - 1) & (along >= 0) & (along <= height - 1)
    return inside


def _blurred(picture: Float, sigma: float) -> Float:
    blurred: Float = ndimage.gaussian_filter(picture, sigma, mode="nearest", truncate=3)
    return blurred


def _edges(picture: Float) -> Float:
    down, right = np.gradient(picture)
    length: Float = np.hypot(down, right)
    return length


def _correlation(one: Float, other: Float) -> float:
    if min(one.std(), other.std()) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _exposure(wanted: Float, given: Float, inside: NDArray[np.bool_]) -> tuple[Float, Float] | None:
    """Gain and offset (3,) of the least squares line from ``given`` to ``wanted`` (h, w, 3); None beyond _GAIN."""
    to, of = wanted[inside], given[inside]
    centred = of - of.mean(axis=0)
    gain = (centred * (to - to.mean(axis=0))).sum(axis=0) / np.maximum((centred**2).sum(axis=0), 1e-9)
    if (gain < _GAIN[0]).any() or (gain > _GAIN[1]).any():
        return None
    return gain, to.mean(axis=0) - gain * of.mean(axis=0)
