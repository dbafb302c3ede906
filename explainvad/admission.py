"""What of a lot reaches the model: files decoded ahead, and pictures of a size and a calibration cell that it knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Protocol

from explainvad.errors import UnreadableImageError, UsageError
from explainvad.lot import LotFile, read_image
from explainvad.model_card import size_range
from explainvad.read_ahead import AHEAD, read_ahead
from explainvad.types import InspectionImage
from explainvad.uncertainty.grouping import rule_labels


class Batched(Protocol):
    """What looks at several images at a time, where its ``batch`` is more than one."""

    @property
    def batch(self) -> int:
        """Images at a time."""
        ...

    def see(self, images: Sequence[InspectionImage]) -> None:
        """Look at images that will be scored next."""
        ...


def admitted(
    todo: Sequence[tuple[LotFile, str]], root: Path, mm_per_pixel: float | None, model: Batched
) -> Iterator[tuple[tuple[LotFile, str], Callable[[], InspectionImage]]]:
    """Files below ``root`` with what gives their image (or raises), decoded ahead, and seen by ``model`` in batches."""

    def read(item: tuple[LotFile, str]) -> InspectionImage:
        return read_image(item[0], root=root, mm_per_pixel=mm_per_pixel)

    size = model.batch
    with closing(read_ahead(todo, read, ahead=max(AHEAD, size))) as reading:
        while batch := list(islice(reading, size)):
            if size > 1:
                model.see(list(_readable(given for _, given in batch)))
            yield from batch


def _readable(reads: Iterable[Callable[[], InspectionImage]]) -> Iterator[InspectionImage]:
    for read in reads:
        with suppress(UnreadableImageError):  # said where that file's turn comes
            yield read()


def wrong_size(image: InspectionImage, sizes: Sequence[tuple[int, int]]) -> str | None:
    """Why an image's size is outside what a model knows: a quarter beyond the references' own range.

    ``sizes`` are the least and most of their widths, and of their heights, px.
    """
    for side, (low, high) in zip((image.width, image.height), sizes, strict=True):
        slack = (high - low) / 4
        if not low - slack <= side <= high + slack:
            return (
                f"size {image.width} x {image.height} px, but the model was fitted on {size_range(sizes)}: "
                "photograph it as the references were, or fit a model for it"
            )
    return None


def cells_of(files: Sequence[str], rule: str | None, known: Collection[str]) -> list[str]:
    """The calibration cell of each file; of a model with cells, empty where ``rule`` says nothing of the file.

    ``known`` are the model's cells; a model with one calibration for all has the cell "". Raises UsageError where a
    rule is given to a model without cells, or none to one with cells.
    """
    if set(known) == {""}:
        if rule:
            raise UsageError("group_by was given, but this model has one calibration for all: fit it with --group-by")
        return [""] * len(files)
    if rule is None:
        raise UsageError("this model is calibrated by cells: say with --group-by which cell a file belongs to")
    return [label or "" for label in rule_labels(files, rule)]


def unknown_cell(cell: str, known: Collection[str]) -> str | None:
    """Why images of a cell cannot be judged; None where they can."""
    if cell in known:
        return None
    return (
        f"belongs to {cell or 'no cell'}, and only {', '.join(sorted(known))} are calibrated: calibrate this one, or "
        "name it so"
    )
