"""AUPIMO by hand, by its definition, and against the traps of its tiny false positive rates."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from explainvad.evaluation.metrics.pixel_curves import PixelCurves
from explainvad.evaluation.metrics.pixels import AUPIMO_BOUNDS, PixelMetrics, PixelScores
from explainvad.evaluation.metrics.resampling import Resampling

Maps = list[NDArray[np.float32]]
Masks = list[NDArray[np.bool_]]


def measure(maps: Maps, masks: Masks, n: int = 0) -> PixelScores:
    metrics = PixelMetrics()
    for m, g in zip(maps, masks, strict=True):
        metrics.update(m, g)
    return metrics.compute(resampling=Resampling(n))


def by_definition(maps: Maps, masks: Masks) -> list[float]:
    """One threshold at a time: the mean of TPR over log FPR, the FPR being the mean of those of the good images."""
    good = [m for m, g in zip(maps, masks, strict=True) if not g.any()]
    thresholds = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]
    shared = np.mean([(m.size - np.searchsorted(np.sort(m.ravel()), thresholds)) / m.size for m in good], axis=0)
    values = []
    for m, g in zip(maps, masks, strict=True):
        if not g.any():
            continue
        tpr = (g.sum() - np.searchsorted(np.sort(m[g]), thresholds)) / g.sum()
        first = np.flatnonzero(shared > 0)[0]
        held = tpr[first - 1] if first else 0.0  # at a rate of 0
        low, high = np.log(AUPIMO_BOUNDS)
        x = np.log(np.concatenate([[1e-9], shared[first : first + 1], shared[first:]]))
        y = np.concatenate([[held, held], tpr[first:]])
        area = 0.0
        for (x0, y0), (x1, y1) in pairwise(zip(x, y, strict=True)):
            start, end = max(x0, low), min(x1, high)
            if start < end:
                area += (end - start) * (y0 + (y1 - y0) * ((start + end) / 2 - x0) / (x1 - x0))
        values.append(float(area / (high - low)))
    return values


def scene(seed: int = 0, side: int = 200) -> tuple[Maps, Masks]:
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for i in range(8):
        m, g = rng.standard_normal((side, side)), np.zeros((side, side), dtype=np.bool_)
        if i % 2:
            g[10:30, 10 : 20 + 5 * i] = True
            m[g] += rng.normal(3, 1.5, g.sum())
        maps.append(m.astype(np.float32))
        masks.append(g)
    return maps, masks


def test_by_hand() -> None:
    # A good image of 200,000 px with the values 5, 4 and 3 once each: rates of 0.5e-5, 1e-5 and 1.5e-5, then 1.
    # The defect's four pixels: 6 is above all, 4.5 above the second, 2.5 below the third, one is lost.
    good = np.zeros((400, 500), dtype=np.float32)
    good[0, :3] = 5, 4, 3
    bad = np.zeros((400, 500), dtype=np.float32)
    bad[0, :4] = 6, 4.5, 2.5, -1
    mask = np.zeros(bad.shape, dtype=np.bool_)
    mask[0, :4] = True
    # TPR 1/2 from 1e-5 to 1.5e-5, where it rises to 3/4
    expected = (math.log(1.5) * 1 / 2 + math.log(10 / 1.5) * 3 / 4) / math.log(10)
    s = measure([good, bad], [np.zeros_like(mask), mask])
    assert s.aupimo is not None and s.aupimo.estimate == pytest.approx(expected, abs=1e-6)
    assert s.aupimo_by_image == (None, pytest.approx(expected, abs=1e-6))


def test_equals_the_definition() -> None:
    maps, masks = scene()
    s = measure(maps, masks)
    expected = by_definition(maps, masks)
    assert [v for v in s.aupimo_by_image if v is not None] == pytest.approx(expected, abs=1e-4)
    assert s.aupimo is not None and s.aupimo.estimate == pytest.approx(np.mean(expected), abs=1e-4)
    assert s.aupimo.binning_error < 1e-4
    assert 0.1 < s.aupimo.estimate < 0.9


def test_only_good_images_set_the_false_positive_rate() -> None:
    # Normal pixels of defect images may glow beside the defect: they change other metrics, not this one
    maps, masks = scene()
    glow = np.arange(maps[0].size).reshape(maps[0].shape) % 7 == 0
    glowing = [m + np.float32(50) * (glow & ~g & g.any()) for m, g in zip(maps, masks, strict=True)]
    before, after = measure(maps, masks), measure(glowing, masks)
    assert before.aupimo_by_image == pytest.approx(after.aupimo_by_image, abs=1e-4)
    assert before.auroc is not None and after.auroc is not None
    assert after.auroc.estimate < before.auroc.estimate - 0.05


def test_images_of_any_size_count_the_same() -> None:
    # The rate is the mean of the images' rates: two false pixels in a small image weigh more than in a large one
    maps, masks = scene()
    small = np.full((100, 100), -9, dtype=np.float32)
    small[0, :2] = 9
    maps, masks = [*maps, small], [*masks, np.zeros_like(small, dtype=np.bool_)]
    # 2 of 10,000 px in one of five images are 4e-5, where the other four, of 40,000 px each, have none yet
    s = measure(maps, masks)
    assert [v for v in s.aupimo_by_image if v is not None] == pytest.approx(by_definition(maps, masks), abs=1e-4)


def test_too_few_normal_pixels_give_none_and_not_a_number() -> None:
    maps, masks = scene(side=40)  # 4 * 1,600 good pixels: the smallest rate is 1.6e-4
    s = measure(maps, masks)
    assert s.aupimo is None and set(s.aupimo_by_image) == {None}


def test_without_good_images_there_is_none() -> None:
    maps, masks = scene()
    assert measure(maps[1::2], masks[1::2]).aupimo is None


def test_interval_is_that_of_resampled_images_one_by_one() -> None:
    maps, masks = scene()
    how = Resampling(12, seed=2)
    metrics = PixelMetrics()
    for m, g in zip(maps, masks, strict=True):
        metrics.update(m, g)
    aupimo, _ = PixelCurves(metrics._images, how, AUPIMO_BOUNDS).aupimo()
    assert aupimo is not None
    values = []
    for weights in how.weights(np.array([bool(g.any()) for g in masks])):
        drawn = np.repeat(np.arange(len(maps)), weights.astype(int))
        values.append(np.mean(by_definition([maps[i] for i in drawn], [masks[i] for i in drawn])))
    lower, upper = np.quantile(values, [0.025, 0.975])
    assert (aupimo.lower, aupimo.upper) == pytest.approx((lower, upper), abs=2e-3)
