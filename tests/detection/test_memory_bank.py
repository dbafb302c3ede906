"""The memory bank over features that a hand can compute."""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar

import numpy as np
import pytest
import torch
from patterned import SQUARE, defective_picture, normal_pictures, pattern, picture
from scipy.ndimage import gaussian_filter
from torch import Tensor

from explainvad.detection import memory_bank
from explainvad.detection.frames import to_frame, top_mean
from explainvad.detection.memory_bank import MemoryBank
from explainvad.errors import NotFittedError
from explainvad.types import InspectionImage

CELL = 8


class MeanColours:
    """Mean colour and its spread in cells of 8 px, white at length 1."""

    name = "mean colours"
    weights = "none"
    facts: ClassVar = {"cell": "8 px"}

    def features(self, image: InspectionImage) -> Tensor:
        rows, cols = image.height // CELL, image.width // CELL
        pixels = torch.tensor(image.pixels[: rows * CELL, : cols * CELL]).float() / (255 * 3**0.5)
        cells = pixels.reshape(rows, CELL, cols, CELL, 3)
        return torch.cat((cells.mean((1, 3)), cells.std((1, 3))), dim=2).permute(2, 0, 1)


def patch(image: InspectionImage, row: int, col: int) -> Tensor:
    """A cell's feature as the bank keeps it, with its place in units of the image's height."""
    grid = MeanColours().features(image)
    place = torch.tensor([(row + 0.5) / grid.shape[1], (col + 0.5) / grid.shape[1]])
    return torch.cat((grid[:, row, col], memory_bank.PLACE_WEIGHT * place))


def patches(image: InspectionImage) -> Tensor:
    rows, cols = image.height // CELL, image.width // CELL
    return torch.stack([patch(image, y, x) for y in range(rows) for x in range(cols)])


@pytest.fixture(scope="module")
def fitted() -> MemoryBank:
    bank = MemoryBank(MeanColours(), rows=60)
    bank.fit(normal_pictures(10), seed=0)
    return bank


def test_each_bank_row_is_the_patch_that_its_origin_names(fitted: MemoryBank) -> None:
    rows, origin = fitted.arrays["bank"], fitted.arrays["origin"].tolist()
    assert len(rows) == len(origin) == 60
    assert len({tuple(o) for o in origin}) == 60
    images = normal_pictures(10)
    for row, (image, y, x) in zip(rows, origin, strict=True):
        torch.testing.assert_close(row, patch(images[image], y, x), rtol=1e-5, atol=1e-6)


def test_a_place_counts_alike_along_both_sides_of_a_wide_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bank, "PLACE_WEIGHT", 0.5)
    bank, image = MemoryBank(MeanColours(), rows=10_000), picture(pattern(1, 40, 96))
    bank.fit([image], seed=0)
    torch.testing.assert_close(bank.arrays["bank"], patches(image), rtol=1e-5, atol=1e-6)


def usual_by_hand(bank: MemoryBank, images: list[InspectionImage]) -> np.ndarray:
    """Mean and spread of the distance of images' patches to the bank's rows of other images."""
    rows, owner = bank.arrays["bank"], bank.arrays["origin"][:, 0]
    side = memory_bank.PLACES
    moments = np.zeros((3, side, side))
    for i, image in enumerate(images):
        nearest = torch.cdist(patches(image), rows[owner != i]).min(1).values.double().numpy().reshape(8, 8)
        cells = np.arange(8) * side // 8
        moments[:, cells[:, None], cells[None]] += np.stack((np.ones((8, 8)), nearest, nearest**2))
    moments = np.stack([gaussian_filter(m, 1.0, mode="mirror", truncate=3.0) for m in moments])
    moments += 1e-3 * moments.sum((1, 2), keepdims=True) / side**2
    mean = moments[1] / moments[0]
    spread = np.sqrt(np.maximum(moments[2] / moments[0] - mean**2, 0))
    return np.stack((mean, spread + memory_bank.SPREAD_FLOOR * spread.mean()))


