"""Image metrics by hand, against scikit-learn and torchmetrics, and where these cannot be followed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_f1_score

from explainvad.errors import LotError
from explainvad.evaluation.metrics.deployed import DeployedThreshold
from explainvad.evaluation.metrics.images import image_aupr, image_auroc, image_metrics
from explainvad.evaluation.metrics.resampling import Measured, Resampling

HASHES = [f"{i:064x}" for i in range(200)]
THRESHOLD = DeployedThreshold(1.5, "conformal", {"f" * 64: "reference/1.png"})


def sample(n: int = 200, seed: int = 0, levels: int | None = None) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    scores = rng.standard_normal(n) + 1.5 * labels
    return labels, scores if levels is None else np.round(scores * levels) / levels


def value(measured: Measured | None) -> float:
    assert measured is not None
    return measured.estimate


# --- By hand


def test_auroc_counts_pairs_and_halves_ties() -> None:
    # defects 3, 2; good 2, 1, 0: 3 wins three times, 2 ties once and wins twice
    assert image_auroc([True, True, False, False, False], [3, 2, 2, 1, 0]) == pytest.approx(5.5 / 6)


def test_aupr_by_hand() -> None:
    # recall 1/2 at precision 1, recall 1 at precision 2/3
    assert image_aupr([True, False, True], [3.0, 2.0, 1.0]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_f1_by_hand() -> None:
    labels, scores = [True, False, True, False], [4.0, 3.0, 2.0, 1.0]
    s = image_metrics(labels, scores, threshold=THRESHOLD, sha256=HASHES[:4], resampling=Resampling(0))
    assert value(s.f1_deployed) == pytest.approx(4 / 5)  # above 1.5: two right, one wrong, none missed
    assert value(s.f1_max) == pytest.approx(4 / 5)  # the other thresholds give 2/3, 1/2 and 2/3
    high = DeployedThreshold(3.0, "conformal", THRESHOLD.images)
    s = image_metrics(labels, scores, threshold=high, sha256=HASHES[:4], resampling=Resampling(0))
    assert value(s.f1_deployed) == pytest.approx(2 / 3)  # only above it, not at it: one right, one missed


@pytest.mark.parametrize("metric", [image_auroc, image_aupr])
def test_both_classes_are_needed(metric: Callable[..., float | None]) -> None:
    assert metric([False, False], [1.0, 2.0]) is None
    assert metric([True, True], [1.0, 2.0]) is None
    assert metric([], []) is None
    s = image_metrics([True, True], [1.0, 2.0])
    assert (s.auroc, s.aupr, s.f1_max, s.f1_deployed) == (None,) * 4


@pytest.mark.parametrize("metric", [image_auroc, image_aupr])
def test_the_scale_does_not_matter(metric: Callable[..., float | None]) -> None:
    labels, scores = sample(60)
    assert metric(labels, scores) == metric(labels, np.exp(5 * scores) - 3)


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([True, False], [1.0, math.nan]),
        ([True, False], [1.0, math.inf]),
        ([True, False], [1.0]),
        ([1, 0], [1.0, 2.0]),
    ],
)
def test_malformed_input_is_refused(labels: list[bool], scores: list[float]) -> None:
    with pytest.raises(ValueError, match="labels must be bool"):
        image_auroc(labels, scores)


# --- Against others


@pytest.mark.parametrize("levels", [None, 2], ids=["distinct", "ties"])
def test_scikit_learn_agrees(levels: int | None) -> None:
    labels, scores = sample(levels=levels)
    s = image_metrics(labels, scores, threshold=THRESHOLD, sha256=HASHES, resampling=Resampling(0))
    assert value(s.auroc) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert value(s.aupr) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert value(s.f1_max) == pytest.approx(max(f1_score(labels, scores >= t) for t in scores), abs=1e-12)
    assert value(s.f1_deployed) == pytest.approx(f1_score(labels, scores > 1.5), abs=1e-12)


def test_torchmetrics_agrees_where_scores_are_probabilities() -> None:
    labels, scores = sample()
    s = image_metrics(labels, scores, threshold=THRESHOLD, sha256=HASHES, resampling=Resampling(0))
    y, p = torch.from_numpy(labels).long(), torch.sigmoid(torch.from_numpy(scores))
    assert value(s.auroc) == pytest.approx(binary_auroc(p, y).item(), abs=1e-4)
    assert value(s.aupr) == pytest.approx(binary_average_precision(p, y).item(), abs=1e-4)
    at = 1 / (1 + math.exp(-1.5))
    assert value(s.f1_deployed) == pytest.approx(binary_f1_score(p, y, threshold=at).item(), abs=1e-4)


def test_trap_torchmetrics_squashes_scores_outside_of_0_to_1_into_ties() -> None:
    labels, scores = np.array([True, True, False, False]), np.array([40.0, 39.0, 38.0, 37.0])
    assert image_auroc(labels, scores) == 1
    squashed = binary_auroc(torch.from_numpy(scores).float(), torch.from_numpy(labels).long())
    assert squashed.item() == 0.5  # the sigmoid of all four is 1 in float32


def test_trap_trapezoids_under_precision_and_recall_flatter() -> None:
    # scikit-learn's own documentation warns of it; with ties the straight line is not attainable
    labels, scores = np.arange(10) < 2, np.array([2.0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert -np.trapezoid(precision, recall) == pytest.approx(0.8)
    assert image_aupr(labels, scores) == pytest.approx(0.5 * 1 + 0.5 * 0.2)


# --- Intervals


def test_intervals_are_those_of_resampled_images_one_by_one() -> None:
    labels, scores = sample(40, levels=3)
    how = Resampling(30, seed=3)
    s = image_metrics(labels, scores, threshold=THRESHOLD, sha256=HASHES[:40], resampling=how)
    drawn = [np.repeat(np.arange(40), w.astype(int)) for w in how.weights(labels)]
    for measured, metric in (
        (s.auroc, roc_auc_score),
        (s.aupr, average_precision_score),
        (s.f1_max, lambda y, x: max(f1_score(y, x >= t) for t in x)),
        (s.f1_deployed, lambda y, x: f1_score(y, x > 1.5)),
    ):
        assert measured is not None
        lower, upper = np.quantile([metric(labels[i], scores[i]) for i in drawn], [0.025, 0.975])
        assert (measured.lower, measured.upper) == pytest.approx((lower, upper), abs=1e-9)


def test_interval_of_auroc_has_the_width_that_theory_gives() -> None:
    # Hanley and McNeil's variance for two normal classes one sigma apart, n = 300 each
    labels = np.arange(600) < 300
    scores = np.random.default_rng(1).standard_normal(600) + labels
    auroc = image_metrics(labels, scores, resampling=Resampling(2000)).auroc
    assert auroc is not None and auroc.lower is not None and auroc.upper is not None
    a = auroc.estimate
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    se = math.sqrt((a * (1 - a) + 299 * (q1 - a**2) + 299 * (q2 - a**2)) / 300**2)
    assert (auroc.upper - auroc.lower) / 2 == pytest.approx(1.96 * se, rel=0.12)


# --- A threshold must not have been set on the test


def test_a_threshold_set_on_a_test_image_is_refused_by_name() -> None:
    scores = [4.0, 3.0, 2.0, 1.0]
    fitted = DeployedThreshold(0.3, "largest F1", {HASHES[2]: "test/dent/007.png"})
    with pytest.raises(LotError, match=r"test image 2 has the same content as test/dent/007\.png.*largest F1"):
        image_metrics([True, False, True, False], scores, threshold=fitted, sha256=HASHES[:4])


def test_a_bare_number_is_no_deployed_threshold() -> None:
    with pytest.raises(TypeError, match="must be a DeployedThreshold"):
        image_metrics([True, False], [1.0, 0.0], threshold=0.5, sha256=HASHES[:2])  # type: ignore[arg-type]


def test_a_threshold_must_say_what_it_was_set_on() -> None:
    with pytest.raises(LotError, match=r"0\.5 \(by eye\) does not say which images"):
        DeployedThreshold(0.5, "by eye", {})


def test_images_of_unknown_content_cannot_be_shown_to_be_new() -> None:
    with pytest.raises(LotError, match="test image 1: its sha256 must be known"):
        image_metrics([True, False], [1.0, 0.0], threshold=THRESHOLD, sha256=HASHES[:1])
