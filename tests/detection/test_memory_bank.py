"""The memory bank over features that a hand can compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from patterned import SQUARE, defective_picture, normal_pictures, pattern, picture

from explainvad.detection import memory_bank
from explainvad.detection.memory_bank import MemoryBank
from explainvad.errors import NotFittedError
from explainvad.types import InspectionImage


class MeanColours:
    """Mean colour and its spread in cells of 8 px."""

    name = "mean colours"
    weights = "none"

    def features(self, image: InspectionImage) -> torch.Tensor:
        rows, cols = image.height // 8, image.width // 8
        cells = torch.tensor(image.pixels[: rows * 8, : cols * 8]).float().reshape(rows, 8, cols, 8, 3)
        return torch.cat((cells.mean((1, 3)), cells.std((1, 3))), dim=2).permute(2, 0, 1)


def averaged(image: InspectionImage, row: int, col: int) -> torch.Tensor:
    """Features of a cell averaged over those of its 3 x 3 neighbours that exist."""
    grid = MeanColours().features(image)
    return grid[:, max(0, row - 1) : row + 2, max(0, col - 1) : col + 2].mean((1, 2))


@pytest.fixture
def fitted() -> MemoryBank:
    bank = MemoryBank(MeanColours(), rows=60)
    bank.fit(normal_pictures(10), seed=0)
    return bank


def test_each_bank_row_is_the_patch_that_its_origin_names(fitted: MemoryBank) -> None:
    assert fitted.bank is not None and fitted.origin is not None
    assert 1 <= len(fitted.bank) == len(fitted.origin) <= 60
    images = normal_pictures(10)
    for row, (image, y, x) in zip(fitted.bank, fitted.origin.tolist(), strict=True):
        torch.testing.assert_close(row, averaged(images[image], y, x))
    assert len({tuple(o) for o in fitted.origin.tolist()}) == len(fitted.origin)


def test_the_map_is_the_distance_to_the_nearest_bank_row(fitted: MemoryBank) -> None:
    sharp = MemoryBank(MeanColours(), sigma=0.0, rows=60)
    sharp.bank, sharp.origin = fitted.bank, fitted.origin
    assert fitted.bank is not None
    image = normal_pictures(1, first=50)[0]
    (score,) = sharp.score([image])
    own = torch.stack([averaged(image, y, x) for y in range(8) for x in range(8)])
    exact, index = torch.cdist(own.double(), fitted.bank.double()).min(1)
    # The centre of a cell lies between four pixels of the bilinear map
    centres = score.anomaly_map.reshape(8, 8, 8, 8)[:, 3:5, :, 3:5].mean((1, 3))
    np.testing.assert_allclose(centres[1:-1, 1:-1], exact.reshape(8, 8)[1:-1, 1:-1], rtol=0.1, atol=0.5)
    assert score.value <= exact.max().item() * (1 + 1e-4)
    assert score.value >= exact.mean().item()
    assert fitted.origin is not None
    assert np.array_equal(score.evidence["neighbour"].reshape(-1, 3), fitted.origin[index].numpy())


def test_a_full_bank_knows_its_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bank, "SHARE", 1.0)
    bank = MemoryBank(MeanColours(), rows=10_000)
    bank.fit(normal_pictures(3), seed=0)
    for score in bank.score(normal_pictures(3)):
        assert score.value == pytest.approx(0, abs=1e-4)
    assert bank.score([defective_picture(0)])[0].value > 10


def test_a_planted_square_scores_above_all_normals_and_is_found(fitted: MemoryBank) -> None:
    normal = [s.value for s in fitted.score(normal_pictures(8, first=100))]
    (score,) = fitted.score([defective_picture(200)])
    assert score.value > 1.5 * max(normal)
    y, x = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
    assert SQUARE[0].start - 4 <= y < SQUARE[0].stop + 4 and SQUARE[1].start - 4 <= x < SQUARE[1].stop + 4


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
    monkeypatch.setattr(memory_bank, "SHARE", 1.0)
    bank = MemoryBank(MeanColours(), rows=1000)
    bank.fit([picture(pattern(0, 80, 80)), picture(pattern(1, 64, 120)), picture(pattern(2, 16, 24))], seed=0)
    assert bank.origin is not None
    assert bank.origin[:, 0].bincount().tolist() == [30, 30, 6]
    assert bank.facts["bank"] == "66 rows of 226 patches from 3 images"


def test_the_same_seed_gives_the_same_bank() -> None:
    banks = []
    for seed in (1, 1, 2):
        bank = MemoryBank(MeanColours(), rows=20)
        bank.fit(normal_pictures(4), seed)
        assert bank.bank is not None
        banks.append(bank.bank)
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])


def test_a_restored_bank_gives_identical_scores(fitted: MemoryBank) -> None:
    arrays, settings = fitted.state()
    restored = MemoryBank.restore(arrays, settings, MeanColours())
    for image in (normal_pictures(1, first=100)[0], defective_picture(200)):
        ours, theirs = fitted.score([image])[0], restored.score([image])[0]
        assert ours.value == theirs.value
        assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
        assert np.array_equal(ours.evidence["neighbour"], theirs.evidence["neighbour"])
    assert restored.card().facts == fitted.card().facts
    assert fitted.card().facts["features"] == "mean colours"


def test_nothing_works_before_fit() -> None:
    bank = MemoryBank(MeanColours())
    for call in (lambda: bank.score(normal_pictures(1)), bank.state):
        with pytest.raises(NotFittedError, match="call fit"):
            call()
