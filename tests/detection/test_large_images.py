"""A large image is seen through windows as it would be seen whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from families import backbone_of, each_family, oblong, relative
from hypothesis import given
from hypothesis import strategies as st
from patterned import picture

from explainvad.detection import frozen
from explainvad.detection.backbones import FINAL
from explainvad.types import InspectionImage


def scene(height: int, width: int, seed: int = 0) -> InspectionImage:
    """Blocks of colour, no two alike, so that every place is known by its content."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 20), -(-width // 20), 3), np.uint8)
    return picture(np.kron(blocks, np.ones((20, 20, 1), np.uint8))[:height, :width])


@given(st.integers(2, 60), st.integers(2, 60), st.integers(2, 20), st.sampled_from([8, 14, 32]))
def test_windows_cover_the_frame_and_share_a_size(rows: int, cols: int, most: int, multiple: int) -> None:
    limit = most * multiple
    found = list(frozen._equal_windows(rows * multiple, cols * multiple, limit, multiple))
    for axis, length in enumerate((rows * multiple, cols * multiple)):
        spans = sorted({(window[axis].start, window[axis].stop) for window in found})
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(before[1] >= after[0] for before, after in pairwise(spans))
        assert all(value % multiple == 0 for span in spans for value in span)
        sizes = {stop - start for start, stop in spans}
        assert len(sizes) == 1 and max(sizes) <= limit
        assert sum(stop - start for start, stop in spans) <= 4 / 3 * length + len(spans) * multiple
    assert len(found) == len({(y.start, x.start) for y, x in found})


def test_are_not_reduced_by_more_than_four() -> None:
    assert backbone_of("ResNet-18", 64).size(oblong(0, 600, 1200)) == (160, 288)


@each_family
def test_windows_agree_with_one_pass_over_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image, layers = scene(520, 900), [0, FINAL]
    windowed, whole = backbone_of(name, 64), backbone_of(name, 64)
    got = windowed.levels(image, layers)
    monkeypatch.setattr(frozen, "WINDOW", 100.0)
    first, last = whole.levels(image, layers)
    assert [a.shape for a in got] == [first.shape, last.shape]
    # what lies beyond a window's border is not seen from within it, so deep layers must differ somewhat
    assert relative(got[0], first) < 0.05
    assert relative(got[1], last) < (0.4 if name == "MobileViT" else 0.15)


def test_windows_of_a_batch_are_those_of_its_images() -> None:
    images = [scene(320, 560, seed) for seed in range(2)]
    together, alone = backbone_of("ResNet-18", 64), backbone_of("ResNet-18", 64)
    together.request([1, 3])
    together.see(images)
    for image in images:
        for a, b in zip(together.levels(image, [1, 3]), alone.levels(image, [1, 3]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_even_images_show_no_seams() -> None:
    """What all windows agree on is not changed by blending: of an even image, the cells far from the border."""
    even = picture(np.full((320, 900, 3), 90, np.uint8))
    (level,) = backbone_of("ResNet-18", 64).levels(even, [1])
    inner = level[:, 6:-6, 6:-6]
    seam = (inner - inner.mean((1, 2), keepdim=True)).abs().max()
    assert seam < 0.1 * inner.abs().max()  # a quarter of it, were the windows' borders to count fully