def test_usual_distances_are_measured_with_an_images_own_rows_left_out(fitted: MemoryBank) -> None:
    expected = usual_by_hand(fitted, normal_pictures(10))
    np.testing.assert_allclose(fitted.arrays["usual"].numpy(), expected, rtol=1e-2, atol=1e-5)


def test_usual_distances_are_measured_on_the_first_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bank, "LEFT_OUT", 2)
    bank = MemoryBank(MeanColours(), rows=60)
    bank.fit(normal_pictures(4), seed=0)
    np.testing.assert_allclose(
        bank.arrays["usual"].numpy(), usual_by_hand(bank, normal_pictures(2)), rtol=1e-2, atol=1e-5
    )


def test_the_map_is_the_distance_to_the_nearest_row_against_the_usual_at_that_place(
    fitted: MemoryBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_bank, "SIGMA", 0.0)
    monkeypatch.setattr(memory_bank, "TOP", 0.1)  # 6 of 64 patches
    resize = torch.nn.functional.interpolate
    image = normal_pictures(1, first=50)[0]
    (score,) = fitted.score([image])
    exact, index = torch.cdist(patches(image), fitted.arrays["bank"]).min(1)
    mean, spread = resize(fitted.arrays["usual"][None], size=(8, 8), mode="bilinear")[0]
    expected = (exact.reshape(8, 8) - mean) / spread
    np.testing.assert_allclose(
        score.anomaly_map, resize(expected[None, None], size=(64, 64), mode="bilinear")[0, 0], rtol=1e-2, atol=1e-2
    )
    assert score.value == pytest.approx(top_mean(expected, memory_bank.TOP), rel=1e-2)
    assert np.array_equal(score.evidence["neighbour"].reshape(-1, 3), fitted.arrays["origin"][index].numpy())


def test_the_map_is_blurred_and_the_score_is_that_of_the_blurred_map(
    fitted: MemoryBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_bank, "TOP", 1e-9)  # the largest value alone
    image = defective_picture(200)
    sharp, soft = [], []
    for sigma, scores in ((0.0, sharp), (1.5, soft)):
        monkeypatch.setattr(memory_bank, "SIGMA", sigma)
        scores.append(fitted.score([image])[0])
    assert soft[0].value < 0.8 * sharp[0].value
    assert soft[0].anomaly_map.max() == pytest.approx(soft[0].value, rel=0.1)


def test_normal_patches_lie_about_as_far_away_as_is_usual(fitted: MemoryBank) -> None:
    (score,) = fitted.score(normal_pictures(1, first=50))
    assert abs(float(score.anomaly_map.mean())) < 1


def test_a_full_bank_knows_its_own_images() -> None:
    bank = MemoryBank(MeanColours(), rows=10_000)
    bank.fit(normal_pictures(3), seed=0)
    for score in bank.score(normal_pictures(3)):
        assert score.anomaly_map.max() < 0  # nearer than usual everywhere
    assert bank.score([defective_picture(0)])[0].value > 2


def test_a_planted_square_scores_above_all_normals_and_is_found(fitted: MemoryBank) -> None:
    normal = [s.value for s in fitted.score(normal_pictures(8, first=100))]
    (score,) = fitted.score([defective_picture(200)])
    assert score.value > 1.5 * max(normal)
    y, x = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
    assert SQUARE[0].start - CELL <= y < SQUARE[0].stop + CELL
    assert SQUARE[1].start - CELL <= x < SQUARE[1].stop + CELL


def halves(seed: int) -> InspectionImage:
    """Dark on the left, bright on the right, with noise."""
    pixels = np.full((64, 64, 3), 40.0)
    pixels[:, 32:] = 200
    return picture(np.clip(pixels + np.random.default_rng(seed).normal(0, 2, pixels.shape), 0, 255).astype(np.uint8))


@pytest.mark.parametrize(("weight", "noticed"), [(0.0, False), (0.1, True)])
def test_a_patch_in_the_wrong_place_is_far_away(weight: float, noticed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bank, "PLACE_WEIGHT", weight)
    bank = MemoryBank(MeanColours(), rows=10_000)
    bank.fit([halves(seed) for seed in range(4)], seed=0)
    normal = max(s.value for s in bank.score([halves(seed) for seed in range(4, 8)]))
    swapped = picture(halves(8).pixels[:, ::-1].copy())
    assert (bank.score([swapped])[0].value > 1.5 * normal) is noticed


