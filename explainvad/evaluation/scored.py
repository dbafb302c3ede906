"""Labelled images, scored once: small enough to keep, and all that calibration needs to be split and judged anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from explainvad.attribution.references import ReferenceGallery
from explainvad.config import InspectionConfig
from explainvad.detection.ensemble import EmbeddedEnsemble
from explainvad.errors import LotError
from explainvad.evaluation.datasets.load import load_dataset
from explainvad.evaluation.datasets.masks import read_truth
from explainvad.inspection import acquired
from explainvad.lazy_images import LazyImages
from explainvad.lot import LotFile, read_image
from explainvad.types import ImageScore, InspectionImage, Progress
from explainvad.uncertainty.grouping import group_labels

GOOD = "good"
FIT_SHARE = 1 / 4  # of a data set's good groups: trains the scorers

LabelledImage = tuple[InspectionImage, str, str, float]  # image, group, kind, size of its defect
_MAPPINGS = ("values", "members", "features")


@dataclass(frozen=True, slots=True, eq=False)
class ScoredImages:
    """n images that no scorer was fitted to, with what is known of them and what the scorers say."""

    groups: NDArray[np.str_]  # (n,), images of one part
    kinds: NDArray[np.str_]  # (n,), GOOD or the defect's type
    sizes: NDArray[np.float64]  # (n,), sqrt of the mask's area, px; 0 for good, NaN without a mask
    values: Mapping[str, NDArray[np.float64]]  # by scorer (n,)
    members: Mapping[str, NDArray[np.float32]]  # by scorer (n, B)
    features: Mapping[str, NDArray[np.float64]]  # by acquisition gate (n,)

    @classmethod
    def score(cls, images: Iterable[LabelledImage], ensemble: EmbeddedEnsemble, gallery: ReferenceGallery) -> Self:
        """Score images one by one; their maps are not kept."""
        known: list[tuple[str, str, float]] = []
        columns: dict[str, dict[str, list[Any]]] = {name: {} for name in _MAPPINGS}
        for image, group, kind, size in images:
            known.append((group, kind, size))
            for s in ensemble.score(image):
                columns["values"].setdefault(s.scorer, []).append(s.value)
                columns["members"].setdefault(s.scorer, []).append(s.members)
            for name, value in acquired(image, gallery).items():
                columns["features"].setdefault(name, []).append(value)
        groups, kinds, sizes = zip(*known, strict=True)
        arrays = {name: {key: np.array(v) for key, v in column.items()} for name, column in columns.items()}
        return cls(np.array(groups), np.array(kinds), np.array(sizes, dtype=np.float64), **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            arrays: dict[str, dict[str, Any]] = {name: {} for name in _MAPPINGS}
            for key in data.files:
                kind, _, name = key.partition(".")
                if name:
                    arrays[kind][name] = data[key]
            return cls(data["groups"], data["kinds"], data["sizes"], **arrays)

    def save(self, path: Path) -> None:
        """Write one compressed ``.npz``."""
        arrays = {f"{kind}.{name}": array for kind in _MAPPINGS for name, array in getattr(self, kind).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, groups=self.groups, kinds=self.kinds, sizes=self.sizes, **arrays)

    def scored(self, i: int) -> tuple[list[ImageScore], dict[str, float]]:
        """Scores and acquisition features of image i as calibration meets them, with maps of a single pixel."""
        pixel = np.zeros((1, 1), np.float32)
        scores = [
            ImageScore(
                name,
                float(values[i]),
                pixel,
                members=self.members[name][i],
                member_maps=np.zeros((self.members[name].shape[1], 1, 1), np.float32),
            )
            for name, values in self.values.items()
        ]
        return scores, {name: float(values[i]) for name, values in self.features.items()}


def score_dataset(
    root: Path, config: InspectionConfig | None = None, group: str | None = None, progress: Progress | None = None
) -> ScoredImages:
    """Fit the scorers to a part of a labelled data set's normal images, and score all others.

    The scorers get FIT_SHARE of the groups of all good images, whether these lie in ``train/`` or not; the others are
    for calibration and test. ``group`` is a rule as in :func:`group_labels`. Raises LotError and ConfigError.
    """
    config = config or InspectionConfig()
    dataset = load_dataset(root)
    good = [*dataset.train, *(item.path for item in dataset.test if item.defect is None)]
    names = [path.relative_to(dataset.root).as_posix() for path in good]
    labels, _ = group_labels(names, group)
    shuffled = np.random.default_rng(config.seed).permutation(sorted(set(labels)))
    fitting = set(shuffled[: max(1, round(FIT_SHARE * len(shuffled)))].tolist())
    files = [LotFile(name, name, path, dataset.root) for name, path in zip(names, good, strict=True)]
    fit = LazyImages([file for file, label in zip(files, labels, strict=True) if label in fitting])
    if len(fit) == len(good):
        raise LotError(f"{root} has too few good images to fit on some and to calibrate on others: {len(good)}")
    detection = config.detection.model_dump()
    ensemble = EmbeddedEnsemble.fit(fit, config.seed, **detection, device=config.device, progress=progress)

    defects = [(item, item.defect) for item in dataset.test if item.defect is not None]
    defect_labels, _ = group_labels([item.file for item, _ in defects], group)

    def images() -> Iterable[LabelledImage]:
        for file, label in zip(files, labels, strict=True):
            if label not in fitting:
                yield read_image(file), label, GOOD, 0.0
        for (item, kind), label in zip(defects, defect_labels, strict=True):
            image = read_image(LotFile(item.file, item.file, item.path, dataset.root))
            truth = read_truth(item, (image.height, image.width))
            yield image, label, kind, float("nan") if truth is None else float(np.sqrt(truth.sum()))

    return ScoredImages.score(images(), ensemble, ReferenceGallery.fit(fit))
