"""Attention maps: formulas by hand, weights read out of real networks, and networks left as they were."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from small_transformers import TRANSFORMERS, Recorder, asked_of, recorded, spelled_out, vit
from tiny_models import CLIP_CONFIG
from torch import Tensor

from explainvad.attribution import attention
from explainvad.attribution.attention import Rows, attention_maps
from explainvad.attribution.watched_attention import watched
from explainvad.detection.backbone.network import Architecture, HybridBackbone
from explainvad.detection.loading import clip_network
from explainvad.errors import NotExplainableError

TOKENS = 5


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_attention(layers: int, heads: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(heads, TOKENS, TOKENS, generator=generator).softmax(-1) for _ in range(layers)]


def carried(asked: Tensor, layers: list[Tensor], products: list[Tensor] | None = None, **how: float) -> Rows:
    """Rows through ``layers`` (heads, N, N), the first one first, with gradient times attention in ``products``."""
    rows = Rows(asked, **how)
    for weights, product in zip(reversed(layers), reversed(products or layers), strict=True):
        for head, by in zip(weights, product, strict=True):
            rows.see(torch.arange(len(asked)), head, by)
        rows.passed(len(weights))
    return rows


def test_rollout_of_two_layers_by_hand() -> None:
    # Two heads whose mean is [[.5, .5], [0, 1]], then [[1, 0], [.5, .5]]; with the residual [[.75, .25], [0, 1]] and
    # [[1, 0], [.25, .75]], whose product, the last layer first, is [[.75, .25], [.1875, .8125]]
    first = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    last = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]).expand(2, -1, -1)
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert carried(one, [first, last]).rollout.tolist() == [0.75, 0.25]
    assert carried(other, [first, last]).rollout.tolist() == [0.1875, 0.8125]
    assert carried(other, [first, last], residual=0).rollout.tolist() == [0.25, 0.75]


def test_rows_agree_with_products_of_whole_matrices() -> None:
    layers, identity = random_attention(3, heads=2), torch.eye(TOKENS)
    products = [(2 * g - 0.4) * w for g, w in zip(random_attention(3, heads=2, seed=1), layers, strict=True)]
    rolled, relevance = identity, identity
    for weights, product in zip(layers, products, strict=True):
        rolled = (0.5 * weights.mean(0) + 0.5 * identity) @ rolled
        relevance = relevance + product.clamp_min(0).mean(0) @ relevance
    for token in range(TOKENS):
        rows = carried(identity[token], layers, products)
        torch.testing.assert_close(rows.rollout, rolled[token])
        torch.testing.assert_close(rows.relevance, relevance[token] - identity[token])


def test_only_attention_that_raises_the_number_counts() -> None:
    weights = torch.tensor([[[0.2, 0.8], [0.5, 0.5]], [[0.6, 0.4], [0.5, 0.5]]])
    gradients = torch.tensor([[[1.0, -9.0], [0.0, 0.0]], [[0.5, 0.5], [0.0, 0.0]]])
    found = carried(torch.tensor([1.0, 0.0]), [weights], [weights * gradients]).relevance
    assert found.tolist() == pytest.approx([(0.2 + 0.3) / 2, (0 + 0.2) / 2])


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_weights_are_read_of_timm_networks_without_changing_what_they_say(name: str) -> None:
    network, (_, _, side, prefix) = vit(name), TRANSFORMERS[name]
    frame = torch.rand(3, 4 * side, 6 * side, generator=torch.Generator().manual_seed(1))  # wider than high
    with torch.no_grad():
        expected = network.forward_features(frame[None])  # type: ignore[operator]
        with watched(network, Recorder(prefix + 24)) as found:
            got = network.forward_features(frame[None])  # type: ignore[operator]
    torch.testing.assert_close(got, expected)
    assert found.shapes == [(1, 2, prefix + 24, prefix + 24)] * 2
    layers = recorded(asked_of(network, frame, side, prefix, (1, 4)))
    torch.testing.assert_close(layers[1][0].sum(-1), torch.ones(2, prefix + 24))
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
        with watched(visual, Recorder(226)):
            got = visual(frame[None])
        hook.remove()
        x = inside[0]
        _, theirs = block.attn(x, x, x, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(got, expected)
    function = asked_of(visual, frame, 8, 1, None, value=lambda frames: visual(frames)[:, 0])
    torch.testing.assert_close(recorded(function)[-1][0], theirs[0])
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
    network = vit()

    def brightness(frames: Tensor) -> Tensor:
        network.forward_features(frames)  # type: ignore[operator]
        return frames.mean((1, 2, 3))

    with pytest.raises(NotExplainableError, match="does not rest on the attention"):
        attention_maps(asked_of(network, torch.rand(3, 32, 32), 8, 1, None, value=brightness))
    monkeypatch.setattr(attention, "LARGEST_BYTES", 1000)
    attention_maps(asked_of(vit(), torch.rand(3, 32, 32), 8, 1, None))  # there never are more than blocks of them
    openly = vit()
    spelled_out(openly)
    with pytest.raises(NotExplainableError, match="17 tokens would take"):
        attention_maps(asked_of(openly, torch.rand(3, 32, 32), 8, 1, None))
