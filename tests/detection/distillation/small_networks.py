"""EfficientAD's networks with few channels, and an extractor whose features a hand can compute."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.distillation import pdn
from explainvad.types import InspectionImage


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Networks made from here on have the real layers with few channels."""
    patch.setitem(pdn.LAYERS, "small", ((4, 12), (4, 16), (3, 16), (4, None)))
    patch.setitem(pdn.LAYERS, "medium", ((4, 8), (4, 12), (1, 12), (3, 12), (4, None), (1, None)))
    patch.setattr(pdn, "ENCODER", (4, 4, 8, 8, 8))
    patch.setattr(pdn, "LATENT", 8)


class Colours:
    """Mean colours of cells of 4 px as layer 2, of 8 px and doubled as layer 3; frames as they are."""

    name, weights, device, resolution = "colours", "made by hand", "cpu", 64

    def request(self, layers: Sequence[int]) -> None:
        assert tuple(layers) == (2, 3)

    def levels(self, image: InspectionImage, layers: Sequence[int]) -> list[Tensor]:
        self.request(layers)
        pixels = torch.tensor(image.pixels).permute(2, 0, 1).float() / 255
        return [F.avg_pool2d(pixels, 4), 2 * F.avg_pool2d(pixels, 8)]
