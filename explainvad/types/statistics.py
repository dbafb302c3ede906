"""What is said of many images at once: rates with intervals, bounds, drift, control charts, audits. Free of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """An estimate with its confidence interval: Clopper-Pearson for rates, bootstrap for metrics."""

    estimate: float
    lower: float
    upper: float
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class DriftStream:
    """One exchangeability martingale after the last image of a lot.

    Wealth starts at 1; if all images are exchangeable with the calibration images, P(it ever reaches
    ``1 / delta``) <= delta.
    """

    name: str  # "scores" or "acquisition"
    log10_wealth: float
    log10_peak: float  # the largest so far, over all lots
    delta: float
    alarm: str | None  # "lot 42, img-00017": where the limit was first reached

    @property
    def alarmed(self) -> bool:
        """Whether the limit was ever reached."""
        return self.alarm is not None


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """Whether the images seen so far can still be taken for exchangeable with the calibration images."""

    streams: tuple[DriftStream, ...]
    n_lots: int  # earlier ones that the streams carry
    n_images: int  # of those lots

    @property
    def suspended(self) -> bool:
        """Whether the guarantees are suspended: some stream has raised its alarm."""
        return any(stream.alarmed for stream in self.streams)


@dataclass(frozen=True, slots=True, eq=False)
class ChartPoint:
    """One lot on a p-chart: its share of flagged images between control limits."""

    lot_id: str
    n_inspected: int
    n_flagged: int
    lower: float  # control limits of the share, from the chart's centre and this lot's size
    upper: float
    outside: bool


@dataclass(frozen=True, slots=True, eq=False)
class ControlChart:
    """The lots of a model in order, the present one last."""

    centre: float  # share of flagged images over the earlier lots
    points: tuple[ChartPoint, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LotStatistics:
    """Counts that reconcile, and what may be said of the lot as a whole."""

    n_files: int
    n_inspected: int
    counts: Mapping[str, int]  # by Decision value, zeros included; adds up to n_files
    reject_rate: Interval | None  # of the inspected; None when nothing was inspected
    defer_rate: Interval | None
    expected_false_rejects: float  # at most, if every inspected part were normal: alpha * n_inspected
    fdr_level: float
    fdr_rejected: tuple[str, ...]  # image ids on the Benjamini-Hochberg list at fdr_level
    at_least_defective: int | None = None  # Simes closed testing, at ``confidence``
    confidence: float = 0.95
    defect_rate: Interval | None = None  # Rogan-Gladen; needs labelled defects
    drift: Drift | None = None
    chart: ControlChart | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AuditResult:
    """What a person found in a random sample of the images that passed, and what that bounds."""

    n_population: int  # images that passed, of which the sample was drawn
    sample: tuple[str, ...]  # image ids
    defective: tuple[str, ...]  # of the sample; the others were found good
    confidence: float
    limit: float  # share of defective images that was to be excluded
    upper_count: int  # at ``confidence``, at most so many of the population are defective
    auditor: str
    n_draws: int  # samples drawn from this run so far, this one included

    @property
    def upper_rate(self) -> float:
        """The bound as a share of the population."""
        return self.upper_count / self.n_population

    @property
    def reached(self) -> bool:
        """Whether the bound keeps the limit."""
        return self.upper_rate <= self.limit


@dataclass(frozen=True, slots=True, eq=False)
class DetectionPower:
    """Probability of detection over defect size (hit/miss), logit in log size; sizes in px, sqrt of the area.

    ``curve`` holds (size, probability, lower, upper). ``a90`` is the size that is found nine times out of ten,
    ``a90_95`` its upper bound with 95 % confidence; None where the data cannot give it.
    """

    n: int
    hits: int
    level: float  # a hit is p <= level
    curve: tuple[tuple[float, float, float, float], ...]
    a90: float | None
    a90_95: float | None
    kind: str  # "labelled" or "synthetic" defects
