"""Weights computed again on the way back are those of the network, with the number's gradient; nothing else stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small_transformers import TRANSFORMERS, Recorder, asked_of, recorded, spelled_out, vit
from tiny_models import CLIP_CONFIG
from torch import Tensor, nn

from explainvad.attribution import watched_attention
from explainvad.attribution.attention import attention_maps
from explainvad.attribution.watched_attention import watched
from explainvad.detection.loading import clip_network

TOKENS = 5


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("fused", [True, False])
def test_the_gradient_is_that_of_the_number(fused: bool) -> None:
    """Against central differences: the last layer's weight of the class token to one patch is nudged."""
    network, frame = vit().double(), torch.rand(3, 32, 32, dtype=torch.float64)
    spelled_out(network, not fused)
    function = asked_of(network, frame, 8, 1, None)
    (weights, product), _ = recorded(function)
    step, place, values = 1e-5, (0, 1, 0, 3), []
    spelled_out(network)
    for sign in (1, -1):

        def nudged(_module: nn.Module, _inputs: Any, weights: Tensor, by: float = sign * step) -> Tensor:
            moved = weights.clone()
            moved[place] += by
            return moved

        with torch.no_grad():
            hook = network.blocks[1].attn.attn_drop.register_forward_hook(nudged)  # type: ignore[union-attr, index]
            values.append(float(function.value(frame[None])))
            hook.remove()
    gradient = float(product[place[1:]] / weights[place[1:]])
    assert gradient == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("token", [(1, 4), None])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_weights_computed_again_block_by_block_are_those_of_autograd(
    name: str, token: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle is autograd through weights that timm spells out: every layer, every head, and both maps."""
    network, (_, _, side, prefix) = vit(name).double(), TRANSFORMERS[name]
    frame = torch.rand(3, 4 * side, 6 * side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    function = asked_of(network, frame, side, prefix, token)
    spelled_out(network)
    expected, expected_maps = recorded(function), attention_maps(function)
    spelled_out(network, False)
    monkeypatch.setattr(watched_attention, "BLOCK", 5 * (prefix + 24))  # five rows at a time, the last block less
    got, maps = recorded(function), attention_maps(function)
    assert len(got) == len(expected) == 2
    for (weights, product), (their_weights, their_product) in zip(got, expected, strict=True):
        torch.testing.assert_close(weights, their_weights, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(product, their_product, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(maps.rollout, expected_maps.rollout)
    torch.testing.assert_close(maps.gradient_weighted, expected_maps.gradient_weighted)


@pytest.mark.parametrize("boolean", [True, False])
def test_masks_and_scales_of_torchs_attention_are_kept(boolean: bool) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn_drop = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, 2 * x, x, attn_mask=mask, scale=0.3)

    shut = torch.rand(TOKENS, TOKENS, generator=torch.Generator().manual_seed(3)) < 0.3
    shut.fill_diagonal_(False)
    mask = ~shut if boolean else torch.zeros(TOKENS, TOKENS).masked_fill(shut, -torch.inf)
    x = torch.randn(1, 2, TOKENS, 4, generator=torch.Generator().manual_seed(4), requires_grad=True)
    network, recorder = Masked(), Recorder(TOKENS)
    number = network(x).square().sum()
    (expected,) = torch.autograd.grad(number, x)
    with watched(network, recorder) as found:
        watched_number = (y := network(x)).square().sum()
    (got,) = torch.autograd.grad(watched_number, x)
    assert torch.equal(watched_number, number) and y.shape == x.shape and found.shapes == [(1, 2, TOKENS, TOKENS)]
    torch.testing.assert_close(got, expected)
    weights = recorder.layers[0][0]
    assert not weights[:, shut].any()
    torch.testing.assert_close(weights, (0.6 * x @ x.mT).masked_fill(shut, -torch.inf).softmax(-1)[0].detach())


def test_no_more_than_blocks_of_weights_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does the graph keep a layer's weights for the way back, nor are they all there on it."""
    sizes = []
    monkeypatch.setattr(watched_attention, "BLOCK", 50 * 401)

    class Watching(Recorder):
        def see(self, tokens: Tensor, weights: Tensor, product: Tensor) -> None:
            sizes.append(weights.numel())

        def passed(self, heads: int) -> None:
            pass

    network = vit()
    function = asked_of(network, torch.rand(3, 160, 160), 8, 1, (0, 0))
    with torch.enable_grad(), watched(network, Watching(401)) as found:
        number = function.value(function.frame[None]).sum()
    saved: list[int] = []
    node = [number.grad_fn]
    seen = set(node)
    while node:  # everything that the graph keeps for the way back
        at = node.pop()
        saved += [t.numel() for t in getattr(at, "saved_tensors", ()) if isinstance(t, Tensor)]
        for further, _ in at.next_functions if at else ():
            if further is not None and further not in seen:
                seen.add(further)
                node.append(further)
    assert saved and max(saved) < 401**2
    found.back(number)
    assert sum(sizes) == 2 * 2 * 401**2 and max(sizes) == 50 * 401


def left_as_it_was(network: nn.Module) -> bool:
    return all(
        not module._forward_hooks
        and not module._forward_pre_hooks
        and "forward" not in vars(module)
        and getattr(module, "fused_attn", True)
        for module in network.modules()
    )


@pytest.mark.parametrize("make", [vit, lambda: clip_network("tiny", CLIP_CONFIG).visual])
def test_hooks_and_switches_are_as_before_even_after_an_error(make: Callable[[], nn.Module]) -> None:
    network = make()
    assert left_as_it_was(network)
    with watched(network, Recorder(1)):
        assert not left_as_it_was(network)
    assert left_as_it_was(network)
    with pytest.raises(ZeroDivisionError), watched(network, Recorder(1)):
        raise ZeroDivisionError
    assert left_as_it_was(network)
