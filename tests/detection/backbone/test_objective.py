"""The loss by hand: distances to the nearest, labels of cells, and what lowers it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.backbone.objective import (
    DEFECT_WEIGHT,
    SHARPNESS,
    WORST_WEIGHT,
    NearestNeighbourLoss,
    cell_labels,
    distance_to_nearest,
)

E1, E2, E3 = torch.eye(3)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def objective(scale: float = 1.0, limit: float = 0.5) -> NearestNeighbourLoss:
    loss = NearestNeighbourLoss()
    with torch.no_grad():
        loss.log_scale.fill_(math.log(scale))
        loss.limit.fill_(limit)
    return loss


def angled(distance: float) -> Tensor:
    """The unit vector between e1 and e2 at a cosine distance from e1."""
    cosine = 1 - distance
    return torch.stack((torch.tensor(cosine), torch.tensor(math.sqrt(1 - cosine**2)), torch.tensor(0.0)))


def mask_of(*pixels: int) -> Tensor:
    """Mask (8, 8 * n) whose n cells hold so many defective pixels each."""
    cells = [(torch.arange(64) < count).reshape(8, 8) for count in pixels]
    return torch.cat(cells, dim=1)


# --- Distance


def distance(test: Tensor, *normal: Tensor) -> float:
    return distance_to_nearest(test[None, None, None], torch.stack(normal)[None]).item()


def test_distance_by_hand() -> None:
    assert distance(E1, E1) == pytest.approx(0, abs=1e-6)
    assert distance(E1, E2) == pytest.approx(1)
    assert distance(E1, -E1) == pytest.approx(2)
    assert distance(E1, E1, E1, E1) == pytest.approx(0, abs=1e-6)  # many alike are as one
    # a soft maximum over a mean: one of two alike is short of it by log 2
    assert distance(E1, E1, E2) == pytest.approx((math.log(2) - math.log1p(math.exp(-SHARPNESS))) / SHARPNESS, abs=1e-6)
    assert distance(E1, E1, E2, E3, -E1) == pytest.approx(math.log(4) / SHARPNESS, abs=1e-6)


def test_every_test_feature_meets_the_normal_ones_of_its_own_item() -> None:
    test = torch.stack((E1, E2, E3)).expand(2, 2, 3, 3)
    normal = torch.stack((E1[None], E2[None]))
    expected = [[[0, 1, 1]] * 2, [[1, 0, 1]] * 2]
    torch.testing.assert_close(distance_to_nearest(test, normal), torch.tensor(expected, dtype=torch.float32))


def test_distances_of_half_precision_are_whole() -> None:
    test, normal = (F.normalize(torch.randn(1, 2, 3, 8), dim=3), F.normalize(torch.randn(1, 5, 8), dim=2))
    half = distance_to_nearest(test.bfloat16(), normal.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, distance_to_nearest(test, normal), atol=0.02, rtol=0)


# --- Labels


def test_a_cell_is_defective_from_a_tenth_and_uncertain_below() -> None:
    label, weight = cell_labels(mask_of(0, 1, 6, 7, 64)[None, None])  # a tenth of 64 px: 6.4
    assert label.tolist() == [[[0, 0, 0, 1, 1]]]
    assert weight.tolist() == [[[1, 0, 0, DEFECT_WEIGHT, DEFECT_WEIGHT]]]


def test_cells_run_row_by_row_as_features_do() -> None:
    mask = torch.zeros(2, 3, 16, 24, dtype=torch.bool)
    mask[1, 2, 8:, 8:16] = True
    label, weight = cell_labels(mask)
    assert label.shape == weight.shape == (2, 3, 6)
    assert label.nonzero().tolist() == [[1, 2, 4]]


# --- Loss


def test_the_loss_by_hand() -> None:
    # Distances 0, 1, 1, 0 against a limit of 1/2: each known cell is right by 1/2, and one is left out
    test = torch.stack((E1, E2, E3, E1))[None, None]
    loss = objective()(test, E1[None, None], mask_of(0, 64, 3, 0)[None, None])
    cells = (1 + DEFECT_WEIGHT + 1) * softplus(-0.5) / (1 + DEFECT_WEIGHT + 1)
    worst = softplus(-0.5) + softplus(-0.5)
    assert loss.item() == pytest.approx(cells + WORST_WEIGHT * worst)


def test_only_the_worst_cells_are_counted_twice() -> None:
    test = torch.stack((angled(0.1), angled(0.4), angled(0.7), angled(0.9)))[None, None]
    loss = objective(scale=2.0)(test, E1[None, None], mask_of(0, 0, 64, 64)[None, None])
    cells = softplus(-0.8) + softplus(-0.2) + DEFECT_WEIGHT * (softplus(-0.4) + softplus(-0.8))
    worst = softplus(-0.2) + softplus(-0.8)  # the farthest normal cell, and the farthest defective one
    assert loss.item() == pytest.approx(cells / (2 + 2 * DEFECT_WEIGHT) + WORST_WEIGHT * worst, rel=1e-5)


def test_a_cell_left_out_does_not_matter() -> None:
    mask = mask_of(0, 64, 3)[None, None]
    one, other = (objective()(torch.stack((E1, E2, third))[None, None], E1[None, None], mask) for third in (E1, -E1))
    assert one.item() == other.item()


def test_the_loss_falls_as_defects_move_away_and_normal_cells_come_near() -> None:
    def loss(clean: float, defect: float) -> float:
        test = torch.stack((angled(clean), angled(defect)))[None, None]
        return objective(10.0, 0.3)(test, E1[None, None], mask_of(0, 64)[None, None]).item()

    assert loss(0.1, 0.2) > loss(0.1, 0.5) > loss(0.1, 0.9) > loss(0.01, 0.9)


def test_gradients_push_defects_away_and_pull_normal_cells_near() -> None:
    distance = torch.tensor([0.2, 0.4], requires_grad=True)
    cosine = 1 - distance
    test = torch.stack((cosine, (1 - cosine.square()).sqrt()), dim=1)[None, None]
    objective(10.0, 0.3)(test, torch.tensor([[[1.0, 0.0]]]), mask_of(0, 64)[None, None]).backward()
    assert distance.grad is not None
    assert distance.grad[0] > 0 > distance.grad[1]


@pytest.mark.parametrize("pixels", [(0, 0), (64, 64), (64, 3), (0, 3)])
def test_crops_without_a_defect_or_without_a_normal_cell_are_no_trouble(pixels: tuple[int, int]) -> None:
    test = F.normalize(torch.randn(1, 1, 2, 3), dim=3).requires_grad_()
    loss = objective()
    value = loss(test, E1[None, None], mask_of(*pixels)[None, None])
    value.backward()
    assert value.isfinite()
    for gradient in (test.grad, loss.log_scale.grad, loss.limit.grad):
        assert gradient is not None and gradient.isfinite().all()
