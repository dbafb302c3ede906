"""The lot statement: what is bounded about the lot as a whole, and whether the guarantees stand. Rows for a table."""

from __future__ import annotations

from dataclasses import dataclass

from explainvad.report.wording import count, interval, percent
from explainvad.types import AuditResult, DriftStream, LotReport

UNDETERMINED = "not determined"
SUSPENDED = (
    "Drift alarm: the images seen so far are no longer like the calibration images, so the guarantees in this report "
    "are suspended. Decisions stand as recorded; their error rates are unknown until the model is calibrated again."
)


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
    "scores": "fused scores of ordinary images, those below nine tenths of calibration; defects do not count",
    "acquisition": "how pictures were taken: focus, light, framing, likeness",
}


def statements(report: LotReport) -> list[Statement]:
    """The bounds on the lot, also those that this record cannot give, with what they would need."""
    s, c = report.statistics, report.model.calibration
    confidence = percent(s.confidence)
    rows = []
    if s.at_least_defective is not None:
        rows.append(
            Statement(
                "Defective images, at least",
                f"{s.at_least_defective:,} of {s.n_inspected:,}",
                f"With {confidence} confidence (Simes, closed testing); “defective” means not like the normal images. "
                "Which ones is not said",
            )
        )
    rows.append(
        Statement(
            "Share of defective parts",
            interval(s.defect_rate) if s.defect_rate else UNDETERMINED,
            f"Rogan–Gladen with {confidence} interval, conservative; defects in the lot are like the "
            f"{count(c.n_def, 'labelled one')}, of which {c.n_detected} have p ≤ α"
            if s.defect_rate
            else "Needs labelled defects (fit --defects) and one calibration for all images",
        )
    )
    rows.append(_audited(report.audit) if report.audit else _not_audited())
    return rows


def _audited(audit: AuditResult) -> Statement:
    found = f"{len(audit.defective)} of {count(len(audit.sample), 'sampled image')} found defective by {audit.auditor}"
    again = f"; sample {audit.n_draws} of this run, earlier ones count too" if audit.n_draws > 1 else ""
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


def stream_rows(report: LotReport) -> list[StreamRow]:
    """The drift streams as the report prints them."""
    drift = report.statistics.drift
    return [_stream(stream) for stream in drift.streams] if drift else []


def _stream(stream: DriftStream) -> StreamRow:
    return StreamRow(
        name=stream.name,
        watches=_WATCHED.get(stream.name, stream.name),
        now=_factor(stream.log10_wealth),
        peak=_factor(stream.log10_peak),
        limit=f"{1 / stream.delta:,.0f}",
        status=f"alarm at {stream.alarm}" if stream.alarm else "no alarm",
        alarmed=stream.alarmed,
    )


def _factor(log10: float) -> str:
    """A factor of evidence: small ones as a number, large ones as a power of ten."""
    return f"{10**log10:.3g}" if log10 < 5 else f"10^{log10:.0f}"
