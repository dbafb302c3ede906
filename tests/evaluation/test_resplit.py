"""Splits are disjoint by groups, and what is judged on them keeps the promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scored_examples import scored_images

from explainvad.errors import TooFewImagesError
from explainvad.evaluation.resplit import Judged, judge
from explainvad.uncertainty.conformal import significant_ranks

IMAGES = scored_images()


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    return [judge(IMAGES, seed) for seed in range(12)]


def test_test_images_are_one_of_each_group_and_labelled_right(judged: list[Judged]) -> None:
    for j in judged:
        groups = IMAGES.groups[j.index]
        assert len(set(groups)) == len(groups)
        assert np.array_equal(j.defective, IMAGES.kinds[j.index] != "good")
        # 170 good groups: 17 NORM, 99 CAL because alpha = 0.01 needs them, the rest test; 60 defective ones in halves
        assert (j.n_cal, j.n_def, int((~j.defective).sum()), int(j.defective.sum())) == (99, 30, 54, 30)


def test_the_same_seed_gives_the_same_split_and_another_another(judged: list[Judged]) -> None:
    again = judge(IMAGES, 3)
    assert np.array_equal(again.index, judged[3].index) and np.array_equal(again.p_values, judged[3].p_values)
    assert not np.array_equal(judged[3].index, judged[4].index)


def test_rates_lie_in_their_bands(judged: list[Judged]) -> None:
    for j in judged:
        for p, n, level in ((j.p_values[~j.defective], j.n_cal, 0.1), (j.defect_p_values[j.defective], j.n_def, 0.2)):
            k = significant_ranks(n, level)
            band = stats.betabinom(len(p), k, n + 1 - k)
            assert band.ppf(0.5e-6) <= (p <= level).sum() <= band.isf(0.5e-6)


def test_arrays_say_what_the_verdicts_say(judged: list[Judged]) -> None:
    j = judged[0]
    assert j.deferred.any() and j.accepted.any() and not (j.deferred & j.accepted).any()
    lower, upper = j.intervals
    assert ((lower <= j.probabilities) & (j.probabilities <= upper)).all()
    assert j.wrong.tolist() == [
        float((v.p_value <= 0.05) != bad) for v, bad in zip(j.verdicts, j.defective, strict=True)
    ]
    assert j.uncalibrated[np.argmax(j.scores)] == j.uncalibrated.max() < 1
    assert np.array_equal(j.within, [v.epistemic_within for v in j.verdicts])


def test_few_labelled_defects_give_no_bound_on_misses() -> None:
    j = judge(scored_images(n_bad_groups=10), 0)
    assert (j.defect_p_values == 1).all() and not j.accepted.any()
    assert not j.intervals[0].any()


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(TooFewImagesError, match=r"24 groups of good images give 12 to calibrate on, .* needs 19"):
        judge(scored_images(24, 10), 0)
