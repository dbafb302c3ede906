"""The masked autoencoder: masks that cover exactly, and patches that do not vouch for themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from patterned import defective_picture, normal_pictures, pattern, picture
from pixel_checks import depends_on_the_seed_alone, finds_the_square_and_comes_back
from pydantic import ValidationError
from torch import Tensor, nn

from explainvad.detection.backbones import Backbones
from explainvad.detection.reconstruction.masked_vit import (
    MaskedAutoencoder,
    MaskedViT,
    MaskedViTOptions,
    complementary_masks,
    random_masks,
    unpatched,
)
from explainvad.detection.reconstruction.pixels import Crops
from explainvad.detection.transformer import position_code

TINY = {
    "resolution": 64,
    "side": 64,
    "steps": 4,
    "batch": 4,
    "patch": 8,
    "width": 32,
    "depth": 1,
    "decoder_width": 32,
    "decoder_depth": 1,
    "learning_rate": 5e-3,
}


def scorer(backbones: Backbones, **options: Any) -> MaskedViT:
    return MaskedViT(MaskedViTOptions(**TINY | options), backbones)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def fitted(backbones: Backbones) -> MaskedViT:
    one = scorer(backbones)
    one.fit([*normal_pictures(2), picture(pattern(7, 48, 90))], 0)
    return one


# --- Masks


@pytest.mark.parametrize("patches", [7, 16, 33])
@pytest.mark.parametrize(
    ("ratio", "passes", "times"), [(0.1, 7, 1), (0.25, 4, 1), (0.5, 2, 1), (0.6, 2, 1), (0.75, 4, 3), (0.8, 5, 4)]
)
def test_complementary_masks_cover_each_patch_equally_often(
    patches: int, ratio: float, passes: int, times: int
) -> None:
    masks = complementary_masks(3, patches, ratio, seeded())
    passes = passes if ratio > 0.1 else min(10, patches)  # never more groups than patches
    assert masks.shape == (passes, 3, patches) and masks.dtype == torch.bool
    assert (masks.sum(0) == times).all()
    # The same number in every round, so that rounds make a batch, and never all of them
    counts = masks.sum(2)
    assert (counts == counts[:, :1]).all() and counts.max() < patches
    assert (counts.float() / patches - times / passes).abs().max() < 1 / patches
    assert not torch.equal(masks[:, 0], masks[:, 1])
    assert torch.equal(masks, complementary_masks(3, patches, ratio, seeded()))


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (0.3, 5), (0.75, 12), (0.99, 15)])
def test_random_masks_mask_their_share_and_leave_one(ratio: float, expected: int) -> None:
    masks = random_masks(50, 16, ratio, seeded())
    assert (masks.sum(1) == expected).all()
    assert expected == 0 or (masks.any(0).all() and len(masks.unique(dim=0)) > 10)


# --- The network


def test_patches_are_put_back_where_they_were() -> None:
    pixels = torch.rand(2, 3, 16, 24)
    patches = F.pixel_unshuffle(pixels, 8).flatten(2).transpose(1, 2)
    assert torch.equal(unpatched(patches, pixels, 8), pixels)
    assert torch.equal(patches[1, 4].reshape(3, 8, 8), pixels[1, :, 8:16, 8:16])  # row 1, column 1 of 2 x 3


def test_what_is_masked_is_not_seen_and_what_is_visible_is() -> None:
    torch.manual_seed(0)
    network = MaskedAutoencoder(8, 32, 1, 32, 1).eval()
    code = position_code(4, 4, (4, 4), (0, 0), 32)[None]
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, :10] = True
    pixels = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        before = network(pixels, mask, code)[0]
        hidden, shown = pixels.clone(), pixels.clone()
        hidden[:, :, :16] = 0.0  # patches 0 to 7
        shown[:, :, 24:, 24:] = 0.0  # patch 15
        assert torch.equal(network(hidden, mask, code)[0], before)
        assert (network(shown, mask, code)[0] - before)[:, :, :16].abs().max() > 1e-4
        moved = network(pixels, mask, code.flip(1))[0]
    assert not torch.allclose(moved, before, atol=1e-3)  # places count


def test_masked_patches_of_one_picture_differ_by_their_places() -> None:
    torch.manual_seed(0)
    network = MaskedAutoencoder(8, 32, 1, 32, 1).eval()
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, 5] = False
    with torch.inference_mode():
        rebuilt = network(torch.rand(1, 3, 32, 32), mask, position_code(4, 4, (4, 4), (0, 0), 32)[None])[0]
    assert (rebuilt[0, :, :8, :8] - rebuilt[0, :, 24:, 24:]).abs().max() > 1e-3


class Telltale(nn.Module):
    """Right where masked, and wrong by ``wrong`` where visible; keeps what it was asked."""

    def __init__(self, wrong: float) -> None:
        super().__init__()
        self.wrong, self.masks, self.codes, self.sizes = wrong, [], [], []

    def forward(self, pixels: Tensor, mask: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        self.masks.append(mask)
        self.codes.append(code)
        self.sizes.append(tuple(pixels.shape))
        grid = pixels.shape[2] // 8, pixels.shape[3] // 8
        visible = F.interpolate((~mask).float().unflatten(1, grid)[:, None], scale_factor=8)
        return pixels + self.wrong * visible, pixels.new_tensor(0.25)


def test_the_loss_counts_masked_patches_alone(backbones: Backbones) -> None:
    one = scorer(backbones)
    network = Telltale(5.0)
    crops = Crops(torch.rand(2, 3, 32, 48), [(0, 0), (16, 24)], [(32, 48), (64, 72)])
    assert float(one.loss(network, crops, seeded())) == 0.25  # the penalty
    (mask,), (code,) = network.masks, network.codes
    assert mask.shape == (2, 24) and (mask.sum(1) == 18).all()
    assert torch.equal(code[0], position_code(4, 6, (4, 6), (0, 0), 32))
    assert torch.equal(code[1], position_code(4, 6, (8, 9), (2, 3), 32))


def test_crops_lie_on_the_grid_of_patches(backbones: Backbones) -> None:
    frame = torch.randint(256, (3, 48, 72), dtype=torch.uint8)
    crops = scorer(backbones, side=32, batch=100)._crops([frame], seeded())
    assert {y for y, _ in crops.corners} == {0, 8, 16} and {x for _, x in crops.corners} == {0, 8, 16, 24, 32, 40}
    for pixels, (y, x) in zip(crops.pixels, crops.corners, strict=True):
        assert torch.equal(pixels, frame[:, y : y + 32, x : x + 32].float() / 127.5 - 1)


# --- A score


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_only_masked_patches_are_scored(ratio: float, backbones: Backbones) -> None:
    one = scorer(backbones, mask_ratio=ratio, rounds=3, usual=False, sigma=0)
    one.fit(normal_pictures(1), 0)
    one._network = network = Telltale(5.0)
    (score,) = one.score(normal_pictures(1))
    assert score.value < 1e-10 and np.abs(score.anomaly_map).max() < 1e-10
    assert len(network.masks) == round(1 / min(ratio, 1 - ratio))
    assert torch.stack(network.masks).any(0).all()


def test_a_patch_does_not_vouch_for_itself(fitted: MaskedViT) -> None:
    frame = fitted._pixels(normal_pictures(1)[0]).float() / 127.5 - 1
    changed = frame.clone()
    changed[:, 24:32, 40:48] = -frame[:, 24:32, 40:48]
    with torch.inference_mode():
        before, after = (fitted.rebuild(f)[0] for f in (frame, changed))
    difference = (after - before).abs().amax((0, 1))
    assert difference[24:32, 40:48].max() == 0
    difference[24:32, 40:48] = 1
    assert difference.min() > 0  # every other patch has seen it


def test_members_are_rounds_of_masks(fitted: MaskedViT) -> None:
    image = picture(pattern(3, 48, 90))
    (score,) = fitted.score([image])
    rows, cols = (side // 8 for side in score.evidence["rebuilt"].shape[:2])
    assert score.members.shape == (4,) and score.member_maps.shape == (4, rows, cols)
    assert len(set(score.members.tolist())) == 4
    assert score.evidence["residual"].shape == (rows, cols) and (score.evidence["residual"] > 0).all()
    assert score.members.min() <= score.value * 1.001 <= score.members.max() * 1.2


def test_evidence_is_the_mean_residual_of_each_patch(backbones: Backbones) -> None:
    one = scorer(backbones, usual=False, sigma=0)
    one.fit(normal_pictures(2), 0)
    (score,) = one.score(normal_pictures(1))
    per_patch = score.anomaly_map.reshape(8, 8, 8, 8).mean((1, 3))
    np.testing.assert_allclose(score.evidence["residual"], per_patch, rtol=1e-4)
    np.testing.assert_allclose(score.member_maps.mean(0), per_patch, rtol=1e-4)


def test_a_score_does_not_depend_on_what_was_scored_before(fitted: MaskedViT) -> None:
    images = [normal_pictures(1)[0], defective_picture(9), picture(pattern(5, 40, 90))]
    state = torch.get_rng_state()
    alone = [fitted.score([image])[0] for image in images]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    for one, other in zip(alone, fitted.score(images[::-1])[::-1], strict=True):
        assert one.value == other.value and np.array_equal(one.members, other.members)
        assert np.array_equal(one.anomaly_map, other.anomaly_map)


def test_a_large_frame_is_seen_through_windows_that_know_where_they_lie(backbones: Backbones) -> None:
    one = scorer(backbones, side=36, mask_ratio=0.5, rounds=2, usual=False, sigma=0)
    one.fit(normal_pictures(1), 0)
    one._network = network = Telltale(5.0)
    (score,) = one.score([picture(pattern(1, 64, 80))])
    assert set(network.sizes) == {(2, 3, 32, 32)} and len(network.sizes) == 2 * 3 * 3
    codes = torch.stack([code[0] for code in network.codes[::2]])
    expected = [position_code(4, 4, (8, 10), (y, x), 32) for y in (0, 2, 4) for x in (0, 3, 6)]
    torch.testing.assert_close(codes, torch.stack(expected))
    assert score.anomaly_map.shape == (64, 80) and np.abs(score.anomaly_map).max() < 1e-10


@pytest.mark.parametrize(("height", "width"), [(64, 50), (9, 23), (131, 70), (16, 40)])
def test_any_size_is_scored_in_its_own_frame(height: int, width: int, backbones: Backbones) -> None:
    one = scorer(backbones, side=40, steps=2)
    one.fit([picture(pattern(0, height, width))], 0)
    (score,) = one.score([picture(pattern(1, height, width))])
    assert score.anomaly_map.shape == (height, width)


def test_a_planted_square_stands_out_and_the_state_is_all(backbones: Backbones) -> None:
    finds_the_square_and_comes_back(lambda: scorer(backbones, steps=100, mask_ratio=0.5), 2)


def test_the_same_seed_gives_the_same_network(backbones: Backbones) -> None:
    depends_on_the_seed_alone(lambda: scorer(backbones), "mask_token")


def test_half_precision_scores_alike(backbones: Backbones) -> None:
    one, half = scorer(backbones), scorer(Backbones(backbones.store, bf16=True))
    one.fit(normal_pictures(2), 0)
    half.fit(normal_pictures(2), 0)
    half.load(*one.state())
    (exact,), (rough,) = one.score(normal_pictures(1)), half.score(normal_pictures(1))
    assert rough.value == pytest.approx(exact.value, rel=0.1) and rough.value != exact.value


@pytest.mark.parametrize("wrong", [{"mask_ratio": 0.0}, {"mask_ratio": 1.0}, {"width": 40}, {"rounds": 0}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MaskedViTOptions(**wrong)
