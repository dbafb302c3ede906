"""One optimisation step: rates, which crops meet, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.backbone.network import Architecture, HybridBackbone
from explainvad.detection.backbone.objective import NearestNeighbourLoss
from explainvad.detection.backbone.optimisation import (
    make_optimiser,
    set_learning_rate,
    training_step,
    vectors,
    warm_cosine,
)

TINY = Architecture(stem=8, detail=8, width=16, context=16, conv_blocks=1, attention_blocks=1, heads=2, dimension=16)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def build(seed: int = 0) -> tuple[HybridBackbone, NearestNeighbourLoss, torch.optim.AdamW]:
    torch.manual_seed(seed)
    network, objective = HybridBackbone(TINY), NearestNeighbourLoss()
    return network, objective, make_optimiser(network, objective, 3e-3, 0.02)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Noise with a white square in the test crops: 2 items, 2 normal and 1 test crop each."""
    normal, test = 0.4 + 0.2 * torch.rand(2, 2, 3, 32, 32), 0.4 + 0.2 * torch.rand(2, 1, 3, 32, 32)
    mask = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    mask[..., 8:24, 8:24] = True
    test[..., 8:24, 8:24] = 1.0
    return normal, test, mask


def test_vectors_run_row_by_row() -> None:
    features = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert vectors(features).shape == (2, 20, 3)
    assert torch.equal(vectors(features)[1, 7], features[1, :, 1, 2])


def test_scale_and_limit_move_ten_times_as_fast_and_do_not_decay() -> None:
    network, objective, optimiser = build()
    set_learning_rate(optimiser, 0.02)
    weights, limits = optimiser.param_groups
    assert weights["lr"] == pytest.approx(0.02) and limits["lr"] == pytest.approx(0.2)
    assert weights["weight_decay"] == 0.02 and limits["weight_decay"] == 0
    assert {id(p) for p in limits["params"]} == {id(objective.log_scale), id(objective.limit)}
    assert {id(p) for p in weights["params"]} == {id(p) for p in network.parameters()}


def test_the_rate_rises_then_falls_to_a_hundredth() -> None:
    assert warm_cosine(0.0, 0.05) == pytest.approx(0.001 / 0.051)
    assert warm_cosine(0.05, 0.05) == pytest.approx(1)
    assert warm_cosine(0.525, 0.05) == pytest.approx(0.01 + 0.99 / 2)  # half-way down
    assert warm_cosine(1.0, 0.05) == pytest.approx(0.01)
    assert warm_cosine(0.0, 0.0) == 1
    rates = [warm_cosine(k / 200, 0.05) for k in range(200)]
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert min(rates) > 0 and max(rates) <= 1


class Mean(nn.Module):
    """Features: the direction of a cell's mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(F.avg_pool2d(images, 8) * self.gain, dim=1)


class Recorded(NearestNeighbourLoss):
    """Keeps what it was given."""

    def forward(self, test: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
        self.seen = test.detach(), normal.detach(), mask
        return super().forward(test, normal, mask)


def test_the_test_crops_of_an_item_meet_its_own_normal_crops() -> None:
    normal, test = torch.rand(3, 2, 3, 16, 16), torch.rand(3, 4, 3, 16, 16)
    mask = torch.zeros(3, 4, 16, 16, dtype=torch.bool)
    network, objective = Mean(), Recorded()
    optimiser = make_optimiser(network, objective, 0.0, 0.0)
    training_step(network, objective, optimiser, normal, test, mask, "fp32")
    seen_test, seen_normal, seen_mask = objective.seen
    assert seen_test.shape == (3, 4, 4, 3) and seen_normal.shape == (3, 8, 3)
    assert torch.equal(seen_mask, mask)
    with torch.no_grad():
        for item in range(3):
            expected = torch.cat([vectors(network(crop[None]))[0] for crop in normal[item]])
            torch.testing.assert_close(seen_normal[item], expected)
            for crop in range(4):
                torch.testing.assert_close(seen_test[item, crop], vectors(network(test[item, crop][None]))[0])


def test_steps_lower_the_loss_that_they_return() -> None:
    network, objective, optimiser = build()
    crops = batch()
    losses = [training_step(network, objective, optimiser, *crops, "fp32") for _ in range(12)]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < 0.7 * losses[0]


def test_steps_are_the_same_again() -> None:
    crops = batch()
    runs = []
    for _ in range(2):
        network, objective, optimiser = build()
        losses = [training_step(network, objective, optimiser, *crops, "fp32") for _ in range(2)]
        runs.append((losses, [p.tolist() for p in network.parameters()]))
    assert runs[0] == runs[1]


def gradient_after(steps: int, slope: float) -> float:
    """Norm of the last gradient of a network whose loss is ``slope`` times its only parameter's sum."""

    class Sum(NearestNeighbourLoss):
        def forward(self, test: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
            return slope * network.gain.sum()

    network, objective = Mean(), Sum()
    optimiser = make_optimiser(network, objective, 0.0, 0.0)
    for _ in range(steps):
        training_step(network, objective, optimiser, *batch(), "fp32")
    assert network.gain.grad is not None
    return network.gain.grad.norm().item()


def test_gradients_are_clipped_to_length_1_and_forgotten_before_the_next_step() -> None:
    assert gradient_after(1, slope=500.0) == pytest.approx(1, abs=1e-4)
    assert gradient_after(1, slope=0.1) == pytest.approx(0.1 * math.sqrt(3))
    assert gradient_after(3, slope=0.1) == pytest.approx(0.1 * math.sqrt(3))


def test_half_precision_is_for_the_arithmetic_alone() -> None:
    crops = batch()
    losses = {}
    for precision in ("fp32", "bf16"):
        network, objective, optimiser = build()
        losses[precision] = training_step(network, objective, optimiser, *crops, precision)
        assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