def test_the_score_of_an_image_does_not_depend_on_its_neighbours(fitted: MemoryBank) -> None:
    one, bad, other = normal_pictures(1, first=100)[0], defective_picture(200), picture(pattern(1, 40, 96))
    (alone,) = fitted.score([one])
    together = fitted.score([bad, one, other])
    assert together[1].value == alone.value
    assert np.array_equal(together[1].anomaly_map, alone.anomaly_map)
    assert together[2].anomaly_map.shape == (40, 96)
    assert together[2].evidence["neighbour"].shape == (5, 12, 3)


def test_images_of_different_sizes_fill_one_bank_in_fair_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bank, "MAX_CANDIDATES", 90)
    bank = MemoryBank(MeanColours(), rows=1000)
    bank.fit([picture(pattern(0, 80, 80)), picture(pattern(1, 64, 120)), picture(pattern(2, 16, 24))], seed=0)
    assert bank.arrays["origin"][:, 0].bincount().tolist() == [30, 30, 6]
    assert bank.facts["bank"] == "66 rows of 226 patches from 3 images"


def test_one_image_alone_is_a_fit() -> None:
    bank = MemoryBank(MeanColours(), rows=20)
    bank.fit(normal_pictures(1), seed=0)
    assert np.isfinite(bank.score(normal_pictures(1, first=5))[0].value)


def test_the_same_seed_gives_the_same_bank() -> None:
    banks = []
    for seed in (1, 1, 2):
        bank = MemoryBank(MeanColours(), rows=20)
        bank.fit(normal_pictures(4), seed)
        banks.append(bank.arrays)
    assert all(torch.equal(banks[0][name], banks[1][name]) for name in banks[0])
    assert not torch.equal(banks[0]["bank"], banks[2]["bank"])


def test_a_restored_bank_gives_identical_scores(fitted: MemoryBank) -> None:
    arrays, settings = fitted.state()
    restored = MemoryBank.restore(arrays, settings, MeanColours())
    for image in (normal_pictures(1, first=100)[0], defective_picture(200)):
        ours, theirs = fitted.score([image])[0], restored.score([image])[0]
        assert ours.value == theirs.value
        assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
        assert np.array_equal(ours.evidence["neighbour"], theirs.evidence["neighbour"])
        assert np.array_equal(ours.members, theirs.members)
        assert np.array_equal(ours.member_maps, theirs.member_maps)
    assert asdict(restored.card()) == asdict(fitted.card())
    facts = fitted.card().facts
    assert (facts["features"], facts["cell"], facts["bank"]) == (
        "mean colours",
        "8 px",
        "60 rows of 640 patches from 10 images",
    )


def test_nothing_works_before_fit() -> None:
    bank = MemoryBank(MeanColours(), rows=10)
    for call in (lambda: bank.score(normal_pictures(1)), bank.state, lambda: bank.without([0])):
        with pytest.raises(NotFittedError, match="call fit"):
            call()


# --- Members


@pytest.fixture(scope="module")
def many() -> MemoryBank:
    """Of more images than there are blocks, two of them in some."""
    bank = MemoryBank(MeanColours(), rows=150)
    bank.fit(normal_pictures(20), seed=0)
    return bank


NEW = [*normal_pictures(2, first=100), defective_picture(200), picture(pattern(3, 40, 96))]


