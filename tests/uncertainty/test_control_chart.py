"""The p-chart's limits: exact false alarm rates at any rate of flags, and no lot that hides itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from explainvad.types import ChartPoint
from explainvad.uncertainty.control_chart import p_chart

TAIL = 0.00135  # of a normal distribution beyond three sigma
Limits = Callable[[int, int, int], tuple[float, float]]
RATES = np.array([0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.8, 0.97])


def judged(n_earlier: int, x_earlier: int, n: int, x: int = 0) -> ChartPoint:
    """The present lot after one earlier lot."""
    chart = p_chart([("before", n_earlier, x_earlier), ("now", n, x)])
    assert chart is not None
    return chart.points[-1]


def chart_limits(n_earlier: int, x_earlier: int, n: int) -> tuple[float, float]:
    point = judged(n_earlier, x_earlier, n)
    return point.lower * n, point.upper * n


def false_alarms(limits: Limits, n_earlier: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P(below) and P(above) at each of RATES, summed over all counts of the earlier lots and of the present one."""
    below, above = np.zeros(len(RATES)), np.zeros(len(RATES))
    for x in range(n_earlier + 1):
        lower, upper = limits(n_earlier, x, n)
        seen = stats.binom.pmf(x, n_earlier, RATES)
        below += seen * stats.binom.cdf(np.ceil(lower - 1e-9) - 1, n, RATES)
        above += seen * stats.binom.sf(np.floor(upper + 1e-9), n, RATES)
    return below, above


@pytest.mark.parametrize(("n_earlier", "n"), [(1, 1), (10, 30), (60, 60), (300, 25), (40, 250)])
def test_false_alarms_keep_three_sigma_at_every_rate(n_earlier: int, n: int) -> None:
    below, above = false_alarms(chart_limits, n_earlier, n)
    assert (below <= TAIL).all()
    assert (above <= TAIL).all()


def test_the_limits_are_not_idle() -> None:
    below, above = false_alarms(chart_limits, 300, 250)
    assert below.max() > 0.5 * TAIL and above.max() > 0.5 * TAIL


def normal_limits(n_earlier: int, x_earlier: int, n: int) -> tuple[float, float]:
    centre = x_earlier / n_earlier
    three_sigma = 3 * np.sqrt(centre * (1 - centre) / n)
    return n * (centre - three_sigma), n * (centre + three_sigma)


def plugged_in_limits(n_earlier: int, x_earlier: int, n: int) -> tuple[float, float]:
    centre = stats.binom(n, x_earlier / n_earlier)
    return float(centre.ppf(TAIL)), float(centre.isf(TAIL))


@pytest.mark.parametrize("limits", [normal_limits, plugged_in_limits])
def test_the_usual_limits_fail_the_same_test(limits: Limits) -> None:
    _, above = false_alarms(limits, 300, 250)
    assert above.max() > 4 * TAIL
    # And the normal ones leave what a share can be
    assert normal_limits(300, 3, 50)[0] < 0


def test_limits_by_counting() -> None:
    # 2 of 20 before, 10 units now. P(x or more | x + 2 of 30 flagged) is hypergeometric
    point = judged(20, 2, 10)
    tails = [stats.hypergeom.sf(x - 1, 30, x + 2, 10) for x in range(11)]
    assert point.upper == max(x for x, tail in enumerate(tails) if tail > TAIL) / 10
    assert point.upper == 0.7
    assert point.lower == 0
    # The lower limit is the upper one of the units that were not flagged
    mirrored = judged(20, 18, 10)
    assert (mirrored.lower, mirrored.upper) == pytest.approx((0.3, 1.0))


@pytest.mark.parametrize(("n_earlier", "n"), [(20, 10), (40, 90), (500, 35)])
def test_limits_are_those_of_the_beta_binomial_prediction(n_earlier: int, n: int) -> None:
    # Thatcher 1964: the rate as if from Beta(x + 1, N - x) for the upper limit, from Beta(x, N - x + 1) for the lower
    for x in range(1, n_earlier, 3):
        upper = stats.betabinom.isf(TAIL, n, x + 1, n_earlier - x)
        lower = stats.betabinom.ppf(TAIL, n, x, n_earlier - x + 1)
        assert chart_limits(n_earlier, x, n) == pytest.approx((lower, upper)), x


