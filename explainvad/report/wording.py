"""Fixed words and number formats of the report. One value is written in one way, wherever it stands."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from explainvad.types import ClaimStatus, Decision, ImageRecord, Interval, LotReport

# Each decision has a shape as well as a colour, so that it survives a black-and-white print.
MARKS: Mapping[str, str] = {
    Decision.REJECT: "◆",
    Decision.DEFER: "▲",
    Decision.ACCEPT: "■",
    Decision.NOT_FLAGGED: "●",
    Decision.NOT_INSPECTED: "✕",
}
WORDS: Mapping[str, str] = {
    Decision.REJECT: "Reject",
    Decision.DEFER: "Defer to a person",
    Decision.ACCEPT: "Accept",
    Decision.NOT_FLAGGED: "Not flagged",
    Decision.NOT_INSPECTED: "Not inspected",
}
SHORT: Mapping[str, str] = {**WORDS, Decision.DEFER: "Defer"}  # where there is room for two words at most
AUTHOR_CHARACTERS = 240  # of an author line on a printed page; report.json has all of it
CHECK_MARKS: Mapping[str, str] = {
    ClaimStatus.SUPPORTED: "✓",
    ClaimStatus.PARTLY: "~",
    ClaimStatus.CONTRADICTED: "✕",
    ClaimStatus.UNVERIFIABLE: "?",
}


def p_value(value: float) -> str:
    """A probability with three significant digits, never rounded up to a certain 1 or down to 0."""
    if value >= 0.9995 and value < 1:
        return "> 0.999"
    return f"{value:.1e}" if 0 < value < 1e-4 else f"{value:.3g}"


def number(value: float, more_digits: int = 0) -> str:
    """A measured number with three significant digits, or ``more_digits``; an absent limit is a dash."""
    if not math.isfinite(value):
        return "—"
    if value == 0:
        return "0"
    if 0.1 <= abs(value) < 1e5:
        decimals = max(0, 2 - math.floor(math.log10(abs(value)))) + more_digits
        return f"{value:,.{decimals}f}".replace("-", "−")
    return f"{value:.{3 + more_digits}g}".replace("-", "−")


def distinct(*values: float) -> tuple[str, ...]:
    """Numbers that are compared, with as many digits as it takes to tell unequal ones apart."""
    finite = {v for v in values if math.isfinite(v)}
    more_digits = next((k for k in range(12) if len({number(v, k) for v in finite}) == len(finite)), 12)
    return tuple(number(v, more_digits) for v in values)


def percent(value: float) -> str:
    """A share in [0, 1] as a percentage."""
    return f"{100 * value:.3g} %"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: ``1 file``, ``1,200 files``."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def findings(record: ImageRecord, shown: int) -> str:
    """How many regions an image has, and of the heaviest ``shown`` where they lie: for alternative texts."""
    if not record.findings:
        return "no region reached significance" if record.flagged else "no region was cut out"
    places = ", ".join(
        f"{f.region.region_id} {f.facts.place}, p = {p_value(f.region.p_value)}" for f in record.findings[:shown]
    )
    return f"{count(len(record.findings), 'region')} ({places})"


def interval(value: Interval | None) -> str:
    """An estimate with its interval, or why there is none."""
    if value is None:
        return "no inspected image"
    estimate, lower, upper = (f"{100 * v:.1f} %" for v in (value.estimate, value.lower, value.upper))
    return f"{estimate} ({lower} to {upper})"


def file_size(size: int) -> str:
    """Bytes in decimal units, as file managers print them."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:.0f} kB" if size < 999_500 else f"{size / 1e6:.1f} MB"


def in_utc(iso: str) -> datetime:
    """An ISO 8601 time in UTC; one without a zone is in UTC already. Raises ValueError for other text."""
    moment = datetime.fromisoformat(iso)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def timestamp(iso: str) -> str:
    """An ISO 8601 time as ``2026-03-14 09:26 UTC``; text that is none stays as it is."""
    try:
        return f"{in_utc(iso):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return iso


def period(start: str, end: str) -> str:
    """From when until when, with the date once where it is one day: ``2026-03-14 09:26:53 to 09:27:41 UTC``."""
    try:
        first, last = in_utc(start), in_utc(end)
    except ValueError:
        return f"{start} to {end}"
    until = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    return f"{first:%Y-%m-%d %H:%M:%S} to {until} UTC"


def unbroken(text: str) -> str:
    """Keep comparisons and ranges on one line: ``p = 0.0164`` and ``[0, 0.168]`` get blanks that do not break."""
    return re.sub(r"\[[^\[\]]{1,40}\]|\S+ [=<>≤≥] \S+", lambda match: match[0].replace(" ", "\u00a0"), text)


def elide(text: str, length: int) -> str:
    """Shorten a long name in its middle: both ends tell names apart, the full one is in the attachments."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def decision_class(decision: Decision) -> str:
    """The CSS class of a decision: fixed words only, never a value from data."""
    return decision.value.lower().replace("_", "-")


def disposition(report: LotReport) -> tuple[Decision, str, str]:
    """Say what the inspection as a whole amounts to: the decision that leads, a headline and a sentence."""
    c = report.statistics.counts
    reject, defer, missed = c[Decision.REJECT], c[Decision.DEFER], c[Decision.NOT_INSPECTED]
    accepts = report.model.calibration.n_def > 0  # what remains is then accepted, and otherwise not flagged
    parts = [
        (reject, "rejected", False),
        (defer, "deferred to a person", False),
        (c[Decision.ACCEPT], "accepted", accepts),
        (c[Decision.NOT_FLAGGED], "not flagged", not accepts),
    ]
    told = [f"{n:,} {word}" for n, word, always in parts if n or always]
    listing = told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"
    sentence = f"Of {count(report.statistics.n_inspected, 'inspected image')}: {listing}."
    if missed:
        verb = "is" if missed == 1 else "are"
        sentence += f" {count(missed, 'further file')} could not be inspected and {verb} listed with reasons."
    if reject:
        return Decision.REJECT, "Rejected images present", sentence
    if defer:
        return Decision.DEFER, "A person must decide", sentence
    if missed:
        return Decision.NOT_INSPECTED, "Inspection incomplete", sentence
    if c[Decision.NOT_FLAGGED]:
        return Decision.NOT_FLAGGED, "No image flagged", sentence
    return Decision.ACCEPT, "All images accepted", sentence
