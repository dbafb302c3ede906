"""Whether an attribution map says what a score rests on: measured by changing pixels, and against true masks.

A map is faithful where the score falls when the places that it names are made normal, and does not when others are.
Normal pixels come from a reference picture of the same size, so that what is pasted is no new anomaly of its own,
unlike black or noise. Where the part lies differently in the two pictures, the seam of the paste is one: the control
beside every figure, the same paste elsewhere, shows how much.

Pixels are uint8 (H, W, 3), maps floating (H, W), masks bool (H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Pixels = NDArray[np.uint8]
Score = Callable[[Pixels], float]  # of an image; larger is more anomalous
TRIES = 200  # places that are tried for a control


@dataclass(frozen=True, slots=True, eq=False)
class Erased:
    """Scores of an image, of itself with a mask made normal, and with the same shape elsewhere made normal."""

    before: float
    inside: float
    elsewhere: tuple[float, ...]  # empty where the shape fits nowhere else

    @property
    def fall(self) -> float:
        """How much less the image scores without what is in the mask."""
        return self.before - self.inside

    @property
    def fall_elsewhere(self) -> float | None:
        """The mean fall of the controls; None without any."""
        return self.before - float(np.mean(self.elsewhere)) if self.elsewhere else None


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Score against the share of pixels replaced, most important first; 1 is the image's score, 0 the reference's."""

    shares: NDArray[np.float64]  # (n,), from 0 to 1
    deletion: NDArray[np.float64]  # (n,): the image, made normal place by place
    insertion: NDArray[np.float64]  # (n,): the reference, given the image's places one after the other

    @property
    def deletion_area(self) -> float:
        """Area under the deletion curve: small for a faithful map."""
        return float(np.trapezoid(self.deletion, self.shares))

    @property
    def insertion_area(self) -> float:
        """Area under the insertion curve: large for a faithful map."""
        return float(np.trapezoid(self.insertion, self.shares))


