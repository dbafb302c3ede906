"""Pixel metrics against hand-computed cases, brute force over all thresholds, and the mistakes others made."""

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
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from explainvad.evaluation.metrics.pixels import MAX_VALUES, PixelMetrics, PixelScores
from explainvad.evaluation.metrics.resampling import Measured, Resampling

Maps = Sequence[NDArray[np.float32]]
Masks = Sequence[NDArray[np.bool_]]


def compute(metrics: PixelMetrics, limits: Sequence[float] = (0.30, 0.05)) -> PixelScores:
    return metrics.compute(limits, Resampling(0))


def measure(
    maps: Maps, masks: Masks, max_values: int = MAX_VALUES, limits: Sequence[float] = (0.30, 0.05)
) -> PixelScores:
    metrics = PixelMetrics(max_values=max_values)
    for anomaly_map, gt_mask in zip(maps, masks, strict=True):
        metrics.update(anomaly_map, gt_mask)
    return compute(metrics, limits)


def value(measured: Measured | None) -> float:
    assert measured is not None
    return measured.estimate


def aupro(scores: PixelScores) -> dict[float, float]:
    return {limit: value(measured) for limit, measured in scores.aupro.items()}


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


def sorted_aupro(maps: Maps, masks: Masks, limit: float) -> float:
    """The same for many pixels: one sort, shares of regions added up from the top."""
    shares = []
    for g in masks:
        numbered = label(g, connectivity=2)
        area = np.bincount(numbered.ravel())
        shares.append(np.where(g, 1 / area[numbered], 0.0).ravel())
    scores, share, normal = (
        np.concatenate(each) for each in ([m.ravel() for m in maps], shares, [~g.ravel() for g in masks])
    )
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    x = np.append(0.0, np.cumsum(normal[order])[ends] / normal.sum())
    y = np.append(0.0, np.cumsum(share[order])[ends] / share.sum())
    return float(np.trapezoid(np.append(y[x < limit], np.interp(limit, x, y)), np.append(x[x < limit], limit)) / limit)


