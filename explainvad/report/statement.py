"""The lot statement: what is bounded about the lot as a whole, and whether the guarantees stand. Rows for a table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from explainvad.report.wording import count, elide, interval, number, percent
from explainvad.types import AuditResult, CalibrationFacts, Drift, DriftStream, LotReport

UNDETERMINED = "not determined"
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_ROUNDING = 1e-9  # counts and multiples of 1 / (n + 1) often meet a level exactly


@dataclass(frozen=True, slots=True)
class Statement:
    """One line: what is said, how much, and under which condition it holds."""

    name: str
    value: str
    condition: str


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One martingale in words."""

    name: str
    watches: str
    now: str
    peak: str
    limit: str
    status: str
    alarmed: bool


_WATCHED = {
    "scores": "ordinary fused scores; defects do not count",
    "acquisition": "pictures: focus, light, framing, likeness",
}


def suspension(report: LotReport) -> str:
    """What a drift alarm means for this report; empty while there is none."""
    drift = report.statistics.drift
    if drift is None or not drift.suspended:
        return ""
    differ = (
        "the images seen so far are no longer like the calibration images"
        if report.model.calibration.scheme == "split"
        else "later images are no longer like earlier ones"
    )
    return (
        f"Drift alarm: {differ}, so the guarantees in this report are suspended. Decisions stand as recorded; their "
        "error rates are unknown until the model is calibrated again."
    )


def statements(report: LotReport) -> list[Statement]:
    """The bounds on the lot, also those that this record cannot give, with what they would need."""
    return [_at_least(report), _share(report), _audited(report.audit) if report.audit else _not_audited()]


def _at_least(report: LotReport) -> Statement:
    s, c = report.statistics, report.model.calibration
    name = "Defective images, at least"
    if c.scheme == "leave-one-out":
        why = "Needs positive dependence of the p-values, which leave-one-out is not proven to give"
        return Statement(name, UNDETERMINED, why)
    if s.at_least_defective is None:
        return Statement(name, UNDETERMINED, "Needs an inspected image")
    condition = (
        f"With {percent(s.confidence)} confidence (Simes, closed testing); “defective” means not like the normal "
        "images. Which ones is not said"
    )
    needed = _beyond_all(report)
    if s.at_least_defective == 0 and needed > s.n_inspected:
        condition += f". Cannot be above 0 here: {count(c.n_cal, 'calibration image')} are too few for this confidence"
    elif s.at_least_defective == 0 and needed > 1:
        condition += (
            f". Cannot be above 0 unless {needed:,} or more of the {s.n_inspected:,} score higher than all calibration "
            f"images{' of their cells' if c.cells else ''}: these are few for such a lot, so 0 says nothing of it"
        )
    return Statement(name, f"{s.at_least_defective:,} of {s.n_inspected:,}", condition)


def _beyond_all(report: LotReport) -> int:
    """How many of the m images must have the smallest p-value before Simes' bound can be above 0.

    j p-values of 1 / (n + 1) reject when j >= m / ((1 - confidence)(n + 1)); of larger p-values it takes more.
    """
    s, c = report.statistics, report.model.calibration
    smallest = min(facts.smallest_p for facts in c.cells or (c,))
    return math.ceil(s.n_inspected * smallest / (1 - s.confidence) * (1 - _ROUNDING))


def _share(report: LotReport) -> Statement:
    s, c = report.statistics, report.model.calibration
    rate = s.defect_rate
    name = "Share of defective parts"
    if rate is None:
        return Statement(name, UNDETERMINED, _needed_for_share(report))
    if c.n_detected / c.n_def <= _false_positive_rate(c):
        why = (
            f"Only {c.n_detected} of {count(c.n_def, 'labelled defect')} have p ≤ α, no more than normal images would: "
            "p-values tell nothing of the share"
        )
        return Statement(name, UNDETERMINED, why)
    if (rate.lower, rate.upper) == (0, 1):
        why = (
            f"{count(s.n_inspected, 'inspected image')}, {count(c.n_def, 'labelled defect')} of which {c.n_detected} "
            f"have p ≤ α, and {count(c.n_cal, 'calibration image')} leave any share possible"
        )
        return Statement(name, UNDETERMINED, why)
    return Statement(
        name,
        interval(rate),
        f"Rogan–Gladen with {percent(rate.confidence)} interval, conservative; defects in the lot are like the "
        f"{count(c.n_def, 'labelled one')}, of which {c.n_detected} have p ≤ α",
    )


def _needed_for_share(report: LotReport) -> str:
    c = report.model.calibration
    if not c.n_def:
        return "Needs labelled defects (fit --defects)"
    if c.cells:
        return "Needs one calibration for all images; this model has one for each cell"
    if c.scheme != "split":
        return "Needs calibration images that trained nothing, so more reference images"
    return "Needs an image that passed every acquisition gate"


def _false_positive_rate(c: CalibrationFacts) -> float:
    """Share of normal images with p <= alpha, averaged over calibration sets: floor(alpha (n + 1)) / (n + 1)."""
    return math.floor(c.alpha * (c.n_cal + 1) * (1 + _ROUNDING)) / (c.n_cal + 1)


def _audited(audit: AuditResult) -> Statement:
    sampled = count(len(audit.sample), "sampled image")
    found = f"{len(audit.defective)} of {sampled} found defective by {elide(audit.auditor, 60)}"
    again = f"; sample {audit.n_draws} of this run, while the confidence is that of one" if audit.n_draws > 1 else ""
    kept = "kept" if audit.reached else "not kept"
    return Statement(
        "Defective among those that passed, at most",
        f"{audit.upper_count:,} of {audit.n_population:,} ({percent(audit.upper_rate)})",
        f"With {percent(audit.confidence)} confidence (exact, hypergeometric): {found}{again}. The limit of "
        f"{percent(audit.limit)} is {kept}. Holds for defects that the auditor could see",
    )


def _not_audited() -> Statement:
    return Statement(
        "Defective among those that passed, at most",
        UNDETERMINED,
        "Only a person can bound what was missed: explainvad audit-sample draws a random sample of what passed",
    )


def stream_rows(drift: Drift | None) -> list[StreamRow]:
    """The drift streams as the report prints them."""
    return [_stream(stream) for stream in drift.streams] if drift else []


def _stream(stream: DriftStream) -> StreamRow:
    return StreamRow(
        name=stream.name,
        watches=_WATCHED.get(stream.name, stream.name),
        now=_factor(stream.log10_wealth),
        peak=_factor(stream.log10_peak),
        limit=f"{1 / stream.delta:,.0f}",
        status=f"alarm at {elide(stream.alarm, 80)}" if stream.alarm else "no alarm",
        alarmed=stream.alarmed,
    )


def _factor(log10: float) -> str:
    """A factor of evidence: small ones as a number, large ones as a power of ten."""
    if log10 < 5:
        return number(10**log10)
    exponent, rest = divmod(round(log10, 2), 1)
    return f"{10**rest:.1f} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def alarm_risk(drift: Drift | None) -> float:
    """P(any stream ever raises an alarm), at most, while images are exchangeable: the sum of their deltas."""
    return math.fsum(stream.delta for stream in drift.streams) if drift else 0.0
