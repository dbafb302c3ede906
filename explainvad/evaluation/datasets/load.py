"""Labelled data sets where the user has them, recognised by their layout or called by name, and checked.

Nothing is downloaded. Of a known data set the licence is kept, and printed with every result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explainvad.errors import LotError
from explainvad.evaluation.datasets import class_folders, listed, sources
from explainvad.evaluation.datasets.checks import content_problems, mask_problems, missing_masks
from explainvad.evaluation.datasets.items import LabelledDataset, LabelledItem, Saturation, Source
from explainvad.evaluation.datasets.listing import folders

_LAYOUTS = """\
  ROOT/good/*                               images without defects
  ROOT/<defect>/*                           one folder per defect type
  ROOT/ground_truth/<defect>/<stem>.png     masks, white = defect (also <stem>_mask.png)
or MVTec AD's:
  ROOT/train/good/*                         images without defects, to fit on
  ROOT/test/good/*                          images without defects, to test on
  ROOT/test/<defect>/*                      one folder per defect type
  ROOT/ground_truth/<defect>/<stem>_mask.png"""
_MAX_PROBLEMS = 10  # named in one message


@dataclass(frozen=True, slots=True)
class Layout:
    """How a data set lies on the disk.

    ``fits`` says whether a folder is one category, or the whole where a list tells the ``categories``; ``read`` lists
    the items of a category (of the whole with a list). ``single``: there are no categories, and the folder's name is
    none. ``saturations`` reads from which overlap on defects count as found, by the grey value of their masks.
    """

    source: Source
    fits: Callable[[Path], bool]
    read: Callable[[Path, str | None, list[str]], list[LabelledItem]]
    categories: Callable[[Path], list[str]] | None = None
    single: bool = False
    saturations: Callable[[Path], dict[int, Saturation]] = lambda _root: {}


def _foldered(
    source: Source, fits: Callable[[Path], bool], read: Callable[[Path, list[str]], list[LabelledItem]], **special: Any
) -> Layout:
    return Layout(source, fits, lambda root, _category, problems: read(root, problems), **special)


# By the name that a user calls it; the first one that fits is taken, so that special ones come before general ones
LAYOUTS: dict[str, Layout] = {
    "csv": Layout(sources.OWN, lambda p: p.is_file() and p.suffix == ".csv", listed.read_csv, listed.csv_categories),
    "visa": Layout(sources.VISA, lambda p: (p / listed.VISA_SPLIT).is_file(), listed.read_visa, listed.visa_categories),
    "real-iad": Layout(
        sources.REAL_IAD,
        lambda p: bool(listed.real_iad_lists(p)),
        listed.read_real_iad,
        lambda p: sorted(listed.real_iad_lists(p)),
    ),
    "kolektorsdd2": _foldered(sources.KOLEKTOR, listed.fits_kolektor, listed.read_kolektor, single=True),
    "mvtec-ad-2": _foldered(sources.MVTEC_AD_2, class_folders.MVTEC_AD_2.fits, class_folders.MVTEC_AD_2.read),
    "mvtec-loco": _foldered(
        sources.MVTEC_LOCO,
        class_folders.fits_loco,
        class_folders.read_loco,
        saturations=class_folders.read_saturations,
    ),
    "bmad": _foldered(sources.BMAD, class_folders.fits_bmad, class_folders.read_bmad),
    "btad": _foldered(sources.BTAD, class_folders.BTAD.fits, class_folders.BTAD.read),
    "mvtec-ad": _foldered(sources.MVTEC_AD, lambda p: (p / "test").is_dir(), class_folders.MVTEC_AD.read),
    "mpdd": _foldered(sources.MPDD, class_folders.MVTEC_AD.fits, class_folders.MVTEC_AD.read),
    "folders": _foldered(sources.OWN, lambda p: (p / "good").is_dir(), class_folders.read_flat),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A data set on the disk: its layout and source, and where each category lies (None: it has only one)."""

    layout: str
    source: Source
    categories: dict[str | None, Path]


def find_dataset(root: Path, kind: str | None = None) -> Found:
    """Recognise what lies at ``root``: a data set, or one category of it; ``kind`` is a name of LAYOUTS.

    Raises :class:`LotError`, which says for a known data set where to get it, when nothing fits.
    """
    if kind is not None and kind not in LAYOUTS:
        raise LotError(f"no data set is called {kind!r}; expected one of {', '.join(LAYOUTS)}")
    if kind is None and (root / "test").is_dir() and (root / "good").is_dir():
        raise LotError(f"{root} must be a labelled data set in one layout, but both fit:\n{_LAYOUTS}")
    names = [kind] if kind is not None else list(LAYOUTS)
    for name in names:
        layout = LAYOUTS[name]
        if layout.fits(root):
            listed_names = layout.categories(root) if layout.categories else []
            places: dict[str | None, Path] = dict.fromkeys(listed_names, root)
            alone = not layout.categories and layout.source.page and not layout.single
            return Found(name, _source(name, root), places or {root.resolve().name if alone else None: root})
    for name in names:
        below: dict[str | None, Path] = {folder.name: folder for folder in folders(root) if LAYOUTS[name].fits(folder)}
        if below and LAYOUTS[name].categories is None and name != "folders":
            return Found(name, _source(name, next(iter(below.values()))), below)
    if kind is not None and (source := LAYOUTS[kind].source).page:
        raise LotError(f"{root} does not hold {source.name} as it is given away. {source.where_to_get_it()}")
    known = "; ".join(f"{name}: {x.source.name}, {x.source.page}" for name, x in LAYOUTS.items() if x.source.page)
    raise LotError(
        f"{root} must be a labelled data set in a known layout, but neither fits:\n{_LAYOUTS}\n"
        f"a CSV file with the columns image and label, or one of these, which are not downloaded for you: {known}"
    )


def load_dataset(root: Path, category: str | None = None, kind: str | None = None) -> LabelledDataset:
    """Read one category of the labelled data set at ``root``, in a stable order, and check all of it.

    ``root`` may be the category itself; ``kind`` is a name of LAYOUTS, recognised when not given. Raises
    :class:`LotError` that names each problem: no good or no defect images; a file that is not an image; an image
    without a mask (unless its defect type has none at all); a mask without an image; a mask of another size, empty or
    undecodable; content that occurs where it would falsify a result (in two splits, under two labels, or twice
    among good images that are still to be split).
    """
    found = find_dataset(root, kind)
    if category is None and len(found.categories) > 1:
        names = ", ".join(map(str, found.categories))
        raise LotError(f"{root} holds several categories of {found.source.name}: name one of {names}")
    chosen = category if category is not None else next(iter(found.categories))
    if chosen not in found.categories:
        raise LotError(f"{root} has no category {chosen!r}; it has {', '.join(map(str, found.categories))}")
    place, layout = found.categories[chosen], LAYOUTS[found.layout]
    problems: list[str] = []
    items = layout.read(place, chosen, problems)
    problems += missing_masks(items, found.source, paired=layout.categories is None)
    if layout.categories is not None:
        problems += _classes_missing(place, items)
    saturations = layout.saturations(place)
    problems += mask_problems(items, saturations)
    same, sha256 = content_problems(items, flat=not any(item.split == "train" for item in items))
    problems += same
    if problems:
        shown = "".join(f"\n  - {problem}" for problem in problems[:_MAX_PROBLEMS])
        more = f"\n  and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise LotError(f"the labelled data set {place} cannot be used as it is:{shown}{more}")
    place = place.parent if place.is_file() else place
    return LabelledDataset(place, found.source, chosen, tuple(items), sha256, saturations)


def _classes_missing(root: Path, items: list[LabelledItem]) -> list[str]:
    """A list has to name good and defect images."""
    test = [item for item in items if item.split == "test"]
    missing = [w for w, found in (("good", True), ("defect", False)) if all((i.defect is None) != found for i in test)]
    return [f"{root}: no {what} images for the test" for what in missing]


def _source(name: str, category: Path) -> Source:
    """Whose data lie in a layout: the owner's where the category is one of theirs, else one's own.

    MVTec AD and MPDD share a layout, and names such as bottle: a second category beside it, or the name of the
    folder above, has to tell them too.
    """
    called = category.resolve().name
    if name not in ("mvtec-ad", "mpdd"):
        source = LAYOUTS[name].source
        return source if called in source.categories or not source.categories else sources.OWN
    beside = {folder.name for folder in folders(category.resolve().parent) if (folder / "test").is_dir()}
    above = category.resolve().parent.name.lower().replace("_", "")
    for source in (sources.MVTEC_AD, sources.MPDD):
        confirmed = source.name.lower().replace(" ", "") in above or len(beside & source.categories) > 1
        if called in source.categories and confirmed:
            return source
    return sources.OWN