def best_f1(y: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    tp, fp = np.cumsum(y[order])[ends], np.cumsum(~y[order])[ends]
    return float((2 * tp / (tp + fp + y.sum())).max())


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
    s = compute(metrics, (0.05, 0.2, 0.3, 0.4, 1.0))
    assert aupro(s) == pytest.approx(
        {
            0.05: 2 / 3,
            0.2: 2 / 3,  # the step at the limit itself adds no area
            0.3: (0.2 * 2 / 3 + 0.1 * 5 / 6) / 0.3,
            0.4: (0.2 * 2 / 3 + 0.2 * 5 / 6) / 0.4,
            1.0: 0.2 * 2 / 3 + 0.2 * 5 / 6 + 0.6,
        }
    )
    # 9 and 8 are above all ten normal pixels, 5 above eight, 1 above six
    assert value(s.auroc) == pytest.approx((10 + 10 + 8 + 6) / 40)
    assert (s.n_images, s.n_regions, s.n_normal_pixels, s.n_defect_pixels) == (1, 2, 10, 4)


def test_defaults_are_the_two_limits_of_the_field() -> None:
    assert list(measure([TOY_MAP], [TOY_MASK]).aupro) == [0.30, 0.05]


def test_small_regions_count_as_much_as_large_ones() -> None:
    m = np.zeros((10, 10), dtype=np.float32)
    g = np.zeros((10, 10), dtype=np.bool_)
    g[0, 0] = g[2:8, 2:8] = True
    m[0, 0] = 1  # finds the single pixel; the other 36 tie with the normal ones
    assert value(measure([m], [g]).aupro[0.05]) == pytest.approx((0.5 + 0.525) / 2)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    assert measure([np.zeros((3, 3), np.float32)], [np.eye(3, dtype=np.bool_)]).n_regions == 1


def test_regions_of_different_images_are_averaged_together() -> None:
    found, missed = TOY_MASK.astype(np.float32), np.zeros_like(TOY_MAP)
    missed[0, 0] = 1
    # Of four regions only the larger one of the second image is missed: it ties with all normal pixels
    s = measure([found, missed], [TOY_MASK, TOY_MASK])
    assert s.n_regions == 4
    assert value(s.aupro[0.30]) == pytest.approx((0.75 + 0.825) / 2)


def test_signed_zeros_are_equal() -> None:
    m = np.array([[0.0, -0.0]], dtype=np.float32)
    assert measure([m], [np.array([[False, True]])]).auroc == Measured(0.5, None, None, None)
    assert measure([m], [np.array([[True, False]])]).auroc == Measured(0.5, None, None, None)


# --- Traps


@pytest.mark.parametrize("area", [3, 9, 25, 41, 60, 77])
def test_trap_aupro_is_never_above_one(area: int) -> None:
    g = np.zeros((2, 1000), dtype=np.bool_)
    g[0, :area] = True
    m = np.where(g, np.arange(2000, dtype=np.float32).reshape(2, 1000) + 10, 0).astype(np.float32)
    s = measure([m], [g])
    for found in aupro(s).values():
        assert 1 - 1e-6 < found <= 1


def test_trap_area_is_divided_by_the_limit_not_by_the_largest_rate_observed() -> None:
    # The curve jumps from (0, 1/2) to (1, 1): no rate is observed between 0 and the limit
    m = np.array([[1, 0, 0, 0, 0, 0]], dtype=np.float32)
    g = np.array([[1, 1, 0, 0, 0, 0]], dtype=np.bool_)
    assert aupro(measure([m], [g])) == pytest.approx({0.30: (0.5 + 0.65) / 2, 0.05: (0.5 + 0.525) / 2})


def test_trap_a_map_that_says_nothing_scores_as_chance() -> None:
    maps, masks = synthetic(0)
    s = measure([np.full_like(m, 0.7, dtype=np.float32) for m in maps], masks)
    assert value(s.auroc) == 0.5
    assert aupro(s) == pytest.approx({0.30: 0.15, 0.05: 0.025})
    assert s.aupimo is None  # no threshold has a false positive rate within its bounds
    assert value(s.pointing) == pytest.approx(np.mean([g.mean() for g in masks if g.any()]))


@pytest.mark.parametrize("fill", [False, True], ids=["only good images", "only defect pixels"])
def test_one_class_gives_none(fill: bool) -> None:
    s = measure([np.random.default_rng(0).random((8, 8), np.float32)] * 2, [np.full((8, 8), fill)] * 2)
    assert (s.auroc, s.aupr, s.f1_max, s.aupimo, s.pointing) == (None,) * 5
    assert s.aupro == {0.30: None, 0.05: None}
    assert (s.n_images, s.n_normal_pixels, s.n_defect_pixels) == (2, 128 * (not fill), 128 * fill)


def test_nothing_added_gives_none() -> None:
    s = PixelMetrics().compute()
    assert (s.auroc, s.aupro, s.aupimo_by_image, s.n_images) == (None, {0.30: None, 0.05: None}, (), 0)


# --- Against brute force


@settings(max_examples=150, deadline=None)
@given(
    maps=arrays(np.int8, (2, 5, 6), elements=st.integers(-3, 3)),
    masks=arrays(np.bool_, (2, 5, 6)),
    limit=st.sampled_from([0.05, 0.3, 0.5, 1.0]),
)
def test_small_maps_with_ties_equal_brute_force(maps: NDArray[np.int8], masks: NDArray[np.bool_], limit: float) -> None:
    floats = list(maps.astype(np.float32))
    s = measure(floats, list(masks), limits=(limit,))
    if masks.any() and not masks.all():
        y, scores = masks.ravel(), maps.ravel().astype(float)
        assert value(s.aupro[limit]) == pytest.approx(brute_force_aupro(floats, list(masks), limit), abs=1e-6)
        assert value(s.auroc) == pytest.approx(roc_auc_score(y, scores), abs=1e-9)
        assert value(s.aupr) == pytest.approx(average_precision_score(y, scores), abs=1e-9)
        assert value(s.f1_max) == pytest.approx(max(f1_score(y, scores >= t) for t in np.unique(scores)), abs=1e-9)
        for measured in (s.auroc, s.aupr, s.f1_max, s.aupro[limit]):
            assert measured is not None and measured.binning_error < 1e-9
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


def within_its_bound(measured: Measured | None, exact: float, bound: float) -> None:
    assert measured is not None and measured.binning_error < bound
    assert abs(measured.estimate - exact) <= measured.binning_error + 1e-6


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize(("max_values", "bound"), [(MAX_VALUES, 1e-6), (2000, 0.05)], ids=["exact", "joined"])
def test_unknown_ranges_equal_brute_force(name: str, max_values: int, bound: float) -> None:
    maps, masks = synthetic(1, n_images=3)
    scaled = [RANGES[name](m).astype(np.float32) for m in maps]
    s = measure(scaled, masks, max_values)
    y, scores = (np.concatenate([each.ravel() for each in many]) for many in (masks, scaled))
    within_its_bound(s.auroc, roc_auc_score(y, scores), bound)
    within_its_bound(s.aupr, average_precision_score(y, scores), bound)
    within_its_bound(s.f1_max, best_f1(y, scores), bound)
    for limit, measured in s.aupro.items():
        within_its_bound(measured, brute_force_aupro(scaled, masks, limit), bound)


def test_joined_values_are_fewer_than_asked() -> None:
    maps, masks = synthetic(1, n_images=3)
    metrics = PixelMetrics(max_values=2000)
    for m, g in zip(maps, masks, strict=True):
        metrics.update(m.astype(np.float32), g)
        assert sum(image.size for image in metrics._images) <= 2000


@pytest.mark.parametrize("name", ["standard", "narrow, far from zero", "many decades", "few levels"])
def test_native_resolution_is_right_to_four_digits(name: str) -> None:
    maps, masks = synthetic(2, n_images=4, side=600)
    scaled = [RANGES[name](m).astype(np.float32) for m in maps]
    s = measure(scaled, masks)
    y, scores = (np.concatenate([each.ravel() for each in many]) for many in (masks, scaled))
    # The bound holds, and what is printed is far closer than that
    for measured, exact in (
        (s.auroc, roc_auc_score(y, scores)),
        (s.aupr, average_precision_score(y, scores)),
        (s.f1_max, best_f1(y, scores)),
        (s.aupro[0.30], sorted_aupro(scaled, masks, 0.30)),
        (s.aupro[0.05], sorted_aupro(scaled, masks, 0.05)),
    ):
        within_its_bound(measured, exact, 1e-4)


# --- Invariance


def test_order_of_images_does_not_matter() -> None:
    maps, masks = synthetic(3)
    floats = [(10.0 ** (i - 3) * m).astype(np.float32) for i, m in enumerate(maps)]  # ranges differ by image
    forwards, backwards = measure(floats, masks), measure(floats[::-1], masks[::-1])
    assert value(forwards.auroc) == pytest.approx(value(backwards.auroc), abs=1e-12)
    assert aupro(forwards) == pytest.approx(aupro(backwards), abs=1e-12)
    assert forwards.aupimo_by_image == pytest.approx(backwards.aupimo_by_image[::-1])


@pytest.mark.parametrize("transform", [np.exp, np.cbrt, lambda m: 1e4 * m - 7, lambda m: 1e-20 * m])
def test_monotone_transforms_change_nothing(transform: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> None:
    maps, masks = synthetic(4)
    levels = [np.round(m, 2) for m in maps]  # far enough apart to stay distinct in float32
    before = measure([m.astype(np.float32) for m in levels], masks)
    after = measure([transform(m).astype(np.float32) for m in levels], masks)
    assert value(after.auroc) == pytest.approx(value(before.auroc), abs=1e-12)
    assert aupro(after) == pytest.approx(aupro(before), abs=1e-12)


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


def test_memory_cannot_be_less_than_a_few_values_an_image() -> None:
    maps, masks = synthetic(1, n_images=3)
    s = measure([m.astype(np.float32) for m in maps], masks, max_values=1)
    y, scores = (np.concatenate([each.ravel() for each in many]) for many in (masks, maps))
    within_its_bound(s.auroc, roc_auc_score(y, scores), 0.5)
