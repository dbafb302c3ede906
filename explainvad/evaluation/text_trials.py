"""What is shown beside a region itself: a normal patch marked instead of it, and the region with its defect erased."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from explainvad.attribution.references import brought_to, decoded
from explainvad.evaluation.faithfulness import paste
from explainvad.explanation.alignment import AlignedReference
from explainvad.explanation.facts import frame_of
from explainvad.explanation.place import locate
from explainvad.types import XYXY, InspectionImage, Mask, Region

GRID = 24  # places a side that are tried for a normal patch
TRIES = 50  # of these, at most, are asked for their cell: a large region makes that slow
GAP = 3  # px between a normal patch and anything anomalous, and around what is erased

_EIGHT_CONNECTED = np.ones((3, 3), dtype=np.bool_)


def frame_box(mask: NDArray[np.bool_], part: NDArray[np.bool_] | None) -> XYXY:
    """The box (px, half-open) that the place words of the region ``mask``, bool (H, W), refer to."""
    y, x = np.nonzero(mask)
    return frame_of(x, y, (mask.shape[0], mask.shape[1]), part)[1]


def touched(truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected (8-neighbour) true defects, bool (H, W), that share a pixel with ``mask``."""
    labels, _ = ndimage.label(truth, structure=_EIGHT_CONNECTED)
    chosen = np.unique(labels[mask & truth])
    return np.asarray(np.isin(labels, chosen[chosen > 0]))


def moved_region(
    region: Region,
    elsewhere_than: tuple[str, ...],
    anomalous: NDArray[np.bool_],
    part: NDArray[np.bool_] | None,
    seed: tuple[int, int],
) -> Region | None:
    """The region's shape at another place that is normal; None where it fits nowhere.

    It lies on the part, where that is known, and keeps GAP px from ``anomalous``, bool (H, W), which must hold every
    defect and every region. Of all such places on a grid one is drawn, if possible in none of the cells
    ``elsewhere_than``.
    """
    x0, y0, x1, y1 = region.xyxy
    shape = region.mask.to_array()[y0:y1, x0:x1]
    blocked = ndimage.binary_dilation(anomalous, structure=_EIGHT_CONNECTED, iterations=GAP)
    if part is not None:
        blocked |= ~part
    height, width = anomalous.shape
    tops = np.unique(np.linspace(0, height - (y1 - y0), GRID).astype(int))
    lefts = np.unique(np.linspace(0, width - (x1 - x0), GRID).astype(int))
    free = [
        (int(top), int(left))
        for top in tops
        for left in lefts
        if not blocked[top : top + y1 - y0, left : left + x1 - x0][shape].any()
    ]
    if not free:
        return None
    order = np.random.default_rng(seed).permutation(len(free))
    places = [free[int(i)] for i in order]
    dy, dx = np.nonzero(shape)

    def cell(top: int, left: int) -> str:
        y, x = dy + top, dx + left
        return locate(x, y, frame_of(x, y, (height, width), part)[1]).place

    top, left = next((place for place in places[:TRIES] if cell(*place) not in elsewhere_than), places[0])
    mask = np.zeros_like(anomalous)
    mask[top : top + y1 - y0, left : left + x1 - x0] = shape
    peak = region.peak_xy[0] - x0 + left, region.peak_xy[1] - y0 + top
    box = (left, top, left + x1 - x0, top + y1 - y0)
    return replace(region, mask=Mask.from_array(mask), xyxy=box, peak_xy=peak, refined_by="threshold", refinement=None)


def erased(
    image: InspectionImage, defect: NDArray[np.bool_], reference: bytes, aligned: AlignedReference | None = None
) -> InspectionImage:
    """The picture with the nearest ``reference`` (JPEG bytes) pasted over ``defect``, bool (H, W), and GAP px around.

    It is taken as laid over the picture where it registers (``aligned``) and reaches that far, else as brought to the
    picture's size. Its colour is shifted so that, in a ring around the pasted place, the medians of both agree: other
    light must not look like a defect.
    """
    mask = ndimage.binary_dilation(defect, structure=_EIGHT_CONNECTED, iterations=GAP)
    ring = ndimage.binary_dilation(mask, structure=_EIGHT_CONNECTED, iterations=2 * GAP) & ~mask
    normal = _normal(image, mask | ring, reference, aligned).astype(np.float64)
    if ring.any():
        normal = normal + np.median(image.pixels[ring], axis=0) - np.median(normal[ring], axis=0)
    return replace(image, pixels=paste(image.pixels, np.clip(normal.round(), 0, 255).astype(np.uint8), mask))


def _normal(
    image: InspectionImage, wanted: NDArray[np.bool_], reference: bytes, aligned: AlignedReference | None
) -> NDArray[np.uint8]:
    """The reference in the picture's frame, (H, W, 3); where it is laid over it, only around what is ``wanted``."""
    rows, columns = (np.flatnonzero(wanted.any(axis=axis)) for axis in (1, 0))
    window = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    laid = None if aligned is None else aligned.crop(window)
    if laid is not None:
        normal = np.zeros_like(image.pixels)
        normal[window] = laid
        return normal
    return brought_to(decoded(reference), image.width, image.height)
