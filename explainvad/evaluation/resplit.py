"""Random grouped splits of scored images into NORM, CAL, DEF and test: does calibration keep what it promises?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explainvad.errors import TooFewImagesError
from explainvad.evaluation.calibration import merged_probability
from explainvad.evaluation.scored import GOOD, ScoredImages
from explainvad.types import Decision, Verdict
from explainvad.uncertainty.calibrator import Calibrator
from explainvad.uncertainty.conformal import images_needed
from explainvad.uncertainty.splits import one_of_each

NORM_SHARE, NORM_LEAST = 0.1, 8
CAL_SHARE = 0.5  # or what SMALLEST_ALPHA needs, where that is more
SMALLEST_ALPHA = 0.01
DEF_SHARE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Test images of one split, one of each group, with their verdicts; arrays (n,) by name."""

    n_cal: int
    n_def: int
    index: NDArray[np.intp]  # into the scored images
    defective: NDArray[np.bool_]
    verdicts: tuple[Verdict, ...]

    @property
    def p_values(self) -> NDArray[np.float64]:
        """Conformal p-values."""
        return np.array([v.p_value for v in self.verdicts])

    @property
    def defect_p_values(self) -> NDArray[np.float64]:
        """Ranks among the labelled defects; 1 where there are none."""
        return np.array([1.0 if v.defect_p_value is None else v.defect_p_value for v in self.verdicts])

    @property
    def within(self) -> NDArray[np.float64]:
        """Epistemic part within scorers, which drives deferral, in bits."""
        return np.array([v.epistemic_within for v in self.verdicts])

    @property
    def scores(self) -> NDArray[np.float64]:
        """Fused scores, decades."""
        return np.array([v.score for v in self.verdicts])

    @property
    def intervals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper end of P(defect); the lower one is 0 where only a bound is known."""
        lower = np.array([v.probability.lower or 0.0 for v in self.verdicts])
        return lower, np.array([v.probability.upper for v in self.verdicts])

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """One number for figures that need one: the Venn-Abers interval, merged."""
        return merged_probability(*self.intervals)

    @property
    def uncalibrated(self) -> NDArray[np.float64]:
        """What a score may be mistaken for: one minus its tail rank among the NORM images."""
        return 1.0 - 10.0**-self.scores

    @property
    def deferred(self) -> NDArray[np.bool_]:
        """Whether a person must decide."""
        return np.array([v.decision is Decision.DEFER for v in self.verdicts])

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """Whether the image was accepted on the strength of labelled defects."""
        return np.array([v.decision is Decision.ACCEPT for v in self.verdicts])

    @property
    def wrong(self) -> NDArray[np.float64]:
        """1 where p <= alpha and the label disagree: the error of a rule that never defers."""
        alpha = np.array([v.alpha for v in self.verdicts])
        return np.asarray((self.p_values <= alpha) != self.defective, dtype=np.float64)


def judge(images: ScoredImages, seed: int, *, alpha: float = 0.05, beta: float = 0.10, gamma: float = 0.02) -> Judged:
    """Deal whole groups at random, calibrate, and judge the test images, one of each group.

    NORM takes every image of its groups; CAL, DEF and test one of each group, so that they are exchangeable. P(defect)
    is for the test images' own share of defects. Raises TooFewImagesError when the good groups cannot support
    ``alpha``.
    """
    rng = np.random.default_rng(seed)
    good = np.flatnonzero(images.kinds == GOOD)
    bad = np.flatnonzero(images.kinds != GOOD)
    names = rng.permutation(np.unique(images.groups[good]))
    n_norm = max(NORM_LEAST, round(NORM_SHARE * len(names)))
    n_cal = max(round(CAL_SHARE * len(names)), images_needed(SMALLEST_ALPHA))
    if len(names) <= n_norm + n_cal:
        n_cal = round(0.75 * (len(names) - n_norm))
    if n_cal < images_needed(alpha):
        raise TooFewImagesError(
            f"{len(names)} groups of good images give {n_cal} to calibrate on, alpha = {alpha:g} needs "
            f"{images_needed(alpha)}: add good images, or ask for a larger alpha"
        )
    norm = good[np.isin(images.groups[good], names[:n_norm])]

    def one_image(kind: NDArray[np.intp], groups: NDArray[np.str_]) -> NDArray[np.intp]:
        theirs = kind[np.isin(images.groups[kind], groups)]
        return theirs[one_of_each(images.groups[theirs].tolist(), int(rng.integers(2**32)))]

    cal, test_good = one_image(good, names[n_norm : n_norm + n_cal]), one_image(good, names[n_norm + n_cal :])
    defects = rng.permutation(np.unique(images.groups[bad]))
    n_def = round(DEF_SHARE * len(defects))
    known = one_image(bad, defects[:n_def])
    test = np.concatenate([test_good, one_image(bad, defects[n_def:])])

    calibrator = Calibrator.fit(
        (images.scored(i) for i in norm),
        {"": (images.scored(i) for i in cal)},
        lambda *_: 0.0,  # no maps, so no regions
        {"": (images.scored(i)[0] for i in known)} if n_def >= images_needed(beta) else None,
    )
    defective = images.kinds[test] != GOOD
    prior = float(np.clip(defective.mean(), 0.01, 0.99))
    verdicts = tuple(
        calibrator.verdict(scores, acquired, alpha=alpha, beta=beta, gamma=gamma, prior=prior)
        for scores, acquired in map(images.scored, test)
    )
    return Judged(len(cal), len(known), test, defective, verdicts)
