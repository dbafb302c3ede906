"""Attention maps: formulas by hand, weights read out of real networks, and networks left as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from tiny_models import CLIP_CONFIG
from torch import Tensor, nn

from explainvad.attribution import attention
from explainvad.attribution.attention import attention_maps, captured, gradient_weighted, rollout
from explainvad.detection.backbone.network import Architecture, HybridBackbone
from explainvad.detection.loading import clip_network
from explainvad.errors import NotExplainableError
from explainvad.types import PixelFunction

TOKENS = 5
PLAIN = {"embed_dim": 32, "depth": 2, "num_heads": 2}
VIT = {**PLAIN, "img_size": 32, "patch_size": 8, "dynamic_img_size": True, "num_classes": 0}
# architecture, arguments, side of a patch, prefix tokens
TRANSFORMERS = {
    "ViT": ("vit_tiny_patch16_224", VIT, 8, 1),
    "registers": ("vit_small_patch14_reg4_dinov2", {**PLAIN, "img_size": 56, "dynamic_img_size": True}, 14, 5),
    "rotary": ("vit_small_patch16_dinov3", PLAIN, 16, 5),
    "no class token": ("vit_tiny_patch16_224", {**VIT, "class_token": False, "global_pool": "avg"}, 8, 0),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def vit(name: str = "ViT") -> nn.Module:
    torch.manual_seed(0)
    architecture, arguments, _, _ = TRANSFORMERS[name]
    return timm.create_model(architecture, pretrained=False, **arguments).eval().requires_grad_(False)


def asked_of(
    network: nn.Module, frame: Tensor, side: int, prefix: int, token: tuple[int, int] | None, **more: Any
) -> PixelFunction:
    """Length of the token that is asked about, or of the class token."""
    rows, cols = frame.shape[1] // side, frame.shape[2] // side

    def value(frames: Tensor) -> Tensor:
        tokens: Tensor = network.forward_features(frames)  # type: ignore[operator]
        place = 0 if token is None else prefix + token[0] * cols + token[1]
        return tokens[:, place].norm(dim=1)

    whole = slice(0, frame.shape[1]), slice(0, frame.shape[2])
    given: dict[str, Any] = {"grid": (rows, cols), "value": value, **more}
    return PixelFunction(
        "length",
        frame=frame,
        baseline=torch.zeros_like(frame),
        size=(frame.shape[1], frame.shape[2]),
        window=whole,
        network=network,
        prefix=prefix,
        token=token,
        **given,
    )


def random_attention(layers: int, heads: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(heads, TOKENS, TOKENS, generator=generator).softmax(-1) for _ in range(layers)]


def test_rollout_of_two_layers_by_hand() -> None:
    # Two heads whose mean is [[.5, .5], [0, 1]], then [[1, 0], [.5, .5]]; with the residual [[.75, .25], [0, 1]] and
    # [[1, 0], [.25, .75]], whose product, the last layer first, is [[.75, .25], [.1875, .8125]]
    first = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    last = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]).expand(2, -1, -1)
    assert rollout([first, last], torch.tensor([1.0, 0.0])).tolist() == [0.75, 0.25]
    assert rollout([first, last], torch.tensor([0.0, 1.0])).tolist() == [0.1875, 0.8125]
    assert rollout([first, last], torch.tensor([0.0, 1.0]), residual=0).tolist() == [0.25, 0.75]


def test_heads_fused_by_their_maximum_still_share_out_one() -> None:
    first = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    # the maximum is [[1, 1], [0, 1]]; with the residual [[1, .5], [0, 1]], and its first row brought to a sum of 1
    assert rollout([first], torch.tensor([1.0, 0.0]), "max").tolist() == pytest.approx([2 / 3, 1 / 3])
    # the minimum [[0, 0], [0, 1]] leaves the first token to itself
    assert rollout([first], torch.tensor([1.0, 0.0]), "min").tolist() == [1.0, 0.0]


def test_rows_agree_with_products_of_whole_matrices() -> None:
    layers, identity = random_attention(3, heads=2), torch.eye(TOKENS)
    gradients = [2 * g - 0.4 for g in random_attention(3, heads=2, seed=1)]
    rolled, relevance = identity, identity
    for weights, gradient in zip(layers, gradients, strict=True):
        rolled = (0.5 * weights.mean(0) + 0.5 * identity) @ rolled
        relevance = relevance + (gradient * weights).clamp_min(0).mean(0) @ relevance
    for token in range(TOKENS):
        torch.testing.assert_close(rollout(layers, identity[token]), rolled[token])
        torch.testing.assert_close(
            gradient_weighted(layers, gradients, identity[token]), relevance[token] - identity[token]
        )


def test_only_attention_that_raises_the_number_counts() -> None:
    weights = torch.tensor([[[0.2, 0.8], [0.5, 0.5]], [[0.6, 0.4], [0.5, 0.5]]])
    gradients = torch.tensor([[[1.0, -9.0], [0.0, 0.0]], [[0.5, 0.5], [0.0, 0.0]]])
    found = gradient_weighted([weights], [gradients], torch.tensor([1.0, 0.0]))
    assert found.tolist() == pytest.approx([(0.2 + 0.3) / 2, (0 + 0.2) / 2])


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_weights_are_read_of_timm_networks_without_changing_what_they_say(name: str) -> None:
    network, (_, _, side, prefix) = vit(name), TRANSFORMERS[name]
    frame = torch.rand(3, 4 * side, 6 * side, generator=torch.Generator().manual_seed(1))  # wider than high
    with torch.no_grad():
        expected = network.forward_features(frame[None])  # type: ignore[operator]
        with captured(network) as layers:
            got = network.forward_features(frame[None])  # type: ignore[operator]
    torch.testing.assert_close(got, expected)
    assert [tuple(weights.shape) for weights in layers] == [(1, 2, prefix + 24, prefix + 24)] * 2
    torch.testing.assert_close(layers[1].sum(-1), torch.ones(1, 2, prefix + 24))
    maps = attention_maps(asked_of(network, frame, side, prefix, (1, 4)))
    assert maps.rollout.shape == maps.gradient_weighted.shape == (4, 6)
    assert maps.rollout.argmax() == 1 * 6 + 4  # by the residual, a token keeps most to itself
    assert 0 < float(maps.rollout.sum()) <= 1 + 1e-5 and float(maps.gradient_weighted.min()) >= 0
    assert float(maps.gradient_weighted.max()) > 0 and maps.layers == 2


def test_clip_gets_the_attention_that_torch_computes() -> None:
    torch.manual_seed(0)
    visual: Any = clip_network("tiny", CLIP_CONFIG).visual.eval().requires_grad_(False)
    frame = torch.rand(3, 120, 120, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = visual(frame[None])
        inside: list[Tensor] = []
        block = visual.transformer.resblocks[0]
        hook = block.ln_1.register_forward_hook(lambda _m, _i, x: inside.append(x))
        with captured(visual) as layers:
            got = visual(frame[None])
        hook.remove()
        x = inside[0]
        _, theirs = block.attn(x, x, x, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(layers[0], theirs)
    function = asked_of(visual, frame, 8, 1, None, value=lambda frames: visual(frames)[:, 0])
    maps = attention_maps(function)
    assert maps.rollout.shape == (15, 15) and maps.value == pytest.approx(float(expected[0, 0]), abs=1e-5)
    assert float(maps.gradient_weighted.max()) > 0


def test_the_shipped_kind_of_network_shows_its_attention() -> None:
    torch.manual_seed(0)
    tiny = Architecture(stem=8, detail=8, width=16, context=16, conv_blocks=1, attention_blocks=2, heads=2, dimension=8)
    network = HybridBackbone(tiny).eval().requires_grad_(False)
    frame = torch.rand(3, 32, 64)
    function = asked_of(network, frame, 16, 0, (1, 2), value=lambda frames: network(frames)[:, 0, 2, 4])
    maps = attention_maps(function)
    assert maps.rollout.shape == (2, 4) and maps.layers == 2
    assert float(maps.rollout.sum()) == pytest.approx(1)


def test_the_gradient_is_that_of_the_number() -> None:
    """Against central differences: the last layer's weight of the class token to one patch is nudged."""
    network, frame = vit().double(), torch.rand(3, 32, 32, dtype=torch.float64)
    function = asked_of(network, frame, 8, 1, None)
    with captured(network) as layers:
        (gradient,) = torch.autograd.grad(function.value(frame[None]).sum(), layers[1])
    step, place, values = 1e-5, (0, 1, 0, 3), []
    for sign in (1, -1):

        def nudged(_module: nn.Module, _inputs: Any, weights: Tensor, by: float = sign * step) -> Tensor:
            moved = weights.clone()
            moved[place] += by
            return moved

        with captured(network), torch.no_grad():
            hook = network.blocks[1].attn.attn_drop.register_forward_hook(nudged)  # type: ignore[union-attr, index]
            values.append(float(function.value(frame[None])))
            hook.remove()
    assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def left_as_it_was(network: nn.Module) -> bool:
    return all(
        not module._forward_hooks and "forward" not in vars(module) and getattr(module, "fused_attn", True)
        for module in network.modules()
    )