@pytest.mark.parametrize("name", ["fitted", "many"])
def test_a_member_is_the_bank_of_the_images_whose_blocks_were_drawn(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank: MemoryBank = request.getfixturevalue(name)
    blocks = sorted({int(i) % memory_bank.BLOCKS for i in bank.arrays["origin"][:, 0]})
    _, resamples = bank._blocks()
    scores = bank.score(NEW)
    monkeypatch.setattr(memory_bank, "MEMBERS", 1)  # the parts' own are not looked at
    for member, drawn in enumerate(resamples):
        seen = {blocks[i] for i in drawn.tolist()}
        part = bank.without([i for i in range(20) if i % memory_bank.BLOCKS not in seen])
        for whole, of_part in zip(scores, part.score(NEW), strict=True):
            assert whole.members[member] == pytest.approx(of_part.value, rel=1e-3)
            height, width = whole.anomaly_map.shape
            grid = torch.from_numpy(whole.member_maps[member])
            np.testing.assert_allclose(to_frame(grid, height, width), of_part.anomaly_map, atol=1e-2)


def test_resamples_draw_as_many_blocks_as_there_are_with_replacement(many: MemoryBank) -> None:
    edges, resamples = many._blocks()
    assert (edges[0], edges[-1], len(edges)) == (0, 150, memory_bank.BLOCKS + 1)
    assert len(resamples) == memory_bank.MEMBERS == len({tuple(drawn.tolist()) for drawn in resamples})
    shares = [len(drawn) / memory_bank.BLOCKS for drawn in resamples]
    assert max(shares) < 1
    assert np.mean(shares) == pytest.approx(1 - (1 - 1 / 16) ** 16, abs=0.08)  # 0.644, deviation 0.09 / sqrt(16)
    assert set(torch.cat(resamples).tolist()) == set(range(memory_bank.BLOCKS))


def test_members_see_less_so_they_score_higher(many: MemoryBank) -> None:
    for score in many.score(NEW):
        assert score.members.shape == (memory_bank.MEMBERS,)
        assert score.members.dtype == score.member_maps.dtype == np.float32
        assert (score.members >= score.value - 1e-3 * abs(score.value)).all()
        assert score.members.std() > 0
        rows, cols = score.evidence["neighbour"].shape[:2]
        assert score.member_maps.shape == (memory_bank.MEMBERS, rows, cols)
        height, width = score.anomaly_map.shape
        for member in torch.from_numpy(score.member_maps):
            assert (to_frame(member, height, width) >= score.anomaly_map - 1e-2).all()


def test_members_do_not_depend_on_what_was_scored_before(many: MemoryBank) -> None:
    alone = [many.score([image])[0] for image in NEW]
    torch.rand(7)
    for one, other in zip(alone, many.score(NEW[::-1])[::-1], strict=True):
        assert np.array_equal(one.members, other.members)
        assert np.array_equal(one.member_maps, other.member_maps)


def test_a_bank_of_one_image_has_members_that_agree() -> None:
    bank = MemoryBank(MeanColours(), rows=20)
    bank.fit(normal_pictures(1), seed=0)
    (score,) = bank.score(normal_pictures(1, first=5))
    assert score.members == pytest.approx([score.value] * memory_bank.MEMBERS, rel=1e-3)


# --- Few images: each is separate, and can be left out


def separate(images: list[InspectionImage], seed: int = 0) -> MemoryBank:
    bank = MemoryBank(MeanColours(), rows=16, separate=True)
    bank.fit(images, seed)
    return bank


def test_every_image_of_few_keeps_rows_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = separate(normal_pictures(5))
    assert bank.arrays["origin"][:, 0].bincount().tolist() == [64] * 5  # all; ``rows`` does not count
    monkeypatch.setattr(memory_bank, "EACH_OF_FEW", 10)
    bank = separate([*normal_pictures(4), picture(pattern(9, 16, 24))])
    assert bank.arrays["origin"][:, 0].bincount().tolist() == [10] * 4 + [6]
    assert len({tuple(origin) for origin in bank.arrays["origin"].tolist()}) == 46
    for row, (image, y, x) in zip(bank.arrays["bank"], bank.arrays["origin"].tolist(), strict=True):
        if image < 4:
            torch.testing.assert_close(row, patch(normal_pictures(4)[image], y, x), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(memory_bank, "CANDIDATES_OF_FEW", 4)
    assert separate(normal_pictures(3)).arrays["origin"][:, 0].bincount().tolist() == [4] * 3


def test_the_rows_of_an_image_spread_over_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bank, "EACH_OF_FEW", 8)
    images = normal_pictures(3)
    bank = separate(images)
    for i, image in enumerate(images):
        every = patches(image)
        own = bank.arrays["bank"][bank.arrays["origin"][:, 0] == i]
        reach = torch.cdist(every, own).min(1).values.max()
        by_chance = [torch.cdist(every, every[chosen]).min(1).values.max() for chosen in at_random(100)]
        assert reach < np.mean(by_chance)


def at_random(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randperm(64, generator=generator)[:8] for _ in range(count)]


def test_distances_to_few_images_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bank, "SIGMA", 0.0)
    monkeypatch.setattr(memory_bank, "TOP", 0.1)
    bank, image = separate(normal_pictures(5)), NEW[0]
    exact = torch.cdist(patches(image), torch.cat([patches(one) for one in normal_pictures(5)])).min(1).values
    (score,) = bank.score([image])
    assert score.value == pytest.approx(top_mean(exact, 0.1), rel=1e-4)
    assert "usual" not in bank.card().summary and "usual" in MemoryBank(MeanColours(), 9).card().summary


