"""Which good images of a labelled data set are fitted to, where its layout does not say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from explainvad.evaluation.datasets.items import LabelledDataset
from explainvad.lot import display_name
from explainvad.uncertainty.grouping import group_labels

TEST_SHARE = 1 / 3  # of the good images of a flat data set, kept from fitting


def for_fitting(dataset: LabelledDataset, group: str | None, seed: int) -> list[Path]:
    """Good images of a flat data set to fit on: whole groups, about two thirds of the images."""
    good = [item.path for item in dataset.test if item.defect is None]
    labels, _ = group_labels([display_name(path.name) for path in good], group)
    names = sorted(set(labels))
    order = np.random.default_rng(seed).permutation(len(names))
    size = Counter(labels)
    test: set[str] = set()
    for i in order:
        if sum(size[name] for name in test) >= TEST_SHARE * len(good):
            break
        test.add(names[int(i)])
    return [path for path, label in zip(good, labels, strict=True) if label not in test]
