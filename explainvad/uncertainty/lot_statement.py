"""What may be said of a lot as a whole: counts that reconcile, and bounds that carry guarantees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from explainvad.types import CalibrationFacts, Decision, ImageRecord, Interval, LotStatistics, Verdict
from explainvad.uncertainty.lot_bounds import defective_at_least, rogan_gladen
from explainvad.uncertainty.lot_statistics import benjamini_hochberg, clopper_pearson
from explainvad.uncertainty.splits import SPLIT


def summarise(
    records: Sequence[ImageRecord], calibration: CalibrationFacts, fdr_level: float = 0.10, confidence: float = 0.95
) -> LotStatistics:
    """Summarise one lot: a record per file, decided at the level of ``calibration``.

    The Benjamini-Hochberg list at ``fdr_level`` and the lower bound on defective images at ``confidence`` take every
    inspected image by its p-value; one whose acquisition gates failed enters with p = 1, because its own may not be
    used and a larger one weakens no guarantee. The list answers another question than REJECT does (the share of
    false flags in the list, against the chance of a false reject per normal part), so either may hold parts that the
    other does not. Both are proven for calibration by a split only; with leave-one-out there is no lower bound. The
    rates are of the inspected files, with 95 % intervals. The share of defective units needs labelled defects and one
    cell calibrated by a split; else it is None.

    Raises ValueError if the counts do not reconcile (two records of one image_id, a decision that is none), or if
    a verdict was made at another alpha.
    """
    alpha = calibration.alpha
    ids = Counter(record.image_id for record in records)
    repeated = sorted(image_id for image_id, n in ids.items() if n > 1)
    if repeated:
        raise ValueError(f"each file must have one record, got several of {', '.join(repeated)}")
    verdicts = {record.image_id: record.verdict for record in records if record.verdict is not None}
    strays = sorted(image_id for image_id, verdict in verdicts.items() if verdict.alpha != alpha)
    if strays:
        raise ValueError(f"all verdicts must be at alpha = {alpha}, got another one for {', '.join(strays)}")

    counted = Counter(record.decision for record in records)
    counts = {decision.value: counted[decision] for decision in Decision}
    n_inspected = len(verdicts)
    if sum(counts.values()) != len(records):
        raise ValueError(f"counts must add up to {len(records)} files, got {dict(counted)}")

    p = [verdict.p_value if verdict.gates_passed else 1.0 for verdict in verdicts.values()]
    listed = benjamini_hochberg(p, fdr_level)
    return LotStatistics(
        n_files=len(records),
        n_inspected=n_inspected,
        counts=counts,
        reject_rate=clopper_pearson(counts[Decision.REJECT], n_inspected) if n_inspected else None,
        defer_rate=clopper_pearson(counts[Decision.DEFER], n_inspected) if n_inspected else None,
        expected_false_rejects=alpha * n_inspected,
        fdr_level=fdr_level,
        fdr_rejected=tuple(image_id for image_id, flag in zip(verdicts, listed, strict=True) if flag),
        at_least_defective=defective_at_least(p, confidence) if n_inspected and calibration.scheme == SPLIT else None,
        confidence=confidence,
        defect_rate=_defect_rate(list(verdicts.values()), calibration, confidence),
    )


def _defect_rate(verdicts: Sequence[Verdict], calibration: CalibrationFacts, confidence: float) -> Interval | None:
    """Rogan-Gladen over the images whose gates passed: on the others the p-value's error rates are unknown."""
    usable = [v for v in verdicts if v.gates_passed]
    c = calibration
    if not usable or not c.n_def or c.cells or c.scheme != SPLIT:
        return None
    positives = sum(v.p_value <= c.alpha for v in usable)
    return rogan_gladen(positives, len(usable), c.n_detected, c.n_def, c.n_cal, c.alpha, confidence)
