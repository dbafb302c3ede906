"""The distance of one patch of an image to its nearest row of a bank, as a function of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from explainvad.detection.backbones import FeatureExtractor
from explainvad.detection.banks.searches import Search
from explainvad.detection.traced import Place, Spot, most_anomalous, require_traceable, traced_function
from explainvad.types import ImageScore, InspectionImage, PixelFunction


class Patches(Protocol):
    """What a bank of patches says of its patches."""

    extractor: FeatureExtractor
    layers: tuple[int, ...]

    @property
    def label(self) -> str:
        """The bank's name."""
        ...

    def assembled(self, levels: Sequence[Tensor]) -> Tensor:
        """Patches (d, rows, cols) of the layers' features."""
        ...

    def measure(self, distance: Tensor) -> Tensor:
        """The bank's distance, from the Euclidean one."""
        ...


def patch_function(
    bank: Patches,
    search: Search,
    image: InspectionImage,
    score: ImageScore,
    baseline: InspectionImage,
    at: Place | None,
) -> PixelFunction:
    """The distance of the most anomalous patch, or of that ``at`` a place, to the row m* that is nearest to it now.

    m* is held fast, so that the function is smooth; where pixels change so much that another row would be nearer, the
    bank's own distance is smaller than this one.
    """
    backbone = require_traceable(bank.extractor, bank.label)
    place = at or most_anomalous(score.evidence["distance"])
    spot = Spot.of(backbone.size(image), backbone.windows(image), place)

    def patch(levels: Sequence[Tensor]) -> Tensor:
        grid = bank.assembled(levels)
        row, col = spot.cell(*grid.shape[1:])
        return grid[:, row, col]

    y, x = spot.window
    with torch.no_grad():
        levels = backbone.traced(backbone.frame(image)[None, :, y, x], bank.layers)
        query = patch([level[0] for level in levels])
        found = search(query[None].float().cpu())
        row = search.bank[found.index[0]].float().to(query.device)

    def reading(levels: Sequence[Tensor]) -> Tensor:
        return bank.measure((patch(levels) - row).norm())

    what = f"distance of the patch at y {place[0]:.1%}, x {place[1]:.1%} to its nearest normal patch"
    return traced_function(backbone, bank.layers, image, baseline, spot, what, reading)
