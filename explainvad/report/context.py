"""LotReport -> what the templates print. Templates format and place; every derived value is made here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment

from explainvad.errors import UsageError
from explainvad.report import wording
from explainvad.report.attachments import Printed
from explainvad.report.branding import Branding
from explainvad.report.explanations import methods_of
from explainvad.report.figures import heat_scales
from explainvad.report.lot_plots import LOTS_SHOWN, chart_words, control_chart, power_curve, power_words
from explainvad.report.plots import colour_bar, score_plot
from explainvad.report.statement import alarm_risk, statements, stream_rows, suspension
from explainvad.types import JSON, CalibrationFacts, ClaimStatus, Decision, ImageRecord, LotInfo, LotReport

LISTED_IN_SUMMARY = 60  # flagged images; more of them get a list on pages of its own, at this anchor
LIST_ANCHOR = "flagged-images"

# The order of the reconciliation: what needs no action first.
RECONCILED = (
    Decision.NOT_FLAGGED,
    Decision.ACCEPT,
    Decision.REJECT,
    Decision.DEFER,
    Decision.NOT_INSPECTED,
)


@dataclass(frozen=True, slots=True)
class FlaggedImage:
    """A row of the list of flagged images."""

    image_id: str
    file: str
    decision: Decision
    score: float
    p_value: float
    n_regions: int
    on_list: bool  # of Benjamini and Hochberg


@dataclass(frozen=True, slots=True)
class AuthorCount:
    """How many sentences an author wrote, and how they fared."""

    author: str
    total: int
    by_status: Mapping[ClaimStatus, int]


def issued_at(report: LotReport) -> datetime:
    """The issue date: SOURCE_DATE_EPOCH where it is set, else the end of the inspection. Never the clock.

    Raises :class:`UsageError` when SOURCE_DATE_EPOCH is no number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return wording.in_utc(report.provenance.finished_at)
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH must be seconds since 1970, got {epoch!r}") from error


def scale_graphics(environment: Environment, calibration: CalibrationFacts) -> dict[str, bytes]:
    """Return the colour bars that the pages of images show (name -> SVG)."""
    return {name: colour_bar(environment, scale) for name, scale in heat_scales(calibration).values()}


def lot_graphics(environment: Environment, report: LotReport) -> dict[str, bytes]:
    """Return the vector graphics that the pages of the lot and the model show (name -> SVG)."""
    calibration = report.model.calibration
    graphics = {"score-plot.svg": score_plot(environment, report)}
    if report.statistics.chart is not None:
        graphics["control-chart.svg"] = control_chart(environment, report.statistics.chart)
    if calibration.power is not None and calibration.power.curve:
        graphics["power-curve.svg"] = power_curve(environment, calibration.power)
    return graphics


def report_context(
    report: LotReport, shown: Sequence[ImageRecord], attachments: Sequence[Printed], branding: Branding
) -> dict[str, Any]:
    """Return the variables of the templates, all but the pages of the images and the way to address pictures.

    ``shown`` are the records that get a page. What is returned are plain values: no path, and nothing that acts.
    """
    lead, headline, sentence = wording.disposition(report)
    statistics, calibration = report.statistics, report.model.calibration
    missed = [r for r in report.records if r.decision is Decision.NOT_INSPECTED]
    flagged = flagged_images(report)
    return {
        "lot": report.lot,
        "statistics": statistics,
        "model": report.model,
        "calibration": calibration,
        "provenance": report.provenance,
        "issued": issued_at(report).isoformat(),
        "lot_facts": _lot_facts(report.lot),
        "scope": _scope(report.lot),
        "imaging": _imaging(report.lot),
        "report_revision": _report_revision(report.lot),
        "lead": lead,
        "headline": headline,
        "disposition": sentence,
        "reconciled": _reconciled(report),
        "contents": _contents(report, shown),
        "flagged": flagged,
        "listed": len(flagged) > LISTED_IN_SUMMARY,
        "images_heading": images_heading(report, shown),
        "missed": missed,
        "gates": next((r.verdict.gates for r in report.records if r.verdict), ()),
        "bound_methods": tuple(dict.fromkeys(r.verdict.probability.method for r in report.records if r.verdict)),
        "fallbacks": tuple(dict.fromkeys((*report.model.fallbacks, *report.provenance.fallbacks))),
        "authors": authors_of(report),
        "explained": methods_of(report),
        "configuration": flattened(report.provenance.config),
        "statements": statements(report),
        "streams": stream_rows(statistics.drift),
        "alarm_risk": alarm_risk(statistics.drift),
        "suspended": suspension(report),
        "chart_alt": chart_words(statistics.chart) if statistics.chart else "",
        "lots_shown": LOTS_SHOWN,
        "power_words": power_words(calibration.power) if calibration.power else "",
        "attachments": attachments,
        "custom_templates": branding.sha256,
        "kind": wording.decision_class,
        "score_alt": _score_alt(report),
    }


