"""Dinomaly by hand: groups and their order, the loose loss, the patches that training and members see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from patterned import normal_pictures, pattern, picture
from tiny_models import CNN, VIT
from torch import Tensor, nn

from explainvad.detection.backbones import Backbones
from explainvad.detection.frames import smooth_map, to_frame, top_mean
from explainvad.detection.reconstruction import dinomaly as module
from explainvad.detection.reconstruction import frozen_features
from explainvad.detection.reconstruction.decoder import dropout_on
from explainvad.detection.reconstruction.dinomaly import Dinomaly, DinomalyOptions
from explainvad.detection.reconstruction.dinomaly_network import GroupDecoder, distances, loose_loss
from explainvad.errors import ConfigError


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make(backbones: Backbones, **options: Any) -> Dinomaly:
    small = {"backbone": VIT, "resolution": 64, "batch": 4, "steps": 2, "width": 16}
    return Dinomaly(DinomalyOptions(**small | options), backbones)


class Adds(nn.Module):
    """A block that adds a number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number


# --- The decoder


@pytest.mark.parametrize(
    ("layers", "after"),  # what the blocks add up to, in the order of the encoder's layers, by group
    [(2, ([3], [1])), (3, ([6], [3, 1])), (4, ([10, 6], [3, 1])), (8, ([36, 28, 21, 15], [10, 6, 3, 1]))],
)
def test_the_last_blocks_rebuild_the_first_layers(layers: int, after: tuple[list[float], list[float]]) -> None:
    decoder = GroupDecoder(channels=5, width=5, layers=layers, dropout=0.0)
    decoder.bottleneck = nn.Identity()
    decoder.blocks = nn.ModuleList(Adds(block) for block in range(1, layers + 1))
    by_layer = torch.randn(layers, 1, 7, 5)  # an encoder's
    first = layers // 2
    groups = torch.stack((by_layer[:first].mean(0), by_layer[first:].mean(0)), dim=1)
    expected = torch.stack([by_layer.mean(0) + np.mean(group) for group in after], dim=1)
    torch.testing.assert_close(decoder(groups), expected)


def test_noise_falls_before_inside_and_after_the_squeeze_and_nowhere_else() -> None:
    decoder = GroupDecoder(6, 4, 2, dropout=0.3)
    assert [(type(part), getattr(part, "p", None)) for part in decoder.bottleneck if isinstance(part, nn.Dropout)] == [
        (nn.Dropout, 0.3)
    ] * 3
    kinds = [type(part) for part in decoder.bottleneck]
    assert kinds == [nn.Dropout, nn.Linear, nn.GELU, nn.Dropout, nn.Linear, nn.Dropout]
    assert sum(isinstance(part, nn.Dropout) for part in decoder.modules()) == 3
    assert [part.out_features for part in decoder.bottleneck if isinstance(part, nn.Linear)] == [16, 4]


def test_a_narrow_decoder_ends_in_a_layer_for_each_group() -> None:
    as_wide, narrow = GroupDecoder(128, 128, 4, 0.0), GroupDecoder(128, 64, 4, 0.0)
    assert not any(isinstance(head, nn.Linear) for head in as_wide.heads)
    assert [(head.in_features, head.out_features) for head in narrow.heads] == [(64, 128)] * 2
    assert as_wide(torch.randn(3, 2, 9, 128)).shape == narrow(torch.randn(3, 2, 9, 128)).shape == (3, 2, 9, 128)
    assert [part.attention.heads for part in as_wide.blocks] == [2] * 4  # of 64 channels
    nn.init.constant_(narrow.heads[1].bias, 7.0)
    nn.init.zeros_(narrow.heads[1].weight)
    assert (narrow(torch.randn(1, 2, 3, 128))[:, 1] == 7).all()


@torch.inference_mode()
def test_patches_are_told_apart_by_their_features_alone_and_hear_of_one_another() -> None:
    decoder, groups, order = GroupDecoder(8, 8, 4, 0.2).eval(), torch.randn(1, 2, 9, 8), torch.randperm(9)
    for part in decoder.modules():  # beyond the small weights of the start
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
    rebuilt = decoder(groups)
    torch.testing.assert_close(decoder(groups[:, :, order]), rebuilt[:, :, order], atol=1e-5, rtol=0)
    changed = groups.clone()
    changed[:, :, 0] *= -1
    assert (decoder(changed) - rebuilt).abs().amax((0, 1, 3)).min() > 1e-5