@pytest.mark.parametrize("left_out", [[3], [0, 5], [1, 2, 3, 4, 5]])
def test_without_some_images_it_is_the_bank_of_the_others(left_out: list[int]) -> None:
    images = normal_pictures(6)  # of so few patches that all are kept
    bank = separate(images).without(left_out)
    kept = [i for i in range(6) if i not in left_out]
    other = separate([images[i] for i in kept])
    for ours, theirs in zip(bank.score(NEW), other.score(NEW), strict=True):
        assert ours.value == theirs.value
        assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
        named = np.array(kept)[theirs.evidence["neighbour"][..., 0]]
        assert np.array_equal(ours.evidence["neighbour"][..., 0], named)
        assert np.array_equal(ours.evidence["neighbour"][..., 1:], theirs.evidence["neighbour"][..., 1:])
    restored = MemoryBank.restore(*bank.state(), MeanColours())
    assert np.array_equal(restored.score(NEW)[0].member_maps, bank.score(NEW)[0].member_maps)


@pytest.mark.parametrize("each", [400, 9])
def test_without_some_images_no_score_is_smaller(each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bank, "EACH_OF_FEW", each)
    bank = separate(normal_pictures(12))
    rng = np.random.default_rng(0)
    whole, raised = bank.score(NEW), 0
    for _ in range(25):
        left_out = sorted(rng.choice(12, rng.integers(1, 12), replace=False).tolist())
        for all_of_it, part in zip(whole, bank.without(left_out).score(NEW), strict=True):
            assert part.value >= all_of_it.value - 1e-6
            assert (part.anomaly_map >= all_of_it.anomaly_map - 1e-6).all()
            raised += part.value > all_of_it.value
    assert raised > 50


def test_of_any_pictures_in_turn_no_more_than_k_have_the_k_smallest_p_values() -> None:
    # Jackknife-minmax: what calibrates a bank of few images, for pictures of any kind
    pictures = [*normal_pictures(4), defective_picture(7), picture(pattern(8, 40, 96)), halves(3)]
    ranks = []
    for i, new in enumerate(pictures):
        others = pictures[:i] + pictures[i + 1 :]
        bank = separate(others)
        left_out = [bank.without([j]).score([other])[0].value for j, other in enumerate(others)]
        ranks.append(1 + sum(value >= bank.score([new])[0].value for value in left_out))
    for k in range(1, len(pictures) + 1):
        assert sum(rank <= k for rank in ranks) <= k
    assert min(ranks) == 1


def test_the_kind_of_a_bank_survives_and_so_do_its_facts() -> None:
    bank = separate(normal_pictures(3))
    restored = MemoryBank.restore(*bank.state(), MeanColours())
    assert restored.separate and bank.without([1]).separate
    assert asdict(restored.card()) == asdict(bank.card())
    assert bank.without([1]).facts == bank.facts
    assert len(bank.arrays["bank"]) == 3 * 64  # as it was


def test_a_bank_needs_an_image() -> None:
    with pytest.raises(ValueError, match="a bank needs an image, but all 3 were left out"):
        separate(normal_pictures(3)).without([0, 1, 2])
