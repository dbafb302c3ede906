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
from explainvad.detection.frames import top_mean
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
    assert asdict(restored.card()) == asdict(fitted.card())
    facts = fitted.card().facts
    assert (facts["features"], facts["cell"], facts["bank"]) == (
        "mean colours",
        "8 px",
        "60 rows of 640 patches from 10 images",
    )


def test_nothing_works_before_fit() -> None:
    bank = MemoryBank(MeanColours(), rows=10)
    for call in (lambda: bank.score(normal_pictures(1)), bank.state):
        with pytest.raises(NotFittedError, match="call fit"):
            call()
