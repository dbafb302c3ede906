"""Counts from few kept thresholds: their bounds hold for every threshold, and are as narrow as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from explainvad.evaluation.metrics import ranked
from explainvad.evaluation.metrics.ranked import STEP, Ranked, rank_values, rank_weights

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal(2**19).astype(np.float32)
MAPS = {
    "normal": NORMAL,
    "far from zero": 1000 + NORMAL / 100,
    "many decades": np.exp(5 * NORMAL),
    "near the largest float": NORMAL * np.float32(6e37),
    "tiny": NORMAL * np.float32(1e-38),
    "cut at 0": np.maximum(NORMAL, 0),
    "few levels": np.round(4 * NORMAL),
    "constant": np.full(2**19, 0.7, np.float32),
    "two far clouds": np.where(NORMAL > 0, NORMAL, NORMAL - 1e6).astype(np.float32),
}


def thresholds_for(values: NDArray[np.float32]) -> NDArray[np.float32]:
    some = RNG.choice(values, 2000)
    between = RNG.uniform(values.min(), values.max(), 500).astype(np.float32)
    beyond = [values.min(), values.max(), np.nextafter(values.max(), np.float32(np.inf))]
    beside = (np.nextafter(some, np.float32(s)) for s in (np.inf, -np.inf))
    return np.unique(np.concatenate([some, *beside, between, beyond]))


def count(values: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
    return values.size - np.searchsorted(np.sort(values), thresholds)


@pytest.mark.parametrize("name", MAPS)
def test_bounds_hold_and_are_narrow(name: str) -> None:
    values = MAPS[name]
    thresholds = thresholds_for(values)
    known, exact = rank_values(values), count(values, thresholds)
    least, most = known.bounds(thresholds)
    assert (least <= exact).all() and (exact <= most).all()
    assert ((most - least) <= 1 + STEP * least).all()
    assert known.total == values.size and len(known.values) < 30_000


def test_smooth_maps_are_counted_and_uneven_ones_sorted() -> None:
    counted = {name for name, m in MAPS.items() if ranked._by_counting(ranked._keys(m), STEP) is not None}
    assert {"normal", "many decades"} <= counted and not counted & {"far from zero", "few levels", "cut at 0"}


def test_counting_and_sorting_give_the_same_bounds() -> None:
    thresholds = thresholds_for(NORMAL)
    by_counting, by_sorting = (f(ranked._keys(NORMAL), STEP) for f in (ranked._by_counting, ranked._by_sorting))
    assert by_counting is not None
    (a, b), (c, d) = by_counting.bounds(thresholds), by_sorting.bounds(thresholds)
    assert (np.maximum(a, c) <= np.minimum(b, d)).all()


@settings(max_examples=200, deadline=None)
@given(
    values=arrays(np.float32, st.integers(1, 60), elements=st.floats(-(2.0**90), 2.0**90, width=32)),
    step=st.sampled_from([0.02, 0.3, 1.0]),
)
def test_bounds_hold_for_any_values(values: NDArray[np.float32], step: float) -> None:
    thresholds = np.unique(np.concatenate([values, np.nextafter(values, np.float32(np.inf)), np.float32([0, 1, -1])]))
    exact = count(values, thresholds)
    for known in (rank_values(values, step), rank_values(values, step).coarser(1.0)):
        least, most = known.bounds(thresholds)
        assert (least <= exact).all() and (exact <= most).all()
        if known.whole:
            assert (least == most).all()


@settings(max_examples=200, deadline=None)
@given(
    values=arrays(np.float32, st.integers(1, 60), elements=st.integers(-9, 9)),
    heavy=st.integers(0, 59),
    width=st.sampled_from([1e-9, 0.5, 3.0]),
)
def test_bounds_hold_for_any_weights(values: NDArray[np.float32], heavy: int, width: float) -> None:
    weights = np.full(len(values), 0.25)
    weights[heavy % len(values)] = 20
    known = rank_weights(values, weights, width)
    thresholds = np.unique(np.concatenate([values, np.nextafter(values, np.float32(np.inf)), np.float32([-10, 10])]))
    exact = np.array([weights[values >= t].sum() for t in thresholds])
    least, most = known.bounds(thresholds)
    assert (least <= exact + 1e-5).all() and (exact <= most + 1e-5).all()
    assert (most - least < 2 * width + 1e-5).all()


def test_signed_zeros_are_one_value() -> None:
    known = rank_values(np.array([0.0, -0.0, 1.0], np.float32))
    assert known.values.tolist() == [0, 1] and known.at.tolist() == [3, 1] and known.whole


def test_nothing_counts_as_nothing() -> None:
    for known in (rank_values(np.empty(0, np.float32)), rank_weights(np.empty(0, np.float32), np.empty(0), 1.0)):
        assert known.total == 0
        least, most = known.bounds(np.array([0, 1], np.float32))
        assert least.tolist() == most.tolist() == [0, 0]


def test_fewer_values_than_the_step_asks_for_are_kept_whole() -> None:
    known = rank_values(NORMAL[:2000])
    assert isinstance(known, Ranked) and known.whole and len(known.values) == len(np.unique(NORMAL[:2000]))
