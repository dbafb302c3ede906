"""Regions found or not, saturated overlap and the pointing game, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from explainvad.evaluation.metrics.pixels import PixelMetrics
from explainvad.evaluation.metrics.regions import DefectMask, iou, pointing_hit, region_hit, saturated_shares
from explainvad.evaluation.metrics.resampling import Resampling


def grid(*rows: str) -> NDArray[np.bool_]:
    return np.array([[c == "#" for c in row] for row in rows])


def test_region_hit_and_iou_by_hand() -> None:
    truth = grid("##..", "##..", "....")
    assert region_hit(grid("....", ".##.", ".##."), truth)
    assert iou(grid("....", ".##.", ".##."), truth) == pytest.approx(1 / 7)
    assert not region_hit(grid("..##", "..##", "####"), truth)
    assert iou(grid("..##", "..##", "####"), truth) == 0
    assert iou(truth, truth) == 1


def test_nothing_found_hits_nothing() -> None:
    nothing = grid("....")
    assert not region_hit(nothing, grid("#..."))
    assert iou(nothing, grid("#...")) == 0
    assert iou(nothing, nothing) is None


@pytest.mark.parametrize("function", [region_hit, iou])
def test_masks_of_another_shape_or_type_are_refused(function: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="bool of one shape"):
        function(grid("##"), grid("#", "#"))
    with pytest.raises(ValueError, match="bool of one shape"):
        function(np.ones((1, 2), np.uint8), grid("##"))


# --- Saturated overlap (Bergmann et al. 2022)

# A defect of 4 px that is found in full with any two of them, and one of a single pixel
SPRO_MAP = np.array([[9, 0, 8, 5, 1, 7, 6], [0, 3, 0, 0, 0, 4, 4]], dtype=np.float32)
LARGE = grid("..###..", ".#.....")
SMALL = grid("#......", ".......")


def spro(defects: list[DefectMask], limits: tuple[float, ...]) -> dict[float, float]:
    metrics = PixelMetrics()
    metrics.update(SPRO_MAP, np.any([d.mask for d in defects], axis=0), defects=defects)
    return {k: v.estimate for k, v in metrics.compute(limits, Resampling(0)).auspro.items() if v is not None}


def test_saturated_overlap_by_hand() -> None:
    # nine normal pixels; threshold   9     8     7     6     5    4 (twice)  3    1    0
    #                            FPR   0     0     1/9   2/9   2/9  4/9       4/9  4/9  1
    #              sPRO, saturated at 2  1/2   3/4   3/4   3/4   1    1         1    1    1
    #              sPRO, relative, all 4  1/2   5/8   5/8   5/8  3/4  3/4       7/8  1    1
    saturated = spro([DefectMask(LARGE, 2.0), DefectMask(SMALL, 1.0)], (2 / 9, 4 / 9, 1.0))
    assert saturated == pytest.approx({2 / 9: 0.75, 4 / 9: (2 * 0.75 + 2) / 4, 1.0: (2 * 0.75 + 7) / 9}, abs=1e-6)
    whole = spro([DefectMask(LARGE, 4.0), DefectMask(SMALL, 1.0)], (2 / 9, 4 / 9, 1.0))
    assert whole == pytest.approx({2 / 9: 5 / 8, 4 / 9: 11 / 16, 1.0: (2 * 5 / 8 + 2 * 3 / 4 + 5) / 9}, abs=1e-6)


def test_saturation_at_the_whole_area_of_separate_regions_is_the_per_region_overlap() -> None:
    rng = np.random.default_rng(0)
    metrics = PixelMetrics()
    for _ in range(4):
        first, second = np.zeros((20, 30), dtype=np.bool_), np.zeros((20, 30), dtype=np.bool_)
        first[2:5, 3:9] = second[10:15, 20:22] = True
        m = (rng.standard_normal((20, 30)) + 2 * (first | second)).astype(np.float32)
        metrics.update(m, first | second, defects=[DefectMask(g, float(g.sum())) for g in (first, second)])
    s = metrics.compute(resampling=Resampling(0))
    for limit in (0.30, 0.05):
        pro, saturated = s.aupro[limit], s.auspro[limit]
        assert pro is not None and saturated is not None
        assert saturated.estimate == pytest.approx(pro.estimate, abs=1e-6)


def test_a_fraction_of_a_pixel_saturates_like_the_formula() -> None:
    values, shares = saturated_shares(SPRO_MAP, [DefectMask(LARGE, 2.5)])
    assert values.tolist() == [8, 5, 3]
    assert shares == pytest.approx([0.4, 0.4, 0.2])  # min(n / 2.5, 1)


def test_overlapping_defects_count_each() -> None:
    values, shares = saturated_shares(SPRO_MAP, [DefectMask(LARGE, 1.0), DefectMask(LARGE | SMALL, 1.0)])
    assert values.tolist() == [8, 9] and shares.tolist() == [1, 1]


def test_without_annotated_defects_there_is_no_saturated_overlap() -> None:
    metrics = PixelMetrics()
    metrics.update(SPRO_MAP, LARGE)
    assert metrics.compute(resampling=Resampling(0)).auspro == {0.30: None, 0.05: None}


@pytest.mark.parametrize("saturation", [0.0, -1.0, 4.5])
def test_impossible_saturations_are_refused(saturation: float) -> None:
    with pytest.raises(ValueError, match="saturation must be above 0 and at most the area, 4 px"):
        DefectMask(LARGE, saturation)


def test_defects_outside_of_the_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="must lie within gt_mask"):
        PixelMetrics().update(SPRO_MAP, LARGE, defects=[DefectMask(SMALL, 1.0)])


# --- Pointing game


def test_pointing_game_counts_where_the_largest_value_lies() -> None:
    assert pointing_hit(SPRO_MAP, SMALL) == 1
    assert pointing_hit(SPRO_MAP, LARGE) == 0
    # four equal largest values, of which one lies inside: what drawing one of them hits on average
    m = np.array([[5, 5, 5, 5, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]], dtype=np.float32)
    assert pointing_hit(m, SMALL) == 0.25
