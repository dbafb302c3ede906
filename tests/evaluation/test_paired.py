"""Resampled metrics: the sample's own value is the plain metric's, and differences stay paired."""

import numpy as np
import pytest

from explainvad.evaluation.metrics import PixelMetrics, image_auroc
from explainvad.evaluation.paired import FPR_LIMIT, aupro_draws, auroc_draws, interval_of, resamples

RNG = np.random.default_rng(3)
DEFECTIVE = np.arange(30) >= 18
SCORES = np.round(RNG.normal(size=30) + DEFECTIVE, 1)  # rounded, so that there are ties


def maps_and_masks() -> tuple[list[np.ndarray], list[np.ndarray]]:
    masks = [np.zeros((24, 24), bool) for _ in DEFECTIVE]
    for mask in masks[18:]:
        y, x = RNG.integers(2, 16, 2)
        mask[y : y + 5, x : x + 4] = True
    masks[20][0, 0] = True  # a second region
    return [(RNG.normal(size=m.shape) + 1.2 * m).astype(np.float32) for m in masks], masks


def test_the_first_row_is_the_sample_and_the_others_keep_the_classes() -> None:
    weights = resamples(DEFECTIVE, 50, seed=1)

    assert weights.shape == (51, 30) and (weights[0] == 1).all()
    assert (weights[:, DEFECTIVE].sum(1) == 12).all() and (weights[:, ~DEFECTIVE].sum(1) == 18).all()
    assert np.array_equal(weights, resamples(DEFECTIVE, 50, seed=1))
    assert not np.array_equal(weights, resamples(DEFECTIVE, 50, seed=2))


def test_auroc_is_that_of_the_images_that_were_drawn() -> None:
    weights = resamples(DEFECTIVE, 5, seed=1)
    draws = auroc_draws(DEFECTIVE, SCORES, weights)

    for value, row in zip(draws, weights.astype(int), strict=True):
        assert value == pytest.approx(image_auroc(np.repeat(DEFECTIVE, row), np.repeat(SCORES, row)))


def test_auroc_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="got 0 and 30"):
        auroc_draws(np.ones(30, bool), SCORES, np.ones((1, 30)))


def test_aupro_is_that_of_the_images_that_were_drawn() -> None:
    maps, masks = maps_and_masks()
    weights = resamples(DEFECTIVE, 3, seed=1)
    draws = aupro_draws(maps, masks, weights)

    assert draws is not None
    for value, row in zip(draws, weights.astype(int), strict=True):
        pixels = PixelMetrics()
        for i in np.repeat(np.arange(30), row):
            pixels.update(maps[i], masks[i])
        exact = pixels.compute((FPR_LIMIT,)).aupro[FPR_LIMIT]
        assert exact is not None and 0.2 < exact < 0.9
        assert value == pytest.approx(exact, abs=0.004)


def test_aupro_of_good_images_alone_is_not_defined() -> None:
    maps, masks = maps_and_masks()
    assert aupro_draws(maps[:18], masks[:18], np.ones((1, 18))) is None


def test_a_difference_is_known_better_than_its_parts() -> None:
    """Two scorers that err alike: their difference is certain although neither of them is."""
    weights = resamples(DEFECTIVE, 400, seed=1)
    scores = np.random.default_rng(5).normal(size=30) + 0.3 * DEFECTIVE
    one, two = (auroc_draws(DEFECTIVE, s, weights) for s in (scores + 0.5 * DEFECTIVE, scores))
    parts, whole = [interval_of(one), interval_of(two)], interval_of(one - two)

    assert whole is not None and whole.lower > 0
    assert all(part is not None and part.upper - part.lower > whole.upper - whole.lower for part in parts)
    assert parts[0].lower < parts[1].upper  # side by side they would have shown nothing
    assert interval_of(None) is None
