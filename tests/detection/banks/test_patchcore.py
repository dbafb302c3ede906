"""PatchCore: its patches and reweighting by hand, and planted defects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from patterned import SQUARE, defective_picture, normal_pictures, pattern, picture
from pydantic import ValidationError
from tiny_models import CNN
from toy import pool, random_squares

from explainvad.detection.backbones import Backbones
from explainvad.detection.banks.patchcore import NEIGHBOURS, PatchCore, PatchCoreOptions, reweighting
from explainvad.errors import ConfigError


@pytest.fixture
def fitted(backbones: Backbones) -> PatchCore:
    scorer = PatchCore(PatchCoreOptions(backbone=CNN, resolution=64), backbones)
    scorer.fit(normal_pictures(10), seed=0)
    return scorer


def toy(**options: object) -> PatchCore:
    return PatchCore(PatchCoreOptions(backbone="mean colours", layers=(0, 1), **options), pool())


def mean_of_neighbours(level: np.ndarray) -> np.ndarray:
    """Sum over the 3 x 3 cells around each, divided by 9: zeros beyond the border."""
    around = np.pad(level, ((0, 0), (1, 1), (1, 1)))
    rows, cols = level.shape[1:]
    return sum(around[:, y : y + rows, x : x + cols] for y in range(3) for x in range(3)) / 9  # type: ignore[no-any-return]


def test_a_patch_is_its_neighbourhood_in_both_layers() -> None:
    scorer, (image,) = toy(), random_squares(1, seed=0, rows=6, cols=8)
    fine, coarse = (mean_of_neighbours(level.numpy()) for level in scorer.extractor.levels(image, (0, 1)))
    patches = scorer.patches(image)
    assert patches.shape == (6, 6, 8)
    np.testing.assert_allclose(patches[:3], fine, rtol=1e-5)
    # twice as fine, a cell lies a quarter of a coarse one from its centre: weights 3/4 and 1/4, and 1 at the border
    row = np.array([coarse[0, 1, 0], *(0.75 * coarse[0, 1, i] + 0.25 * coarse[0, 1, j] for i, j in [(0, 1), (1, 0)])])
    upper = np.array([coarse[0, 0, 0], *(0.75 * coarse[0, 0, i] + 0.25 * coarse[0, 0, j] for i, j in [(0, 1), (1, 0)])])
    np.testing.assert_allclose(patches[3, 2, :3], 0.75 * row + 0.25 * upper, rtol=1e-5)


def test_a_single_layer_will_do() -> None:
    scorer = PatchCore(PatchCoreOptions(backbone="mean colours", layers=(1,)), pool())
    assert scorer.patches(random_squares(1, seed=0)[0]).shape == (3, 4, 4)
    with pytest.raises(ValidationError):
        PatchCoreOptions(layers=())


def test_reweighting_by_hand() -> None:
    bank = torch.tensor([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0]])
    # from (0, -1) the rows lie at 1, 4 and the root of 17
    parts = [math.exp(1), math.exp(4), math.exp(17**0.5)]
    assert reweighting(torch.tensor([0.0, -1.0]), bank, 0) == pytest.approx(1 - parts[0] / sum(parts), rel=1e-5)


def test_only_the_nearest_of_the_neighbour_weigh() -> None:
    bank = torch.cat((torch.zeros(1, 1), torch.arange(1.0, 30.0)[:, None]))
    parts = [math.exp(abs(-0.5 - m)) for m in range(NEIGHBOURS)]
    assert reweighting(torch.tensor([-0.5]), bank, 0) == pytest.approx(1 - parts[0] / sum(parts), rel=1e-5)


def test_reweighting_does_not_overflow() -> None:
    bank = torch.tensor([[0.0], [1000.0]])
    assert reweighting(torch.tensor([-2000.0]), bank, 0) == pytest.approx(1.0)
    assert reweighting(torch.tensor([-2000.0]), torch.zeros(4, 1), 2) == pytest.approx(0.75)


def test_the_neighbour_itself_comes_first_among_its_own_neighbours() -> None:
    # many rows at one place, whose distances from m* are all rounding
    bank = torch.cat((torch.full((30, 3), 1e4), torch.full((1, 3), 1e4 + 1)))
    query = torch.tensor([1e4, 1e4, 1e4 + 4])
    distance = (query - bank[30]).norm().item()
    others = (query - bank[0]).norm().item()
    parts = [math.exp(distance - others), *[1.0] * (NEIGHBOURS - 1)]
    assert reweighting(query, bank, 30) == pytest.approx(1 - parts[0] / sum(parts), rel=1e-4)


def test_an_image_scores_its_worst_patch_times_the_weight() -> None:
    images, (image,) = random_squares(5, seed=0), random_squares(1, seed=9)
    plain, reweighted = toy(), toy(reweight=True)
    plain.fit(images, seed=0)
    reweighted.fit(images, seed=0)
    (without,), (score,) = plain.score([image]), reweighted.score([image])
    queries = plain.patches(image).flatten(1).T
    distance, index = torch.cdist(queries, plain.arrays["bank"].float()).min(1)
    worst = int(distance.argmax())
    weight = reweighting(queries[worst], plain.arrays["bank"], int(index[worst]))
    assert without.value == pytest.approx(float(distance.max()), rel=1e-4)
    assert 0.5 < weight < 0.95
    assert score.value == pytest.approx(weight * without.value, rel=1e-4)
    np.testing.assert_allclose(score.members, np.float32(weight) * without.members, rtol=1e-4)
    assert np.array_equal(score.anomaly_map, without.anomaly_map)


def test_of_one_row_nothing_is_rare() -> None:
    scorer = toy(reweight=True, max_rows=1)
    scorer.fit(random_squares(2, seed=0), seed=0)
    (score,) = scorer.score(random_squares(1, seed=9))
    assert score.value == pytest.approx(float(score.evidence["distance"].max()))


def test_few_images_cannot_be_reweighted() -> None:
    scorer = toy(reweight=True, label="core")
    scorer.separate = True
    with pytest.raises(ConfigError, match=r"core: reweight = true is not for so few images .* set reweight = false"):
        scorer.fit(random_squares(3, seed=0), seed=0)


def test_a_planted_defect_is_found_even_with_random_weights(fitted: PatchCore) -> None:
    normal = fitted.score(normal_pictures(6, first=50))
    (score,) = fitted.score([defective_picture(60)])
    assert score.value > 1.3 * max(s.value for s in normal)
    outside = np.ones((64, 64), dtype=bool)
    outside[SQUARE] = False
    y, x = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
    assert not outside[y, x]
    assert score.anomaly_map[SQUARE].mean() > 2 * score.anomaly_map[outside].mean()


def test_few_images_find_it_too_and_each_can_be_left_out(backbones: Backbones) -> None:
    scorer = PatchCore(PatchCoreOptions(backbone=CNN, resolution=64), backbones)
    scorer.separate = True
    images = normal_pictures(5)
    scorer.fit(images, seed=0)
    (score,) = scorer.score([defective_picture(60)])
    left_out = [scorer.without([i]).score([image])[0].value for i, image in enumerate(images)]
    assert score.value > 1.3 * max(left_out)


def test_the_layers_are_those_of_the_network(fitted: PatchCore, backbones: Backbones) -> None:
    (image,) = normal_pictures(1)
    fine, coarse = backbones.extractor(CNN, 64).levels(image, (2, 3))
    assert fitted.patches(image).shape == (len(fine) + len(coarse), *fine.shape[1:])
    expected = F.avg_pool2d(fine[None], 3, 1, 1, count_include_pad=True)[0]
    assert torch.equal(fitted.patches(image)[: len(fine)], expected)


def test_a_wide_image_is_seen_whole(fitted: PatchCore) -> None:
    (score,) = fitted.score([picture(pattern(1, 64, 128))])
    assert score.anomaly_map.shape == (64, 128)
    assert score.evidence["neighbour"].shape == (8, 16, 3)
