"""What a scorer's number is as a function of pixels: which window of the image, which cell of it, which network.

Everything that attribution needs of a scorer on a backbone is put together here, so that a scorer says only how its
number follows from the features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from explainvad.errors import NotExplainableError
from explainvad.types import InspectionImage, PixelFunction

Place = tuple[float, float]  # y, x in shares of the image's sides
Reading = Callable[[Sequence[Tensor]], Tensor]  # features (d, rows, cols) of a window, by layer -> ()


@runtime_checkable
class Traceable(Protocol):
    """A backbone through which gradients can be taken."""

    device: str

    def size(self, image: InspectionImage) -> tuple[int, int]:
        """Rows and columns, in px, of the working frame."""
        ...

    def frame(self, image: InspectionImage) -> Tensor:
        """The working frame as the network takes it, float32 (3, rows, cols)."""
        ...

    def windows(self, image: InspectionImage) -> list[tuple[slice, slice]]:
        """What of the working frame is seen at once, px."""
        ...

    def traced(self, frames: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Features (B, d, rows, cols) of each layer, through which gradients flow."""
        ...

    def module(self, layer: int) -> nn.Module:
        """The part of the network whose output a layer is."""
        ...

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        ...

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Side of a patch that attends, px, and tokens before the patches; None where patches do not attend."""
        ...


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in the window in whose middle it lies."""

    size: tuple[int, int]  # of the working frame, px
    window: tuple[slice, slice]  # px
    y: float  # px of the window
    x: float

    @classmethod
    def of(cls, size: tuple[int, int], windows: Sequence[tuple[slice, slice]], place: Place) -> Spot:
        """The spot of a place; of windows that overlap, the one from whose border it is farthest."""
        y, x = (min(max(share, 0.0), 1.0) * side for share, side in zip(place, size, strict=True))

        def inside(window: tuple[slice, slice]) -> float:
            rows, cols = window
            return min(y - rows.start, rows.stop - y, x - cols.start, cols.stop - x)

        rows, cols = max(windows, key=inside)
        return cls(size, (rows, cols), y - rows.start, x - cols.start)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the window, px."""
        return self.window[0].stop - self.window[0].start, self.window[1].stop - self.window[1].start

    def cell(self, rows: int, cols: int) -> tuple[int, int]:
        """The cell of a grid over the window."""
        height, width = self.shape
        return min(int(self.y * rows / height), rows - 1), min(int(self.x * cols / width), cols - 1)

    def origin(self, stride: int) -> tuple[int, int]:
        """First row and column of the window, in cells of ``stride`` px."""
        return self.window[0].start // stride, self.window[1].start // stride


def require_traceable(backbone: Any, label: str) -> Traceable:
    """The backbone, if gradients can be taken through it. Raises NotExplainableError."""
    if not isinstance(backbone, Traceable):
        raise NotExplainableError(
            f"{label}: no gradients can be taken through {getattr(backbone, 'name', 'its backbone')}"
        )
    return backbone


def most_anomalous(grid: NDArray[Any]) -> Place:
    """The middle of the cell of (rows, cols) with the largest value."""
    row, col = np.unravel_index(int(grid.argmax()), grid.shape)
    return (float(row) + 0.5) / grid.shape[0], (float(col) + 0.5) / grid.shape[1]


def traced_function(
    backbone: Traceable,
    layers: Sequence[int],
    image: InspectionImage,
    baseline: InspectionImage,
    spot: Spot,
    what: str,
    reading: Reading,
) -> PixelFunction:
    """The number that ``reading`` makes of the features of the spot's window."""
    tokens, grid, token, prefix = backbone.tokens, None, None, 0
    if tokens is not None:
        side, prefix = tokens
        grid = spot.shape[0] // side, spot.shape[1] // side
        token = spot.cell(*grid)

    def value(frames: Tensor) -> Tensor:
        levels = backbone.traced(frames, layers)
        return torch.stack([reading([level[i] for level in levels]) for i in range(len(frames))])

    y, x = spot.window
    return PixelFunction(
        what=what,
        value=value,
        frame=backbone.frame(image)[:, y, x],
        baseline=backbone.frame(baseline)[:, y, x],
        size=spot.size,
        window=spot.window,
        network=backbone.network,
        prefix=prefix,
        grid=grid,
        token=token,
        layer=backbone.module(max(layers, key=lambda layer: layer if layer >= 0 else 1 << 30)),
    )
