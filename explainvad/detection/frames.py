"""Between an image's own frame and the working frame of a network.

The working frame keeps the aspect ratio (to within half a patch) and both its sides are multiples of the
patch. An image is reduced until its longer side is ``resolution``, but never by more than ``MAX_REDUCTION``:
a large image stays large, so that small defects survive, and is seen through overlapping windows instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from numpy.typing import NDArray
from torch import Tensor

MAX_REDUCTION = 4.0
FRAME_BYTES = 1 << 30  # of working frames held for training


def working_size(height: int, width: int, resolution: int, patch: int) -> tuple[int, int]:
    """Return (rows, columns) of the working frame in pixels, multiples of ``patch``.

    The longer side is ``resolution``, or a quarter of the image's where that is more; images are never enlarged
    beyond the rounding to patches, and to two of them.
    """
    longer = max(height, width)
    scale = min(1.0, max(resolution / longer, 1.0 / MAX_REDUCTION))
    # One patch alone could not be predicted from others, so the longer side has two at least
    least = {True: 2, False: 1}
    rows, cols = (max(least[side == longer], round(side * scale / patch)) * patch for side in (height, width))
    return rows, cols


def shorter_side_size(height: int, width: int, resolution: int, multiple: int) -> tuple[int, int]:
    """Rows and columns of a frame whose shorter side is about ``resolution`` px, both multiples of ``multiple``.

    The aspect ratio is kept to within half a multiple; rounding instead of cropping, so that no border goes unseen.
    Small images are enlarged; large ones are reduced by MAX_REDUCTION at most.
    """
    scale = max(resolution / min(height, width), 1.0 / MAX_REDUCTION)
    rows, cols = (max(2, round(side * scale / multiple)) * multiple for side in (height, width))
    return rows, cols


def resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """Resize uint8 (H, W, 3) to uint8 (3, rows, columns), bicubic and antialiased, as pretrained networks expect."""
    image = torch.tensor(pixels).permute(2, 0, 1)[None]
    if tuple(image.shape[2:]) == size:
        return image[0].contiguous()
    out = F.interpolate(image.float(), size=size, mode="bicubic", antialias=True, align_corners=False)
    return out[0].round().clamp(0, 255).to(torch.uint8)


def to_working(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """Resize uint8 (H, W, 3) to uint8 (3, rows, columns), antialiased."""
    image = torch.tensor(pixels).permute(2, 0, 1)[None]
    if tuple(image.shape[2:]) == size:
        return image[0].contiguous()
    # float on purpose: the uint8 kernels round differently on different processors
    resized = F.interpolate(image.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized[0].round().clamp(0, 255).to(torch.uint8)


def spread_out(count: int, most: int, least: int = 8) -> list[int]:
    """Indices of ``most`` of ``count`` images (but ``least`` at least), evenly spaced; all where there are no more."""
    kept = min(count, max(least, most))
    return torch.linspace(0, count - 1, kept).round().int().tolist()


def windows(rows: int, cols: int, side: int, patch: int) -> Iterator[tuple[slice, slice]]:
    """Cover a frame with windows of at most ``side`` px that overlap by a quarter or more, on patch borders."""

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        count = 1 + -(-(length - side) * 4 // (side * 3))
        return [round(i * (length - side) / (count - 1) / patch) * patch for i in range(count)]

    for top in starts(rows):
        for left in starts(cols):
            yield slice(top, min(rows, top + side)), slice(left, min(cols, left + side))


def blend_weight(rows: int, cols: int) -> Tensor:
    """Weight (rows, cols), in (0, 1], that falls towards the window's border, where context is missing."""

    def ramp(length: int) -> Tensor:
        position = (torch.arange(length) + 0.5) / length
        return torch.minimum(position, 1 - position).clamp(0.02, 0.25) * 4

    return ramp(rows)[:, None] * ramp(cols)[None, :]


def gaussian_blur(image: Tensor, sigma: float, cut: float = 3.0) -> Tensor:
    """Blur maps (..., rows, cols) with a Gaussian cut off at ``cut`` sigma; reflected borders keep a constant one."""
    radius = min(int(cut * sigma + 0.5), min(image.shape[-2:]) - 1)
    if sigma <= 0 or radius < 1:
        return image
    kernel = _gaussian(sigma, radius).to(image)
    padded = F.pad(image.reshape(-1, 1, *image.shape[-2:]), (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None, :]).reshape(image.shape)


def smooth_map(grid: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """A patch grid (rows, cols) as a map over the working frame of ``size`` px, blurred by ``sigma`` px, cut at 4.

    Both steps are linear and treat rows and columns apart, so that two small products do what a wide filter would.
    """
    down, across = (_smoothing(count, side, sigma) for count, side in zip(grid.shape, size, strict=True))
    return down.to(grid) @ grid @ across.T.to(grid)


@lru_cache(maxsize=64)
def _smoothing(count: int, side: int, sigma: float) -> Tensor:
    """What bilinear enlargement of ``count`` values to ``side`` and a blur do to them: (side, count), rows sum to 1."""
    full = F.interpolate(torch.eye(count)[None], size=side, mode="linear", align_corners=False)[0]
    radius = min(int(4 * sigma + 0.5), side - 1)
    if sigma <= 0 or radius < 1:
        return full.T.contiguous()
    padded = F.pad(full[:, None], (radius, radius), mode="reflect")
    return F.conv1d(padded, _gaussian(sigma, radius)[None, None])[:, 0].T.contiguous()


def _gaussian(sigma: float, radius: int) -> Tensor:
    """Weights (2 radius + 1,) that sum to 1."""
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    return kernel / kernel.sum()


def to_frame(working_map: Tensor, height: int, width: int) -> NDArray[np.float32]:
    """Bring a map from the working frame, or a patch grid over it, to the image's own frame: float32 (H, W)."""
    full = F.interpolate(working_map[None, None], size=(height, width), mode="bilinear", align_corners=False)
    return np.ascontiguousarray(full[0, 0].cpu().numpy(), dtype=np.float32)


def top_mean(working_map: Tensor, share: float = 0.001) -> float:
    """Mean of the largest ``share`` of a map's values (at least one): an image score that one pixel cannot make."""
    flat = working_map.reshape(-1)
    return float(flat.topk(max(1, round(flat.numel() * share))).values.mean())
