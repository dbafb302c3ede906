"""The decision rule: reject, defer to a person, or say that nothing was flagged.

Without labelled defects there is no ACCEPT: normal images bound false rejects, never misses. With them,
p1 = (1 + #{DEF: T_j <= T}) / (n_d + 1) bounds the misses: P(ACCEPT | defect like the labelled ones) <= beta.
"""

from __future__ import annotations

from collections.abc import Sequence

from explainvad.types import Decision, GateResult


def decide(
    p_value: float,
    alpha: float,
    gates: Sequence[GateResult],
    epistemic: float,
    epistemic_limit: float,
    defect_p_value: float | None = None,
    beta: float | None = None,
) -> tuple[Decision, tuple[str, ...]]:
    """Return the decision and its reasons, as the report prints them.

    With labelled defects (``defect_p_value`` and ``beta`` given) an image is rejected only if it also looks like a
    defect, accepted only if it does not, and deferred when it looks like neither or like both.

    A failed gate comes first: it says that the image is not like those the p-value was calibrated on, so the
    p-value may not be used. A small p-value comes next and keeps its guarantee whatever the scorers say one by one.
    Disagreement of the members within scorers (``epistemic``) defers only what would otherwise pass; what scorers say
    against one another does not count, because a weak scorer that sees nothing is no reason to doubt a strong one.
    P(REJECT | normal) <= alpha throughout, because deferral only ever takes images away from REJECT.
    """
    reasons = [
        f"{g.name} {g.value:.3g} is outside [{g.lower:.3g}, {g.upper:.3g}], the range of the reference images"
        for g in gates
        if not g.passed
    ]
    disagree = (
        f"the scorers' members disagree: epistemic part within scorers {epistemic:.3f} bit is above "
        f"{epistemic_limit:.3f} bit"
    )
    if p_value <= alpha:
        reasons.append(f"p = {p_value:.4f} is at most alpha = {alpha:g}")
    if any(not g.passed for g in gates):
        return Decision.DEFER, tuple(reasons)
    labelled = defect_p_value is not None and beta is not None
    like_defect = not labelled or defect_p_value > beta  # type: ignore[operator]
    if p_value <= alpha and like_defect:
        return Decision.REJECT, tuple(reasons)
    if p_value <= alpha:
        return Decision.DEFER, (*reasons, f"unlike normal and unlike the labelled defects: p1 = {defect_p_value:.4f}")
    if epistemic > epistemic_limit:
        return Decision.DEFER, (disagree,)
    if not labelled:
        return Decision.NOT_FLAGGED, ()
    if like_defect:
        return Decision.DEFER, (
            f"cannot be told from the labelled defects: p1 = {defect_p_value:.4f} > beta = {beta:g}",
        )
    return Decision.ACCEPT, ()