def paste(pixels: Pixels, reference: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """The picture with the reference's pixels where ``mask`` is True. ValueError unless all have one size."""
    if not pixels.shape == reference.shape == (*mask.shape, 3):
        raise ValueError(
            f"expected pictures (H, W, 3) and a mask (H, W) of one size, got {pixels.shape}, {reference.shape} and "
            f"{mask.shape}: resize the reference first"
        )
    return np.where(mask[..., None], reference, pixels)


def erase_test(
    score: Score, pixels: Pixels, reference: Pixels, mask: NDArray[np.bool_], controls: int = 3, seed: int = 0
) -> Erased:
    """Make a mask normal, and for comparison up to ``controls`` copies of its shape that do not touch it.

    Raises ValueError for an empty mask.
    """
    if not mask.any():
        raise ValueError("expected a mask of at least one pixel, got none: there is nothing to erase")
    others = _moved(mask, controls, np.random.default_rng(seed))
    return Erased(
        before=score(pixels),
        inside=score(paste(pixels, reference, mask)),
        elsewhere=tuple(score(paste(pixels, reference, other)) for other in others),
    )


def _moved(mask: NDArray[np.bool_], most: int, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """Copies of a shape moved to random places where they overlap neither it nor the border."""
    y, x = np.nonzero(mask)
    height, width = y.max() - y.min() + 1, x.max() - x.min() + 1
    found: list[NDArray[np.bool_]] = []
    for _ in range(TRIES):
        if len(found) == most:
            break
        top, left = (int(rng.integers(side - part + 1)) for side, part in zip(mask.shape, (height, width), strict=True))
        other = np.zeros_like(mask)
        other[y - y.min() + top, x - x.min() + left] = True
        if not (other & mask).any():
            found.append(other)
    return found


def deletion_insertion(
    score: Score, pixels: Pixels, reference: Pixels, values: NDArray[np.floating], steps: int = 10
) -> Curves | None:
    """Replace pixels in the order of a map, the largest values first (Petsiuk et al., "RISE", BMVC 2018).

    Shares grow by squares, (i / steps) ** 2, because defects are small: half of the steps fall on the first quarter.
    Scores are brought to 1 for the image and 0 for the reference. None where the image scores no more than that.
    """
    full, none = score(pixels), score(reference)
    if full <= none:
        return None
    order = np.empty(values.size, dtype=np.int64)
    order[np.argsort(-values, axis=None, kind="stable")] = np.arange(values.size)
    rank = order.reshape(values.shape)
    shares = (np.arange(steps + 1) / steps) ** 2
    deletion, insertion = [1.0], [0.0]
    for share in shares[1:-1]:
        chosen = rank < round(share * values.size)
        deletion.append((score(paste(pixels, reference, chosen)) - none) / (full - none))
        insertion.append((score(paste(reference, pixels, chosen)) - none) / (full - none))
    return Curves(shares, np.array([*deletion, 0.0]), np.array([*insertion, 1.0]))


def sensitivity(
    score: Score,
    pixels: Pixels,
    reference: Pixels,
    values: NDArray[np.floating],
    share: float = 0.1,
    subsets: int = 20,
    cell: int = 16,
    seed: int = 0,
) -> float | None:
    """Correlation, over random subsets, of a map's sum and the fall of the score when the subset is made normal.

    Sensitivity-n (Ancona et al., "Towards better understanding of gradient-based attribution methods", ICLR 2018), with
    squares of ``cell`` px in place of pixels: in [-1, 1]. None where sums or falls do not vary.
    """
    rng, full = np.random.default_rng(seed), score(pixels)
    rows, cols = (-(-side // cell) for side in values.shape)
    sums, falls = [], []
    for _ in range(subsets):
        grid = np.zeros(rows * cols, dtype=np.bool_)
        grid[rng.choice(grid.size, max(1, round(share * grid.size)), replace=False)] = True
        full_size = grid.reshape(rows, cols).repeat(cell, 0).repeat(cell, 1)
        chosen = full_size[: values.shape[0], : values.shape[1]]
        sums.append(float(values[chosen].sum()))
        falls.append(full - score(paste(pixels, reference, chosen)))
    if np.ptp(sums) == 0 or np.ptp(falls) == 0:
        return None
    return float(np.corrcoef(sums, falls)[0, 1])


def pointing_game(values: NDArray[np.floating], mask: NDArray[np.bool_], tolerance: int = 0) -> bool:
    """Whether the largest value lies in the true mask, or at most ``tolerance`` px off (Zhang et al., ECCV 2016)."""
    _require_one_size(values, mask)
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    near = mask[max(0, y - tolerance) : y + tolerance + 1, max(0, x - tolerance) : x + tolerance + 1]
    return bool(near.any())


def top_iou(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """IoU of the true mask with as many pixels of the largest values as it has: in [0, 1], no threshold to choose.

    ValueError for an empty mask.
    """
    _require_one_size(values, mask)
    if not (count := int(mask.sum())):
        raise ValueError("expected a true mask of at least one pixel, got none: good images have no overlap")
    top = np.zeros(mask.size, dtype=np.bool_)
    top[np.argsort(-values, axis=None, kind="stable")[:count]] = True
    both = int((top & mask.ravel()).sum())
    return both / (2 * count - both)


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float | None:
    """Spearman's correlation of the sizes of two maps' values, pixel by pixel; None where a map is constant.

    The sanity check of Adebayo et al. ("Sanity Checks for Saliency Maps", NeurIPS 2018): a map of a network with random
    weights that is like the trained one's shows the picture, not the network.
    """
    if one.shape != other.shape:
        raise ValueError(f"expected maps of one size, got {one.shape} and {other.shape}")
    ranks = [rankdata(np.abs(values), axis=None) for values in (one, other)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _require_one_size(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> None:
    if mask.dtype != np.bool_ or values.shape != mask.shape:
        raise ValueError(
            f"expected a map (H, W) and a bool mask of its size, got {values.shape} and {mask.dtype} {mask.shape}"
        )
