"""The reconstruction scorer: the same every time, each image on its own, and able to find a planted square."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest
import safetensors.numpy
import torch
from patterned import SQUARE, defective_picture, normal_pictures, pattern, picture, random_backbone
from torch import Tensor

from explainvad.detection.backbone import embedded
from explainvad.detection.backbone.embedded import EmbeddedBackbone
from explainvad.detection.frames import gaussian_blur, to_frame, top_mean
from explainvad.detection.reconstruction import features as module
from explainvad.detection.reconstruction.decoder import FeatureDecoder, mc_dropout
from explainvad.detection.reconstruction.features import WIDTH, FeatureReconstruction
from explainvad.detection.transformer import position_code
from explainvad.errors import NotFittedError

CELL = 8


def tiny(steps: int = 4, seed: int = 0) -> FeatureReconstruction:
    """On a backbone that knows nothing, fitted for a few steps to images of different sizes."""
    scorer = FeatureReconstruction(random_backbone(), steps=steps, batch=3)
    scorer.fit([*normal_pictures(3), picture(pattern(7, 48, 90))], seed)
    return scorer


@pytest.fixture(scope="module")
def fitted() -> FeatureReconstruction:
    return tiny()


# --- A score


@pytest.mark.parametrize(("height", "width"), [(64, 64), (16, 16), (16, 40), (9, 23), (64, 50), (130, 70)])
def test_a_score_is_of_the_blurred_mean_of_its_evidence(
    height: int, width: int, fitted: FeatureReconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOP", 0.2)  # more than one cell even of small images
    image = picture(pattern(0, height, width))
    (score,) = fitted.score([image])
    rows, cols = fitted.backbone.features(image).shape[1:]
    distance = score.evidence["distance"]
    assert score.scorer == FeatureReconstruction.name
    assert distance.shape == (2, rows, cols) and distance.dtype == np.float32
    assert (distance >= -1e-6).all() and (distance <= 2 + 1e-6).all()
    smooth = gaussian_blur(torch.from_numpy(distance).mean(0), module.SIGMA)
    np.testing.assert_allclose(score.anomaly_map, to_frame(smooth, height, width), atol=1e-6)
    assert score.anomaly_map.shape == (height, width)
    assert score.value == pytest.approx(top_mean(smooth, module.TOP))


def test_evidence_is_the_distance_of_the_detail_and_of_the_features(fitted: FeatureReconstruction) -> None:
    image = picture(pattern(0, 48, 64))
    detail, features = fitted.backbone.levels(image)
    both = torch.cat((torch.nn.functional.normalize(detail, dim=0), features)).flatten(1).T[None]
    assert fitted.decoder is not None
    with torch.inference_mode():
        distance = fitted.decoder(both, position_code(6, 8, (6, 8), (0, 0), WIDTH))[0]
    np.testing.assert_allclose(
        fitted.score([image])[0].evidence["distance"].reshape(2, -1), distance.T.numpy(), atol=1e-6
    )


def test_the_score_of_an_image_does_not_depend_on_its_neighbours(reconstruction: FeatureReconstruction) -> None:
    one, bad, other = normal_pictures(1, first=100)[0], defective_picture(200), picture(pattern(101, 40, 90))
    (alone,) = reconstruction.score([one])
    for lot, place in (([one, bad, other], 0), ([bad, bad, one], 2), ([other, one], 1)):
        together = reconstruction.score(lot)[place]
        assert together.value == alone.value
        assert np.array_equal(together.anomaly_map, alone.anomaly_map)
    assert reconstruction.score([]) == []


def test_a_planted_square_scores_above_all_normals_and_is_found(reconstruction: FeatureReconstruction) -> None:
    normal = [s.value for s in reconstruction.score(normal_pictures(8, first=100))]
    for seed in (200, 201):
        (score,) = reconstruction.score([defective_picture(seed)])
        assert score.value > 1.2 * max(normal)
        y, x = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
        assert SQUARE[0].start - CELL <= y < SQUARE[0].stop + CELL
        assert SQUARE[1].start - CELL <= x < SQUARE[1].stop + CELL
        far = np.ones(score.anomaly_map.shape, dtype=bool)
        far[SQUARE[0].start - 14 : SQUARE[0].stop + 14, SQUARE[1].start - 14 : SQUARE[1].stop + 14] = False
        assert score.anomaly_map[SQUARE].mean() > 1.2 * score.anomaly_map[far].mean()


def test_a_large_image_is_scored_through_windows_as_one_frame(
    fitted: FeatureReconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WINDOW", 64)
    calls = []
    inside = fitted.backbone.network.levels
    monkeypatch.setattr(fitted.backbone.network, "levels", lambda seen: calls.append(seen.shape) or inside(seen))
    (score,) = fitted.score([picture(pattern(50, 512, 640))])  # reduced to a quarter
    assert calls == [(1, 3, 64, 64)] * (3 * 3)
    assert score.evidence["distance"].shape == (2, 16, 20)
    assert score.anomaly_map.shape == (512, 640) and np.isfinite(score.anomaly_map).all()


# --- Members


@pytest.mark.parametrize(("height", "width"), [(64, 64), (16, 16), (9, 23), (40, 72)])
def test_members_are_passes_with_dropout_over_every_second_row_and_column(
    height: int, width: int, fitted: FeatureReconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOP", 0.3)
    image = picture(pattern(0, height, width))
    (score,) = fitted.score([image])
    grid = fitted._grid(image)
    rows, cols = grid.shape[1:]
    position = position_code(rows, cols, (rows, cols), (0, 0), WIDTH).reshape(rows, cols, WIDTH)[::2, ::2]
    thinned = grid[:, ::2, ::2]
    assert fitted.decoder is not None
    with torch.inference_mode():
        passes = mc_dropout(
            fitted.decoder, thinned.reshape(len(grid), -1).T, position.reshape(-1, WIDTH), module.MEMBERS
        )
    assert score.members.shape == (module.MEMBERS,)
    assert score.member_maps.shape == (module.MEMBERS, -(-rows // 2), -(-cols // 2))
    assert score.members.dtype == score.member_maps.dtype == np.float32
    for value, member, distance in zip(score.members, score.member_maps, passes, strict=True):
        smooth = gaussian_blur(distance.mean(1).reshape(member.shape), module.SIGMA / 2)
        np.testing.assert_allclose(member, smooth, atol=1e-6)
        assert value == pytest.approx(top_mean(smooth, module.TOP), abs=1e-6)
    assert len(set(score.members.tolist())) == module.MEMBERS


def test_members_do_not_depend_on_what_was_scored_before(reconstruction: FeatureReconstruction) -> None:
    images = [normal_pictures(1, first=100)[0], defective_picture(200), picture(pattern(101, 40, 90))]
    state = torch.get_rng_state()
    alone = [reconstruction.score([image])[0] for image in images]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    for one, other in zip(alone, reconstruction.score(images[::-1])[::-1], strict=True):
        assert np.array_equal(one.members, other.members)
        assert np.array_equal(one.member_maps, other.member_maps)
    assert reconstruction.decoder is not None
    assert not any(part.training for part in reconstruction.decoder.modules())


# --- A fit


@pytest.fixture(scope="module")
def thrice() -> Iterator[list[FeatureReconstruction]]:
    scorers = []
    for seed in (5, 5, 6):
        torch.rand(seed)  # what was drawn before must not matter
        scorers.append(tiny(seed=seed))
    yield scorers


def test_the_same_seed_gives_the_same_weights(thrice: list[FeatureReconstruction]) -> None:
    one, same, other = (scorer.state()[0] for scorer in thrice)
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not all(np.array_equal(one[name], other[name]) for name in one)
    assert thrice[0].facts == thrice[1].facts


def test_training_lowers_the_distance_and_reports_every_step() -> None:
    seen: list[tuple[str, int, int]] = []
    backbone = random_backbone()
    scorers = [
        FeatureReconstruction(backbone, steps, batch=4, progress=lambda *step: seen.append(step)) for steps in (1, 40)
    ]
    for scorer in scorers:
        scorer.fit(normal_pictures(4), 0)
    assert [step[1:] for step in seen] == [(1, 1), *((i, 40) for i in range(1, 41))]
    (before,), (after,) = (scorer.score(normal_pictures(1, first=9)) for scorer in scorers)
    assert after.anomaly_map.mean() < 0.8 * before.anomaly_map.mean()
    assert scorers[1].facts["training"] == "40 steps of 4 crops from 4 images"
    assert 0 < float(scorers[1].facts["distance when trained"]) < float(scorers[0].facts["distance when trained"])


def test_random_numbers_and_threads_are_given_back() -> None:
    class StoppedError(Exception):
        pass

    def stopped(what: str, done: int, of: int) -> None:
        threads.append(torch.get_num_threads())
        if done == 2:
            raise StoppedError

    threads: list[int] = []
    state, before = torch.get_rng_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        FeatureReconstruction(random_backbone(), steps=1, progress=stopped).fit(normal_pictures(1), 0)
        with pytest.raises(StoppedError):
            FeatureReconstruction(random_backbone(), steps=3, progress=stopped).fit(normal_pictures(1), 0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 1, 1]
    assert torch.equal(torch.get_rng_state(), state)


def test_one_step_on_one_image_is_a_fit() -> None:
    scorer = FeatureReconstruction(random_backbone(), steps=1, batch=1)
    scorer.fit(normal_pictures(1), 0)
    assert np.isfinite(scorer.score(normal_pictures(1))[0].value)


def test_where_memory_is_short_images_are_left_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEATURE_BYTES", 1)
    scorer = FeatureReconstruction(random_backbone(), steps=1, batch=2)
    seen: list[object] = []
    grid = scorer._grid
    monkeypatch.setattr(scorer, "_grid", lambda image: seen.append(image) or grid(image))
    images = normal_pictures(15)
    scorer.fit(images, 0)
    assert [next(i for i, image in enumerate(images) if image is one) for one in seen[1:]] == list(range(0, 15, 2))
    assert scorer.facts["training"] == "1 steps of 2 crops from 8 images"


def test_crops_know_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIDE", 4)
    scorer = FeatureReconstruction(random_backbone(), batch=6)
    sizes = ((7, 9), (5, 4), (4, 12))
    grids = [
        torch.stack((torch.arange(rows)[:, None].expand(rows, cols), torch.arange(cols).expand(rows, cols))).half()
        for rows, cols in sizes
    ]
    places = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        features, position = scorer._crops(grids, generator)
        assert features.shape == (6, 16, 2) and position.shape == (6, 16, WIDTH)
        assert features.dtype == torch.float32
        for crop, code in zip(features, position, strict=True):
            top, left = crop[0].int().tolist()
            assert crop.unflatten(0, (4, 4))[..., 0].tolist() == [[top + i] * 4 for i in range(4)]
            assert crop.unflatten(0, (4, 4))[..., 1].tolist() == [[left + i for i in range(4)]] * 4
            assert any(torch.equal(code, position_code(4, 4, size, (top, left), WIDTH)) for size in sizes)
            places.add((top, left))
    assert {0, 3} <= {top for top, _ in places} and {0, 8} <= {left for _, left in places}


def test_crops_of_a_batch_are_as_large_as_its_smallest_grid() -> None:
    scorer = FeatureReconstruction(random_backbone(), batch=20)
    grids = [torch.zeros(2, 7, 9), torch.zeros(2, 5, 40)]
    features, _ = scorer._crops(grids, torch.Generator().manual_seed(0))
    assert features.shape == (20, 5 * 9, 2)


# --- At rest


def test_a_restored_scorer_gives_identical_scores(fitted: FeatureReconstruction) -> None:
    arrays, settings = fitted.state()
    loaded = safetensors.numpy.load(safetensors.numpy.save(arrays))
    restored = FeatureReconstruction.restore(loaded, json.loads(json.dumps(settings)), fitted.backbone)
    for image in (normal_pictures(1, first=100)[0], defective_picture(200), picture(pattern(3, 30, 100))):
        ours, theirs = fitted.score([image])[0], restored.score([image])[0]
        assert ours.value == theirs.value
        assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
        assert np.array_equal(ours.evidence["distance"], theirs.evidence["distance"])
        assert np.array_equal(ours.members, theirs.members)
        assert np.array_equal(ours.member_maps, theirs.member_maps)
    assert asdict(restored.card()) == asdict(fitted.card())


def test_the_card_says_whose_weights_these_are(fitted: FeatureReconstruction) -> None:
    card = fitted.card()
    assert (card.name, card.family) == ("reconstruction", "reconstruction")
    assert "random, seed 0" in card.weights and "trained from scratch on the reference images" in card.weights
    assert card.facts["training"] == "4 steps of 3 crops from 4 images"


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_weights_that_do_not_fit_are_refused(change: str, fitted: FeatureReconstruction) -> None:
    arrays, settings = fitted.state()
    if change == "missing":
        arrays.pop(next(iter(arrays)))
    else:
        arrays["another.weight"] = np.zeros(3, dtype=np.float32)
    with pytest.raises(RuntimeError, match=r"Missing key|Unexpected key"):
        FeatureReconstruction.restore(arrays, settings, fitted.backbone)


def test_nothing_works_before_fit(shipped: EmbeddedBackbone) -> None:
    scorer = FeatureReconstruction(shipped)
    for call in (lambda: scorer.score(normal_pictures(1)), scorer.state):
        with pytest.raises(NotFittedError, match="before fit: call fit, or load a bundle"):
            call()
    assert scorer.card().family == "reconstruction"


def test_a_fitted_decoder_is_frozen_and_silent(fitted: FeatureReconstruction) -> None:
    assert isinstance(fitted.decoder, FeatureDecoder)
    assert not fitted.decoder.training
    assert not any(p.requires_grad for p in fitted.decoder.parameters())
    grid: Tensor = fitted._grid(normal_pictures(1)[0])
    torch.testing.assert_close(grid[:16].norm(dim=0), torch.ones(8, 8))  # detail, and the features after it
    torch.testing.assert_close(grid[16:].norm(dim=0), torch.ones(8, 8))
