"""Metrics against hand-computed cases, brute force over all thresholds, and the mistakes others made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from skimage.measure import label
from sklearn.metrics import roc_auc_score

from explainvad.evaluation.metrics import (
    PixelMetrics,
    PixelScores,
    bootstrap_interval,
    image_aupr,
    image_auroc,
    iou,
    region_hit,
)

Maps = Sequence[NDArray[np.float32]]
Masks = Sequence[NDArray[np.bool_]]


def measure(maps: Maps, masks: Masks, n_thresholds: int = 2**17) -> PixelScores:
    metrics = PixelMetrics(n_thresholds)
    for anomaly_map, gt_mask in zip(maps, masks, strict=True):
        metrics.update(anomaly_map, gt_mask)
    return metrics.compute()


def brute_force_aupro(maps: Maps, masks: Masks, limit: float) -> float:
    """AUPRO by its definition: one threshold at a time, one region at a time, one trapezoid at a time."""
    normal = np.concatenate([m[~g] for m, g in zip(maps, masks, strict=True)])
    regions = []
    for m, g in zip(maps, masks, strict=True):
        numbered = label(g, connectivity=2)
        regions += [m[numbered == i] for i in range(1, numbered.max() + 1)]
    thresholds = np.unique(np.concatenate([normal, *regions]))[::-1]
    rates = [(float((normal >= t).mean()), float(np.mean([(r >= t).mean() for r in regions]))) for t in thresholds]
    curve = [(0.0, 0.0), *rates]
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 < min(x1, limit):
            cut = min(x1, limit)
            y_cut = y0 + (y1 - y0) * (cut - x0) / (x1 - x0)
            area += (cut - x0) * (y0 + y_cut) / 2
    return area / limit


def brute_force_auroc(maps: Maps, masks: Masks) -> float:
    y = np.concatenate([g.ravel() for g in masks])
    return float(roc_auc_score(y, np.concatenate([m.ravel() for m in maps])))


def synthetic(seed: int, n_images: int = 6, side: int = 48) -> tuple[list[NDArray[np.float64]], Masks]:
    """Noise maps in which some of the defect pixels stand out; every third image is good."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for i in range(n_images):
        m, g = rng.standard_normal((side, side)), np.zeros((side, side), dtype=np.bool_)
        if i % 3:
            g[5:9, 5:30] = g[20:40, 10:14] = g[44:46, 44:46] = True
            m[g] += rng.choice([0.0, 2.5], g.sum())
        maps.append(m)
        masks.append(g)
    return maps, masks


# One region of 1 px and one of 3 px, ten normal pixels
TOY_MAP = np.array([[9, 0, 8, 5, 1, 7, 6], [0, 0, 0, 0, 0, 4, 4]], dtype=np.float32)
TOY_MASK = np.array([[1, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0]], dtype=np.bool_)


# --- Pixel metrics by hand


def test_toy_by_hand() -> None:
    # threshold   9        8        7        6        5        4        1      0
    # FPR         0        0        .1       .2       .2       .4       .4     1
    # PRO         1/2      2/3      2/3      2/3      5/6      5/6      1      1
    metrics = PixelMetrics()
    metrics.update(TOY_MAP, TOY_MASK)
    s = metrics.compute(fpr_limits=(0.05, 0.2, 0.3, 0.4, 1.0))
    assert s.aupro == pytest.approx(
        {
            0.05: 2 / 3,
            0.2: 2 / 3,  # the step at the limit itself adds no area
            0.3: (0.2 * 2 / 3 + 0.1 * 5 / 6) / 0.3,
            0.4: (0.2 * 2 / 3 + 0.2 * 5 / 6) / 0.4,
            1.0: 0.2 * 2 / 3 + 0.2 * 5 / 6 + 0.6,
        }
    )
    # 9 and 8 are above all ten normal pixels, 5 above eight, 1 above six
    assert s.auroc == pytest.approx((10 + 10 + 8 + 6) / 40)
    assert (s.n_images, s.n_regions, s.n_normal_pixels, s.n_defect_pixels) == (1, 2, 10, 4)


def test_defaults_are_the_two_limits_of_the_field() -> None:
    assert list(measure([TOY_MAP], [TOY_MASK]).aupro) == [0.30, 0.05]


