"""p-values equal those of other implementations, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from crepes import ConformalClassifier
from numpy.typing import NDArray

from explainvad.uncertainty.conformal import p_values

Array = NDArray[np.float64]

CASES = pytest.mark.parametrize(
    ("n", "ties"), [(1, False), (19, True), (19, False), (200, True), (200, False), (1000, True)]
)


def made(n: int, ties: bool) -> tuple[Array, Array]:
    """Calibration scores (n,) and 300 scores, some of which equal them; for ``ties`` of some twenty values."""
    rng = np.random.default_rng(n)
    calibration, scores = rng.normal(size=n), rng.normal(0.5, 1.5, size=300)
    if ties:
        return np.round(4 * calibration) / 4, np.round(4 * scores) / 4
    scores[:50] = rng.choice(calibration, 50)
    return calibration, scores


def crepes_p_values(
    calibration: Array,
    scores: Array,
    cells: tuple[NDArray[np.int_], NDArray[np.int_]] | tuple[None, None] = (None, None),
    **how: bool | int,
) -> Array:
    """Its non-conformity scores have a column for each class; here there is one, "normal"."""
    classifier = ConformalClassifier().fit(calibration, bins=cells[0])
    return np.asarray(classifier.predict_p(scores[:, None], bins=cells[1], **how))[:, 0]


@CASES
def test_crepes_without_smoothing(n: int, ties: bool) -> None:
    calibration, scores = made(n, ties)
    assert np.array_equal(p_values(calibration, scores), crepes_p_values(calibration, scores, smoothing=False))


@CASES
def test_crepes_smoothed_values_lie_between_those_without_and_with_the_ties(n: int, ties: bool) -> None:
    # (#{>} + u (1 + #{=})) / (n + 1), u uniform on [0, 1): a tie with its own score is counted in part
    calibration, scores = made(n, ties)
    smoothed = crepes_p_values(calibration, scores, smoothing=True, seed=1)
    above = p_values(calibration, np.nextafter(scores, np.inf)) - 1 / (n + 1)
    assert (smoothed >= above - 1e-12).all() and (smoothed < p_values(calibration, scores) + 1e-12).all()


@CASES
def test_crepes_in_mondrian_cells(n: int, ties: bool) -> None:
    calibration, scores = made(n, ties)
    rng = np.random.default_rng(n + 1)
    own, asked = rng.integers(0, 3, n), rng.integers(0, 4, len(scores))  # nobody calibrated the fourth
    p = np.empty(len(scores))
    for cell in range(4):
        p[asked == cell] = p_values(calibration[own == cell], scores[asked == cell])
    assert np.array_equal(p, crepes_p_values(calibration, scores, (own, asked), smoothing=False))


@CASES
def test_nonconform_with_classical_ties(n: int, ties: bool) -> None:
    nonconform = pytest.importorskip("nonconform", reason="nonconform is not installed; it needs Python 3.12")
    calibration, scores = made(n, ties)
    theirs = nonconform.Empirical(tie_break="classical").compute_p_values(scores, calibration)
    assert np.array_equal(p_values(calibration, scores), theirs)
