"""AnomalyDINO: cosine distances, the mean of the worst patches, turned references and the mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from patterned import SQUARE, defective_picture, normal_pictures, pattern, picture
from pydantic import ValidationError
from tiny_models import VIT
from toy import patches_of, pool, random_squares, squares

from explainvad.detection.backbones import FINAL, Backbones
from explainvad.detection.banks.anomaly_dino import AnomalyDINO, AnomalyDINOOptions
from explainvad.errors import ConfigError
from explainvad.types import InspectionImage


def toy(separate: bool = False, **options: object) -> AnomalyDINO:
    scorer = AnomalyDINO(AnomalyDINOOptions(backbone="mean colours", **options), pool())
    scorer.separate = separate
    # of cells of 8 px instead of 16
    levels = scorer.extractor.levels
    scorer.extractor.levels = lambda image, layers: levels(image, [0] * len(layers))  # type: ignore[method-assign]
    return scorer


def tiny(backbones: Backbones, separate: bool = False, **options: object) -> AnomalyDINO:
    scorer = AnomalyDINO(AnomalyDINOOptions(backbone=VIT, resolution=64, **options), backbones)
    scorer.separate = separate
    return scorer


def test_patches_are_the_last_tokens_at_length_one(backbones: Backbones) -> None:
    scorer, (image,) = tiny(backbones), normal_pictures(1)
    (tokens,) = backbones.extractor(VIT, 64).levels(image, (FINAL,))
    torch.testing.assert_close(scorer.patches(image), F.normalize(tokens, dim=0))
    torch.testing.assert_close(scorer.patches(image).norm(dim=0), torch.ones(8, 8))


def test_the_distance_is_one_minus_the_cosine() -> None:
    scorer, images, (image,) = toy(share=1.0), random_squares(4, seed=0), random_squares(1, seed=9)
    scorer.fit(images, seed=0)
    (score,) = scorer.score([image])
    cosine = F.normalize(patches_of([image]), dim=1) @ F.normalize(patches_of(images), dim=1).T
    expected = 1 - cosine.amax(1)
    np.testing.assert_allclose(score.evidence["distance"].ravel(), expected, rtol=0.02, atol=1e-5)


def test_brightness_alone_is_no_anomaly() -> None:
    scorer = toy(share=1.0)
    scorer.fit([squares(np.full((4, 4, 3), 200.0))], seed=0)
    assert scorer.score([squares(np.full((4, 4, 3), 100.0))])[0].value == pytest.approx(0, abs=1e-6)


def test_an_image_scores_the_mean_of_its_worst_hundredth() -> None:
    scorer = toy()
    grid = torch.arange(1000.0).reshape(20, 50)
    assert scorer.image_score(grid) == pytest.approx(np.mean(range(990, 1000)))
    assert scorer.image_score(torch.tensor([[1.0, 2.0]])) == 2.0


def test_few_images_are_turned_eight_times_and_many_are_not(backbones: Backbones) -> None:
    images = normal_pictures(3)
    views = []
    for separate, rotations in [(True, "auto"), (False, "auto"), (False, 4), (True, 1)]:
        scorer = tiny(backbones, separate, rotations=rotations, share=1.0)
        scorer.fit(images, seed=0)
        views.append((scorer.facts["views"], int(scorer.arrays["counts"][1]) // 3))
    # 64 cells in each of four views, and those of 8 x 8 cells that lie wholly within the image in the other four
    # a slanted cell reaches as far as its centre and half a diagonal, along the sides of the unturned image
    within = sum(abs(y) + abs(x) + 1 <= 4 * 2**0.5 for y in _centres() for x in _centres())
    assert views[1:] == [
        ("1 of a reference image", 64),
        ("4 of a reference image", 256),
        ("1 of a reference image", 64),
    ]
    assert views[0] == ("8 of a reference image", 256 + 4 * within)


def _centres() -> np.ndarray:
    return np.arange(8) - 3.5


def quarter(image: InspectionImage) -> InspectionImage:
    return replace(image, pixels=np.ascontiguousarray(np.rot90(image.pixels)))


def test_a_turned_part_is_normal_where_references_were_turned(backbones: Backbones) -> None:
    images = normal_pictures(2)
    still, turning = tiny(backbones, True, rotations=1), tiny(backbones, True)
    still.fit(images, seed=0)
    turning.fit(images, seed=0)
    assert turning.score([quarter(images[0])])[0].value == pytest.approx(0, abs=1e-6)
    assert still.score([quarter(images[0])])[0].value > 1e-3


def test_the_neighbour_of_a_turned_patch_is_the_cell_that_it_shows(backbones: Backbones) -> None:
    (image,) = normal_pictures(1)
    scorer = tiny(backbones, True)
    scorer.fit([image], seed=0)
    neighbour = scorer.score([quarter(image)])[0].evidence["neighbour"]
    cells = np.stack(np.mgrid[:8, :8], axis=2)
    assert np.array_equal(neighbour[..., 1:], np.rot90(cells))


def test_a_score_against_fewer_turned_images_is_never_smaller(backbones: Backbones) -> None:
    images = normal_pictures(4)
    scorer = tiny(backbones, True, max_rows=200)
    scorer.fit(images, seed=0)
    for i, image in enumerate(images):
        assert scorer.without([i]).score([image])[0].value >= scorer.score([image])[0].value
    image = defective_picture(60)
    assert scorer.score([image])[0].value > max(scorer.without([i]).score([images[i]])[0].value for i in range(4))


def test_a_planted_defect_is_found_even_with_random_weights(backbones: Backbones) -> None:
    scorer = tiny(backbones, share=0.5)
    scorer.fit(normal_pictures(10), seed=0)
    usual = max(score.value for score in scorer.score(normal_pictures(6, first=50)))
    (score,) = scorer.score([defective_picture(60)])
    assert score.value > 1.3 * usual
    outside = np.ones((64, 64), dtype=bool)
    outside[SQUARE] = False
    assert score.anomaly_map[SQUARE].mean() > 2 * score.anomaly_map[outside].mean()


def part(seed: int, spot: tuple[int, int] | None = None) -> InspectionImage:
    """A blue part of 6 x 6 cells before an orange ground; a green cell somewhere."""
    rng = np.random.default_rng(seed)
    colours = np.full((10, 12, 3), (200.0, 120.0, 30.0))
    colours[2:8, 3:9] = (40, 60, 200)
    if spot:
        colours[spot] = (0, 250, 0)
    return squares(colours + rng.normal(0, 4, colours.shape))


def test_the_mask_keeps_the_background_out_of_bank_and_score() -> None:
    images = [part(seed) for seed in range(6)]
    plain, masked = toy(share=1.0), toy(share=1.0, mask=True)
    plain.fit(images, seed=0)
    masked.fit(images, seed=0)
    assert masked.facts["mask"].startswith("used: foreground fills")
    assert int(masked.arrays["counts"][1]) == 6 * 8 * 8  # the part and one cell around it
    on_part, on_ground, good = ((4, 5), (0, 0), None)
    for scorer, seen in ((plain, [True, True, False]), (masked, [True, False, False])):
        assert [scorer.score([part(9, spot)])[0].value > 0.01 for spot in (on_part, on_ground, good)] == seen
    (score,) = masked.score([part(9, on_ground)])
    assert score.evidence["distance"][0, 0] == 0 and score.members.max() < 0.01


def test_the_mask_is_loaded_with_the_bank() -> None:
    masked, loaded = toy(mask=True), toy(mask=True)
    masked.fit([part(seed) for seed in range(6)], seed=0)
    loaded.load(*masked.state())
    assert loaded.score([part(9, (0, 0))])[0].value == masked.score([part(9, (0, 0))])[0].value < 0.01


def test_a_mask_that_is_not_sensible_is_not_used_and_said_so() -> None:
    scorer = toy(mask=True, share=1.0)
    scorer.fit(random_squares(6, seed=0), seed=0)
    assert scorer.facts["mask"].startswith("asked for, but not used: foreground fills")
    assert "direction" not in scorer.arrays and int(scorer.arrays["counts"][1]) == 6 * 64
    scorer = toy()
    scorer.fit(random_squares(6, seed=0), seed=0)
    assert "mask" not in scorer.facts


def test_a_refit_forgets_the_mask() -> None:
    scorer = toy(mask=True)
    scorer.fit([part(seed) for seed in range(6)], seed=0)
    scorer.fit(random_squares(6, seed=0), seed=0)
    assert "direction" not in scorer.arrays


def test_few_images_have_no_mask() -> None:
    with pytest.raises(ConfigError, match=r"anomaly-dino: mask = true is not for so few images .* set mask = false"):
        toy(True, mask=True).fit(random_squares(3, seed=0), seed=0)


def test_a_half_turn_is_no_option() -> None:
    with pytest.raises(ValidationError):
        AnomalyDINOOptions(rotations=2)  # type: ignore[arg-type]


def test_a_wide_image_is_seen_whole(backbones: Backbones) -> None:
    scorer = tiny(backbones, True)
    scorer.fit([picture(pattern(seed, 64, 96)) for seed in range(2)], seed=0)
    (score,) = scorer.score([picture(pattern(5, 96, 64))])
    assert score.evidence["neighbour"].shape == (12, 8, 3)
    assert score.evidence["neighbour"][..., 1].max() < 8 and score.evidence["neighbour"][..., 2].max() < 12
