"""MemAE: addressing by hand, and a decoder that hears of the image through the memory alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from patterned import normal_pictures, pattern, picture
from pixel_checks import depends_on_the_seed_alone, finds_the_square_and_comes_back
from pydantic import ValidationError

from explainvad.detection.backbones import Backbones
from explainvad.detection.reconstruction.mem_ae import ENTROPY, MemAE, MemAEOptions, Memory, entropy
from explainvad.detection.reconstruction.pixels import Crops


def scorer(backbones: Backbones, **options: Any) -> MemAE:
    tiny = {"resolution": 64, "side": 64, "steps": 6, "batch": 4, "channels": 8, "memory": 30, "learning_rate": 5e-3}
    return MemAE(MemAEOptions(**tiny | options), backbones)


def memory(items: list[list[float]], shrink: float) -> Memory:
    made = Memory(len(items), len(items[0]), shrink)
    made.items.data = torch.tensor(items)
    return made.requires_grad_(False)


def test_addressing_by_hand_with_one_item_shrunk_away() -> None:
    # z M^T = (ln 9, 0), so w = (0.9, 0.1); lambda = 1 / 2 shrinks the second one to nothing
    query = torch.tensor([[math.log(9.0), 0.0]])
    read, weight = memory([[1.0, 0.0], [0.0, 1.0]], 1.0)(query)
    torch.testing.assert_close(weight, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(read, torch.tensor([[1.0, 0.0]]))


def test_addressing_by_hand_with_both_items_kept() -> None:
    # w = (0.75, 0.25) and lambda = 0.2: both are above it and keep their proportion
    read, weight = memory([[1.0, 0.0], [0.0, 2.0]], 0.4)(torch.tensor([[math.log(3.0), 0.0]]))
    torch.testing.assert_close(weight, torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(read, torch.tensor([[0.75, 0.5]]))


def test_kept_weights_add_up_to_one_and_are_those_above_lambda() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    queries = torch.randn(5, 7, 6, generator=generator) * 3
    bank = Memory(20, 6, 2.0)
    read, weight = bank(queries)
    plain = (queries @ bank.items.T).softmax(-1)
    expected = torch.where(plain > 2 / 20, plain, 0)
    expected = expected / expected.sum(-1, keepdim=True).clamp_min(1e-9)  # a query may be left without an item
    torch.testing.assert_close(weight, expected)
    torch.testing.assert_close(read, expected @ bank.items)
    assert (weight == 0).any() and read.shape == queries.shape


@pytest.mark.parametrize(("shrink", "silent"), [(1.0, False), (3.0, True)])
def test_an_item_always_speaks_at_the_smallest_lambda_only(shrink: float, silent: bool) -> None:
    torch.manual_seed(0)
    read, weight = Memory(50, 4, shrink)(torch.randn(200, 4) * 0.05)  # nearly even weights
    assert torch.isfinite(read).all()
    assert (weight.sum(-1) == 0).any() == silent
    assert torch.allclose(weight.sum(-1), torch.ones(200)) != silent


def test_both_queries_and_items_learn() -> None:
    torch.manual_seed(0)
    bank, query = Memory(10, 4, 1.0), torch.randn(3, 4, requires_grad=True)
    read, weight = bank(query)
    (read.square().sum() + entropy(weight)).backward()
    assert bank.items.grad is not None and bank.items.grad.abs().sum() > 0
    assert query.grad is not None and query.grad.abs().min() > 0


def test_the_entropy_by_hand() -> None:
    weights = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4], requires_grad=True)
    found = entropy(weights)
    assert found.item() == pytest.approx((0 + math.log(2) + math.log(4)) / 3)
    found.backward()
    assert weights.grad is not None and torch.isfinite(weights.grad).all()


def test_the_loss_is_the_squared_residual_and_a_little_entropy(backbones: Backbones) -> None:
    one = scorer(backbones)
    one.fit(normal_pictures(2), 0)
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    loss = one.loss(one.network, Crops(pixels, [(0, 0)] * 2, [(32, 48)] * 2), torch.Generator())
    rebuilt, weight = one.network(pixels)
    assert rebuilt.shape == pixels.shape and weight.shape == (2, 2, 3, 30)
    assert ENTROPY == 2e-4 and entropy(weight) > 0.1
    torch.testing.assert_close(loss, F.mse_loss(rebuilt, pixels) + 2e-4 * entropy(weight))


def test_the_decoder_hears_of_the_image_through_the_memory_alone(backbones: Backbones) -> None:
    one = scorer(backbones)
    one.fit(normal_pictures(2), 0)
    two = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first, second = one.network(two)[0]
    assert not torch.allclose(first, second)
    one.network.get_parameter("memory.items").data[:] = 0.3  # nothing to tell items apart
    first, second = one.network(two)[0]
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 90), (9, 23), (130, 71)])
def test_evidence_names_the_item_that_speaks_loudest(height: int, width: int, backbones: Backbones) -> None:
    one = scorer(backbones)
    one.fit([picture(pattern(0, height, width))], 0)
    image = picture(pattern(1, height, width))
    (score,) = one.score([image])
    rows, cols = (side // 16 for side in score.evidence["rebuilt"].shape[:2])
    weight = one.network(one._pixels(image)[None].float() / 127.5 - 1)[1][0]
    assert score.evidence["item"].shape == score.evidence["weight"].shape == (rows, cols)
    assert score.evidence["item"].dtype == np.int32 and score.evidence["weight"].dtype == np.float32
    np.testing.assert_array_equal(score.evidence["item"], weight.argmax(-1))
    np.testing.assert_allclose(score.evidence["weight"], weight.amax(-1), rtol=1e-4)
    assert score.anomaly_map.shape == (height, width) and not score.members.size


@pytest.mark.parametrize("usual", [True, False])
def test_a_planted_square_stands_out_and_the_state_is_all(usual: bool, backbones: Backbones) -> None:
    finds_the_square_and_comes_back(lambda: scorer(backbones, steps=60, usual=usual), 1.5)


def test_the_same_seed_gives_the_same_memory(backbones: Backbones) -> None:
    depends_on_the_seed_alone(lambda: scorer(backbones), "memory.items")


def test_half_precision_scores_alike(backbones: Backbones) -> None:
    one, half = scorer(backbones), scorer(Backbones(backbones.store, bf16=True))
    one.fit(normal_pictures(2), 0)
    half.load(*one.state())
    (exact,), (rough,) = one.score(normal_pictures(1)), half.score(normal_pictures(1))
    assert rough.evidence["weight"].dtype == np.float32
    assert rough.value == pytest.approx(exact.value, rel=0.1) and rough.value != exact.value


def test_lambda_stays_in_the_range_of_the_paper() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 3"):
        MemAEOptions(shrink=4)