def test_every_parameter_learns_from_small_weights() -> None:
    decoder, groups = GroupDecoder(8, 4, 4, 0.2), torch.randn(2, 2, 5, 8)
    assert max(p.abs().max() for name, p in decoder.named_parameters() if "norm" not in name) <= 0.03
    loose_loss(groups, decoder(groups), 0.0).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


# --- The loss


def test_distances_by_hand() -> None:
    groups = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]]).expand(1, 2, 3, 2)
    rebuilt = torch.tensor([[30.0, 40.0], [0.0, 5.0], [0.0, -1.0]]).expand(1, 2, 3, 2)
    torch.testing.assert_close(distances(groups, rebuilt), torch.tensor([0.0, 1.0, 2.0]).expand(1, 2, 3))


def test_the_loss_is_the_cosine_distance_of_whole_images_by_hand() -> None:
    # two patches (2, 0) and (0, 1), rebuilt as they are in one group and as (2, 0) and (1, 0) in the other:
    # of the second the dot product is 4 and both lengths are sqrt 5, so long patches count for more
    groups = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).expand(1, 2, 2, 2)
    rebuilt = torch.stack((groups[0, 0], torch.tensor([[2.0, 0.0], [1.0, 0.0]])))[None]
    for easy in (0.0, 0.9):  # damping is for gradients
        assert loose_loss(groups, rebuilt, easy).item() == pytest.approx((0 + 0.2) / 2)


def test_easy_points_are_those_of_a_group_over_the_batch_and_keep_a_tenth_of_their_gradient() -> None:
    groups = torch.zeros(2, 2, 3, 2)
    groups[..., 0] = 1.0
    # degrees between a point and its reconstruction: (image, group, point)
    angle = torch.tensor([[[10.0, 20, 80], [1, 2, 3]], [[30.0, 40, 50], [4, 5, 6]]]).deg2rad()
    rebuilt = torch.stack((angle.cos(), angle.sin()), dim=3)

    def gradient(easy: float, damping: float = 0.1) -> Tensor:
        leaf = rebuilt.clone().requires_grad_()
        loose_loss(groups, leaf, easy, damping).backward()
        assert leaf.grad is not None
        return leaf.grad

    whole = gradient(0.0)
    assert (whole.norm(dim=3) > 1e-4).all()
    # half of the six points of each group: the three best rebuilt of each, whichever image they are in
    ratio = (gradient(0.5) / whole).mean(3)
    expected = torch.tensor([[[0.1, 0.1, 1], [0.1, 0.1, 0.1]], [[0.1, 1, 1], [1, 1, 1]]])
    torch.testing.assert_close(ratio, expected)
    assert (gradient(0.99) / whole).mean(3).isclose(torch.tensor(1.0)).sum() == 2  # the worst of each group
    torch.testing.assert_close(gradient(0.5, damping=1.0), whole)


def test_points_become_easy_over_the_first_fifth(backbones: Backbones, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(module, "loose_loss", lambda g, r, easy: seen.append(easy) or loose_loss(g, r, easy))
    make(backbones, steps=20).fit(normal_pictures(2), 0)
    assert seen == pytest.approx([0.0, 0.225, 0.45, 0.675, *[0.9] * 16])


# --- What it sees


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(12, range(2, 10)), (24, range(4, 20, 2)), (3, range(3)), (2, range(2))],  # the paper's for base and large
)
def test_the_middle_layers_are_rebuilt(depth: int, layers: range, backbones: Backbones) -> None:
    backbones.extractor(VIT, 64).depth = depth  # type: ignore[attr-defined]
    scorer = make(backbones, layers=(0, 1))
    assert scorer.layers == (0, 1)
    assert scorer._middle() == tuple(layers)


