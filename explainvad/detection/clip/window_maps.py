"""From scores of windows to maps of patches: WinCLIP's aggregations (Jeong et al., CVPR 2023, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from explainvad.detection.frames import blend_weight


def window_index(grid: int, k: int) -> Tensor:
    """Patches int64 ((grid - k + 1)^2, k * k) of each k x k window of a grid, counted row by row."""
    patches = torch.arange(grid * grid).reshape(grid, grid)
    return patches.unfold(0, k, 1).unfold(1, k, 1).reshape(-1, k * k)


def window_cover(grid: int, k: int) -> Tensor:
    """Which k x k window covers which patch: 0 or 1, float32 (windows, patches)."""
    index = window_index(grid, k)
    return torch.zeros(len(index), grid * grid).scatter_(1, index, 1.0)


def to_patches(scores: Tensor, cover: Tensor) -> Tensor:
    """Harmonic mean over the windows that cover a patch: n / sum(1/s). (..., windows) above 0 -> (..., patches)."""
    return cover.sum(0) / ((1 / scores) @ cover)


def over_scales(scores: Sequence[Tensor]) -> Tensor:
    """Harmonic mean over scales of equally shaped scores: 3 / (1/s_image + 1/s_2 + 1/s_3)."""
    return len(scores) / torch.stack([1 / score for score in scores]).sum(0)


def blended(maps: Tensor, places: Sequence[tuple[slice, slice]]) -> Tensor:
    """Maps (B, S, n) of squares at ``places`` in a frame of patches as maps (B, rows, cols) of the frame.

    Where squares overlap, the one in whose middle a patch lies counts most. A single square stays as it is.
    """
    rows, cols = (max(place[axis].stop for place in places) for axis in (0, 1))
    side = places[0][0].stop - places[0][0].start
    squares = maps.unflatten(2, (side, side))
    if len(places) == 1:
        return squares[:, 0]
    total, weight = torch.zeros(len(maps), rows, cols), torch.zeros(rows, cols)
    blend = blend_weight(side, side)
    for i, place in enumerate(places):
        total[:, *place] += blend * squares[:, i]
        weight[place] += blend
    return total / weight
