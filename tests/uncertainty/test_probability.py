"""The bounds on P(defect) by hand, their shape, and the calibration of the Venn-Abers probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from venn_abers.venn_abers import calc_p0p1, calc_probs

from explainvad.uncertainty.probability import MIN_DEFECTS, VennAbers, evidence_bound, probability_bound

Array = NDArray[np.float64]


@pytest.mark.parametrize(("p", "bound"), [(0.05, 2.456), (0.01, 7.988), (0.1, 1.598), (0.001, 53.256), (0.5, 1.0)])
def test_the_bound_of_sellke_bayarri_and_berger_by_hand(p: float, bound: float) -> None:
    assert evidence_bound(p) == pytest.approx(bound, abs=5e-4)


@given(st.floats(1e-300, 1), st.floats(1e-300, 1))
def test_less_probable_never_means_less_evidence(p: float, q: float) -> None:
    low, high = sorted((p, q))
    assert evidence_bound(low) >= evidence_bound(high) * (1 - 1e-12)
    assert evidence_bound(high) >= 1.0 - 1e-12


def test_the_bound_is_continuous_where_it_ends() -> None:
    assert evidence_bound(1 / math.e - 1e-9) == pytest.approx(1.0, abs=1e-8)
    assert evidence_bound(1 / math.e) == evidence_bound(1.0) == 1.0


def test_the_prior_moves_the_bound_by_bayes_rule() -> None:
    assert probability_bound(0.05, 0.5).upper == pytest.approx(2.456 / 3.456, abs=1e-4)
    assert probability_bound(0.05, 0.05).upper == pytest.approx(2.456 / (19 + 2.456), abs=1e-4)
    assert probability_bound(1.0, 0.05).upper == pytest.approx(0.05)  # no evidence: the prior itself
    assert probability_bound(0.05, 0.05).prior == 0.05


@given(st.floats(1e-300, 1), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_a_larger_prior_gives_a_larger_bound_within_0_and_1(p: float, prior: float, other: float) -> None:
    low, high = (probability_bound(p, x).upper for x in sorted((prior, other)))
    assert 0 < low <= high <= 1


@pytest.mark.parametrize("p", [0.0, -0.1, 1.01, math.nan])
def test_no_p_value_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"a p-value lies in \(0, 1\], got"):
        evidence_bound(p)


# --- Where defects were labelled: Venn-Abers


def made(seed: int, n: int, n_d: int, *, ties: bool) -> tuple[Array, Array]:
    """Scores of normal and of defective images, rounded to some twenty values for ``ties``."""
    rng = np.random.default_rng(seed)
    normal, defects = rng.normal(size=n), rng.normal(1.0, 1.2, size=n_d)
    return (np.round(4 * normal) / 4, np.round(4 * defects) / 4) if ties else (normal, defects)


def asked(normal: Array, defects: Array) -> Array:
    """Every calibration score, the middle of every gap, and beyond both ends."""
    knots = np.unique(np.concatenate([normal, defects]))
    return np.concatenate([[knots[0] - 1], knots, (knots[1:] + knots[:-1]) / 2, [knots[-1] + 1]])


def joined(normal: Array, defects: Array, score: float, label: int) -> float:
    """What isotonic regression gives the score after it has joined the calibration set with this label."""
    scores = np.concatenate([normal, defects, [score]])
    labels = np.concatenate([np.zeros(len(normal)), np.ones(len(defects)), [label]])
    return float(IsotonicRegression().fit(scores, labels).predict([score])[0])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "n_d"), [(1, 20), (40, 20), (15, 45)])
def test_venn_abers_is_isotonic_regression_with_the_image_in_it(n: int, n_d: int, ties: bool) -> None:
    normal, defects = made(n, n, n_d, ties=ties)
    scores = asked(normal, defects)
    p0, p1 = VennAbers.fit(normal, defects).interval(scores)
    assert p0 == pytest.approx([joined(normal, defects, s, 0) for s in scores], abs=1e-12)
    assert p1 == pytest.approx([joined(normal, defects, s, 1) for s in scores], abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "n_d"), [(20, 20), (300, 40), (60, 200)])
@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")  # of the other implementation
def test_venn_abers_agrees_with_the_authors_algorithm(n: int, n_d: int, ties: bool) -> None:
    normal, defects = made(n_d, n, n_d, ties=ties)
    scores = asked(normal, defects)
    calibration = np.concatenate([normal, defects])
    theirs = calc_p0p1(np.stack([-calibration, calibration], 1), np.repeat([0, 1], [n, n_d]))
    _, pairs = calc_probs(*theirs, np.stack([-scores, scores], 1))
    p0, p1 = VennAbers.fit(normal, defects).interval(scores)
    assert p0 == pytest.approx(pairs[:, 0], abs=1e-12)
    assert p1 == pytest.approx(pairs[:, 1], abs=1e-12)


def test_venn_abers_by_hand() -> None:
    fitted = VennAbers.fit(np.arange(30), np.arange(100, 120))
    p0, p1 = fitted.interval([[-1, 0, 29], [50, 100, 120]])
    # A defect below all 30 normal images is pooled with them, above them with nobody; and the other way round
    assert p0 == pytest.approx(np.array([[0, 0, 0], [0, 1 / 2, 20 / 21]]))
    assert p1 == pytest.approx(np.array([[1 / 31, 1 / 31, 1 / 2], [1, 1, 1]]))
    assert (fitted.n_normal, fitted.n_defects, fitted.synthetic) == (30, 20, False)


@pytest.mark.parametrize("ties", [False, True])
def test_the_interval_is_open_rises_with_the_score_and_knows_only_ranks(ties: bool) -> None:
    normal, defects = made(3, 150, 30, ties=ties)
    scores = np.sort(asked(normal, defects))
    p0, p1 = VennAbers.fit(normal, defects).interval(scores)
    assert (p0 >= 0).all() and (p1 <= 1).all() and (p1 - p0 >= 1 / 181 - 1e-12).all()
    assert (np.diff(p0) >= -1e-12).all() and (np.diff(p1) >= -1e-12).all()
    again = VennAbers.fit(np.exp(normal[::-1]), np.exp(defects[::-1])).interval(np.exp(scores))
    assert np.array_equal([p0, p1], again)


def test_few_labelled_defects_are_refused() -> None:
    assert MIN_DEFECTS == 20
    with pytest.raises(ValueError, match="at least 20 defects, got 19"):
        VennAbers.fit(np.arange(100.0), np.arange(19.0))


Predictor = Callable[[Array, Array, float, int], float]


def true_label_probability(normal: Array, defects: Array, score: float, label: int) -> float:
    return float(VennAbers.fit(normal, defects).interval(score)[label])


def without_the_image(normal: Array, defects: Array, score: float, label: int) -> float:
    scores, labels = np.concatenate([normal, defects]), np.repeat([0, 1], [len(normal), len(defects)])
    return float(IsotonicRegression(out_of_bounds="clip").fit(scores, labels).predict([score])[0])


def always_as_normal(normal: Array, defects: Array, score: float, label: int) -> float:
    return float(VennAbers.fit(normal, defects).interval(score)[0])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("predictor", "calibrated"), [(true_label_probability, True), (without_the_image, False), (always_as_normal, False)]
)
def test_the_probability_for_the_true_label_is_perfectly_calibrated(
    predictor: Predictor, calibrated: bool, ties: bool
) -> None:
    # Exchangeable: each of the scores is equally likely to be the new one, so a share of labels is a probability
    normal, defects = made(5, 70, 25, ties=ties)
    labels: dict[float, list[int]] = {}
    for i, score in enumerate(normal):
        labels.setdefault(round(predictor(np.delete(normal, i), defects, score, 0), 9), []).append(0)
    for i, score in enumerate(defects):
        labels.setdefault(round(predictor(normal, np.delete(defects, i), score, 1), 9), []).append(1)
    assert len(labels) > 3
    gap = max(abs(p - float(np.mean(of_p))) for p, of_p in labels.items())
    assert (gap < 1e-8) is calibrated


def test_at_the_calibration_sets_own_rate_nothing_is_shifted() -> None:
    normal, defects = made(6, 90, 30, ties=True)
    fitted = VennAbers.fit(normal, defects)
    for score in asked(normal, defects):
        p0, p1 = fitted.interval(score)
        bound = fitted.bound(score, 30 / 120)
        assert (bound.lower, bound.upper) == (pytest.approx(float(p0)), pytest.approx(float(p1)))


def test_the_prior_shifts_the_interval_by_bayes_rule() -> None:
    # Three scores; of normal images 700, 200 and 100 in 1000, of defects 10, 30 and 60 in 100
    fitted = VennAbers.fit(np.repeat([1, 2, 3], [700, 200, 100]), np.repeat([1, 2, 3], [10, 30, 60]))
    for score, normal, defects in ((1, 700, 10), (2, 200, 30), (3, 100, 60)):
        for prior in (Fraction(1, 100), Fraction(1, 2)):
            # p0 = d / (n + d + 1), p1 = (d + 1) / (n + d + 1): odds d / (n + 1) and (d + 1) / n
            odds = [Fraction(defects, normal + 1), Fraction(defects + 1, normal)]
            low, high = (o * prior / (1 - prior) * 10 for o in odds)
            bound = fitted.bound(score, float(prior))
            assert bound.lower == pytest.approx(float(low / (1 + low)), rel=1e-12)
            assert bound.upper == pytest.approx(float(high / (1 + high)), rel=1e-12)
            posterior = prior * defects * 10 / (prior * defects * 10 + (1 - prior) * normal)
            assert bound.lower < posterior < bound.upper
            assert bound.prior == float(prior)


def test_no_prior_moves_certainty_and_a_larger_one_raises_the_rest() -> None:
    fitted = VennAbers.fit(np.arange(30), np.arange(25, 45))
    for prior in (1e-6, 0.05, 0.9):
        assert fitted.bound(-1, prior).lower == 0.0 and fitted.bound(60, prior).upper == 1.0
    bounds = [fitted.bound(27, prior) for prior in (0.01, 0.1, 0.4, 0.9)]
    for ends in ([b.lower or 0.0 for b in bounds], [b.upper for b in bounds]):
        assert 0 < ends[0] < ends[1] < ends[2] < ends[3] < 1
    assert all(b.lower is not None and b.lower < b.upper for b in bounds)


def test_the_method_says_which_defects_it_rests_on() -> None:
    labelled = VennAbers.fit(np.arange(50), np.arange(60)).bound(3, 0.05)
    assert (labelled.method, labelled.synthetic) == ("Venn-Abers on 60 labelled defects, shifted to the prior", False)
    made_up = VennAbers.fit(np.arange(50), np.arange(200), synthetic=True).bound(3, 0.05)
    assert made_up.method == "synthetic: calibrated on 200 synthetic defects; says nothing of real ones"
    assert made_up.synthetic
