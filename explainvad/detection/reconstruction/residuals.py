"""How an image and its reconstruction are compared, pixel by pixel, and how far a network merely copies its input.

Pictures are float32 (3, rows, cols) on -1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explainvad.detection.frames import gaussian_blur


def squared(image: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean over the channels of (x - x̂)², (rows, cols) in [0, 4]."""
    return (image - rebuilt).square().mean(0)


def absolute(image: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean over the channels of |x - x̂|, (rows, cols) in [0, 2]."""
    return (image - rebuilt).abs().mean(0)


def ssim(image: Tensor, rebuilt: Tensor) -> Tensor:
    """(1 - SSIM) / 2 of the grey pictures, (rows, cols) in [0, 1]: structure, whatever the brightness.

    Wang et al., IEEE TIP 13(4), 2004, with its constants; Bergmann et al. (VISAPP 2019) score reconstructions with it.
    """
    c1, c2 = (2 * 0.01) ** 2, (2 * 0.03) ** 2  # (K L)², L = 2 being the range of values

    def blur(x: Tensor) -> Tensor:
        return gaussian_blur(x, 1.5)

    x, y = image.mean(0) + 1, rebuilt.mean(0) + 1  # luminance counts from black
    mean_x, mean_y = blur(x), blur(y)
    variance = blur(x * x) - mean_x.square() + blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (1 - luminance * (2 * covariance + c2) / (variance + c2)).clamp(0, 2) / 2


def gradient(image: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean over the channels of |grad(x - x̂)|, (rows, cols): edges that are there or not, whatever the brightness."""
    along_y, along_x = torch.gradient(image - rebuilt, dim=(1, 2))
    return torch.hypot(along_y, along_x).mean(0)


RESIDUALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": squared,
    "absolute": absolute,
    "ssim": ssim,
    "gradient": gradient,
}


def identity_gap(before: NDArray[np.float32], after: NDArray[np.float32], planted: NDArray[np.bool_]) -> float:
    """How much more a planted defect stands out than the same place did before: 1 where a network just copies it.

    ``before`` and ``after`` are maps (H, W) of one part without and with the defect, ``planted`` (H, W) is True on it;
    of each map its mean on the defect over its mean elsewhere is taken. They must be raw residuals (``usual=False``):
    deviations from what is usual have no zero to take ratios from. Raises ValueError otherwise.
    """
    if min(before.min(), after.min()) < 0:
        raise ValueError("an identity gap is of raw residuals, which are never negative: score with usual=False")
    if not planted.any() or planted.all():
        raise ValueError(f"a planted defect must cover a part of the map, got {planted.sum()} of {planted.size} px")
    on_it, was = (float(m[planted].mean()) / float(m[~planted].mean()) for m in (after, before))
    return on_it / was
