"""One thread and one order of sums, the same examples in every run, and one scorer fitted to small pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from patterned import normal_pictures
from tiny_models import tiny_backbones, write_store

from explainvad.detection.backbone.embedded import EmbeddedBackbone
from explainvad.detection.backbones import Backbones
from explainvad.detection.reconstruction.features import FeatureReconstruction

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shipped(_one_thread: None) -> EmbeddedBackbone:
    """The backbone as it ships. Tests must not change it."""
    return EmbeddedBackbone.shipped(64)


@pytest.fixture(scope="session")
def reconstruction(shipped: EmbeddedBackbone) -> FeatureReconstruction:
    """A decoder that has seen a dozen small patterned pictures. Tests must not change it."""
    scorer = FeatureReconstruction(shipped, steps=150, batch=4)
    scorer.fit(normal_pictures(12), seed=0)
    return scorer


@pytest.fixture(scope="session")
def weight_store(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    """A store of tiny networks. Tests must not change it."""
    return write_store(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def backbones(weight_store: Path) -> Backbones:
    """A fresh pool over the tiny networks."""
    return tiny_backbones(weight_store)