@pytest.mark.parametrize("make", [vit, lambda: clip_network("tiny", CLIP_CONFIG).visual])
def test_hooks_and_switches_are_as_before_even_after_an_error(make: Callable[[], nn.Module]) -> None:
    network = make()
    assert left_as_it_was(network)
    with captured(network):
        assert not left_as_it_was(network)
    assert left_as_it_was(network)
    with pytest.raises(ZeroDivisionError), captured(network):
        raise ZeroDivisionError
    assert left_as_it_was(network)


def test_what_has_no_attention_over_the_frame_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = torch.rand(3, 64, 64)
    cnn = timm.create_model("resnet10t", pretrained=False, num_classes=0).eval()
    with pytest.raises(NotExplainableError, match="no tokens that attend"):
        attention_maps(asked_of(cnn, frame, 16, 0, (0, 0), grid=None))
    with pytest.raises(NotExplainableError, match="does not show its attention"):
        attention_maps(asked_of(cnn, frame, 16, 0, (0, 0), value=lambda frames: cnn(frames)[:, 0]))
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224",
        pretrained=False,
        num_classes=0,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 1),
        strict_img_size=False,
    ).eval()
    with pytest.raises(NotExplainableError, match="as in windows"):
        attention_maps(asked_of(swin, frame, 4, 0, (0, 0), value=lambda frames: swin(frames)[:, 0]))
    monkeypatch.setattr(attention, "LARGEST_BYTES", 1000)
    with pytest.raises(NotExplainableError, match="17 tokens would take"):
        attention_maps(asked_of(vit(), torch.rand(3, 32, 32), 8, 1, None))