def test_groups_are_means_of_both_halves_of_the_layers(backbones: Backbones) -> None:
    scorer, image = make(backbones, layers=(2, 0, 1)), picture(pattern(0, 64, 96))
    two, zero, one = scorer.extractor.levels(image, (2, 0, 1))
    expected = torch.stack((two, (zero + one) / 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(scorer.groups(image), expected)
    assert scorer.groups(image).shape == (2, 8, 12, 32)


def test_a_step_sees_random_patches_of_images_of_any_size(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    forward = GroupDecoder.forward
    monkeypatch.setattr(GroupDecoder, "forward", lambda self, groups: seen.append(groups) or forward(self, groups))
    images = [picture(pattern(0, 64, 64)), picture(pattern(1, 64, 128))]
    scorer = make(backbones, tokens=20, batch=3, steps=4)
    scorer.fit(images, 0)
    rows = torch.cat([scorer.features(image) for image in images], dim=1).half()
    chosen = []
    for groups in seen:
        assert groups.shape == (3, 2, 20, 32)
        for image in groups:
            found = (image[0][:, None] == rows[0].float()).all(2)
            assert (found.sum(1) == 1).all()
            index = found.int().argmax(1)
            assert torch.equal(image[1], rows[1, index].float())  # both groups of the same patches
            assert len(index.unique()) == 20 and (index < 64).unique().numel() == 1  # all of one image
            chosen.append(tuple(index.tolist()))
    assert len(set(chosen)) == len(chosen)
    # where an image has fewer, a batch has as many as the smallest
    seen.clear()
    make(backbones, tokens=1000, batch=8, steps=1).fit(images, 0)
    assert seen[0].shape == (8, 2, 64, 32)


def test_where_memory_is_short_patches_are_left_out_before_images(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, numbers = normal_pictures(12), 2 * 32  # of a patch
    held: list[Tensor] = []
    thinned = Dinomaly.thinned
    monkeypatch.setattr(Dinomaly, "thinned", lambda self, *given: held.append(thinned(self, *given)) or held[-1])
    for patches, count, kept in ((64, 12, 64), (40, 12, 40), (20, 12, 20), (15, 9, 20), (1, 8, 20)):
        monkeypatch.setattr(frozen_features, "FEATURE_BYTES", patches * numbers * 2 * len(images))
        held.clear()
        make(backbones, tokens=20, steps=1).fit(images, 0)
        assert [tokens.shape for tokens in held] == [(2, kept, 32)] * count
    whole = make(backbones).features(images[0])
    assert len({tuple(row.tolist()) for row in held[0][0]} & {tuple(row.tolist()) for row in whole[0]}) == 20


# --- A score


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 100), (100, 20)])
def test_a_score_is_of_the_blurred_mean_of_its_evidence(height: int, width: int, backbones: Backbones) -> None:
    scorer, image = make(backbones, dropout=0.3, width=16), picture(pattern(0, height, width))
    scorer.fit(normal_pictures(2), 0)
    (score,) = scorer.score([image])
    groups = scorer.features(image)[None]
    rows, cols = scorer.groups(image).shape[1:3]
    with torch.inference_mode():
        distance = distances(groups, scorer.network(groups))[0].unflatten(1, (rows, cols))
    np.testing.assert_allclose(score.evidence["distance"], distance, atol=1e-6)
    smooth = smooth_map(distance.mean(0), (8 * rows, 8 * cols), 4.0)
    np.testing.assert_allclose(score.anomaly_map, to_frame(smooth, height, width), atol=1e-6)
    assert score.value == pytest.approx(top_mean(smooth, 0.01))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 72), (64, 88), (16, 16)])
def test_members_see_the_middle_of_every_three_by_three_cells(height: int, width: int, backbones: Backbones) -> None:
    scorer, image = make(backbones, dropout=0.3, resolution=32, members=3), picture(pattern(0, height, width))
    scorer.fit(normal_pictures(2), 0)
    (score,) = scorer.score([image])
    groups = scorer.groups(image)
    thin = groups[:, 1::3, 1::3]
    tokens = thin.flatten(1, 2).expand(3, -1, -1, -1)
    with torch.inference_mode(), dropout_on(scorer.network):
        passes = distances(tokens, scorer.network(tokens)).mean(1).unflatten(1, thin.shape[1:3])
    np.testing.assert_allclose(score.member_maps, passes, atol=1e-6)
    np.testing.assert_allclose(score.members, [top_mean(one, 0.01) for one in passes], atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2])
def test_the_narrowest_grid_has_members(rows: int, backbones: Backbones) -> None:
    scorer = make(backbones, members=2)
    scorer.fit(normal_pictures(2), 0)
    assert scorer._members(torch.randn(2, rows, 7, 32)).shape == (2, 1, 2)


# --- What it refuses


def test_it_needs_a_plain_transformer_and_two_layers(backbones: Backbones) -> None:
    with pytest.raises(ConfigError, match="needs 2 or more, got 1"):
        make(backbones, layers=(1,))
    with pytest.raises(ConfigError, match="needs a plain transformer, got embedded"):
        make(backbones, backbone="embedded")
    with pytest.raises(ConfigError, match=r"layers of one shape.*got \(.*\), \(.*\)"):
        make(backbones, backbone=CNN, layers=(1, 2)).fit(normal_pictures(2), 0)


def test_the_paper_s_setting_can_be_asked_for() -> None:
    options = DinomalyOptions(backbone="dinov2-base-reg", width=0, batch=16, steps=5000)
    assert (options.resolution, options.dropout, options.learning_rate, options.layers) == (448, 0.2, 2e-3, ())