def test_a_share_on_a_limit_is_inside_and_the_next_is_not() -> None:
    for n_earlier, x_earlier, n in [(100, 10, 40), (500, 250, 80), (400, 380, 60), (30, 0, 50)]:
        lower, upper = (round(limit) for limit in chart_limits(n_earlier, x_earlier, n))
        for x in range(n + 1):
            assert judged(n_earlier, x_earlier, n, x).outside == (x < lower or x > upper)
    assert round(chart_limits(30, 0, 50)[0]) == 0


def test_centre_and_limits_come_from_the_pooled_earlier_lots() -> None:
    chart = p_chart([("41", 30, 3), ("42", 70, 1), ("43", 50, 20)])
    assert chart is not None
    assert chart.centre == pytest.approx(4 / 100)
    assert [(p.lot_id, p.n_inspected, p.n_flagged) for p in chart.points] == [
        ("41", 30, 3),
        ("42", 70, 1),
        ("43", 50, 20),
    ]
    present, alone = chart.points[-1], judged(100, 4, 50, 20)
    assert (present.lower, present.upper, present.outside) == (alone.lower, alone.upper, True)


def test_no_lot_moves_its_own_limits() -> None:
    def charted(third: int, present: int) -> tuple[ChartPoint, ...]:
        chart = p_chart([("1", 60, 3), ("2", 60, 4), ("3", 60, third), ("4", 60, present)])
        assert chart is not None
        return chart.points

    usual, wild = charted(3, 3), charted(30, 60)
    # Lot 3 has the limits that lots 1 and 2 give it, whatever it holds, and stands out against them
    assert (
        (wild[2].lower, wild[2].upper)
        == (usual[2].lower, usual[2].upper)
        == (judged(120, 7, 60).lower, judged(120, 7, 60).upper)
    )
    assert wild[2].outside and not usual[2].outside
    # The present lot moves the limits of none
    assert [(p.lower, p.upper) for p in charted(3, 60)] == [(p.lower, p.upper) for p in usual]
    # An earlier one is among the others of lots 1, 2 and 4
    assert wild[0].upper > usual[0].upper and wild[3].upper > usual[3].upper


def test_a_single_earlier_lot_has_no_others_to_be_judged_by() -> None:
    chart = p_chart([("1", 10, 9), ("2", 10, 9)])
    assert chart is not None
    assert (chart.points[0].lower, chart.points[0].upper, chart.points[0].outside) == (0, 1, False)
    assert chart.points[1].lower > 0


def test_lots_without_inspected_units_are_left_out() -> None:
    chart = p_chart([("1", 10, 2), ("2", 0, 0), ("3", 10, 1)])
    assert chart is not None
    assert [p.lot_id for p in chart.points] == ["1", "3"]
    assert p_chart([("2", 0, 0), ("3", 10, 1)]) is None
    assert p_chart([("1", 10, 2), ("3", 0, 0)]) is None
    assert p_chart([("1", 10, 2)]) is None
    assert p_chart([]) is None


@pytest.mark.parametrize("lot", [("42", 10, 11), ("42", 10, -1), ("42", -1, 0)])
def test_impossible_counts_are_refused(lot: tuple[str, int, int]) -> None:
    with pytest.raises(ValueError, match="lot 42"):
        p_chart([("1", 10, 2), lot])


def test_large_lots_are_charted_at_once() -> None:
    chart = p_chart([(str(i), 100_000, 5_000 + 10 * i) for i in range(30)])
    assert chart is not None
    assert not any(point.outside for point in chart.points)
    assert 0.045 < chart.points[-1].lower < 0.05 < chart.points[-1].upper < 0.055