def test_small_regions_count_as_much_as_large_ones() -> None:
    m = np.zeros((10, 10), dtype=np.float32)
    g = np.zeros((10, 10), dtype=np.bool_)
    g[0, 0] = g[2:8, 2:8] = True
    m[0, 0] = 1  # finds the single pixel; the other 36 tie with the normal ones
    assert measure([m], [g]).aupro[0.05] == pytest.approx((0.5 + 0.525) / 2)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    assert measure([np.zeros((3, 3), np.float32)], [np.eye(3, dtype=np.bool_)]).n_regions == 1


def test_regions_of_different_images_are_averaged_together() -> None:
    found, missed = TOY_MASK.astype(np.float32), np.zeros_like(TOY_MAP)
    missed[0, 0] = 1
    # Of four regions only the larger one of the second image is missed: it ties with all normal pixels
    s = measure([found, missed], [TOY_MASK, TOY_MASK])
    assert s.n_regions == 4
    assert s.aupro[0.30] == pytest.approx((0.75 + 0.825) / 2)


def test_signed_zeros_are_equal() -> None:
    m = np.array([[0.0, -0.0]], dtype=np.float32)
    assert measure([m], [np.array([[False, True]])]).auroc == 0.5
    assert measure([m], [np.array([[True, False]])]).auroc == 0.5


# --- Traps


@pytest.mark.parametrize("area", [3, 9, 25, 41, 60, 77])
def test_trap_aupro_is_never_above_one(area: int) -> None:
    g = np.zeros((2, 1000), dtype=np.bool_)
    g[0, :area] = True
    m = np.where(g, np.arange(2000, dtype=np.float32).reshape(2, 1000) + 10, 0).astype(np.float32)
    s = measure([m], [g])
    for value in s.aupro.values():
        assert value is not None and 1 - 1e-12 < value <= 1


def test_trap_area_is_divided_by_the_limit_not_by_the_largest_rate_observed() -> None:
    # The curve jumps from (0, 1/2) to (1, 1): no rate is observed between 0 and the limit
    m = np.array([[1, 0, 0, 0, 0, 0]], dtype=np.float32)
    g = np.array([[1, 1, 0, 0, 0, 0]], dtype=np.bool_)
    assert measure([m], [g]).aupro == pytest.approx({0.30: (0.5 + 0.65) / 2, 0.05: (0.5 + 0.525) / 2})


def test_trap_a_map_that_says_nothing_scores_as_chance() -> None:
    maps, masks = synthetic(0)
    s = measure([np.full_like(m, 0.7, dtype=np.float32) for m in maps], masks)
    assert s.auroc == 0.5
    assert s.aupro == pytest.approx({0.30: 0.15, 0.05: 0.025})


@pytest.mark.parametrize("fill", [False, True], ids=["only good images", "only defect pixels"])
def test_one_class_gives_none(fill: bool) -> None:
    s = measure([np.random.default_rng(0).random((8, 8), np.float32)] * 2, [np.full((8, 8), fill)] * 2)
    assert s.auroc is None
    assert s.aupro == {0.30: None, 0.05: None}
    assert (s.n_images, s.n_normal_pixels, s.n_defect_pixels) == (2, 128 * (not fill), 128 * fill)


def test_nothing_added_gives_none() -> None:
    assert PixelMetrics().compute() == PixelScores(None, {0.30: None, 0.05: None}, 0, 0, 0, 0)


# --- Against brute force


@settings(max_examples=150, deadline=None)
@given(
    maps=arrays(np.int8, (2, 5, 6), elements=st.integers(-3, 3)),
    masks=arrays(np.bool_, (2, 5, 6)),
    limit=st.sampled_from([0.05, 0.3, 0.5, 1.0]),
)
def test_small_maps_with_ties_equal_brute_force(maps: NDArray[np.int8], masks: NDArray[np.bool_], limit: float) -> None:
    metrics = PixelMetrics()
    floats = list(maps.astype(np.float32))
    for m, g in zip(floats, masks, strict=True):
        metrics.update(m, g)
    s = metrics.compute((limit,))
    if masks.any() and not masks.all():
        assert s.aupro[limit] == pytest.approx(brute_force_aupro(floats, list(masks), limit), abs=1e-9)
        assert s.auroc == pytest.approx(brute_force_auroc(floats, list(masks)), abs=1e-9)
    else:
        assert s.auroc is None and s.aupro[limit] is None


