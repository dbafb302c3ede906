"""The martingale's promise is checked exactly, by enumeration and quadrature, and then once more by simulation."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from explainvad.uncertainty.drift import (
    DELTA,
    SLOPES,
    STREAM_DELTA,
    STREAMS,
    Stream,
    bet,
    first_stakes,
    log_wealth,
    online_p_values,
    theta,
)

OUTSIDE = 1e-6
LIMIT = -np.log(STREAM_DELTA)
Array = NDArray[np.float64]


def names(n: int) -> list[str]:
    return [f"img-{i + 1:05d}" for i in range(n)]


def begin(calibration: ArrayLike) -> Stream:
    return Stream.begin("scores", {"": calibration})


def advance(stream: Stream, lot_id: str, values: ArrayLike, thetas: ArrayLike) -> Stream:
    n = len(np.asarray(values))
    return stream.advance(lot_id, names(n), values, thetas, [""] * n)


def wealth(stream: Stream) -> float:
    return float(np.exp(log_wealth(stream.log_stakes, stream.n_images)))


def played(p: Array) -> Array:
    """ln wealth (runs, n) after each image of p-values (runs, n)."""
    stakes, course = np.tile(first_stakes(), (len(p), 1)), np.empty(p.shape)
    for n in range(p.shape[1]):
        stakes = bet(stakes, n, p[:, n])
        course[:, n] = log_wealth(stakes, n + 1)
    return course


def ranked(rng: np.random.Generator, values: Array, n_cal: int, fixed: bool = False) -> Array:
    """p-values (runs, n - n_cal) of the values (runs, n) behind the first ``n_cal``, straight from the definition."""
    p = np.empty((len(values), values.shape[1] - n_cal))
    for t in range(p.shape[1]):
        earlier, value = values[:, : n_cal if fixed else n_cal + t], values[:, [n_cal + t]]
        n_above, n_ties = (earlier > value).sum(axis=1), (earlier == value).sum(axis=1)
        p[:, t] = (n_above + rng.random(len(p)) * (1 + n_ties)) / (earlier.shape[1] + 1)
    return p


def delays(course: Array, change: int) -> Array:
    """Images after the change (runs,) until the alarm; infinite without one, negative for a false one."""
    hit = course >= LIMIT
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0 - change, np.inf)


# --- Tie-breaking numbers and p-values


def test_theta_is_the_first_52_bits_of_the_hash() -> None:
    assert theta("8" + "0" * 63) == 0.5 + 2**-53
    assert theta("4" + "0" * 11 + "1" + "f" * 51) == 0.25 + 1.5 * 2**-52
    assert 0 < theta("0" * 64) == 2**-53
    assert theta("f" * 64) == 1 - 2**-53 < 1


def test_theta_of_real_contents_is_uniform() -> None:
    thetas = [theta(hashlib.sha256(f"picture {i}".encode()).hexdigest()) for i in range(10_000)]
    assert stats.kstest(thetas, "uniform").pvalue > OUTSIDE
    assert stats.kstest(np.subtract(thetas[1:], thetas[:-1]) % 1, "uniform").pvalue > OUTSIDE


@pytest.mark.parametrize("levels", [2, 6, 10**9])
def test_p_values_are_ranks_among_all_earlier_values(levels: int) -> None:
    rng = np.random.default_rng(levels)
    values, thetas = rng.integers(levels, size=60).astype(float), rng.random(40)
    p = online_p_values(np.sort(values[:20]), values[20:], thetas)
    for t in range(40):
        earlier, value = values[: 20 + t], values[20 + t]
        low, high = ((earlier > value).sum() + k * (1 + (earlier == value).sum()) for k in (0, 1))
        assert p[t] * (21 + t) == pytest.approx(low + thetas[t] * (high - low), abs=1e-12)


def test_p_values_without_calibration_images_begin_with_the_tie_breaker() -> None:
    assert online_p_values(np.array([]), [3.0, 3.0, 5.0], [0.25, 0.5, 0.5]) == pytest.approx([0.25, 0.5, 1 / 6])


def test_each_value_needs_its_tie_breaker() -> None:
    with pytest.raises(ValueError):
        online_p_values(np.array([1.0]), [1.0, 2.0], [0.5])


# --- The martingale property, exactly


@pytest.mark.parametrize("n", [0, 1, 250, 10**6])
def test_quadrature_of_a_bet_gives_back_the_wealth(n: int) -> None:
    rng = np.random.default_rng(n)
    nodes, weights = np.polynomial.legendre.leggauss(4)
    for stakes in (first_stakes(), rng.normal(0, 5, len(SLOPES)), rng.normal(-300, 5, len(SLOPES))):
        after = np.exp(log_wealth(bet(stakes, n, (nodes + 1) / 2), n + 1))
        assert weights @ after / 2 == pytest.approx(np.exp(log_wealth(stakes, n)), rel=1e-12)


def test_quadrature_for_each_slope_alone() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(4)
    p, stakes = (nodes + 1) / 2, np.full(len(SLOPES), 700.0)  # so large that what the reserve adds does not count
    factors = np.exp(bet(stakes, 0, p) - stakes)
    assert weights @ factors / 2 == pytest.approx(np.ones(len(SLOPES)), rel=1e-12)
    assert factors.min() > 0.1 and factors.max() < 1.9
    assert np.all(np.diff(factors, axis=0) * SLOPES > 0)


@pytest.mark.parametrize("values", ["abcdef", "aabcdd", "aaabbb", "aaaaaa"])
def test_mean_wealth_over_all_orders_is_one(values: str) -> None:
    orders = np.array(list(permutations(map(float, map(ord, values)))))
    # Wealth is linear in each p-value and each p-value in its theta, so that theta = 1/2 stands for the mean over it
    final = [wealth(advance(begin(v[:2]), "1", v[2:], [0.5] * 4)) for v in orders]
    assert np.mean(final) == pytest.approx(1.0, rel=1e-12)
    assert np.ptp(final) > 0.05 or values == "aaaaaa"


def test_mean_wealth_over_all_orders_within_cells_is_one() -> None:
    cells = ["a", "b", "a", "b", "a", "c"]
    within, across = [], []
    for a, b in product(permutations([1.0, 1.0, 2.0, 4.0]), permutations([11.0, 15.0, 18.0])):
        lot = names(6), [a[1], b[1], a[2], b[2], a[3], 7.0], [0.5] * 6
        within.append(wealth(Stream.begin("scores", {"a": a[:1], "b": b[:1]}).advance("1", *lot, cells)))
        across.append(wealth(begin([a[0], b[0]]).advance("1", *lot, [""] * 6)))
    assert np.mean(within) == pytest.approx(1.0, rel=1e-12)
    assert abs(np.mean(across) - 1) > 1e-3  # the cells differ, so that ranks across them are no use


def test_negative_control_fixed_ranks_pay_on_average() -> None:
    orders = np.array(list(permutations(range(6))))
    p = np.array([[((v[:2] > x).sum() + 0.5) / 3 for x in v[2:]] for v in orders])
    assert np.exp(played(p)[:, -1]).mean() > 1.01


def test_wealth_is_the_mixture_over_slope_and_first_image() -> None:
    p = np.random.default_rng(3).random(30) ** 2
    reserve = [0.5 / (1 + np.log(1 + n / 100)) for n in range(31)]
    first = [0.5, *(r - s for r, s in pairwise(reserve))]  # prior of the image at which drift begins
    factors = 1 + np.multiply.outer(SLOPES, p - 0.5)
    stakes = sum(share * factors[:, k:].prod(axis=1).mean() for k, share in enumerate(first))
    assert np.exp(played(p[None])[0, -1]) == pytest.approx(reserve[30] + stakes, rel=1e-12)


# --- Alarms


@pytest.mark.thorough
def test_false_alarms_over_long_streams_and_the_negative_control() -> None:
    rng = np.random.default_rng(1)
    runs, n_cal, n = 800, 50, 1200
    values = rng.standard_normal((runs, n_cal + n), dtype=np.float32)
    allowed = stats.binom.isf(OUTSIDE, runs, STREAM_DELTA)
    alarms = (played(ranked(rng, values, n_cal)) >= LIMIT).any(axis=1).sum()
    fixed = (played(ranked(rng, values, n_cal, fixed=True)) >= LIMIT).any(axis=1).sum()
    assert alarms <= allowed
    assert fixed > 10 * allowed


def test_false_alarms_of_streams_of_rough_values_in_lots() -> None:
    rng = np.random.default_rng(2)
    runs, alarms = 250, 0
    for _ in range(runs):
        stream = begin(rng.integers(4, size=30))
        for lot in range(4):
            stream = advance(stream, f"{lot}", rng.integers(4, size=60), rng.random(60))
        alarms += stream.alarm is not None
    assert alarms <= stats.binom.isf(OUTSIDE, runs, STREAM_DELTA)


def test_deltas_add_up() -> None:
    assert pytest.approx(0.01) == DELTA == STREAM_DELTA * len(STREAMS)


@pytest.mark.parametrize(("shift", "most"), [(0.7, 120), (1.0, 50), (2.0, 25), (-1.0, 50), (-2.0, 25)])
def test_a_shift_in_either_direction_is_noticed(shift: float, most: int) -> None:
    rng = np.random.default_rng(5)
    values = rng.standard_normal((100, 100 + 200 + 150))
    values[:, 300:] += shift
    found = delays(played(ranked(rng, values, 100)), 200)
    assert np.median(found) <= most
    assert (found < 0).sum() <= stats.binom.isf(OUTSIDE, 100, STREAM_DELTA)


def test_a_few_defects_among_normal_images_raise_no_alarm() -> None:
    rng = np.random.default_rng(6)
    values = rng.standard_normal((100, 100 + 400))
    values[:, 100:][rng.random((100, 400)) < 0.03] += 10
    assert (played(ranked(rng, values, 100)) >= LIMIT).any(axis=1).mean() <= 0.05


def test_a_long_quiet_stream_can_still_notice_drift() -> None:
    rng = np.random.default_rng(7)
    quiet = 5000
    # Among thousands of earlier values ranks are as good as the tail probability itself
    drifted = stats.norm.sf(rng.standard_normal((60, 150)) + 1)
    found = delays(played(np.hstack([rng.random((60, quiet)), drifted])), quiet)
    assert np.median(found) <= 60 and np.all(found < np.inf)


def test_lost_stakes_leave_the_reserve() -> None:
    n = 2000
    course = played(np.tile([0.999, 0.001], n // 2)[None])[0]
    assert course[-1] > np.log(0.5 / (1 + np.log(1 + n / 100)))
    recovered = delays(played(np.hstack([np.tile([0.999, 0.001], n // 2), np.full(40, 0.001)])[None]), n)
    assert 0 < recovered[0] <= 35


# --- Streams


def drifting(seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(50), rng.standard_normal(90) + np.linspace(0, 4, 90), rng.random(90)


def test_a_stream_is_the_bets_on_its_p_values() -> None:
    cal, values, thetas = drifting(0)
    course = played(online_p_values(np.sort(cal), values, thetas)[None])[0]
    stream = advance(begin(cal), "42", values, thetas)
    first = int(np.argmax(course >= LIMIT))
    assert stream.alarm == f"lot 42, img-{first + 1:05d}" and first > 0
    result = stream.result()
    assert (result.name, result.delta, result.alarm, result.alarmed) == ("scores", 0.005, stream.alarm, True)
    assert result.log10_wealth == pytest.approx(course[-1] / np.log(10), rel=1e-12)
    assert result.log10_peak == pytest.approx(course.max() / np.log(10), rel=1e-12)


@pytest.mark.parametrize("cut", [0, 1, 37, 60, 89, 90])
def test_a_resumed_stream_is_the_one_that_was_never_left(cut: int) -> None:
    cal, values, thetas = drifting(0)
    known, cells = {"": cal[:30], "b": cal[30:]}, np.random.default_rng(1).choice(["", "b", "c"], 90).tolist()
    lot = names(90), values, thetas, cells
    whole = Stream.begin("scores", known).advance("A", *lot)
    first = Stream.begin("scores", known).advance("A", *(column[:cut] for column in lot))
    state = json.loads(json.dumps(first.state()))
    resumed = Stream.resume("scores", known, values[:cut], cells[:cut], state)
    assert resumed.result().alarm == first.alarm
    for start in (first, resumed):
        both = start.advance("A", *(column[cut:] for column in lot))
        assert both.state() == whole.state()
        assert both.pools.keys() == whole.pools.keys() == {"", "b", "c"}
        assert all(np.array_equal(both.pools[cell], pool) for cell, pool in whole.pools.items())
        assert both.result().log10_wealth == whole.result().log10_wealth
    assert whole.alarm is not None


def test_the_peak_of_a_quiet_stream_counts_the_reserve_that_is_left() -> None:
    stream = advance(begin([]), "1", [4.0, 3.0, 2.0, 1.0], [0.2, 0.6, 0.9, 0.9])
    p = online_p_values(np.array([]), [4.0, 3.0, 2.0, 1.0], [0.2, 0.6, 0.9, 0.9])
    course = played(p[None])[0]
    assert 0 < course.max() < 1
    assert stream.log_peak == pytest.approx(course.max(), rel=1e-12)


def test_the_order_of_images_matters() -> None:
    cal, values, thetas = drifting(0)
    forth, back = (advance(begin(cal), "1", v, thetas) for v in (values, values[::-1]))
    assert forth.result().log10_wealth != back.result().log10_wealth


def test_the_first_alarm_stands() -> None:
    rng = np.random.default_rng(8)
    alarmed = advance(begin(rng.standard_normal(100)), "1", np.arange(30.0) + 10, rng.random(30))
    later = advance(alarmed, "2", rng.standard_normal(200), rng.random(200))
    latest = advance(later, "3", np.arange(60.0) + 50, rng.random(60))
    assert alarmed.alarm is not None and alarmed.alarm.startswith("lot 1, ")
    assert later.alarm == latest.alarm == alarmed.alarm
    assert later.result().log10_wealth < later.result().log10_peak < latest.result().log10_peak
    assert alarmed.result().log10_peak <= later.result().log10_peak


def test_an_alarm_takes_nine_images_at_least() -> None:
    course = played(np.full((1, 30), 1e-9))[0]
    assert 9 <= np.argmax(course >= LIMIT) + 1 <= 13
    assert np.all(np.exp(np.diff(course)) < 1.9)


def test_a_lot_without_images_changes_nothing() -> None:
    begun = begin([1.0, 2.0])
    stream = advance(begun, "1", [], [])
    assert stream.state() == begun.state()
    assert stream.result().log10_wealth == pytest.approx(0, abs=1e-12)
    assert stream.result().log10_peak == 0 and not stream.result().alarmed


def test_a_state_of_other_images_is_refused() -> None:
    state = advance(begin([1.0]), "1", [1.0, 2.0], [0.5, 0.5]).state()
    for n_values, n_cells in ((3, 3), (1, 1), (2, 3), (3, 2)):
        with pytest.raises(ValueError, match=f"values and cells of 2 earlier images, got {n_values} and {n_cells}"):
            Stream.resume("scores", {"": [1.0]}, [1.0, 2.0, 3.0][:n_values], [""] * n_cells, state)


def test_each_image_needs_a_name_and_a_cell() -> None:
    for ids, cells in ((names(1), ["", ""]), (names(2), [""])):
        with pytest.raises(ValueError):
            begin([1.0]).advance("1", ids, [1.0, 2.0], [0.5, 0.5], cells)


def test_wealth_beyond_all_floats_stays_a_number() -> None:
    course = played(np.full((1, 2000), 1e-6))[0]
    assert course[-1] / np.log(10) > 500
    assert np.isfinite(played(np.hstack([np.full(2000, 1e-6), np.full(3000, 1.0)])[None])).all()
