"""PatchCore: a memory bank of the middle layers of a CNN.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022. A patch is the mean over its 3 x 3
neighbourhood (eq. 1-2; beyond the border zeros count, as in the authors' code) in two layers, the coarser one brought
bilinearly to the grid of the finer one. An image scores s*, the distance of its worst patch m_test,* to m*; with
``reweight`` (eq. 7)

    s = (1 - exp |m_test,* - m*| / sum over m in N_b(m*) of exp |m_test,* - m|) s*,

where N_b(m*) are the b rows nearest to m*, itself the first of them: where m* is rare itself, an image scores more.

anomalib 2.7 differs from the paper: it brings the patch map to the image by nearest neighbour, and finds N_b by rounded
distances, so that another row may come before m* and the weight be that row's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor

from explainvad.detection.banks.patch_bank import BankOptions, PatchBank
from explainvad.errors import ConfigError
from explainvad.types import InspectionImage

NEIGHBOURS = 9  # b


class PatchCoreOptions(BankOptions):
    """What PatchCore may be told."""

    backbone: str = Field("wide-resnet-50-2", description="the frozen network whose features are kept")
    layers: tuple[int, ...] = Field((2, 3), min_length=1, description="of the backbone, the finest grid first")
    reweight: bool = Field(False, description="whether an image scores more where m* is rare itself (eq. 7)")


class PatchCore(PatchBank[PatchCoreOptions]):
    """A memory bank of patches that join several layers."""

    name = "patchcore"
    summary = "Distance of each patch of a CNN's middle layers to the nearest normal patch of a coreset"
    source = "Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022"
    options_type = PatchCoreOptions

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Fill the bank. ConfigError for ``reweight`` with few images."""
        if self.separate and self.options.reweight:
            raise ConfigError(
                f"{self.label}: reweight = true is not for so few images that each is judged by the others, because a "
                "reweighted score can fall when images are left out: set reweight = false, or give more images"
            )
        super().fit(images, seed)

    def chosen_layers(self) -> tuple[int, ...]:
        """As the options say."""
        return self.options.layers

    def aggregated(self, levels: Sequence[Tensor]) -> Sequence[Tensor]:
        """Each layer (1, d, rows, cols) after taking in the neighbourhood of every patch."""
        return [F.avg_pool2d(level, 3, stride=1, padding=1) for level in levels]

    def assembled(self, levels: Sequence[Tensor]) -> Tensor:
        """The aggregated layers, joined on the first one's grid."""
        first, *others = self.aggregated([batch_of_one(level) for level in levels])
        size = first.shape[2:]
        return torch.cat([first, *(F.interpolate(level, size=size, mode="bilinear") for level in others)], dim=1)[0]

    def image_score(self, distance: Tensor) -> float:
        """s*, the largest distance."""
        return float(distance.max())

    def weight(self, query: Tensor, distance: float, index: int) -> float:
        """1 - softmax over N_b(m*) of the distances, at m*; 1 without ``reweight``."""
        bank = self._searching().bank
        if not self.options.reweight or len(bank) == 1:  # of a single row there is nothing to be rare among
            return 1.0
        return reweighting(query, bank, index)


def batch_of_one(level: Tensor) -> Tensor:
    """(d, rows, cols) as (1, d, rows, cols) in which torch recognises, and keeps, channels that lie last in memory."""
    return level.permute(1, 2, 0)[None].permute(0, 3, 1, 2)


def reweighting(query: Tensor, bank: Tensor, index: int) -> float:
    """The factor of eq. 7 for m_test,* (d,) and m* = ``bank[index]``, over the NEIGHBOURS rows nearest to m*."""
    apart = torch.cdist(bank[index, None].float(), bank.float())[0]
    apart[index] = -1.0  # m* comes first, however distances are rounded
    near = apart.topk(min(NEIGHBOURS, len(bank)), largest=False).indices
    return 1 - float(torch.softmax((query - bank[near].float()).norm(dim=1), 0)[0])
