"""The pool makes what is asked for once, in the precision asked for, and knows which weights it used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import oblong, relative
from tiny_models import CNN, VIT
from torch import Tensor

from explainvad.detection.backbones import EMBEDDED, FINAL, Backbones, EmbeddedFeatures, FrozenBackbone
from explainvad.detection.weights import WeightStore
from explainvad.errors import WeightsError


def test_shares_extractors_and_the_networks_beneath(backbones: Backbones) -> None:
    first = backbones.extractor(CNN, 64)
    assert backbones.extractor(CNN, 64) is first
    other = backbones.extractor(CNN, 96)
    assert isinstance(first, FrozenBackbone) and isinstance(other, FrozenBackbone)
    assert other is not first and other.network is first.network
    assert (first.size(oblong(0, 64, 64)), other.size(oblong(0, 64, 64))) == ((64, 64), (96, 96))


def test_keeps_whatever_scorers_share(backbones: Backbones) -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    assert backbones.shared(("mine", 1), make) is backbones.shared(("mine", 1), make) is made[0]
    assert backbones.shared(("mine", 2), make) is made[1]


def test_makes_ordinary_weights_even_while_scoring(backbones: Backbones) -> None:
    with torch.inference_mode():
        extractor = backbones.extractor(CNN, 64)
    assert isinstance(extractor, FrozenBackbone)
    assert not any(p.is_inference() for p in extractor.network.parameters())


@pytest.mark.parametrize("bf16", [False, True])
def test_precision_is_as_it_was_asked_for(weight_store: Path, bf16: bool) -> None:
    pool = Backbones(WeightStore(weight_store), bf16=bf16)
    extractor = pool.extractor(CNN, 64)
    assert isinstance(extractor, FrozenBackbone)
    assert (pool.bf16, extractor.bf16) == (bf16, bf16)


@pytest.mark.parametrize(("tiles", "vectors"), [(True, False), (False, True), (False, False)])
def test_precision_is_settled_by_the_processor_otherwise(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, vectors: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors)
    assert Backbones().bf16 is (tiles or vectors)
    assert Backbones(device="cuda:0").bf16 is True


def test_the_embedded_backbone_is_one_of_them(backbones: Backbones) -> None:
    extractor, image = backbones.extractor(EMBEDDED, 64), oblong()
    assert isinstance(extractor, EmbeddedFeatures)
    detail, features, final = extractor.levels(image, [0, 1, FINAL])
    rows, cols = extractor.size(image)
    assert detail.shape[1:] == features.shape[1:] == (rows // 8, cols // 8)
    assert torch.equal(features, final) and torch.equal(features, extractor.backbone.features(image))
    assert extractor.backbone.working_frame(image).shape[1:] == (rows, cols)


def test_random_weights_are_another_network_and_say_so(backbones: Backbones) -> None:
    image = oblong()

    def level(pool: Backbones, name: str) -> Tensor:
        return pool.extractor(name, 64).levels(image, [1])[0]

    trained, random = level(backbones, VIT), level(backbones, f"{VIT}:random-7")
    assert trained.shape == random.shape and relative(random, trained) > 0.1
    assert torch.equal(random, level(Backbones(backbones.store, bf16=False), f"{VIT}:random-7"))
    assert relative(level(backbones, f"{VIT}:random-8"), random) > 0.1
    assert "random" in backbones.extractor(f"{VIT}:random-7", 64).weights


def test_the_embedded_backbone_can_be_random_too(backbones: Backbones) -> None:
    image = oblong()

    def features(name: str) -> Tensor:
        return Backbones(backbones.store, bf16=False).extractor(name, 64).levels(image, [FINAL])[0]

    trained, random = features(EMBEDDED), features(f"{EMBEDDED}:random")
    assert trained.shape == random.shape and relative(random, trained) > 0.1
    assert torch.equal(random, features(f"{EMBEDDED}:random-0"))
    assert relative(features(f"{EMBEDDED}:random-1"), random) > 0.1
    extractor = backbones.extractor(f"{EMBEDDED}:random-1", 64)
    assert extractor.name == f"{EMBEDDED}:random-1"
    assert extractor.weights == "embedded: random initialisation, for experiments only (seed 1)"
    backbones.require(backbones.used())


def test_names_what_it_used(backbones: Backbones) -> None:
    assert backbones.used() == {}
    for name in (VIT, EMBEDDED, f"{VIT}:random"):
        backbones.extractor(name, 64)
    used = backbones.used()
    assert sorted(used) == [EMBEDDED, VIT, f"{VIT}:random"]
    assert used[VIT] == f"sha256 {backbones.store.weights(VIT).locked.sha256}"  # type: ignore[union-attr]
    Backbones(backbones.store).require(used)


@pytest.mark.parametrize("name", [VIT, EMBEDDED, f"{VIT}:random", f"{EMBEDDED}:random"])
def test_other_weights_than_at_fit_are_refused(backbones: Backbones, name: str) -> None:
    with pytest.raises(WeightsError, match=rf"other weights {name}: expected sha256 0000, got .*fit the model again"):
        backbones.require({name: "sha256 0000"})


def test_weights_that_are_gone_are_named(backbones: Backbones) -> None:
    with pytest.raises(WeightsError, match="no-such-net"):
        backbones.require({"no-such-net": "sha256 0000"})
