"""What both scorers that rebuild frozen features promise: they learn, repeat themselves, and leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from patterned import SQUARE, defective_picture, normal_pictures, pattern, picture
from tiny_models import VIT

from explainvad.detection.backbones import Backbones
from explainvad.detection.reconstruction import frozen_features as module
from explainvad.detection.reconstruction.dinomaly import Dinomaly, DinomalyOptions
from explainvad.detection.reconstruction.frozen_features import FrozenFeatureReconstruction
from explainvad.detection.reconstruction.uniad import UniAD, UniADOptions
from explainvad.errors import NotFittedError
from explainvad.types import ImageScore, InspectionImage

Scorer = FrozenFeatureReconstruction[Any, Any]
Make = Callable[..., Scorer]
ON_TINY = {"backbone": VIT, "resolution": 64, "batch": 4}
UNEVEN = [*normal_pictures(3), picture(pattern(7, 48, 90))]  # of two sizes


def dinomaly(backbones: Backbones, **options: Any) -> Scorer:
    return Dinomaly(DinomalyOptions(**ON_TINY | {"width": 0} | options), backbones)


def uniad(backbones: Backbones, **options: Any) -> Scorer:
    small = {"layers": (0, 1, 2), "side": 8, "neighbours": 3, "width": 32, "depth": 2} | ON_TINY
    return UniAD(UniADOptions(**small | options), backbones)


pytestmark = pytest.mark.parametrize("make", [dinomaly, uniad])


def fitted(
    make: Make, backbones: Backbones, images: Sequence[InspectionImage] = UNEVEN, seed: int = 5, **options: Any
) -> Scorer:
    scorer = make(backbones, **{"steps": 3} | options)
    scorer.fit(images, seed)
    return scorer


def same(one: ImageScore, other: ImageScore) -> bool:
    arrays = [(getattr(one, name), getattr(other, name)) for name in ("anomaly_map", "members", "member_maps")] + [
        (one.evidence[name], other.evidence[name]) for name in one.evidence
    ]
    return one.value == other.value and all(np.array_equal(a, b) for a, b in arrays)


# --- What it learns


def test_a_planted_square_stands_out_of_what_was_learnt(make: Make, backbones: Backbones) -> None:
    first, trained = (fitted(make, backbones, normal_pictures(8), steps=steps, learning_rate=2e-3) for steps in (1, 40))
    loss = [float(scorer.facts["loss when trained"]) for scorer in (first, trained)]
    assert loss[1] < 0.6 * loss[0]
    normal = [score.value for score in trained.score(normal_pictures(6, first=100))]
    for score in trained.score([defective_picture(200), defective_picture(201)]):
        assert score.value > max(normal) + 2 * (max(normal) - min(normal))
        y, x = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
        assert SQUARE[0].start - 8 <= y < SQUARE[0].stop + 8 and SQUARE[1].start - 8 <= x < SQUARE[1].stop + 8


def test_a_score_is_in_the_frame_of_its_image(make: Make, backbones: Backbones) -> None:
    scorer = fitted(make, backbones)
    for height, width in ((64, 64), (30, 50), (200, 90)):
        (score,) = scorer.score([picture(pattern(0, height, width))])
        assert score.scorer == scorer.name
        assert score.anomaly_map.shape == (height, width) and score.anomaly_map.dtype == np.float32


def test_the_score_of_an_image_does_not_depend_on_its_neighbours(make: Make, backbones: Backbones) -> None:
    scorer = fitted(make, backbones)
    one, bad, other = normal_pictures(1, first=100)[0], defective_picture(200), picture(pattern(101, 40, 90))
    (alone,) = scorer.score([one])
    for lot, place in (([one, bad, other], 0), ([bad, bad, one], 2), ([other, one], 1)):
        assert same(scorer.score(lot)[place], alone)
    assert scorer.score([]) == []


# --- Members


def test_members_are_passes_of_their_own_and_the_same_whenever_asked(make: Make, backbones: Backbones) -> None:
    scorer = fitted(make, backbones, dropout=0.3)
    images = [normal_pictures(1, first=100)[0], defective_picture(200), picture(pattern(101, 40, 90))]
    before = torch.get_rng_state()
    alone = [scorer.score([image])[0] for image in images]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert all(same(a, b) for a, b in zip(alone, scorer.score(images[::-1])[::-1], strict=True))
    for score in alone:
        assert len(set(score.members.tolist())) == 6 and len(score.member_maps) == 6
        assert score.members.dtype == score.member_maps.dtype == np.float32
    assert not any(part.training for part in scorer.network.modules())


def test_members_agree_without_noise_and_can_be_left_out(make: Make, backbones: Backbones) -> None:
    (silent,) = fitted(make, backbones, dropout=0.0).score(normal_pictures(1))
    np.testing.assert_allclose(silent.members, silent.members[0], rtol=1e-5)
    (none,) = fitted(make, backbones, members=0).score(normal_pictures(1))
    assert none.members.shape == (0,) and len(none.member_maps) == 0


# --- A fit


def test_the_same_seed_gives_the_same_arrays(make: Make, backbones: Backbones) -> None:
    states = []
    for seed in (5, 5, 6):
        torch.rand(seed)  # what was drawn before must not matter
        states.append(fitted(make, backbones, seed=seed, dropout=0.2).state())
    (one, facts), (again, same_facts), (other, _) = states
    assert facts == same_facts and one.keys() == again.keys()
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not all(np.array_equal(one[name], other[name]) for name in one)


def test_random_numbers_and_threads_are_given_back(make: Make, backbones: Backbones) -> None:
    class StoppedError(Exception):
        pass

    def stopped(what: str, done: int, of: int) -> None:
        if what.startswith("training"):
            threads.append(torch.get_num_threads())
            if done == 2:
                raise StoppedError

    threads: list[int] = []
    state, before = torch.get_rng_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        fitted(make, backbones, steps=1)
        scorer = make(backbones, steps=3)
        scorer.progress = stopped
        with pytest.raises(StoppedError):
            scorer.fit(UNEVEN, 0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 1]
    assert torch.equal(torch.get_rng_state(), state)


def test_every_step_is_reported_and_every_image_is_decoded_once(make: Make, backbones: Backbones) -> None:
    class Decoding(list[InspectionImage]):
        def __getitem__(self, index: Any) -> Any:
            decoded.append(index)
            return super().__getitem__(index)

    decoded: list[int] = []
    seen: list[tuple[str, int, int]] = []
    scorer = make(backbones, steps=2, label="mine")
    scorer.progress = lambda *step: seen.append(step)
    scorer.fit(Decoding(UNEVEN), 0)
    assert decoded == [0, 1, 2, 3]
    assert seen == [
        *(("features for mine", i, 4) for i in range(1, 5)),
        ("training mine", 1, 2),
        ("training mine", 2, 2),
    ]
    assert scorer.facts["training"] == "2 steps of 4 images, from 4"
    assert scorer.score(normal_pictures(1))[0].scorer == scorer.card().name == "mine"


def test_where_memory_is_short_images_are_left_out_evenly(
    make: Make, backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEATURE_BYTES", 1)
    scorer = make(backbones, steps=1)
    seen: list[InspectionImage] = []
    features = scorer.features
    monkeypatch.setattr(scorer, "features", lambda image: seen.append(image) or features(image))
    images = normal_pictures(15)
    scorer.fit(images, 0)
    assert [next(i for i, image in enumerate(images) if image is one) for one in seen] == list(range(0, 15, 2))
    assert scorer.facts["training"].endswith("from 8")


# --- At rest


def test_a_loaded_scorer_gives_identical_scores(make: Make, backbones: Backbones) -> None:
    scorer = fitted(make, backbones, [picture(pattern(7, 64, 96)), *UNEVEN])
    arrays, facts = scorer.state()
    loaded = make(backbones)
    state = torch.get_rng_state()
    loaded.load(safetensors.numpy.load(safetensors.numpy.save(arrays)), facts)
    assert torch.equal(torch.get_rng_state(), state)
    assert asdict(loaded.card()) == asdict(scorer.card())
    for image in (normal_pictures(1, first=100)[0], defective_picture(200), picture(pattern(3, 30, 100))):
        assert same(scorer.score([image])[0], loaded.score([image])[0])
    again, _ = loaded.state()
    assert again.keys() == arrays.keys() and all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert not any(p.requires_grad for p in loaded.network.parameters())


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_weights_that_do_not_fit_are_refused(make: Make, change: str, backbones: Backbones) -> None:
    scorer = fitted(make, backbones)
    arrays, facts = scorer.state()
    if change == "missing":
        arrays.pop(next(iter(arrays)))
    else:
        arrays["another.weight"] = np.zeros(3, dtype=np.float32)
    with pytest.raises(RuntimeError, match=r"Missing key|Unexpected key"):
        make(backbones).load(arrays, facts)


def test_nothing_works_before_fit(make: Make, backbones: Backbones) -> None:
    scorer = make(backbones)
    for call in (lambda: scorer.score(normal_pictures(1)), scorer.state, lambda: scorer.network):
        with pytest.raises(NotFittedError, match="before fit: call fit, or load a bundle"):
            call()


def test_the_card_says_whose_weights_these_are(make: Make, backbones: Backbones) -> None:
    scorer = fitted(make, backbones)
    card = scorer.card()
    assert card.family == "reconstruction" and card.source and card.summary
    assert "trained from scratch on the reference images" in card.weights
    assert scorer.extractor.weights in card.weights
    assert card.facts["features"] == f"layers {', '.join(map(str, scorer.layers))} of {scorer.options.backbone}"
