"""Self-attention without parameters, by hand; and a defect that only the rest of the image gives away."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from patterned import defective_picture, normal_pictures
from tiny_models import CNN
from toy import pool, random_squares, squares

from explainvad.detection.backbones import Backbones
from explainvad.detection.banks.patchcore import PatchCore, PatchCoreOptions
from explainvad.detection.banks.sa_patchcore import SAPatchCore, attended


def test_attention_of_a_map_of_four_cells_by_hand() -> None:
    # the maximum over 3 x 3 cells makes all four alike, so a weighted mean over them changes nothing
    level = torch.tensor([[[[0.5, -1.0], [0.25, 0.0]]]])
    torch.testing.assert_close(attended(level), torch.full((1, 1, 2, 2), 0.5))


def test_attention_of_a_row_by_hand() -> None:
    level = torch.tensor([[[[0.0, 0.0, 0.0, 1.0, 0.0]], [[0.0, -1.0, -2.0, -2.0, 0.5]]]])
    # after the maximum: 0 0 1 1 1 and 0 0 -1 0.5 0.5
    expected = []
    for f in ([0.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.0, -1.0, 0.5, 0.5]):
        weights = [[math.exp(a * b) for b in f] for a in f]
        expected.append([[sum(w * b for w, b in zip(row, f, strict=True)) / sum(row) for row in weights]])
    torch.testing.assert_close(attended(level), torch.tensor([expected]), rtol=1e-5, atol=1e-6)


def test_channels_do_not_attend_to_one_another() -> None:
    level = torch.randn(1, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([attended(level[:, i : i + 1]) for i in range(5)], dim=1)
    torch.testing.assert_close(attended(level), alone)


def test_the_first_layer_is_kept_as_it_is() -> None:
    scorer = SAPatchCore(PatchCoreOptions(backbone="mean colours", layers=(0, 1)), pool())
    (image,) = random_squares(1, seed=0)
    fine, coarse = scorer.extractor.levels(image, (0, 1))
    patches = scorer.patches(image)
    assert torch.equal(patches[:3], fine)
    upsampled = torch.nn.functional.interpolate(attended(coarse[None]), size=(8, 8), mode="bilinear")[0]
    torch.testing.assert_close(patches[3:], upsampled)


def halves(left: float, right: float, seed: int) -> np.ndarray:
    """Two parts, too far apart for any 3 x 3 cells to see both."""
    colours = np.full((8, 20, 3), 128.0) + np.random.default_rng(seed).normal(0, 2, (8, 20, 3))
    colours[2:4, 2:4] = left
    colours[2:4, 16:18] = right
    return colours


def test_parts_that_do_not_go_together_are_found_by_attention_only() -> None:
    """Two black parts are normal, and so are two white ones; one of each is not, though each patch is."""
    pairs = [(10.0, 10.0), (250.0, 250.0)]
    normal = [squares(halves(*pairs[seed % 2], seed)) for seed in range(20)]
    ratios = []
    for kind in (PatchCore, SAPatchCore):
        scorer = kind(PatchCoreOptions(backbone="mean colours", layers=(0, 1), share=1.0), pool())
        scorer.fit(normal, seed=0)
        usual = max(s.value for s in scorer.score([squares(halves(*pairs[seed % 2], seed)) for seed in range(30, 40)]))
        ratios.append(scorer.score([squares(halves(10.0, 250.0, 50))])[0].value / usual)
    assert ratios[0] < 1.3 < 2 < ratios[1]


def test_a_planted_defect_is_found_even_with_random_weights(backbones: Backbones) -> None:
    scorer = SAPatchCore(PatchCoreOptions(backbone=CNN, resolution=64), backbones)
    scorer.fit(normal_pictures(10), seed=0)
    usual = max(score.value for score in scorer.score(normal_pictures(6, first=50)))
    assert scorer.score([defective_picture(60)])[0].value > 1.3 * usual
    assert scorer.card().name == "sa-patchcore" and scorer.facts["features"] == f"{CNN}, layers 2, 3"


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3)])
def test_a_constant_channel_stays_constant(shape: tuple[int, int]) -> None:
    torch.testing.assert_close(attended(torch.full((1, 1, *shape), -3.0)), torch.full((1, 1, *shape), -3.0))
