"""The loss: what a memory bank needs of its features.

For each place of a test crop the nearest of the normal features decides, as it will in the bank. The distance, with one
scale and one limit for all surfaces, must be large where a defect is and small elsewhere.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.backbone.network import STRIDE

SHARPNESS = 80.0  # of the soft maximum over normal features
DEFECTIVE = 0.1  # share of a cell's pixels that makes it defective; fewer, but some, leave it out
DEFECT_WEIGHT = 4.0  # of a defective cell: there are few
WORST_WEIGHT = 0.3  # of the worst cells, which make an image's score, beside all cells


def distance_to_nearest(test: Tensor, normal: Tensor) -> Tensor:
    """Soft cosine distance (B, m, Q) of unit vectors ``test`` (B, m, Q, d) to the nearest of ``normal`` (B, N, d)."""
    similarity = test.flatten(1, 2) @ normal.transpose(1, 2)
    nearest = torch.logsumexp(SHARPNESS * similarity.float(), dim=2) - math.log(normal.shape[1])
    return (1 - nearest / SHARPNESS).unflatten(1, test.shape[1:3])


def cell_labels(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Label and weight, float32 (..., H / 8 * W / 8), of the cells of masks (..., H, W)."""
    share = F.avg_pool2d(mask.float().flatten(0, -3)[:, None], STRIDE).flatten(1).unflatten(0, mask.shape[:-2])
    label = (share > DEFECTIVE).float()
    certain = (share == 0) | (label > 0)
    return label, certain * torch.where(label > 0, DEFECT_WEIGHT, 1.0)


class NearestNeighbourLoss(nn.Module):
    """Cross-entropy of "this cell is defective" under a logistic of its distance, over all and over the worst cells."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.limit = nn.Parameter(torch.tensor(0.3))

    def forward(self, test: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
        """The loss of unit features of crops ``test`` (B, m, Q, d) beside what is normal there, ``normal`` (B, N, d).

        ``mask`` bool (B, m, H, W) belongs to the test crops.
        """
        logit = self.log_scale.exp() * (distance_to_nearest(test, normal) - self.limit)
        label, weight = cell_labels(mask)
        cells = F.binary_cross_entropy_with_logits(logit, label, weight, reduction="sum") / weight.sum()
        clean = logit.masked_fill((label > 0) | (weight == 0), -torch.inf).amax(2)
        found = logit.masked_fill(label == 0, -torch.inf).amax(2)
        worst = F.softplus(clean).mean() + F.softplus(-found[found.isfinite()]).sum() / found.numel()
        return cells + WORST_WEIGHT * worst
