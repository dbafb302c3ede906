"""Which patches show the part: the first principal component of their features, thresholded (AnomalyDINO's mask).

Damm et al., "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2", WACV 2025. The paper fits the
component to each image and cuts it at a fixed value; here it is fitted to reference images, and cut where Otsu's
method divides them, so that every image is cut alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

BORDER = 0.2  # share of an image's sides that does not count as its middle
MIDDLE = 0.35  # of the middle that the part must fill at least
BINS = 256


def fit_foreground(grids: Sequence[Tensor]) -> tuple[Tensor, Tensor, float, float]:
    """Direction v (d,) and cut t (1,) so that x.v > t is foreground, and its shares of the middle and of the rim.

    ``grids`` are features (d, rows, cols) of reference images. The foreground is the side that fills more of the
    images' middle than of their outermost cells.
    """
    x = torch.cat([grid.flatten(1).T for grid in grids]).double()
    centred = x - x.mean(0)
    direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1].float()
    cut = torch.tensor([otsu(torch.cat([_along(grid, direction).flatten() for grid in grids]))])
    middle, rim = torch.tensor([_shares(_along(grid, direction) > cut) for grid in grids]).mean(0).tolist()
    if middle < rim:
        return -direction, -cut, 1 - middle, 1 - rim
    return direction, cut, middle, rim


def sensible(middle: float, rim: float) -> bool:
    """Whether such a foreground can be a part before a background: it fills the middle, and is mostly there."""
    return middle >= MIDDLE and rim <= middle / 2


def foreground(grid: Tensor, direction: Tensor, cut: Tensor) -> Tensor:
    """Bool (rows, cols), grown by one patch and without gaps of one or two, as the paper has it."""
    part = (_along(grid, direction) > cut)[None, None].float()
    grown = F.max_pool2d(part, 3, stride=1, padding=1)
    # closed beyond the border too, or it would grow together with it
    closed = -F.max_pool2d(-F.max_pool2d(F.pad(grown, (2,) * 4), 3, stride=1, padding=1), 3, stride=1, padding=1)
    return closed[0, 0, 2:-2, 2:-2] > 0


def otsu(values: Tensor) -> float:
    """The cut that divides values (n,) into two classes of least variance (Otsu, IEEE TSMC 1979)."""
    low, high = float(values.min()), float(values.max())
    count = torch.histc(values.float(), BINS, low, high).double()
    centre = low + (torch.arange(BINS) + 0.5).double() * (high - low) / BINS
    below, total = count.cumsum(0)[:-1], (count * centre).cumsum(0)
    above = count.sum() - below
    between = below * above * (total[:-1] / below.clamp_min(1) - (total[-1] - total[:-1]) / above.clamp_min(1)) ** 2
    # of a gap without values any cut is as good; its middle is taken
    best = torch.nonzero(between >= between.max() * (1 - 1e-9))[:, 0]
    return low + (float(best.double().mean()) + 1) * (high - low) / BINS


def _along(grid: Tensor, direction: Tensor) -> Tensor:
    return torch.einsum("drc,d->rc", grid, direction)


def _shares(part: Tensor) -> tuple[float, float]:
    """What ``part``, bool (rows, cols), fills of the middle and of the outermost cells."""
    rows, cols = part.shape
    top, left = int(BORDER * rows), int(BORDER * cols)
    middle = part[top : rows - top, left : cols - left]
    rim = torch.cat((part[0], part[-1], part[1:-1, 0], part[1:-1, -1]))
    return float(middle.float().mean()), float(rim.float().mean())
