"""How well verdicts on labelled images kept what calibration promised: figures with bands, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.evaluation.calibration import (
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
from explainvad.evaluation.coverage import conditional_coverage, coverage_by_size, empirical_level
from explainvad.evaluation.selective_risk import augrc_difference, measure_selective_risk
from explainvad.types import Decision, Verdict
from explainvad.uncertainty.detection_power import detection_power

ALPHAS = (0.01, 0.02, 0.05, 0.10, 0.20)
PASSED = (Decision.NOT_FLAGGED, Decision.ACCEPT)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVerdicts:
    """Verdicts on n labelled images; ``kinds`` is None for a good image, ``areas`` px, 0 where no mask is known."""

    verdicts: Sequence[Verdict]
    kinds: Sequence[str | None]
    areas: Sequence[int]

    @property
    def defective(self) -> NDArray[np.bool_]:
        """Labels (n,)."""
        return np.array([kind is not None for kind in self.kinds], dtype=np.bool_)

    def results(self, n_cal: int | None, seed: int = 0) -> dict[str, Any]:
        """Everything as plain values; what the images cannot tell is None.

        ``n_cal`` is None where several cells have calibrations of their own: then there is no one band.
        """
        y, p = self.defective, self._p_values
        deferred = np.array([v.decision is Decision.DEFER for v in self.verdicts])
        passed = np.array([v.decision in PASSED for v in self.verdicts])
        bad = [kind for kind in self.kinds if kind is not None]
        masked = np.array(self.areas) > 0
        levels = empirical_level(p[~y], ALPHAS, n_cal) if n_cal is not None and not y.all() else ()
        return {
            "levels": [asdict(level) for level in levels],
            "deferral_rate": float(deferred.mean()),
            "coverage": 1 - float(deferred.mean()),
            "probability": self._probability(),
            "selective_risk": self._selective_risk(seed),
            "passed_by_type": [asdict(rate) for rate in conditional_coverage(bad, passed[y])] if bad else [],
            "passed_by_size": [asdict(r) for r in coverage_by_size(np.array(self.areas)[masked], passed[masked])]
            if masked.any()
            else [],
            "detection_power": asdict(self._power()) if masked.any() else None,
        }

    def save_figures(self, folder: Path, n_cal: int | None) -> list[Path]:
        """Draw what :meth:`results` has figures of, as PNG below ``folder``, and return their paths."""
        y, p = self.defective, self._p_values
        figures = {}
        if n_cal is not None and not y.all():
            figures["levels"] = level_figure(empirical_level(p[~y], ALPHAS, n_cal))
        if (probabilities := self._probabilities()) is not None:
            merged = merged_probability(*probabilities)
            figures["reliability"] = reliability_figure(reliability_bins(y, merged), y, merged)
        if 0 < y.sum() < len(y):
            curves = {n: measure_selective_risk(self._wrong, u, y) for n, u in self._uncertainties().items()}
            figures["risk_coverage"] = risk_coverage_figure(curves)
        if y.any():
            passed = np.array([v.decision in PASSED for v in self.verdicts])[y]
            bad = [kind for kind in self.kinds if kind is not None]
            figures["passed_by_type"] = coverage_figure(conditional_coverage(bad, passed), "P(passed | type)")
        if (masked := np.array(self.areas) > 0).any():
            sizes, hits = np.sqrt(np.array(self.areas)[masked]), p[masked] <= self._alpha
            figures["detection_power"] = detection_power_figure(self._power(), sizes, hits)
        paths = []
        for name, figure in figures.items():
            paths.append(folder / f"{name}.png")
            save_figure(figure, paths[-1])
        return paths

    @property
    def _p_values(self) -> NDArray[np.float64]:
        return np.array([v.p_value for v in self.verdicts])

    @property
    def _alpha(self) -> float:
        return self.verdicts[0].alpha

    @property
    def _wrong(self) -> NDArray[np.float64]:
        return np.asarray((self._p_values <= self._alpha) != self.defective, dtype=np.float64)

    def _uncertainties(self) -> dict[str, NDArray[np.float64]]:
        """What an image could be deferred by; larger first."""
        return {
            "epistemic, within scorers": np.array([v.epistemic_within for v in self.verdicts]),
            "epistemic, whole": np.array([v.epistemic for v in self.verdicts]),
            "score": np.array([v.score for v in self.verdicts]),
        }

    def _selective_risk(self, seed: int) -> dict[str, Any] | None:
        """Errors of p <= alpha when the most uncertain images go to a person."""
        y = self.defective
        if not 0 < y.sum() < len(y):
            return None
        uncertainties = self._uncertainties()
        within, at_random = uncertainties["epistemic, within scorers"], np.zeros(len(y))
        return {
            "by": {
                name: asdict(measure_selective_risk(self._wrong, u, y, seed=seed)) for name, u in uncertainties.items()
            },
            "augrc_within_less_random": asdict(augrc_difference(self._wrong, within, at_random, y, seed=seed)),
            "augrc_within_less_score": asdict(
                augrc_difference(self._wrong, within, uncertainties["score"], y, seed=seed)
            ),
        }

    def _probabilities(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Ends of P(defect) where it is known from labelled defects; a bound or a synthetic one is no probability.

        They are moved from the stated prior to the share of defects among these images, by which they are judged.
        """
        known, share = [v.probability for v in self.verdicts], self.defective.mean()
        if not 0 < share < 1 or any(p.lower is None or p.synthetic for p in known):
            return None
        lower, upper = np.array([(p.lower, p.upper) for p in known], dtype=np.float64).T
        prior = np.array([p.prior for p in known])
        defect, normal = share / prior, (1 - share) / (1 - prior)
        lower, upper = (p * defect / (p * defect + (1 - p) * normal) for p in (lower, upper))
        return lower, upper

    def _probability(self) -> dict[str, Any] | None:
        """Calibration of P(defect)."""
        if (ends := self._probabilities()) is None:
            return None
        y, merged = self.defective, merged_probability(*ends)
        bins = reliability_bins(y, merged)
        return {
            "share_of_defects": float(y.mean()),
            "ece": expected_calibration_error(bins),
            "squared_calibration_error": squared_calibration_error(y, merged),
            "brier": asdict(brier_score(y, merged)),
            "nll": negative_log_likelihood(y, merged),
            "reliability": [asdict(b) for b in bins],
            "imprecise": [asdict(b) for b in imprecise_bins(y, *ends)],
        }

    def _power(self) -> Any:
        masked = np.array(self.areas) > 0
        hits = self._p_values[masked] <= self._alpha
        return detection_power(np.sqrt(np.array(self.areas)[masked]), hits, level=self._alpha, kind="labelled")
