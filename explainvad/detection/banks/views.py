"""An image turned by multiples of 45 degrees, and which cell of the image each of its patches shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.types import InspectionImage

_COS = 0.5**0.5  # of 45 degrees, and its sine


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """``image`` is another one turned anticlockwise: by 45 degrees if ``eighth``, then by ``quarters`` of a turn."""

    image: InspectionImage
    quarters: int = 0
    eighth: bool = False

    def cells(self, rows: int, cols: int) -> Tensor:
        """Cell (row, col) of the unturned image that each cell shows, int64 (rows, cols, 2).

        Both are -1 where a cell shows what lies, in part, outside of the unturned image.
        """
        height, width = self.image.height, self.image.width
        if self.quarters % 2:
            rows, cols, height, width = cols, rows, width, height
        cells = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij"), dim=2)
        if self.eighth:
            size, grid = torch.tensor([height, width]), torch.tensor([rows, cols])
            cell = size / grid
            centre = _turned_back((cells + 0.5) * cell - size / 2) + size / 2
            reach = cell.sum() * _COS / 2  # of a turned cell, from its centre along either axis
            outside = ((centre < reach) | (centre > size - reach)).any(2, keepdim=True)
            cells = (centre / cell).long().masked_fill(outside, -1)
        return torch.rot90(cells, self.quarters)


def turned(image: InspectionImage, count: int) -> list[View]:
    """``count`` views of an image, evenly spaced over a full turn: 1, 4 or 8. Quarters are exact."""
    views = [View(_quarter(image, k), k) for k in range(4 if count > 1 else 1)]
    if count == 8:
        slanted = replace(image, pixels=_eighth(image))
        views += [View(_quarter(slanted, k), k, eighth=True) for k in range(4)]
    return views


def _quarter(image: InspectionImage, quarters: int) -> InspectionImage:
    return replace(image, pixels=np.ascontiguousarray(np.rot90(image.pixels, quarters))) if quarters else image


def _turned_back(yx: Tensor) -> Tensor:
    """Where points (..., 2), (y, x) from the centre, lay before the image was turned by 45 degrees."""
    y, x = yx.unbind(-1)
    return torch.stack((x + y, x - y), dim=-1) * _COS


def _eighth(image: InspectionImage) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Pixels (H, W, 3) turned by 45 degrees about the centre; what lies outside is mirrored."""
    size = torch.tensor([image.height, image.width])
    y, x = torch.meshgrid(torch.arange(image.height), torch.arange(image.width), indexing="ij")
    source = _turned_back(torch.stack((y, x), dim=2) + 0.5 - size / 2) / size * 2
    pixels = torch.tensor(image.pixels).permute(2, 0, 1)[None].float()
    full = F.grid_sample(pixels, source.flip(2)[None], padding_mode="reflection", align_corners=False)
    return full[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()
