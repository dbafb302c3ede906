"""Measures of faithfulness on scores whose truth is known: an image scores the mean of one place."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from explainvad.evaluation.faithfulness import (
    deletion_insertion,
    erase_test,
    paste,
    pointing_game,
    rank_correlation,
    sensitivity,
    top_iou,
)

H, W = 32, 48
PLACE = (slice(8, 16), slice(16, 32))  # what the score looks at
REFERENCE = np.full((H, W, 3), 100, np.uint8)


def mask_of(place: tuple[slice, slice]) -> NDArray[np.bool_]:
    mask = np.zeros((H, W), np.bool_)
    mask[place] = True
    return mask


MASK = mask_of(PLACE)
IMAGE = np.where(MASK[..., None], 200, REFERENCE).astype(np.uint8)


def score(pixels: NDArray[np.uint8]) -> float:
    return float(pixels[PLACE].mean()) - 100


def test_the_reference_is_pasted_where_the_mask_is() -> None:
    assert np.array_equal(paste(IMAGE, REFERENCE, MASK), REFERENCE)
    assert np.array_equal(paste(REFERENCE, IMAGE, ~MASK), REFERENCE)
    with pytest.raises(ValueError, match=r"of one size, got .*resize the reference first"):
        paste(IMAGE, REFERENCE[:-1], MASK)


def test_erasing_the_place_takes_the_score_and_erasing_others_does_not() -> None:
    found = erase_test(score, IMAGE, REFERENCE, MASK)
    assert (found.before, found.inside, found.elsewhere) == (100, 0, (100, 100, 100))
    assert (found.fall, found.fall_elsewhere) == (100, 0)
    half = erase_test(score, IMAGE, REFERENCE, mask_of((slice(8, 12), slice(16, 32))), controls=0)
    assert half.inside == 50 and half.fall_elsewhere is None
    # the whole picture fits nowhere else
    assert erase_test(score, IMAGE, REFERENCE, np.ones((H, W), np.bool_)).elsewhere == ()
    with pytest.raises(ValueError, match="nothing to erase"):
        erase_test(score, IMAGE, REFERENCE, np.zeros((H, W), np.bool_))


def test_controls_have_the_shape_and_do_not_touch_it() -> None:
    seen: list[NDArray[np.bool_]] = []

    def watch(pixels: NDArray[np.uint8]) -> float:
        seen.append((pixels == 0).all(2))
        return 0.0

    black, shape = np.zeros_like(IMAGE), MASK.copy()
    shape[8, 16] = False
    erase_test(watch, IMAGE, black, shape, controls=5)
    assert len(seen) == 7 and np.array_equal(seen[1], shape)
    for other in seen[2:]:
        assert other.sum() == shape.sum() and not (other & shape).any()


def test_a_true_map_has_small_deletion_and_large_insertion_areas() -> None:
    true = deletion_insertion(score, IMAGE, REFERENCE, MASK.astype(float))
    wrong = deletion_insertion(score, IMAGE, REFERENCE, 1.0 - MASK)
    assert true is not None and wrong is not None
    assert true.deletion_area < 0.1 < 0.9 < true.insertion_area
    assert wrong.deletion_area > 0.9 and wrong.insertion_area < 0.1
    for curves in (true, wrong):
        assert (curves.deletion[[0, -1]] == (1, 0)).all() and (curves.insertion[[0, -1]] == (0, 1)).all()
        np.testing.assert_allclose(curves.deletion + curves.insertion, 1)  # of a linear score
    # the mask is 1/12 of the pixels: by the share 0.09 all of it is gone, by 0.04 the first 61 of its 128
    assert true.deletion[3] == 0 and true.deletion[2] == pytest.approx(1 - 61 / 128)
    assert deletion_insertion(score, REFERENCE, IMAGE, MASK.astype(float)) is None


def test_sums_of_a_true_map_go_with_the_falls() -> None:
    assert sensitivity(score, IMAGE, REFERENCE, MASK.astype(float), cell=4) == pytest.approx(1)
    assert sensitivity(score, IMAGE, REFERENCE, -MASK.astype(float), cell=4) == pytest.approx(-1)
    assert sensitivity(score, IMAGE, REFERENCE, np.ones((H, W)), cell=4) is None
    other = np.random.default_rng(0).random((H, W))
    found = sensitivity(score, IMAGE, REFERENCE, other, cell=4, subsets=60)
    assert found is not None and abs(found) < 0.5


def test_the_pointing_game_and_its_tolerance() -> None:
    values = np.zeros((H, W))
    values[18, 20] = 1  # three rows below the mask
    assert not pointing_game(values, MASK, 2) and pointing_game(values, MASK, 3)
    values[12, 20] = 2
    assert pointing_game(values, MASK)
    values[0, 0] = 3
    assert not pointing_game(values, MASK, 5)
    with pytest.raises(ValueError, match="bool mask of its size"):
        pointing_game(values, MASK.astype(np.uint8))


def test_the_overlap_needs_no_threshold() -> None:
    values = np.random.default_rng(0).random((H, W))
    assert top_iou(values + MASK, MASK) == 1
    half = mask_of((slice(8, 12), slice(16, 32)))  # half of the mask, and as much beside it
    beside = mask_of((slice(20, 24), slice(16, 32)))
    assert top_iou(values + half + beside, MASK) == pytest.approx(64 / (128 + 64))
    assert top_iou(values - MASK, MASK) == 0
    with pytest.raises(ValueError, match="good images have no overlap"):
        top_iou(values, np.zeros((H, W), np.bool_))


def test_likeness_of_maps_is_that_of_their_ranks_whatever_the_sign() -> None:
    values = np.random.default_rng(0).normal(size=(H, W))
    assert rank_correlation(values, -3 * values) == pytest.approx(1)
    assert rank_correlation(values, 1 / values) == pytest.approx(-1)
    other = rank_correlation(values, np.random.default_rng(1).normal(size=(H, W)))
    assert other is not None and abs(other) < 0.1
    assert rank_correlation(values, np.ones((H, W))) is None
    with pytest.raises(ValueError, match="maps of one size"):
        rank_correlation(values, values[1:])
