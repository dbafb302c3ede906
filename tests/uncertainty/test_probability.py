"""The bound on P(defect) by hand, and its shape."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainvad.uncertainty.probability import evidence_bound, probability_bound


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
