"""The embedded profile as a whole, through the bytes that a bundle holds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from patterned import defective_picture, normal_pictures, random_backbone
from safetensors.numpy import load, save

from explainvad.detection import ensemble as module
from explainvad.detection.backbone.embedded import EmbeddedBackbone
from explainvad.detection.ensemble import MISSING, MISSING_OF_FEW, EmbeddedEnsemble, resolve_device
from explainvad.detection.memory_bank import MemoryBank
from explainvad.detection.reconstruction.features import FeatureReconstruction


@pytest.fixture(scope="module")
def ensemble(shipped: EmbeddedBackbone, reconstruction: FeatureReconstruction) -> EmbeddedEnsemble:
    bank = MemoryBank(shipped, rows=200)
    bank.fit(normal_pictures(12), seed=0)
    return EmbeddedEnsemble(shipped, bank, reconstruction)


def test_every_scorer_scores_the_planted_square_above_the_normals(ensemble: EmbeddedEnsemble) -> None:
    normal = [{s.scorer: s.value for s in ensemble.score(image)} for image in normal_pictures(6, first=100)]
    for s in ensemble.score(defective_picture(200)):
        assert s.value > max(n[s.scorer] for n in normal)
    assert set(normal[0]) == {card.name for card in ensemble.cards()}


def test_a_score_comes_back_the_same(ensemble: EmbeddedEnsemble) -> None:
    image = normal_pictures(1, first=100)[0]
    first = ensemble.score(image)
    ensemble.score(defective_picture(200))
    for before, after in zip(first, ensemble.score(image), strict=True):
        assert before.value == after.value
        assert np.array_equal(before.anomaly_map, after.anomaly_map)


def test_restored_from_safetensors_and_json_it_gives_identical_scores(ensemble: EmbeddedEnsemble) -> None:
    arrays, settings = ensemble.state()
    at_rest = {name: save(tensors) for name, tensors in arrays.items()}
    loaded = {name: load(data) for name, data in at_rest.items()}
    restored = EmbeddedEnsemble.restore(loaded, json.loads(json.dumps(settings, sort_keys=True)), "cpu")
    for image in (normal_pictures(1, first=100)[0], defective_picture(200)):
        for ours, theirs in zip(ensemble.score(image), restored.score(image), strict=True):
            assert (ours.scorer, ours.value) == (theirs.scorer, theirs.value)
            assert np.array_equal(ours.anomaly_map, theirs.anomaly_map)
            assert np.array_equal(ours.members, theirs.members)
            assert np.array_equal(ours.member_maps, theirs.member_maps)


SETTINGS = {"resolution": 64, "adaptation_minutes": 60.0, "reconstruction_steps": 2, "bank_rows": 50, "device": "cpu"}


def test_scorers_share_one_backbone_and_its_forward_pass(
    ensemble: EmbeddedEnsemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    inside = ensemble.backbone.network.levels
    monkeypatch.setattr(ensemble.backbone.network, "levels", lambda seen: calls.append(seen.shape) or inside(seen))
    ensemble.score(normal_pictures(1, first=100)[0])
    assert calls == [(1, 3, 64, 64)]
    arrays, settings = ensemble.state()
    restored = EmbeddedEnsemble.restore(arrays, settings, "cpu")
    for one in (ensemble, restored):
        assert one.reconstruction.backbone is one.bank.backbone is one.backbone


def test_a_fit_adapts_the_backbone_and_then_fits_both_scorers_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(backbone: EmbeddedBackbone, images: object, **settings: object) -> EmbeddedBackbone:
        asked.update(settings, backbone=backbone.weights, images=images)
        return random_backbone()

    asked: dict[str, object] = {}
    seen: list[tuple[str, int, int]] = []
    monkeypatch.setattr(module, "adapt", told)
    images = normal_pictures(2)
    ensemble = EmbeddedEnsemble.fit(images, 7, **SETTINGS, adaptation_steps=3, progress=lambda *step: seen.append(step))
    assert (asked["steps"], asked["minutes"], asked["seed"], asked["images"]) == (3, 60.0, 7, images)
    assert "shipped" in str(asked["backbone"]) and callable(asked["progress"])
    assert ensemble.backbone.weights == "random, seed 0"
    assert [step[1:] for step in seen] == [(1, 2), (2, 2)]
    assert len(ensemble.score(normal_pictures(1)[0])) == len(ensemble.cards()) == 2
    for card in ensemble.cards():
        assert "random, seed 0" in card.weights and card.source and card.facts


def test_a_fit_without_adaptation_uses_the_weights_as_they_ship(
    shipped: EmbeddedBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "adapt")
    ensemble = EmbeddedEnsemble.fit(normal_pictures(2), 0, **SETTINGS, adaptation_steps=0)
    image = normal_pictures(1, first=5)[0]
    assert torch.equal(ensemble.backbone.features(image), shipped.features(image))
    assert ensemble.backbone.weights == shipped.weights and ensemble.backbone.facts == {}


def test_what_adaptation_did_is_on_the_cards_and_in_the_bundle() -> None:
    ensemble = EmbeddedEnsemble.fit(normal_pictures(6), 0, **SETTINGS, adaptation_steps=1)
    restored = EmbeddedEnsemble.restore(*ensemble.state(), "cpu")
    for one in (ensemble, restored):
        facts = one.bank.card().facts
        assert facts["adaptation"].startswith("1 steps on 4 reference images")
        assert "cell AUROC" in facts["blended defects on held-out normals"]


def test_what_the_profile_lacks_is_said(ensemble: EmbeddedEnsemble, of_few: EmbeddedEnsemble) -> None:
    assert MISSING and MISSING_OF_FEW and all(": " in line for line in (*MISSING, *MISSING_OF_FEW))
    assert ensemble.missing == MISSING
    assert of_few.missing == (*MISSING, *MISSING_OF_FEW)


@pytest.fixture(scope="module")
def of_few() -> EmbeddedEnsemble:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(module, "adapt")  # neither this
        patch.delattr(module, "FeatureReconstruction")  # nor that is trained on images that are to be left out
        return EmbeddedEnsemble.fit(normal_pictures(6), 0, **SETTINGS, adaptation_steps=3, few=True)


def test_few_images_fill_a_bank_alone(of_few: EmbeddedEnsemble, shipped: EmbeddedBackbone) -> None:
    assert of_few.reconstruction is None and of_few.bank.separate
    assert [score.scorer for score in of_few.score(normal_pictures(1)[0])] == ["memory_bank"]
    assert [card.name for card in of_few.cards()] == ["memory_bank"]
    assert of_few.backbone.weights == shipped.weights
    assert of_few.bank.arrays["origin"][:, 0].bincount().tolist() == [64] * 6


def test_without_some_of_few_images_scores_are_those_of_the_bank_without_them(of_few: EmbeddedEnsemble) -> None:
    image = normal_pictures(1)[0]  # one of the six
    without = of_few.without([0, 4])
    (ours,), (theirs,) = without.score(image), of_few.bank.without([0, 4]).score([image])
    assert ours.value == theirs.value and np.array_equal(ours.anomaly_map, theirs.anomaly_map)
    assert ours.value > of_few.score(image)[0].value
    assert set(without.bank.arrays["origin"][:, 0].tolist()) == {1, 2, 3, 5}
    assert without.backbone is of_few.backbone and without.missing == of_few.missing


def test_an_ensemble_of_few_is_restored_without_a_reconstruction(of_few: EmbeddedEnsemble) -> None:
    arrays, settings = of_few.state()
    assert set(arrays) == {"backbone", "memory_bank"}
    restored = EmbeddedEnsemble.restore(arrays, json.loads(json.dumps(settings)), "cpu")
    assert restored.reconstruction is None and restored.missing == of_few.missing
    image = defective_picture(200)
    for one, other in ((restored, of_few), (restored.without([2]), of_few.without([2]))):
        (ours,), (theirs,) = one.score(image), other.score(image)
        assert ours.value == theirs.value and np.array_equal(ours.members, theirs.members)


def test_devices_are_taken_as_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == "cpu"
    for available, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda a=available: a)
        assert resolve_device("auto") == device