RANGES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "standard": lambda m: m,
    "narrow, far from zero": lambda m: 1000 + 0.01 * m,
    "tiny": lambda m: 1e-33 * m,
    "huge": lambda m: 1e33 * m,
    "negative": lambda m: m - 50,
    "many decades": lambda m: np.exp(6 * m),
    "few levels": lambda m: np.round(2 * m),
}


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize(("n_thresholds", "tolerance"), [(2**17, 1e-9), (2**11, 1e-3)], ids=["exact", "joined"])
def test_unknown_ranges_equal_brute_force(name: str, n_thresholds: int, tolerance: float) -> None:
    maps, masks = synthetic(1, n_images=3)
    scaled = [RANGES[name](m).astype(np.float32) for m in maps]
    s = measure(scaled, masks, n_thresholds)
    assert s.auroc == pytest.approx(brute_force_auroc(scaled, masks), abs=tolerance)
    for limit, value in s.aupro.items():
        assert value == pytest.approx(brute_force_aupro(scaled, masks, limit), abs=tolerance)


def test_more_distinct_values_than_thresholds_at_native_resolution() -> None:
    maps, masks = synthetic(2, n_images=6, side=400)
    floats = [m.astype(np.float32) for m in maps]
    metrics = PixelMetrics()
    for m, g in zip(floats, masks, strict=True):
        metrics.update(m, g)
        assert metrics._keys.size <= 2**17
    assert np.unique(floats).size > 2**18
    assert metrics.compute().auroc == pytest.approx(brute_force_auroc(floats, masks), abs=1e-5)


def test_at_least_half_of_the_thresholds_stay() -> None:
    metrics = PixelMetrics(512)
    metrics.update(np.random.default_rng(0).gamma(1, 1e-3, (200, 200)).astype(np.float32), np.eye(200) > 0)
    assert 256 <= metrics._keys.size <= 512


# --- Invariance


def test_order_of_images_does_not_matter() -> None:
    maps, masks = synthetic(3)
    floats = [(10.0 ** (i - 3) * m).astype(np.float32) for i, m in enumerate(maps)]  # ranges differ by image
    forwards, backwards = measure(floats, masks, 1000), measure(floats[::-1], masks[::-1], 1000)
    assert forwards.auroc == backwards.auroc
    assert forwards.aupro == pytest.approx(backwards.aupro, abs=1e-12)


@pytest.mark.parametrize("transform", [np.exp, np.cbrt, lambda m: 1e4 * m - 7, lambda m: 1e-20 * m])
@pytest.mark.parametrize("n_thresholds", [2**17, 2**11])
def test_monotone_transforms_change_nothing(
    transform: Callable[[NDArray[np.float64]], NDArray[np.float64]], n_thresholds: int
) -> None:
    maps, masks = synthetic(4)
    levels = [np.round(m, 2) for m in maps]  # far enough apart to stay distinct in float32
    before = measure([m.astype(np.float32) for m in levels], masks, n_thresholds)
    after = measure([transform(m).astype(np.float32) for m in levels], masks, n_thresholds)
    assert after.auroc == pytest.approx(before.auroc, abs=1e-12)
    assert after.aupro == pytest.approx(before.aupro, abs=1e-12)


# --- Refusals


@pytest.mark.parametrize(
    ("anomaly_map", "gt_mask"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3), np.bool_)),
        (np.zeros(6, np.float32), np.zeros(6, np.bool_)),
        (np.full((2, 3), np.nan, np.float32), np.zeros((2, 3), np.bool_)),
        (np.full((2, 3), np.inf, np.float32), np.zeros((2, 3), np.bool_)),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), np.uint8)),
        (np.zeros((2, 3), np.float32), np.zeros((3, 2), np.bool_)),
    ],
)  # fmt: skip
def test_malformed_maps_and_masks_are_refused(anomaly_map: NDArray[np.float32], gt_mask: NDArray[np.bool_]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PixelMetrics().update(anomaly_map, gt_mask)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.1, math.nan])
def test_impossible_limits_are_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="fpr_limits"):
        PixelMetrics().compute((0.3, limit))


def test_too_few_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match="n_thresholds"):
        PixelMetrics(1)


# --- Image metrics