def images_heading(report: LotReport, shown: Sequence[ImageRecord]) -> str:
    """The heading over the pages of ``shown``: others than flagged images are not called that."""
    return "Flagged images" if all(record.flagged for record in shown) else "Inspected images"


def flagged_images(report: LotReport) -> tuple[FlaggedImage, ...]:
    """The rows of the list of flagged images, in lot order."""
    on_list = frozenset(report.statistics.fdr_rejected)
    return tuple(
        FlaggedImage(
            r.image_id, r.file, r.decision, r.verdict.score, r.verdict.p_value, len(r.findings), r.image_id in on_list
        )
        for r in report.records
        if r.flagged and r.verdict is not None
    )


def authors_of(report: LotReport) -> tuple[AuthorCount, ...]:
    """Who wrote the sentences of the report, in the order of their appearance; none where only measurements speak."""
    described = report.provenance.config.get("describer")
    if not isinstance(described, dict) or described.get("use") == "measured":
        return ()
    sentences = (s for record in report.records for finding in record.findings for s in finding.sentences)
    counts: dict[str, dict[ClaimStatus, int]] = {}
    for sentence in sentences:
        counts.setdefault(sentence.author, dict.fromkeys(ClaimStatus, 0))[sentence.status] += 1
    return tuple(AuthorCount(author, sum(found.values()), found) for author, found in counts.items())


def _reconciled(report: LotReport) -> list[tuple[Decision, int]]:
    """Counts that add up to the files of the lot; of accepted and not flagged, what this model can say."""
    counts = report.statistics.counts
    unsaid = Decision.NOT_FLAGGED if report.model.calibration.n_def else Decision.ACCEPT
    return [(d, counts.get(d, 0)) for d in RECONCILED if d is not unsaid or counts.get(d, 0)]


def _contents(report: LotReport, shown: Sequence[ImageRecord]) -> list[tuple[str, str]]:
    """The report's parts as (anchor, title), in order."""
    images = [(shown[0].image_id, images_heading(report, shown))] if shown else []
    return [
        ("lot-summary", "Lot summary"),
        ("lot-statement", "Lot statement"),
        ("method", "Method and decision rule"),
        *images,
        ("model-card", "Model card"),
        ("appendix", "Record and verification"),
    ]


def _lot_facts(lot: LotInfo) -> list[tuple[str, str]]:
    """What the cover says of the lot, in reading order; what is not known is left out."""
    facts = [
        ("Part", lot.part),
        ("Serial numbers", lot.serials),
        ("Drawing", lot.drawing),
        ("Drawing revision", lot.revision),
        ("Customer", lot.customer),
        ("Site", lot.site),
        ("Operator", _person(lot.operator, lot.operator_role)),
        ("Reviewer", _person(lot.reviewer, lot.reviewer_role)),
    ]
    return [(name, value) for name, value in facts if value]


def _person(name: str | None, role: str | None) -> str | None:
    return ", ".join(filter(None, (name, role))) or None


def _scope(lot: LotInfo) -> list[tuple[str, str | None]]:
    """To which rules the lot was inspected. An auditor looks for each of these, so none is left out."""
    return [
        ("Procedure", lot.procedure),
        ("Criteria", lot.acceptance_criteria),
        ("Sampling plan", lot.sampling_plan),
        ("Deviations", lot.deviations),
    ]


def _imaging(lot: LotInfo) -> list[tuple[str, str | None]]:
    """How the pictures were taken, with the same completeness."""
    return [
        ("Camera", lot.camera),
        ("Optics", lot.optics),
        ("Lighting", lot.lighting),
        ("Calibration", lot.camera_calibration),
        ("Scale", None if lot.mm_per_pixel is None else f"{lot.mm_per_pixel:g} mm per pixel"),
    ]


def _report_revision(lot: LotInfo) -> str:
    earlier = f"supersedes {lot.supersedes}" if lot.supersedes else "the record names no earlier report"
    return f"{lot.report_revision or 1}; {earlier}"


def _score_alt(report: LotReport) -> str:
    calibration = report.model.calibration
    scores = [r.verdict.score for r in report.records if r.verdict is not None]
    above = sum(score >= calibration.score_threshold for score in scores)
    which = "largest decision threshold of any cell" if calibration.cells else "decision threshold"
    return (
        f"Fused scores of {len(scores)} inspected images beside {calibration.n_cal} calibration scores: "
        f"{above} at or above the {which} {wording.number(calibration.score_threshold)}."
    )


def flattened(config: Mapping[str, JSON], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested configuration as (dotted key, value) in the order of the keys."""
    rows: list[tuple[str, str]] = []
    for key, value in sorted(config.items()):
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(number): item for number, item in enumerate(value, start=1)}
        if isinstance(value, Mapping) and value:
            rows += flattened(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", _setting(value)))
    return rows


def _setting(value: JSON) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_setting(item) for item in value) or "none"
    return str(value) or "—"
