"""One optimisation step, as training and adaptation take it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from explainvad.detection.backbone.objective import NearestNeighbourLoss


def bf16_pays(device: str) -> bool:
    """Whether bfloat16 is faster than float32 here: on GPUs, and on CPUs with matrix tiles (AMX)."""
    return device.startswith("cuda") or torch.cpu._is_amx_tile_supported()


def vectors(features: Tensor) -> Tensor:
    """(B, d, rows, cols) -> (B, rows * cols, d)."""
    return features.flatten(2).transpose(1, 2)


def make_optimiser(network: nn.Module, objective: NearestNeighbourLoss, rate: float, decay: float) -> torch.optim.AdamW:
    """AdamW; scale and limit of the loss move ten times as fast and do not decay."""
    groups: list[dict[str, Any]] = [
        {"params": list(network.parameters()), "factor": 1.0},
        {"params": list(objective.parameters()), "factor": 10.0, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.98), weight_decay=decay)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set it for all groups, each by its factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def warm_cosine(progress: float, warm: float) -> float:
    """Share of the learning rate at ``progress`` in [0, 1): a linear rise, then half a cosine down to 1 %."""
    if progress < warm:
        return (progress + 1e-3) / (warm + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))


def training_step(
    network: nn.Module,
    objective: NearestNeighbourLoss,
    optimiser: torch.optim.Optimizer,
    normal: Tensor,
    test: Tensor,
    mask: Tensor,
    precision: str,
) -> float:
    """One step on ``normal`` (B, k, 3, s, s), ``test`` (B, m, 3, s, s) and ``mask`` (B, m, s, s); returns the loss.

    The test crops of an item meet the normal crops of the same item only.
    """
    b, k = normal.shape[:2]
    images = torch.cat((normal.flatten(0, 1), test.flatten(0, 1))).contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        features = vectors(network(images))
        bank = features[: b * k].reshape(b, -1, features.shape[2])
        loss = objective(features[b * k :].unflatten(0, test.shape[:2]), bank, mask)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())
