"""UniAD by hand: who may look at whom, one layer of each kind, the jitter, and the score of a residual."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from patterned import normal_pictures, pattern, picture
from tiny_models import CNN, VIT
from torch import Tensor, nn

from explainvad.detection.backbones import Backbones
from explainvad.detection.frames import to_frame
from explainvad.detection.reconstruction import uniad as module
from explainvad.detection.reconstruction.uniad import UniAD, UniADOptions
from explainvad.detection.reconstruction.uniad_network import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    QueryTransformer,
    jittered,
    neighbour_mask,
)
from explainvad.errors import ConfigError

SMALL = {"resolution": 64, "batch": 4, "steps": 2, "side": 8, "neighbours": 3, "width": 16, "depth": 2}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make(backbones: Backbones, **options: Any) -> UniAD:
    return UniAD(UniADOptions(**{"backbone": VIT, "layers": (0, 2)} | SMALL | options), backbones)


def network(rows: int = 4, cols: int = 5, **options: Any) -> QueryTransformer:
    given = {"width": 16, "depth": 2, "dropout": 0.1, "neighbours": 3} | options
    return QueryTransformer(6, rows, cols, **given).eval()


# --- Who may look at whom


@pytest.mark.parametrize(
    ("place", "hidden"),
    [((0, 0), "xx.. xx.. ...."), ((1, 1), "xxx. xxx. xxx."), ((2, 3), ".... ..xx ..xx"), ((1, 2), ".xxx .xxx .xxx")],
)
def test_the_mask_by_hand(place: tuple[int, int], hidden: str) -> None:
    mask = neighbour_mask(3, 4, 3)
    assert mask.shape == (12, 12) and mask.dtype == torch.bool
    row = mask[place[0] * 4 + place[1]].reshape(3, 4).tolist()
    assert " ".join("".join("x" if cell else "." for cell in line) for line in row) == hidden


def test_the_mask_of_the_paper() -> None:
    mask = neighbour_mask(14, 14, 7)
    assert torch.equal(mask, mask.T) and mask.diagonal().all()
    hidden = mask.sum(1).reshape(14, 14)
    assert hidden[0, 0] == 16 and hidden[0, 7] == 28 and hidden[7, 7] == 49
    assert torch.equal(neighbour_mask(3, 3, 1), torch.eye(9, dtype=torch.bool))


@pytest.mark.parametrize(("rows", "cols", "side"), [(3, 3, 3), (2, 3, 3), (7, 6, 7), (1, 1, 1)])
def test_a_neighbourhood_that_hides_everything_is_refused(rows: int, cols: int, side: int) -> None:
    with pytest.raises(ValueError, match=f"{side} x {side} hides the whole grid of {rows} x {cols}"):
        neighbour_mask(rows, cols, side)
    for more in ((side + 1, cols), (rows, side + 1)):  # one longer side is enough: every row sees something
        assert not neighbour_mask(*more, side).all(1).any()


@torch.inference_mode()
def test_attention_takes_nothing_from_where_it_may_not_look() -> None:
    attention, seen, x = Attention(16), ~neighbour_mask(4, 5, 3), torch.randn(1, 20, 16)
    before = attention(x, x, x, seen)
    other = x.clone()
    other[:, [0, 1, 5, 6]] = 100.0  # the corner, hidden from place 0
    moved = (attention(x, other, other, seen) - before).abs().amax((0, 2)) > 1e-4
    assert not moved[0] and moved[19]
    assert (attention(x, other, other, None) - before).abs()[0, 0].max() > 1e-4


# --- One layer of each kind


def even(layer: EncoderLayer | DecoderLayer) -> None:
    """Attention that takes the mean of what it may see; nothing in the MLP, no norms."""
    for attention in layer.attentions:
        for linear in (attention.query, attention.key):
            nn.init.zeros_(linear.weight)
        for linear in (attention.value, attention.project):
            nn.init.eye_(linear.weight)
        for linear in (attention.query, attention.key, attention.value, attention.project):
            nn.init.zeros_(linear.bias)
    nn.init.zeros_(layer.mlp[3].weight)
    nn.init.zeros_(layer.mlp[3].bias)
    layer.norms = nn.ModuleList(nn.Identity() for _ in layer.norms)


@torch.inference_mode()
def test_a_decoder_layer_asks_the_encoder_and_then_the_layer_before_by_hand() -> None:
    seen = ~neighbour_mask(4, 4, 3)
    weight = seen / seen.sum(1, keepdim=True)
    memory, previous, place = torch.randn(2, 16, 8), torch.randn(2, 16, 8), torch.randn(16, 8)
    layer = DecoderLayer(8, places=16, dropout=0.1).eval()
    even(layer)
    assert layer.query is not None
    expected = layer.query + weight @ memory + weight @ previous
    torch.testing.assert_close(layer(previous, memory, place, seen), expected, atol=1e-5, rtol=0)
    # without a query what came before takes its place, and is passed on
    plain = DecoderLayer(8, places=0, dropout=0.1).eval()
    even(plain)
    expected = previous + memory.mean(1, keepdim=True) + previous.mean(1, keepdim=True)
    torch.testing.assert_close(plain(previous, memory, place, None), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_places_count_for_where_to_look_not_for_what_is_taken() -> None:
    layer, memory, place = DecoderLayer(8, 16, 0.0).eval(), torch.randn(1, 16, 8), torch.randn(16, 8)
    attention, query = layer.attentions[0], torch.randn(1, 16, 8)
    layer.norms = nn.ModuleList(nn.Identity() for _ in layer.norms)
    expected = query + attention(query + place, memory + place, memory, None)
    torch.testing.assert_close(layer.attend(0, query, memory, place, None), expected)


@pytest.mark.parametrize("masked", [False, True])
@torch.inference_mode()
def test_an_encoder_layer_is_that_of_torch(masked: bool) -> None:
    ours = EncoderLayer(16, dropout=0.1).eval()
    theirs = nn.TransformerEncoderLayer(16, 8, 64, 0.1, "relu", batch_first=True, norm_first=False).eval()
    (attention,) = ours.attentions
    parts = attention.query, attention.key, attention.value
    theirs.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    theirs.self_attn.in_proj_bias.copy_(torch.cat([nn.init.normal_(part.bias) for part in parts]))
    for mine, other in (
        (attention.project, theirs.self_attn.out_proj),
        (ours.mlp[0], theirs.linear1),
        (ours.mlp[3], theirs.linear2),
        (ours.norms[0], theirs.norm1),
        (ours.norms[1], theirs.norm2),
    ):
        nn.init.normal_(mine.bias)
        other.load_state_dict(mine.state_dict())
    x, mask = torch.randn(2, 20, 16), neighbour_mask(4, 5, 3) if masked else None
    seen = None if mask is None else ~mask
    torch.testing.assert_close(ours(x, torch.zeros(20, 16), seen), theirs(x, src_mask=mask), atol=1e-5, rtol=1e-5)


# --- The network


@torch.inference_mode()
def test_all_layers_of_the_decoder_ask_the_encoder_and_their_predecessor() -> None:
    net, features = network(), torch.randn(2, 20, 6)
    seen, memory = ~neighbour_mask(4, 5, 3), net.project_in(features)
    for layer in net.encoder:
        memory = layer(memory, net.place, seen)
    first = net.decoder[0](memory, memory, net.place, seen)
    second = net.decoder[1](first, memory, net.place, seen)
    torch.testing.assert_close(net(features), net.project_out(net.norm(second)))
    assert net.decoder[0].query is not net.decoder[1].query
    assert net.decoder[0].query.shape == (20, 16)


def test_a_place_is_a_row_and_a_column() -> None:
    net = network(rows=2, cols=3, neighbours=1)
    assert net.place.shape == (6, 16)
    assert torch.equal(net.place[5], torch.cat((net.row_code[1], net.col_code[2])))
    assert torch.equal(net.place[1], torch.cat((net.row_code[0], net.col_code[1])))


def test_every_parameter_learns() -> None:
    for query in (True, False):
        net = network(query=query).train()
        net(torch.randn(2, 20, 6)).square().sum().backward()
        assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] in (
            [],
            [n for n, _ in net.named_parameters() if n.endswith("key.bias")],  # a constant that softmax takes out
        )
        assert any("query" in n and "attentions" not in n for n, _ in net.named_parameters()) == query


@torch.inference_mode()
def test_without_a_mask_all_places_are_seen() -> None:
    net, features = network(neighbours=0), torch.randn(1, 20, 6)
    masked = network(neighbours=3)
    masked.load_state_dict(net.state_dict())
    assert (net(features) - masked(features)).abs().max() > 1e-3


# --- Jitter


def test_jitter_is_as_large_as_the_formula_says() -> None:
    tokens = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]])  # lengths 5, 1 and 0 of two channels
    noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(7))
    expected = tokens + noise * torch.tensor([50.0, 10.0, 0.0])[:, None]  # 20 ||f|| / C
    torch.testing.assert_close(jittered(tokens, 20.0, torch.Generator().manual_seed(7)), expected)


def test_training_rebuilds_the_features_from_their_jittered_selves(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = make(backbones)
    net = scorer.build((64, 8, 8)).eval()
    features = [torch.randn(64, 8, 8) for _ in range(2)]
    tokens = torch.stack(features).flatten(2).transpose(1, 2)
    loss = scorer.loss(net, features, 0.0, torch.Generator().manual_seed(3))
    expected = F.mse_loss(net(jittered(tokens, 20.0, torch.Generator().manual_seed(3))), tokens)
    torch.testing.assert_close(loss, expected)
    quiet = make(backbones, jitter=0.0).loss(net, features, 0.0, torch.Generator())
    torch.testing.assert_close(quiet, F.mse_loss(net(tokens), tokens))
    scorer.fit(normal_pictures(2), 0)

    def never(*given: object) -> Tensor:
        raise AssertionError("jitter is for training")

    monkeypatch.setattr(module, "jittered", never)
    scorer.score(normal_pictures(1))


# --- The grid


@pytest.mark.parametrize(("height", "width", "grid"), [(64, 64, (8, 8)), (64, 96, (8, 12)), (200, 90, (18, 8))])
def test_the_grid_has_the_aspect_of_the_first_image_and_holds_for_all(
    height: int, width: int, grid: tuple[int, int], backbones: Backbones
) -> None:
    scorer = make(backbones)
    scorer.fit(normal_pictures(1), 0)  # what was fitted before does not matter
    scorer.fit([picture(pattern(0, height, width)), *normal_pictures(1)], 0)
    assert (scorer.network.rows, scorer.network.cols) == grid
    for image in (picture(pattern(1, height, width)), picture(pattern(2, 50, 130))):
        (score,) = scorer.score([image])
        assert score.evidence["residual"].shape == score.member_maps.shape[1:] == grid


def test_features_are_the_mean_of_what_a_cell_covers(backbones: Backbones) -> None:
    scorer, image = make(backbones, backbone=CNN, layers=(1, 3), side=4), picture(pattern(0, 64, 128))
    fine, coarse = scorer.extractor.levels(image, (1, 3))
    features = scorer.features(image)
    assert fine.shape[1:] == (16, 32) and coarse.shape[1:] == (4, 8)  # strides 4 and 16
    torch.testing.assert_close(features[len(fine) :], coarse)
    # inside, a triangle as wide as two cells, in steps of a quarter cell, that adds up to one
    kernel = torch.tensor([1.0, 3, 5, 7, 7, 5, 3, 1]) / 32
    windows = fine[:, 2:, 2:].unfold(1, 8, 4).unfold(2, 8, 4)
    expected = torch.einsum("dyxij,i,j->dyx", windows, kernel, kernel)
    torch.testing.assert_close(features[: len(fine), 1:-1, 1:-1], expected, atol=1e-5, rtol=0)


# --- A score


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 90)])
def test_a_score_is_the_largest_mean_over_a_cell_by_hand(height: int, width: int, backbones: Backbones) -> None:
    scorer, image = make(backbones, members=2), picture(pattern(0, height, width))
    scorer.fit([image], 0)
    (score,) = scorer.score([image])
    features = scorer.features(image)
    channels, rows, cols = features.shape
    with torch.inference_mode():
        rebuilt = scorer.network(features.reshape(1, channels, -1).transpose(1, 2))
    residual = (rebuilt[0].T.reshape(features.shape) - features).square().sum(0).sqrt()
    np.testing.assert_allclose(score.evidence["residual"], residual, atol=1e-5)
    size = scorer.extractor.size(image)

    def value(grid: Tensor) -> float:
        full = F.interpolate(grid[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        cell = size[0] // rows, size[1] // cols
        return full.unfold(0, cell[0], 1).unfold(1, cell[1], 1).mean((2, 3)).max().item()

    assert score.value == pytest.approx(value(residual), rel=1e-5)
    np.testing.assert_allclose(score.members, [value(torch.from_numpy(m)) for m in score.member_maps], rtol=1e-5)
    full = F.interpolate(residual[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(score.anomaly_map, to_frame(full, height, width), atol=1e-5)


# --- Options


def test_remedies_can_be_left_out_for_comparison(backbones: Backbones) -> None:
    whole, without = make(backbones), make(backbones, query=False, neighbour_mask=False, jitter=0.0)
    for scorer in (whole, without):
        scorer.fit(normal_pictures(2), 0)
    assert {name for name in whole.arrays if name not in without.arrays} == {"decoder.0.query", "decoder.1.query"}
    assert (whole.network.neighbours, without.network.neighbours) == (3, 0)


def test_a_neighbourhood_too_large_for_the_grid_is_the_user_s_error(backbones: Backbones) -> None:
    with pytest.raises(ConfigError, match="uniad: a neighbourhood of 9 x 9 hides the whole grid of 8 x 8"):
        make(backbones, neighbours=9).fit(normal_pictures(1), 0)
    make(backbones, neighbours=9, neighbour_mask=False, steps=1).fit(normal_pictures(1), 0)


def test_the_defaults_are_the_paper_s() -> None:
    o = UniADOptions()
    assert (o.resolution, o.side, o.width, o.depth, o.neighbours) == (224, 14, 256, 4, 7)
    assert (o.dropout, o.jitter, o.query, o.neighbour_mask) == (0.1, 20.0, True, True)
