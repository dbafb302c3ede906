"""Each cell keeps its promise by itself, where one calibration for all keeps it on average only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from exact_bands import holds, is_bounded
from made_scores import Scored, scored_image
from numpy.typing import NDArray

from explainvad.attribution.regions import cluster_mass
from explainvad.uncertainty.calibrator import Calibrator
from explainvad.uncertainty.conformal import p_values

N_TEST = 800
SHIFTS = {"calm": 0.0, "rough": 2.5}  # of the scores of normal images: another camera, another surface
N_CAL = {"calm": 399, "rough": 99}
ALPHAS = (0.01, 0.05, 0.2)


@dataclass(frozen=True)
class Cells:
    """A calibrator of both cells, and new normal images of each."""

    calibrator: Calibrator
    test: dict[str, list[Scored]]

    def scores(self, cell: str) -> NDArray[np.float64]:
        """Fused scores of the new images of a cell."""
        return np.array([self.calibrator.scales.fusion.score(scores) for scores, _ in self.test[cell]])


@pytest.fixture(scope="module")
def cells() -> Cells:
    rng = np.random.default_rng(11)
    norm = [scored_image(rng, SHIFTS[cell]) for cell in ("calm", "rough") * 30]
    cal = {cell: [scored_image(rng, SHIFTS[cell]) for _ in range(n)] for cell, n in N_CAL.items()}
    test = {cell: [scored_image(rng, shift) for _ in range(N_TEST)] for cell, shift in SHIFTS.items()}
    return Cells(Calibrator.fit(norm, cal, cluster_mass), test)


@pytest.mark.parametrize("cell", SHIFTS)
def test_the_reject_count_of_each_cell(cells: Cells, cell: str) -> None:
    known = cells.calibrator.cell(cell)
    p = np.array([known.p_value(score) for score in cells.scores(cell)])
    for alpha in ALPHAS:
        assert holds(p <= alpha, N_CAL[cell], alpha)


@pytest.mark.parametrize("cell", SHIFTS)
def test_pixels_regions_and_doubts_of_each_cell(cells: Cells, cell: str) -> None:
    known, scales = cells.calibrator.cell(cell), cells.calibrator.scales
    maps = [scales.fusion.map(scores) for scores, _ in cells.test[cell]]
    mass = [cluster_mass(m, scales.cluster_threshold) for m in maps]
    for alpha in (0.01, 0.05):
        assert holds(np.array([m.max() > known.pixel_threshold(alpha) for m in maps]), N_CAL[cell], alpha)
        assert is_bounded(np.array([known.region_p_value(x) <= alpha for x in mass]), N_CAL[cell], alpha)
    doubts = np.array([float(scales.doubt(scores).within) for scores, _ in cells.test[cell]])
    assert holds(p_values(known.epistemic, doubts) <= 0.05, N_CAL[cell], 0.05)


def test_negative_control_one_calibration_for_both_cells(cells: Cells) -> None:
    pooled = np.concatenate([cells.calibrator.cell(cell).fused for cell in SHIFTS])
    n, alpha = len(pooled), 0.05
    flags = {cell: p_values(pooled, cells.scores(cell)) <= alpha for cell in SHIFTS}
    assert not is_bounded(flags["rough"], n, alpha)
    assert not holds(flags["calm"], n, alpha)
    # of images that come from the cells as the calibration images do, no more than alpha are rejected
    mixed = np.concatenate([flags["calm"], flags["rough"][: N_TEST * N_CAL["rough"] // N_CAL["calm"]]])
    assert holds(mixed, n, alpha)


def test_negative_control_the_calibration_of_another_cell(cells: Cells) -> None:
    p = p_values(cells.calibrator.cell("calm").fused, cells.scores("rough"))
    assert not is_bounded(p <= 0.05, N_CAL["calm"], 0.05)
