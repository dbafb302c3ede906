"""The trays on disk, in the layout of MVTec AD (Bergmann et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from explainvad.demo.defects import tidy_mask
from explainvad.demo.files import jpeg, png, write
from explainvad.demo.logical.defects import STRUCTURAL
from explainvad.demo.logical.layout import LOGICAL, Layout, good_layout
from explainvad.demo.logical.picture import TrayShot, expose, lay, silhouettes
from explainvad.errors import StorageError, UsageError

GOOD = "good"
_STEP = 4  # grey levels, above the noise that a twin picture shares
_CLEAR_STEP, _CLEAR_AREA = 20, 25  # grey levels, px: what a careful inspector cannot miss
_TRAIN, _TEST = 0, 1  # roles; part of every image's seed


@dataclass(frozen=True, slots=True, eq=False)
class Tray:
    """A picture (SIDE, SIDE, 3), what lies on it, and the mask (SIDE, SIDE) of its defect, empty for a good one."""

    picture: NDArray[np.uint8]
    layout: Layout
    mask: NDArray[np.bool_]


def draw_tray(kind: str, number: int, rng: np.random.Generator) -> Tray:
    """Draw a good tray, or one with a defect of ``kind``, a key of LOGICAL or STRUCTURAL.

    ``number`` counts trays of a kind and decides between its variants. Masks of logical defects are silhouettes of what
    is too many, misplaced or wrongly paired, or of what is missing, where it would lie; those of structural ones are
    where the picture differs from the same one without it. KeyError for another kind.
    """
    layout, shot = good_layout(rng), TrayShot.draw(rng)
    if kind in LOGICAL:
        defect = LOGICAL[kind](layout, number, rng)
        return Tray(expose(lay(defect.layout, shot), shot), defect.layout, silhouettes(defect.wrong, shot))
    light = lay(layout, shot)
    normal = expose(light, shot)
    if kind == GOOD:
        return Tray(normal, layout, np.zeros(normal.shape[:2], np.bool_))
    while True:  # a mark that nobody could see is drawn again
        picture = expose(STRUCTURAL[kind](light, rng), shot)
        step = np.abs(picture.astype(np.int16) - normal).max(axis=2)
        mask = tidy_mask(step >= _STEP)
        if (step >= _CLEAR_STEP).sum() >= _CLEAR_AREA:
            return Tray(picture, layout, mask)


def make_logical(out: Path, seed: int = 7, n_train: int = 60, n_good: int = 30, n_each: int = 10) -> Path:
    """Photograph trays into the new or empty folder ``out``, and return it.

    ``train/good`` gets ``n_train`` images, ``test/good`` ``n_good`` and ``test/<kind>`` ``n_each`` of each kind of
    LOGICAL and STRUCTURAL, with masks in ``ground_truth``. The same ``seed`` gives the same bytes; an image depends on
    the seed, its role, its kind and its number alone. Raises UsageError for a folder that is not empty and for
    impossible numbers, StorageError where it cannot be written.
    """
    if seed < 0 or min(n_train, n_good, n_each) < 1:
        raise UsageError(
            f"trays need a seed >= 0 and at least 1 image of each kind, got seed {seed} and {n_train}, {n_good} and "
            f"{n_each} images"
        )
    try:
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"trays need a new or empty folder, but {out} holds something: name another folder")
        for role, kind, number, folder in _plan(out, n_train, n_good, n_each):
            rng = np.random.default_rng([seed, role, _KINDS.index(kind), number])
            tray = draw_tray(kind, number, rng)
            write(folder / f"{number:03d}.jpg", jpeg(tray.picture))
            if tray.mask.any():
                write(out / "ground_truth" / kind / f"{number:03d}_mask.png", png(tray.mask))
    except OSError as error:
        raise StorageError(f"the trays cannot be written to {out}: {error}") from error
    return out


_KINDS = (GOOD, *LOGICAL, *STRUCTURAL)


def _plan(out: Path, n_train: int, n_good: int, n_each: int) -> Iterator[tuple[int, str, int, Path]]:
    """Role, kind, number and folder of every image."""
    yield from ((_TRAIN, GOOD, number, out / "train" / GOOD) for number in range(n_train))
    for kind in _KINDS:
        for number in range(n_good if kind == GOOD else n_each):
            yield _TEST, kind, number, out / "test" / kind
