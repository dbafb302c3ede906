"""How well verdicts on labelled images kept what calibration promised: figures with bands, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.evaluation.calibration import (
    ReliabilityBin,
    brier_score,
    expected_calibration_error,
    imprecise_bins,
    merged_probability,
    negative_log_likelihood,
    reliability_bins,
    squared_calibration_error,
)
from explainvad.evaluation.calibration_figures import (
    coverage_figure,
    detection_power_figure,
    level_figure,
    reliability_figure,
    risk_coverage_figure,
    save_figure,
)
from explainvad.evaluation.coverage import (
    EmpiricalLevel,
    GroupRate,
    conditional_coverage,
    coverage_by_size,
    empirical_level,
)
from explainvad.evaluation.selective_risk import SelectiveRisk, augrc_difference, measure_selective_risk
from explainvad.types import Decision, DetectionPower, Verdict
from explainvad.uncertainty.detection_power import detection_power

ALPHAS = (0.01, 0.02, 0.05, 0.10, 0.20)
WITHIN, WHOLE, SCORE = "epistemic, within scorers", "epistemic, whole", "score"  # what an image could be deferred by


@dataclass(frozen=True, eq=False)  # without slots, so that what figures and JSON share is computed once
class LabelledVerdicts:
    """Verdicts on n >= 1 labelled images; ``kinds`` is None for a good one, ``areas`` px, 0 where no mask is known.

    ``n_cal`` is None where several cells have calibrations of their own: then there is no one band of levels.
    """

    verdicts: Sequence[Verdict]
    kinds: Sequence[str | None]
    areas: Sequence[int]
    n_cal: int | None
    seed: int = 0  # of the bootstrap

    def results(self) -> dict[str, Any]:
        """Everything as plain values; what the images cannot tell is None or empty."""
        masked = self._masked
        deferred = np.mean([v.decision is Decision.DEFER for v in self.verdicts])
        by_size = coverage_by_size(np.array(self.areas)[masked], self._passed[masked]) if masked.any() else ()
        return {
            "levels": [asdict(level) for level in self._levels],
            "deferral_rate": float(deferred),
            "coverage": 1 - float(deferred),
            "probability": self._probability(),
            "selective_risk": self._selective_risk(),
            "passed_by_type": [asdict(rate) for rate in self._passed_by_type],
            "passed_by_size": [asdict(rate) for rate in by_size],
            "detection_power": asdict(self._power) if self._power else None,
        }

    def save_figures(self, folder: Path) -> list[Path]:
        """Draw what :meth:`results` has figures of, as PNG below ``folder``, and return their paths."""
        figures = {}
        if self._levels:
            figures["levels"] = level_figure(self._levels)
        if self._ends is not None:
            merged = merged_probability(*self._ends)
            figures["reliability"] = reliability_figure(self._reliability, self._defective, merged)
        if self._risks:
            figures["risk_coverage"] = risk_coverage_figure(self._risks)
        if self._passed_by_type:
            figures["passed_by_type"] = coverage_figure(self._passed_by_type, "P(passed | type)")
        if self._power:
            masked = self._masked
            sizes = np.sqrt(np.array(self.areas)[masked])
            figures["detection_power"] = detection_power_figure(self._power, sizes, self._significant[masked])
        for name, figure in figures.items():
            save_figure(figure, folder / f"{name}.png")
        return [folder / f"{name}.png" for name in figures]

    @cached_property
    def _defective(self) -> NDArray[np.bool_]:
        return np.array([kind is not None for kind in self.kinds], dtype=np.bool_)

    @cached_property
    def _p_values(self) -> NDArray[np.float64]:
        return np.array([v.p_value for v in self.verdicts])

    @cached_property
    def _significant(self) -> NDArray[np.bool_]:
        return np.array([v.p_value <= v.alpha for v in self.verdicts])

    @cached_property
    def _passed(self) -> NDArray[np.bool_]:
        return np.array([v.decision.passed for v in self.verdicts])

    @cached_property
    def _masked(self) -> NDArray[np.bool_]:
        return np.array(self.areas) > 0

    @cached_property
    def _both_kinds(self) -> bool:
        return 0 < int(self._defective.sum()) < len(self.verdicts)

    @cached_property
    def _levels(self) -> tuple[EmpiricalLevel, ...]:
        if self.n_cal is None or self._defective.all():
            return ()
        return empirical_level(self._p_values[~self._defective], ALPHAS, self.n_cal)

    @cached_property
    def _passed_by_type(self) -> tuple[GroupRate, ...]:
        return conditional_coverage([kind for kind in self.kinds if kind is not None], self._passed[self._defective])

    @cached_property
    def _power(self) -> DetectionPower | None:
        masked = self._masked
        if not masked.any():
            return None
        sizes = np.sqrt(np.array(self.areas)[masked])
        return detection_power(sizes, self._significant[masked], level=self.verdicts[0].alpha, kind="labelled")

    @cached_property
    def _wrong(self) -> NDArray[np.float64]:
        """Errors of a rule that never defers: p <= alpha that disagrees with the label."""
        return np.asarray(self._significant != self._defective, dtype=np.float64)

    @cached_property
    def _uncertainties(self) -> dict[str, NDArray[np.float64]]:
        """Larger is deferred first."""
        return {
            WITHIN: np.array([v.epistemic_within for v in self.verdicts]),
            WHOLE: np.array([v.epistemic for v in self.verdicts]),
            SCORE: np.array([v.score for v in self.verdicts]),
        }

    @cached_property
    def _risks(self) -> dict[str, SelectiveRisk]:
        """Errors when the most uncertain images go to a person."""
        if not self._both_kinds:
            return {}
        return {
            name: measure_selective_risk(self._wrong, uncertainty, self._defective, seed=self.seed)
            for name, uncertainty in self._uncertainties.items()
        }

    def _selective_risk(self) -> dict[str, Any] | None:
        if not self._risks:
            return None
        within, at_random = self._uncertainties[WITHIN], np.zeros(len(self.verdicts))

        def gain_over(other: NDArray[np.float64]) -> dict[str, Any]:
            return asdict(augrc_difference(self._wrong, within, other, self._defective, seed=self.seed))

        return {
            "by": {name: asdict(risk) for name, risk in self._risks.items()},
            "augrc_within_less_random": gain_over(at_random),
            "augrc_within_less_score": gain_over(self._uncertainties[SCORE]),
        }

    @cached_property
    def _ends(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Ends of P(defect) where it is known from labelled defects; a bound or a synthetic one is no probability.

        They are moved from the stated prior to the share of defects among these images, by which they are judged.
        """
        known, share = [v.probability for v in self.verdicts], self._defective.mean()
        if not self._both_kinds or any(p.lower is None or p.synthetic for p in known):
            return None
        lower, upper = np.array([(p.lower, p.upper) for p in known], dtype=np.float64).T
        prior = np.array([p.prior for p in known])
        defect, normal = share / prior, (1 - share) / (1 - prior)
        # rounding must not carry a certain defect beyond 1
        lower, upper = (np.minimum(p * defect / (p * defect + (1 - p) * normal), 1.0) for p in (lower, upper))
        return lower, upper

    @cached_property
    def _reliability(self) -> tuple[ReliabilityBin, ...]:
        return reliability_bins(self._defective, merged_probability(*self._ends)) if self._ends is not None else ()

    def _probability(self) -> dict[str, Any] | None:
        """Calibration of P(defect)."""
        if self._ends is None:
            return None
        y, merged = self._defective, merged_probability(*self._ends)
        return {
            "share_of_defects": float(y.mean()),
            "ece": expected_calibration_error(self._reliability),
            "squared_calibration_error": squared_calibration_error(y, merged),
            "brier": asdict(brier_score(y, merged)),
            "nll": negative_log_likelihood(y, merged),
            "reliability": [asdict(b) for b in self._reliability],
            "imprecise": [asdict(b) for b in imprecise_bins(y, *self._ends)],
        }
