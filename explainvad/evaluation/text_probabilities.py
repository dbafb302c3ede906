"""Do the probabilities of a model's chosen words know which of them are right?

Of the words that measurements can be compared with: the mean probability of those that agree, of those that disagree,
and the difference, with bootstrap intervals over images. A model that knows when it is right shows a difference above
0; one that is merely sure of itself shows none. Partly right words and "undetermined" are neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from explainvad.evaluation.text_metrics import difference_interval, ratio_interval
from explainvad.explanation.describers.answer import UNDETERMINED
from explainvad.explanation.describers.checking import compared
from explainvad.types import ClaimStatus, RegionFacts, WordProbability

ALL = "all fields"
KINDS = ("masked", "raw")  # of probabilities
_AGREES = {ClaimStatus.SUPPORTED: True, ClaimStatus.CONTRADICTED: False}


class ProbabilityFigures:
    """Collects the words of one arm, and whether they agree with the measurements."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[int, bool, WordProbability]]] = {}  # field -> image, agrees, probability

    def add(self, image: int, chosen: Mapping[str, WordProbability], facts: RegionFacts) -> None:
        """Take in an answer about a region of ``image`` (its number) with these ``facts``."""
        words = {field: probability.word for field, probability in chosen.items()}
        for field, claim in compared(words, facts).items():
            agrees = None if claim.stated == UNDETERMINED else _AGREES.get(claim.status)
            if agrees is not None:
                for name in (ALL, field):
                    self._rows.setdefault(name, []).append((image, agrees, chosen[field]))

    def results(self, seed: int) -> dict[str, Any]:
        """By field, and for all of them, as plain values; empty where no model told any probability."""
        return {field: self._of(field, seed) for field in self._rows}

    def _of(self, field: str, seed: int) -> dict[str, Any]:
        rows = self._rows[field]
        result: dict[str, Any] = {"n_agree": sum(agrees for _, agrees, _ in rows), "n": len(rows)}
        for kind in KINDS:
            agree, disagree = (
                [(image, float(getattr(p, kind)), 1.0) for image, agrees, p in rows if agrees is wanted]
                for wanted in (True, False)
            )
            result[kind] = {
                "agree": ratio_interval(agree, seed),
                "disagree": ratio_interval(disagree, seed),
                "difference": difference_interval(agree, disagree, seed),
            }
        result["removed"] = ratio_interval([(image, p.removed, 1) for image, _, p in rows], seed)
        return result
