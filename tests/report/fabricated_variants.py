"""Lots whose model knows more, or less: labelled defects, synthetic ones, cells, few references, a drift alarm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fabricated_lot import SMALL_P, Builder, full_lot, statistics_of, verdict_of
from fabricated_statistics import AUDIT, drifted, power_of

from explainvad.types import (
    CalibrationFacts,
    Decision,
    ImageRecord,
    Interval,
    LotReport,
    ProbabilityBound,
    Verdict,
)

UNCLEAR = ("cannot be told from the labelled defects",)
LABELLED = ProbabilityBound(0.912, 0.01, "Venn-Abers on 40 labelled defects, shifted to the prior", lower=0.318)
SYNTHETIC = ProbabilityBound(
    0.912,
    0.01,
    "synthetic: calibrated on 60 synthetic defects; says nothing of real ones",
    lower=0.318,
    synthetic=True,
)


def with_calibration(report: LotReport, **changes: object) -> LotReport:
    """The same report by a model that was calibrated otherwise."""
    calibration = replace(report.model.calibration, **changes)  # type: ignore[arg-type]
    return replace(report, model=replace(report.model, calibration=calibration))


def with_statistics(report: LotReport, **changes: object) -> LotReport:
    """The same report with other statistics of the lot."""
    return replace(report, statistics=replace(report.statistics, **changes))  # type: ignore[arg-type]


def with_verdicts(report: LotReport, changed: Callable[[Verdict], Verdict]) -> LotReport:
    """The same report with every verdict changed."""

    def of(record: ImageRecord) -> ImageRecord:
        return record if record.verdict is None else replace(record, verdict=changed(record.verdict))

    return replace(report, records=tuple(map(of, report.records)))


def suspended(report: LotReport) -> LotReport:
    """The same report after a drift alarm."""
    return with_statistics(report, drift=drifted())


def labelled_lot(run_dir: Path) -> LotReport:
    """The full lot by a model with forty labelled defects, audited by a person; what passed is accepted."""

    def judged(v: Verdict) -> Verdict:
        decision = Decision.ACCEPT if v.decision is Decision.NOT_FLAGGED else v.decision
        p1 = 1 / 41 if decision is Decision.ACCEPT else 0.317
        return replace(v, decision=decision, probability=LABELLED, defect_p_value=p1, beta=0.1)

    report = with_verdicts(full_lot(run_dir), judged)
    known = statistics_of(report.records)
    rate = Interval(0.172, 0.031, 0.388, 0.95)
    report = replace(report, statistics=replace(known, defect_rate=rate), audit=AUDIT)
    return with_calibration(report, n_def=40, beta=0.1, n_detected=27, power=power_of("labelled"))


def synthetic_lot(run_dir: Path) -> LotReport:
    """Three images by a model that met only synthetic defects; one is rejected."""
    b = Builder(run_dir)
    b.good(2)
    b.inspected("a.png", verdict_of(Decision.REJECT, 4.81, 1 / 96, SMALL_P), [(250, 130, 26, 9)])
    report = with_verdicts(b.report(), lambda v: replace(v, probability=SYNTHETIC))
    return with_calibration(report, n_synthetic=60, power=power_of("synthetic"))


def cells_of(whole: CalibrationFacts, *names: str) -> tuple[CalibrationFacts, ...]:
    """Facts of cells, each with fewer images and a lower threshold than the one before."""
    cells = []
    for k, name in enumerate(names):
        n = 95 - 12 * k
        threshold = whole.score_threshold - 0.21 * k
        pixel = whole.pixel_threshold / (1 + 0.25 * k)
        cells.append(
            replace(
                whole,
                n_cal=n,
                smallest_p=1 / (n + 1),
                conditional_alpha=0.0812 + 0.006 * k,
                score_threshold=threshold,
                pixel_threshold=pixel,
                cell=name,
            )
        )
    return tuple(cells)


def cell_lot(run_dir: Path, first: str = "camera 1", second: str = "camera 2") -> LotReport:
    """Two cells, whose images alternate; one image of each is rejected."""
    b = Builder(run_dir)
    b.good(4)
    for name in ("a.png", "b.png"):
        b.inspected(name, verdict_of(Decision.REJECT, 4.81, 1 / 96, SMALL_P), [(250, 130, 26, 9)])
    report = b.report()
    records = [
        replace(r, verdict=replace(r.verdict, cell=(first, second)[k % 2])) for k, r in enumerate(report.records)
    ]
    report = replace(report, records=tuple(records))
    cells = cells_of(report.model.calibration, first, second)
    n_cal, smallest = sum(f.n_cal for f in cells), max(f.smallest_p for f in cells)
    return with_calibration(report, cells=cells, n_cal=n_cal, smallest_p=smallest, conditional_alpha=0.0872)


def few_lot(run_dir: Path) -> LotReport:
    """Few reference images, so calibration is leave-one-out and promises nothing for one calibration set."""
    b = Builder(run_dir)
    b.good(2)
    b.inspected("a.png", verdict_of(Decision.REJECT, 4.81, 1 / 31, SMALL_P), [(250, 130, 26, 9)])
    facts = {"n_fit": 30, "n_norm": 30, "n_cal": 30, "n_groups": 30, "smallest_p": 1 / 31, "conditional_alpha": None}
    return with_calibration(b.report(), scheme="leave-one-out", **facts)
