"""What scorers say of their own accord (``ImageScore.evidence``): maps on their grids, nearest normal patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from explainvad.types import ImageScore, NearestNormal

NEIGHBOUR, GRIDS = "neighbour", "reference_grids"  # names of the evidence of memory banks
PATCHES = 5  # most anomalous ones whose nearest normal patch is named

_MEANINGS = {
    "distance": "distance of each patch to what is normal, before smoothing",
    "residual": "length of what a reconstruction leaves of each place",
    "reference": "distance of each patch to the nearest of a few reference images",
    "text": "score of windows by their similarity to words",
}

Named = Callable[[int], tuple[str, str]]  # number of a reference image -> file and sha256, empty where unknown


class GridMap(NamedTuple):
    """Evidence on a grid (rows, cols) over the whole working frame."""

    name: str  # "distance", or "distance-2" for the second of several levels
    meaning: str
    values: NDArray[np.float32]


def grid_maps(score: ImageScore) -> Iterator[GridMap]:
    """The evidence that is a map: of known meaning, floating, (rows, cols) or (levels, rows, cols)."""
    for name, array in score.evidence.items():
        meaning = _MEANINGS.get(name.partition("-")[0])
        if meaning is None or not np.issubdtype(array.dtype, np.floating):
            continue
        if array.ndim == 2:
            yield GridMap(name, meaning, array.astype(np.float32))
        elif array.ndim == 3:
            for number, level in enumerate(array, start=1):
                yield GridMap(
                    f"{name}-{number}", f"{meaning}, level {number} of {len(array)}", level.astype(np.float32)
                )


def rebuilt_residual(score: ImageScore, shown: NDArray[np.uint8]) -> GridMap | None:
    """Mean over the channels of |x - x̂|, in grey levels, of a scorer that kept its reconstruction; else None.

    ``shown`` uint8 (rows, cols, 3) is the image in the frame of the reconstruction.
    """
    rebuilt = score.evidence.get("rebuilt")
    if rebuilt is None:
        return None
    residual = np.abs(rebuilt.astype(np.float32) - shown.astype(np.float32)).mean(2)
    return GridMap("reconstruction-residual", "difference of image and reconstruction, in grey levels", residual)


def nearest_normal(
    score: ImageScore, width: int, height: int, named: Named, most: int = PATCHES
) -> tuple[NearestNormal, ...]:
    """Of a memory bank's most anomalous patches the normal patch that each is nearest to, worst first.

    ``width`` and ``height`` are the image's, px. Empty for scorers that keep no neighbours.
    """
    neighbour, distance = score.evidence.get(NEIGHBOUR), score.evidence.get("distance")
    if neighbour is None or distance is None:
        return ()
    rows, cols = distance.shape
    grids = score.evidence.get(GRIDS)
    found = []
    for flat in np.argsort(-distance, axis=None, kind="stable")[:most]:
        row, col = divmod(int(flat), cols)
        number, at_row, at_col = (int(v) for v in neighbour[row, col])
        file, sha256 = named(number)
        found.append(
            NearestNormal(
                scorer=score.scorer,
                xyxy=(
                    col * width // cols,
                    row * height // rows,
                    -(-(col + 1) * width // cols),
                    -(-(row + 1) * height // rows),
                ),
                distance=float(distance[row, col]),
                reference=file,
                sha256=sha256,
                number=number,
                cell=(at_row, at_col),
                place=_place(grids, number, at_row, at_col),
            )
        )
    return tuple(found)


def _place(
    grids: NDArray[np.int32] | None, number: int, row: int, col: int
) -> tuple[float, float, float, float] | None:
    """Where a cell lies in its image, x0, y0, x1, y1 in shares of its sides; None where the bank did not note it."""
    if grids is None or number >= len(grids) or not grids[number].all():
        return None
    rows, cols = (int(side) for side in grids[number])
    return col / cols, row / rows, (col + 1) / cols, (row + 1) / rows
