"""Drift: whether the images seen so far can still be taken for exchangeable with the calibration images.

Each image's value is ranked among the calibration values and those of all earlier images, ties broken at random. If
all of them are exchangeable, the resulting p-values are independent and uniform, whatever the values' distribution
(Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005, ch. 7 and 8). Ranks among the calibration
values alone are not independent: a calibration set that came out low or high tilts all of them.

Against uniformity bets a player who cannot fall into debt: his wealth is a martingale that starts at 1, so
P(it ever reaches 1 / delta) <= delta (Ville's inequality). One image multiplies a stake by

    f(p) = 1 + epsilon (p - 1/2),    epsilon one of SLOPES,

as in the Simple Jumper (Vovk, Petej, Nouretdinov, Ahlberg, Carlsson & Gammerman, "Retrain or not retrain: conformal
test martingales for change-point detection", 2021). Negative slopes win while values grow, positive ones while they
shrink. No image can raise wealth by more than a factor of 1.9, so that a few defects alone do not raise an alarm.

Half of the wealth is staked at the start, in equal parts on the slopes. The other half is a reserve, of which a part is
staked after every image; what is staked stays on its slope. After n images the reserve is

    r(n) = 1/2 / (1 + ln(1 + n / 100)).

Wealth is therefore a mixture over the slope and the image with which drift begins. Each component is a martingale that
rests at 1 until its image, hence so is the mixture. The reserve does the work of the Jumper's jumps, and keeps
wealth from sinking: at a jump rate of 0.01 quiet images cost some 0.004 each in ln wealth, all of which a drift has to
win back before it can be noticed. A reserve is not lost, and drift after n quiet images has to win back
some ln n + 2 ln ln n.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explainvad.types import DriftStream

STREAMS = ("scores", "acquisition")
DELTA = 0.01  # P(any stream ever raises a false alarm) <= DELTA
STREAM_DELTA = DELTA / len(STREAMS)  # union bound: the streams may depend on one another in any way
SLOPES = np.array([-1.8, -0.9, 0.9, 1.8])  # inside (-2, 2): no image takes the whole of a stake
_RESERVE = 0.5  # of the wealth, at the start
_PACE = 100.0  # images; how slowly the reserve is staked
_EMPTY = np.empty(0)


def theta(sha256: str) -> float:
    """The random number that breaks an image's ties, in (0, 1): the first 52 bits of its content's SHA-256 (hex).

    The same image gets the same number whenever it is analysed. The p-values are uniform if these numbers are uniform
    and independent of the values: a hash says nothing of a value or its rank, and different contents have independent
    hashes for all that is known. The same content twice would not; in a lot it is inspected only once. The number
    moves a p-value by less than (1 + ties) / (earlier values + 1).
    """
    return (int(sha256[:13], 16) + 0.5) / 2**52


def online_p_values(earlier: NDArray[np.float64], values: ArrayLike, thetas: ArrayLike) -> NDArray[np.float64]:
    """Rank each of ``values`` (m,) among ``earlier`` (n,), which must be ascending, and the values before it.

    p_t = (#{i < t: s_i > s_t} + theta_t (1 + #{i < t: s_i = s_t})) / (number of values before it + 1), in (0, 1]. Small
    is strange. Independent and uniform if all values are exchangeable and ``thetas`` (m,) are independent and uniform.
    Cost O(m log(n + m)), besides moves in memory.
    """
    s = np.asarray(values, dtype=np.float64)
    below = np.searchsorted(earlier, s, side="left")
    not_above = np.searchsorted(earlier, s, side="right")
    p = np.empty(len(s))
    lot: list[float] = []
    for t, (value, tie_breaker) in enumerate(zip(s.tolist(), np.asarray(thetas).tolist(), strict=True)):
        right = bisect_right(lot, value)
        above = len(earlier) - not_above[t] + t - right
        ties = not_above[t] - below[t] + right - bisect_left(lot, value)
        p[t] = (above + tie_breaker * (1 + ties)) / (len(earlier) + t + 1)
        insort(lot, value)
    return p


def first_stakes() -> NDArray[np.float64]:
    """ln of the stakes (slopes,) before the first image."""
    return np.full(len(SLOPES), math.log((1 - _RESERVE) / len(SLOPES)))


def bet(log_stakes: NDArray[np.float64], n: int, p: ArrayLike) -> NDArray[np.float64]:
    """ln of the stakes (..., slopes) after an image with p-value (...,) that ``n`` others came before.

    They include what the reserve stakes on the image that comes next.
    """
    played = log_stakes + np.log1p(SLOPES * (np.asarray(p)[..., None] - 0.5))
    return np.asarray(np.logaddexp(played, math.log((_reserve(n) - _reserve(n + 1)) / len(SLOPES))))


def log_wealth(log_stakes: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """ln of the wealth (...,) after ``n`` images: stakes and reserve."""
    return np.asarray(np.logaddexp(np.logaddexp.reduce(log_stakes, axis=-1), math.log(_reserve(n))))


def _reserve(n: int) -> float:
    return _RESERVE / (1 + math.log1p(n / _PACE))


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """One martingale after some images. If they are exchangeable with CAL, P(it ever alarms) <= STREAM_DELTA.

    With Mondrian cells an image is ranked within its own cell, and exchangeability within each cell is enough. A cell
    without calibration values begins with its first image, and then only its images are compared with one another.
    The assumption covers defects too: a lot with many of them is not exchangeable with normal images, and may raise
    the alarm without any drift of the process.
    """

    name: str  # one of STREAMS
    pools: Mapping[str, NDArray[np.float64]]  # by cell, ascending: values of CAL and of all images so far
    n_images: int
    log_stakes: NDArray[np.float64]  # (slopes,), natural logarithms
    log_peak: float  # of the wealth
    alarm: str | None  # "lot 42, img-00017": where wealth first reached 1 / STREAM_DELTA

    @classmethod
    def begin(cls, name: str, calibration: Mapping[str, ArrayLike]) -> Stream:
        """Start before the first image; ``calibration`` holds the values (n,) of the CAL images by cell."""
        return cls(name, _pooled({}, calibration), 0, first_stakes(), 0.0, None)

    @classmethod
    def resume(
        cls,
        name: str,
        calibration: Mapping[str, ArrayLike],
        earlier: ArrayLike,
        cells: Sequence[str],
        state: Mapping[str, Any],
    ) -> Stream:
        """Go on from :meth:`state`, as if it had never been left.

        ``earlier`` (n_images,) and ``cells`` are those of all images so far. Raises ValueError when they are not as
        many as the state counts.
        """
        values = np.asarray(earlier, dtype=np.float64)
        if not len(values) == len(cells) == state["n_images"]:
            raise ValueError(
                f"{name}: expected values and cells of {state['n_images']} earlier images, "
                f"got {len(values)} and {len(cells)}"
            )
        pools = _pooled(_pooled({}, calibration), {cell: values[own] for cell, own in _members(cells).items()})
        stakes = np.array(state["log_stakes"], dtype=np.float64)
        return cls(name, pools, len(values), stakes, float(state["log_peak"]), state["alarm"])

    def advance(
        self, lot_id: str, image_ids: Sequence[str], values: ArrayLike, thetas: ArrayLike, cells: Sequence[str]
    ) -> Stream:
        """The stream after a lot's images, in the order in which they came; all arguments but the first (m,)."""
        s, tie_breakers = np.asarray(values, dtype=np.float64), np.asarray(thetas, dtype=np.float64)
        p_values, members = np.empty(len(s)), _members(cells)
        for cell, own in members.items():
            p_values[own] = online_p_values(self.pools.get(cell, _EMPTY), s[own], tie_breakers[own])
        stakes, peak, alarm = self.log_stakes, self.log_peak, self.alarm
        for n, (image_id, p, _) in enumerate(zip(image_ids, p_values, cells, strict=True), start=self.n_images):
            stakes = bet(stakes, n, p)
            wealth = float(log_wealth(stakes, n + 1))
            peak = max(peak, wealth)
            if alarm is None and wealth >= -math.log(STREAM_DELTA):
                alarm = f"lot {lot_id}, {image_id}"
        pools = _pooled(self.pools, {cell: s[own] for cell, own in members.items()})
        return Stream(self.name, pools, self.n_images + len(p_values), stakes, peak, alarm)

    def state(self) -> dict[str, Any]:
        """Plain numbers for the history: all that :meth:`resume` needs besides values and cells."""
        return {
            "n_images": self.n_images,
            "log_stakes": self.log_stakes.tolist(),
            "log_peak": self.log_peak,
            "alarm": self.alarm,
        }

    def result(self) -> DriftStream:
        """What the report says of the stream."""
        wealth = float(log_wealth(self.log_stakes, self.n_images))
        return DriftStream(self.name, wealth / math.log(10), self.log_peak / math.log(10), STREAM_DELTA, self.alarm)


def _members(cells: Sequence[str]) -> dict[str, list[int]]:
    """Positions of the images of each cell."""
    members: dict[str, list[int]] = {}
    for position, cell in enumerate(cells):
        members.setdefault(cell, []).append(position)
    return members


def _pooled(
    pools: Mapping[str, NDArray[np.float64]], values: Mapping[str, ArrayLike]
) -> dict[str, NDArray[np.float64]]:
    """The pools with further values, ascending again."""
    more = {cell: np.asarray(v, dtype=np.float64) for cell, v in values.items()}
    return {**pools, **{cell: np.sort(np.concatenate([pools.get(cell, _EMPTY), v])) for cell, v in more.items()}}
