"""Counts reconcile, intervals cover, and the Benjamini-Hochberg list keeps its false discovery rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from explainvad.types import Decision, ImageRecord, ProbabilityBound, Verdict
from explainvad.uncertainty.lot_statistics import benjamini_hochberg, clopper_pearson, summarise

# --- Clopper-Pearson


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("n", [1, 2, 7, 59, 120])
def test_clopper_pearson_covers_whatever_the_proportion(n: int, confidence: float) -> None:
    intervals = [clopper_pearson(k, n, confidence) for k in range(n + 1)]
    for p in [0.0, 0.001, 0.01, 0.05, 0.2, 0.37, 0.5, 0.8, 0.99, 1.0]:
        # P(the interval of a binomial(n, p) count holds p), summed over all counts
        covered = np.array([i.lower <= p <= i.upper for i in intervals])
        assert stats.binom.pmf(np.arange(n + 1), n, p)[covered].sum() >= confidence - 1e-12


def test_clopper_pearson_is_no_wider_than_its_level_asks() -> None:
    # At each limit, a count as far as k or farther has probability 2.5 %, no less
    i = clopper_pearson(13, 100)
    assert stats.binom.sf(12, 100, i.lower) == pytest.approx(0.025, abs=1e-9)
    assert stats.binom.cdf(13, 100, i.upper) == pytest.approx(0.025, abs=1e-9)
    assert (i.estimate, i.confidence) == (0.13, 0.95)


def test_clopper_pearson_at_the_ends_has_a_closed_form() -> None:
    none, every = clopper_pearson(0, 20), clopper_pearson(20, 20)
    assert none.lower == 0 and none.upper == pytest.approx(1 - 0.025 ** (1 / 20))
    assert every.upper == 1 and every.lower == pytest.approx(0.025 ** (1 / 20))


@pytest.mark.parametrize(("clean", "rate"), [(59, 0.05), (299, 0.01)])
def test_a_clean_audit_sample_bounds_the_rate_as_auditors_know_it(clean: int, rate: float) -> None:
    assert clopper_pearson(0, clean, 0.90).upper <= rate < clopper_pearson(0, clean - 1, 0.90).upper


@pytest.mark.parametrize(("k", "n", "confidence"), [(-1, 5, 0.9), (6, 5, 0.9), (0, 0, 0.9), (1, 5, 1.0), (1, 5, 0.0)])
def test_clopper_pearson_refuses_impossible_arguments(k: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError):
        clopper_pearson(k, n, confidence)


# --- Benjamini-Hochberg


def test_benjamini_hochberg_by_hand() -> None:
    # Lines q i / m at q = 0.05, m = 10: .005 .010 .015 .020 .025 ... The 4th p-value is the last below its own line,
    # so it carries the third, which is above its line, with it.
    p = [0.9, 0.004, 0.0195, 0.009, 0.3, 0.016, 0.4, 0.5, 0.6, 0.028]
    expected = [False, True, True, True, False, True, False, False, False, False]
    assert benjamini_hochberg(p, 0.05).tolist() == expected


def test_equality_with_the_line_is_a_discovery_despite_rounding() -> None:
    # 17 parts at p = 17/500 and m = 25: 17/500 = 0.05 * 17 / 25 exactly, but not in floating point
    p = np.array([17 / 500] * 17 + [1.0] * 8)
    assert benjamini_hochberg(p, 0.05).sum() == 17
    p[:17] = 18 / 500
    assert benjamini_hochberg(p, 0.05).sum() == 0


def test_rows_are_lots_of_their_own() -> None:
    p = np.random.default_rng(0).uniform(0, 0.2, (6, 9))
    together = benjamini_hochberg(p, 0.1)
    assert 0 < together.sum() < together.size
    assert np.array_equal(together, [benjamini_hochberg(row, 0.1) for row in p])


def test_too_few_calibration_images_list_nothing() -> None:
    # m / (q (n + 1)) = 200 / (0.1 * 100) = 20 parts at the smallest p-value are needed
    p = np.ones(200)
    p[:19] = 1 / 100
    assert benjamini_hochberg(p, 0.1).sum() == 0
    p[19] = 1 / 100
    assert benjamini_hochberg(p, 0.1).sum() == 20


@pytest.mark.parametrize(("p", "q"), [([0.1], 0.0), ([0.1], 1.0), ([1.1], 0.1), ([-0.1], 0.1), ([math.nan], 0.1)])
def test_benjamini_hochberg_refuses_what_is_no_probability(p: list[float], q: float) -> None:
    with pytest.raises(ValueError):
        benjamini_hochberg(p, q)


def test_an_empty_lot_has_an_empty_list() -> None:
    assert benjamini_hochberg([], 0.1).tolist() == []


N_LOTS, N_CAL, N_GOOD, N_BAD, Q = 10_000, 199, 16, 4, 0.10
BAND = math.sqrt(math.log(1e6) / (2 * N_LOTS))  # Hoeffding: a rate in [0, 1] leaves it with probability < 1e-6


@pytest.fixture(scope="module")
def conformal_lots() -> NDArray[np.float64]:
    """p-values (N_LOTS, N_GOOD + N_BAD), good parts first; each lot has one calibration set of its own."""
    rng = np.random.default_rng(20240607)
    calibration = np.sort(rng.standard_normal((N_LOTS, N_CAL)), axis=1)
    parts = rng.standard_normal((N_LOTS, N_GOOD + N_BAD))
    parts[:, N_GOOD:] += 3.0
    n_at_least = np.stack([N_CAL - np.searchsorted(c, t) for c, t in zip(calibration, parts, strict=True)])
    p: NDArray[np.float64] = (1 + n_at_least) / (N_CAL + 1)
    return p


def false_discovery_rate(listed: NDArray[np.bool_]) -> float:
    return float(np.mean(listed[:, :N_GOOD].sum(axis=1) / np.maximum(listed.sum(axis=1), 1)))


def test_false_discovery_rate_of_conformal_p_values(conformal_lots: NDArray[np.float64]) -> None:
    listed = benjamini_hochberg(conformal_lots, Q)
    rate = false_discovery_rate(listed)
    assert rate <= Q + BAND
    # Where q (n + 1) / m is an integer the bound q m0 / m is met, so a list that is too short shows as well
    assert (Q * (N_CAL + 1) / (N_GOOD + N_BAD)).is_integer()
    assert abs(rate - Q * N_GOOD / (N_GOOD + N_BAD)) <= BAND
    assert listed[:, N_GOOD:].mean() > 0.5


def test_without_correction_the_false_discovery_rate_is_exceeded(conformal_lots: NDArray[np.float64]) -> None:
    assert false_discovery_rate(conformal_lots <= Q) > Q + BAND


# --- Summary of a lot


def record(number: int, decision: Decision, p_value: float = 0.5, **changes: Any) -> ImageRecord:
    image_id = f"img-{number:05d}"
    inspected = decision is not Decision.NOT_INSPECTED
    verdict = Verdict(
        decision=decision,
        score=1.0,
        p_value=p_value,
        alpha=changes.pop("alpha", 0.05),
        probability=ProbabilityBound(upper=1.0, prior=0.01, method="stated"),
        aleatoric=0.0,
        epistemic=0.0,
        epistemic_limit=1.0,
        scorer_p_values={},
        gates=(),
        reasons=(),
    ) if inspected else None  # fmt: skip
    fields: dict[str, Any] = {
        "image_id": image_id,
        "file": f"{image_id}.png",
        "sha256": None,
        "size_bytes": None,
        "width": None,
        "height": None,
        "notes": (),
        "verdict": verdict,
        "scores": {},
        "findings": (),
        "reference": None,
        "artifacts": {},
        "failure": None if inspected else "truncated",
    }
    return ImageRecord(**fields | changes)


def test_summary_counts_every_decision_and_reconciles() -> None:
    records = [
        record(1, Decision.REJECT, 0.01),
        record(2, Decision.NOT_FLAGGED, 0.6),
        record(3, Decision.DEFER, 0.02),
        record(4, Decision.NOT_INSPECTED),
        record(5, Decision.REJECT, 0.05),
        record(6, Decision.NOT_FLAGGED, 0.9),
    ]
    s = summarise(records, 0.05, fdr_level=0.10)
    assert s.counts == {"REJECT": 2, "DEFER": 1, "ACCEPT": 0, "NOT_FLAGGED": 2, "NOT_INSPECTED": 1}
    assert list(s.counts) == [d.value for d in Decision]
    assert (s.n_files, s.n_inspected) == (6, 5)
    assert s.expected_false_rejects == pytest.approx(0.25)
    assert s.reject_rate is not None and s.defer_rate is not None
    assert (s.reject_rate.estimate, s.defer_rate.estimate) == (0.4, 0.2)
    assert s.reject_rate.upper == clopper_pearson(2, 5).upper
    # p = .01, .02, .05 against the lines .02, .04, .06: all three, the deferred one too
    assert s.fdr_rejected == ("img-00001", "img-00003", "img-00005")
    assert s.fdr_level == 0.10


def test_the_list_is_corrected_for_the_size_of_the_lot() -> None:
    records = [record(1, Decision.REJECT, 0.03)] + [record(i, Decision.NOT_FLAGGED, 0.9) for i in range(2, 20)]
    assert summarise(records, 0.05).fdr_rejected == ()


def test_a_lot_of_which_nothing_was_inspected_has_no_rates() -> None:
    s = summarise([record(1, Decision.NOT_INSPECTED)], 0.05)
    assert s.reject_rate is None and s.defer_rate is None
    assert (s.n_files, s.n_inspected, s.expected_false_rejects, s.fdr_rejected) == (1, 0, 0.0, ())
    assert summarise([], 0.05).n_files == 0


def test_a_repeated_image_does_not_reconcile() -> None:
    with pytest.raises(ValueError, match="img-00001"):
        summarise([record(1, Decision.REJECT), record(2, Decision.DEFER), record(1, Decision.DEFER)], 0.05)


def test_an_unknown_decision_does_not_reconcile() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        summarise([record(1, "SCRAP")], 0.05)  # type: ignore[arg-type]


def test_a_verdict_at_another_alpha_is_refused() -> None:
    with pytest.raises(ValueError, match="img-00002"):
        summarise([record(1, Decision.REJECT), record(2, Decision.REJECT, alpha=0.01)], 0.05)
