"""The embedded profile as a whole, through the bytes that a bundle holds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from patterned import defective_picture, normal_pictures
from safetensors.numpy import load, save

from explainvad.detection.descriptors import LocalDescriptors
from explainvad.detection.ensemble import MISSING, EmbeddedEnsemble, resolve_device
from explainvad.detection.memory_bank import MemoryBank
from explainvad.detection.reconstruction.masked import MaskedReconstruction
from explainvad.errors import NotFittedError


@pytest.fixture(scope="module")
def ensemble(reconstruction: MaskedReconstruction) -> EmbeddedEnsemble:
    bank = MemoryBank(LocalDescriptors(64), rows=200)
    bank.fit(normal_pictures(12), seed=0)
    return EmbeddedEnsemble(reconstruction, bank)


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


def test_a_built_ensemble_is_fitted_as_one_and_scores_nothing_before() -> None:
    seen: set[str] = set()
    ensemble = EmbeddedEnsemble.build(
        resolution=64,
        steps=2,
        batch=2,
        bank_resolution=64,
        bank_rows=50,
        device="cpu",
        progress=lambda what, *_: seen.add(what),
    )
    with pytest.raises(NotFittedError):
        ensemble.score(normal_pictures(1)[0])
    ensemble.fit(normal_pictures(2), seed=0)
    assert seen
    assert len(ensemble.score(normal_pictures(1)[0])) == len(ensemble.cards()) == 2
    assert all(card.weights and card.source and card.facts for card in ensemble.cards())


def test_what_the_profile_lacks_is_said() -> None:
    assert MISSING[EmbeddedEnsemble.profile]
    assert all(": " in line for line in MISSING[EmbeddedEnsemble.profile])


def test_devices_are_taken_as_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == "cpu"
    for available, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda a=available: a)
        assert resolve_device("auto") == device
