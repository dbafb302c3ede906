"""One thread and one order of sums, the same examples in every run, and one fitted tiny network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from patterned import TINY, normal_pictures

from explainvad.detection.reconstruction.masked import MaskedReconstruction

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def reconstruction(_one_thread: None) -> MaskedReconstruction:
    """A tiny network that has seen a dozen small patterned pictures. Tests must not change it."""
    scorer = MaskedReconstruction(resolution=64, steps=150, batch=8, architecture=TINY)
    scorer.fit(normal_pictures(12), seed=0)
    return scorer
