"""The edge bank: a quantised search, exact where images must be left out."""

from __future__ import annotations

import pytest
from patterned import defective_picture, normal_pictures
from tiny_models import CNN

from explainvad.detection import patch_index
from explainvad.detection.backbones import Backbones
from explainvad.detection.banks.edge_bank import EdgeBank, EdgeBankOptions
from explainvad.detection.banks.exact_search import ExactSearch
from explainvad.detection.banks.patchcore import PatchCore, PatchCoreOptions
from explainvad.detection.banks.searches import QuantisedSearch


@pytest.fixture(autouse=True)
def _codes_of_small_banks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_index, "LEAST_ROWS", 300)


def edge(backbones: Backbones, separate: bool = False) -> EdgeBank:
    scorer = EdgeBank(EdgeBankOptions(backbone=CNN, resolution=64, share=1.0), backbones)
    scorer.separate = separate
    scorer.fit(normal_pictures(10), seed=0)
    return scorer


def test_the_search_is_quantised_and_nearly_exact(backbones: Backbones) -> None:
    scorer = edge(backbones)
    exact = PatchCore(PatchCoreOptions(backbone=CNN, resolution=64, share=1.0), backbones)
    exact.fit(normal_pictures(10), seed=0)
    for image in [*normal_pictures(3, first=50), defective_picture(60)]:
        (score,), (expected,) = scorer.score([image]), exact.score([image])
        assert score.value == pytest.approx(expected.value, rel=0.02)
        assert score.value >= expected.value * (1 - 1e-4)  # ranked again exactly, so never nearer than the nearest
        assert (score.members >= score.value * (1 - 1e-6)).all()
    assert isinstance(scorer._searching(), QuantisedSearch) and isinstance(exact._searching(), ExactSearch)


def test_a_loaded_bank_scores_as_the_fitted_one_did(backbones: Backbones) -> None:
    scorer, loaded = edge(backbones), EdgeBank(EdgeBankOptions(backbone=CNN, resolution=64), backbones)
    loaded.load(*scorer.state())
    image = defective_picture(60)
    assert loaded.score([image])[0].value == scorer.score([image])[0].value
    assert loaded.facts == scorer.facts


def test_few_images_are_searched_exactly(backbones: Backbones) -> None:
    scorer = edge(backbones, separate=True)
    assert isinstance(scorer._searching(), ExactSearch)
    assert scorer.facts["search"].startswith("exact")
    (image,) = normal_pictures(1)
    assert scorer.without([0]).score([image])[0].value > scorer.score([image])[0].value


def test_an_extended_edge_bank_is_quantised_anew(backbones: Backbones) -> None:
    scorer = edge(backbones)
    image = defective_picture(60)
    before = scorer.score([image])[0].value
    scorer.extend([image], seed=0)
    assert isinstance(scorer._searching(), QuantisedSearch)
    assert scorer.score([image])[0].value < before
