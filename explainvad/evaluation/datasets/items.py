"""What a labelled data set is, wherever it comes from: items with split, label and masks, a source and its licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Split = Literal["train", "validation", "test"]
Marked = Literal["half", "nonzero"]  # pixels of a mask that are a defect: above half of the full range, or any but 0


@dataclass(frozen=True, slots=True)
class Licence:
    """Of a data set; ``commercial`` says whether commercial use is allowed, None where nobody stated it."""

    name: str
    commercial: bool | None

    def __str__(self) -> str:
        uses = {True: "commercial use allowed", False: "non-commercial use only", None: "terms of use not stated"}
        return f"{self.name}, {uses[self.commercial]}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set comes from. ``page`` is where its owners give it away, empty for data of one's own."""

    name: str
    page: str
    licence: Licence
    categories: frozenset[str] = frozenset()  # their names, where one's own data may lie in the same layout
    all_masked: bool = True  # whether every defect has a mask, so that a copy without one is damaged

    def where_to_get_it(self) -> str:
        """One sentence for a message."""
        return f"{self.name} ({self.licence}) is not downloaded for you: get it from {self.page}"


@dataclass(frozen=True, slots=True)
class LabelledItem:
    """One image. ``file`` is its path below the root, escaped for display; ``defect`` is its type, None for good.

    ``mask_paths`` is empty for a good image, and for a defect type that has no masks at all. The defect is what any
    of them marks.
    """

    path: Path
    file: str
    defect: str | None
    mask_paths: tuple[Path, ...] = ()
    split: Split = "test"
    marked: Marked = "half"


@dataclass(frozen=True, slots=True)
class Saturation:
    """The overlap from which on a defect of one kind counts as found in full: px, or a share of its own area."""

    threshold: float
    relative: bool

    def area(self, defect_area: int) -> float:
        """In px, for a defect of ``defect_area`` px, and at most that."""
        return min(self.threshold * defect_area if self.relative else self.threshold, float(defect_area))


@dataclass(frozen=True, slots=True)
class LabelledDataset:
    """One checked category of a data set. No content is in two of its splits.

    ``sha256`` is of each item's file. ``saturations`` is by the grey value that marks a kind of defect in its masks;
    empty for data sets without them.
    """

    root: Path
    source: Source
    category: str | None
    items: tuple[LabelledItem, ...]
    sha256: Mapping[Path, str] = field(compare=False)
    saturations: Mapping[int, Saturation] = field(default_factory=dict)

    @property
    def train(self) -> tuple[Path, ...]:
        """Normal images to fit on, those for validation among them.

        Empty for a flat folder, whose good items, all of them test items, the caller splits.
        """
        return tuple(item.path for item in self.items if item.split != "test" and item.defect is None)

    @property
    def test(self) -> tuple[LabelledItem, ...]:
        """Items to test on."""
        return tuple(item for item in self.items if item.split == "test")

    @property
    def unmasked_defects(self) -> tuple[str, ...]:
        """Defect types of the test without masks: image metrics count them, pixel metrics leave them out."""
        return tuple(sorted({i.defect for i in self.test if i.defect is not None and not i.mask_paths}))

    @property
    def name(self) -> str:
        """Data set and category in one line."""
        return f"{self.source.name} / {self.category}" if self.category else self.source.name
