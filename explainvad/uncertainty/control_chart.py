"""Whether the share of flagged units in a lot agrees with that of the other lots: a p-chart with exact limits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from scipy import stats

from explainvad.types import ChartPoint, ControlChart

TAIL = 0.00135  # beyond each limit: what a normal distribution has beyond three sigma


def p_chart(lots: Sequence[tuple[str, int, int]]) -> ControlChart | None:
    """Chart the share of flagged units over lots; each is ``(lot_id, inspected, flagged)``, the present one last.

    The centre is the pooled share of the earlier lots. Every lot is judged against the earlier lots other than itself,
    so that no lot hides by moving its own limits, and the present one never moves those of the others. A share on a
    limit is inside. None without a present lot and an earlier one of which anything was inspected; other lots
    of which nothing was inspected have no share and are left out.

    If all units were flagged independently at one rate, a lot lies above its upper limit with probability <= 0.00135,
    and below its lower one likewise, whatever the rate: given the flagged units of both, those of this lot are a
    hypergeometric draw (Fisher's exact test; as prediction limits, Thatcher 1964). That is per lot: of k lots in
    control up to 0.0027 k are expected outside. Real lots whose rate varies a little lie outside more often.

    Neither usual choice keeps 0.00135. Three-sigma limits of the normal approximation fall below zero and raise
    false alarms at the small rates of inspection, and binomial limits at the centre take an estimate for the rate.

    Raises ValueError unless 0 <= flagged <= inspected in every lot.
    """
    for lot_id, inspected, flagged in lots:
        if not 0 <= flagged <= inspected:
            raise ValueError(
                f"flagged must lie in [0, {inspected}], the inspected units of lot {lot_id}, got {flagged}"
            )
    earlier = [lot for lot in lots[:-1] if lot[1] > 0]
    if not earlier or lots[-1][1] == 0:
        return None
    n_all, x_all = sum(lot[1] for lot in earlier), sum(lot[2] for lot in earlier)
    points = [_point(lot, n_all - lot[1], x_all - lot[2]) for lot in earlier]
    return ControlChart(centre=x_all / n_all, points=(*points, _point(lots[-1], n_all, x_all)))


def _point(lot: tuple[str, int, int], n_rest: int, x_rest: int) -> ChartPoint:
    """A lot against ``x_rest`` flagged of ``n_rest`` other units; with no others the limits are 0 and 1."""
    lot_id, n, x = lot
    most = _most(n, n_rest, x_rest)
    fewest = n - _most(n, n_rest, n_rest - x_rest)  # the most of those that are not flagged
    return ChartPoint(lot_id, n, x, lower=fewest / n, upper=most / n, outside=not fewest <= x <= most)


def _most(n: int, n_rest: int, x_rest: int) -> int:
    """The largest count among n units that is not too large beside ``x_rest`` among ``n_rest``."""
    # P(as many or more | x + x_rest in all) falls with x
    return bisect_left(
        range(1, n + 1), True, key=lambda x: bool(stats.hypergeom.sf(x - 1, n_rest + n, x_rest + x, n) <= TAIL)
    )