def test_image_auroc_counts_pairs_and_halves_ties() -> None:
    # defects 3, 2; good 2, 1, 0: 3 wins three times, 2 ties once and wins twice
    assert image_auroc([True, True, False, False, False], [3, 2, 2, 1, 0]) == pytest.approx(5.5 / 6)


def test_image_aupr_by_hand() -> None:
    # recall 1/2 at precision 1, recall 1 at precision 2/3
    assert image_aupr([True, False, True], [3.0, 2.0, 1.0]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@pytest.mark.parametrize("metric", [image_auroc, image_aupr])
def test_image_metrics_need_both_classes(metric: Callable[..., float | None]) -> None:
    assert metric([False, False], [1.0, 2.0]) is None
    assert metric([True, True], [1.0, 2.0]) is None
    assert metric([], []) is None
    assert bootstrap_interval(metric, [True, True], [1.0, 2.0]) is None


@pytest.mark.parametrize("metric", [image_auroc, image_aupr])
def test_image_metrics_ignore_the_scale(metric: Callable[..., float | None]) -> None:
    rng = np.random.default_rng(5)
    labels, scores = rng.random(60) < 0.4, rng.standard_normal(60)
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
def test_image_metrics_refuse_malformed_input(labels: list[bool], scores: list[float]) -> None:
    with pytest.raises(ValueError, match="labels must be bool"):
        image_auroc(labels, scores)


def mean_difference(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    return float(scores[labels].mean() - scores[~labels].mean())


def test_bootstrap_has_the_width_that_theory_gives() -> None:
    rng = np.random.default_rng(6)
    labels = np.arange(500) < 100
    scores = rng.standard_normal(500)
    interval = bootstrap_interval(mean_difference, labels, scores, confidence=0.9, n_resamples=4000)
    assert interval is not None
    se = math.sqrt(scores[labels].var() / 100 + scores[~labels].var() / 400)
    assert interval.estimate == mean_difference(labels, scores)
    assert interval.lower == pytest.approx(interval.estimate - 1.645 * se, abs=0.1 * se)
    assert interval.upper == pytest.approx(interval.estimate + 1.645 * se, abs=0.1 * se)
    assert interval.confidence == 0.9


def test_bootstrap_keeps_the_share_of_defects_and_draws_with_replacement() -> None:
    drawn: list[tuple[int, int]] = []

    def spy(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
        drawn.append((int(labels.sum()), np.unique(scores).size))
        assert (scores[labels] < 7).all() and (scores[~labels] >= 7).all()
        return 0.0

    bootstrap_interval(spy, np.arange(40) < 7, np.arange(40.0), n_resamples=20)
    assert len(drawn) == 21
    assert {n for n, _ in drawn} == {7}
    assert max(n for _, n in drawn[1:]) < 40


def test_bootstrap_is_seeded() -> None:
    rng = np.random.default_rng(7)
    labels, scores = rng.random(50) < 0.5, rng.standard_normal(50)
    first, again, other = (
        bootstrap_interval(image_auroc, labels, scores, n_resamples=50, seed=seed) for seed in (1, 1, 2)
    )
    assert first is not None and again is not None and other is not None
    assert (first.lower, first.upper) == (again.lower, again.upper) != (other.lower, other.upper)


# --- Regions


def grid(*rows: str) -> NDArray[np.bool_]:
    return np.array([[c == "#" for c in row] for row in rows])


def test_region_hit_and_iou_by_hand() -> None:
    truth = grid("##..", "##..", "....")
    assert region_hit(grid("....", ".##.", ".##."), truth)
    assert iou(grid("....", ".##.", ".##."), truth) == pytest.approx(1 / 7)
    assert not region_hit(grid("..##", "..##", "####"), truth)
    assert iou(grid("..##", "..##", "####"), truth) == 0
    assert iou(truth, truth) == 1


def test_nothing_found_hits_nothing() -> None:
    nothing = grid("....")
    assert not region_hit(nothing, grid("#..."))
    assert iou(nothing, grid("#...")) == 0
    assert iou(nothing, nothing) is None


@pytest.mark.parametrize("function", [region_hit, iou])
def test_masks_of_another_shape_or_type_are_refused(function: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="bool of one shape"):
        function(grid("##"), grid("#", "#"))
    with pytest.raises(ValueError, match="bool of one shape"):
        function(np.ones((1, 2), np.uint8), grid("##"))
