"""How well features tell defects from normal places on generated images that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from explainvad.detection.backbone.network import HybridBackbone
from explainvad.detection.backbone.objective import cell_labels
from explainvad.detection.backbone.optimisation import vectors
from explainvad.detection.neighbors import nearest
from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.items import make_item

SEED = 20_260_101  # of no training run
NORMAL_CROPS, TEST_CROPS = 6, 3


@dataclass(frozen=True, slots=True)
class HoldoutScore:
    """AUROC of cells pooled over a family's surfaces, of cells within a surface, and of crops by their worst cell."""

    pooled: float
    within: float
    crop: float


@torch.inference_mode()
def holdout_scores(network: HybridBackbone, families: Sequence[str], items: int, side: int) -> dict[str, HoldoutScore]:
    """Measure ``items`` held-out surfaces of each family with a hard nearest neighbour, as the memory bank has it."""
    training, device = network.training, next(network.parameters()).device
    network.eval()
    scores = {}
    for number, family in enumerate(families):
        distances, labels, within, crop_scores, crop_labels = [], [], [], [], []
        for index in range(items):
            item = make_item(Dice(SEED, number, index), family, normal=NORMAL_CROPS, test=TEST_CROPS, side=side)
            bank = vectors(network(item.normal.to(device))).cpu().reshape(-1, network.architecture.dimension)
            test = vectors(network(item.test.to(device))).cpu()
            distance = nearest(test.flatten(0, 1), bank)[0].reshape(test.shape[:2])
            label, weight = cell_labels(item.mask)
            kept = weight > 0
            distances.append(distance[kept].numpy())
            labels.append(label[kept].numpy())
            within.append(_auroc(labels[-1], distances[-1]))
            crop_scores += distance.amax(1).tolist()
            crop_labels += label.amax(1).tolist()
        scores[family] = HoldoutScore(
            pooled=_auroc(np.concatenate(labels), np.concatenate(distances)),
            within=float(np.nanmean(within)) if np.isfinite(within).any() else np.nan,
            crop=_auroc(np.array(crop_labels), np.array(crop_scores)),
        )
    network.train(training)
    return scores


def _auroc(labels: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    """AUROC; nan where one of the two classes is missing."""
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else float("nan")
