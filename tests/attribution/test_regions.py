from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from explainvad.attribution.regions import JOIN_RADIUS, ThresholdAttributor, cluster_mass, propose
from explainvad.types import ImageScore, InspectionImage


def _map(*rows: str) -> NDArray[np.float32]:
    """A fused map from a grid of digits; "." is 0."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], dtype=np.float32)


def _image(shape: tuple[int, int], mm_per_pixel: float | None = None) -> InspectionImage:
    pixels = np.zeros((*shape, 3), dtype=np.uint8)
    return InspectionImage("img", "img.png", pixels, "0", 1, Path("img.png"), mm_per_pixel)


GRID = _map(
    "..........",
    ".23....1..",
    ".2......4.",
    "..........",
    "..........",
    "..........",
    "......9...",
    "..........",
)


def test_clusters_masses_boxes_and_peaks() -> None:
    heavy, left, right = propose(GRID, 1.0)
    assert [p.mass for p in (heavy, left, right)] == [8.0, 4.0, 3.0]
    assert heavy.xyxy == (6, 6, 7, 7) and heavy.peak_xy == (6, 6) and heavy.peak_value == 9
    assert left.xyxy == (1, 1, 3, 3) and left.peak_xy == (2, 1) and left.peak_value == 3
    np.testing.assert_array_equal(left.mask, [[True, True], [True, False]])
    np.testing.assert_array_equal(left.full_mask((8, 10)), (GRID > 1) & (np.indices((8, 10))[1] < 4))
    # At a lower threshold the 1 is there, and touches the 4 by a corner.
    assert [p.xyxy for p in propose(GRID, 0.5)] == [(6, 6, 7, 7), (1, 1, 3, 3), (7, 1, 9, 3)]


@pytest.mark.parametrize("side", [100, 1000])
def test_pieces_join_up_to_the_stated_distance(side: int) -> None:
    reach = 2 * max(1, round(JOIN_RADIUS * side))
    for gap, n in ((reach, 1), (reach + 1, 2)):
        fused_map = np.zeros((20, side), dtype=np.float32)
        fused_map[10, 5] = fused_map[10, 6 + gap] = 2.0
        assert len(propose(fused_map, 1.0)) == n
    assert cluster_mass(fused_map, 1.0) == 1.0


def test_against_labelling_one_by_one() -> None:
    fused_map = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(60, 90)), 2).astype(np.float32)
    found = propose(fused_map, 0.1)
    labels, n = ndimage.label(ndimage.binary_dilation(fused_map > 0.1, np.ones((3, 3))), np.ones((3, 3)))
    assert len(found) == n > 5
    masses = [float((fused_map[m] - 0.1).sum()) for m in ((labels == i) & (fused_map > 0.1) for i in range(1, n + 1))]
    np.testing.assert_allclose([p.mass for p in found], sorted(masses, reverse=True), rtol=1e-4)
    for proposal in found:
        assert fused_map[proposal.full_mask(fused_map.shape)].max() == proposal.peak_value
        assert fused_map[proposal.peak_xy[::-1]] == proposal.peak_value
    assert cluster_mass(fused_map, 0.1) == found[0].mass


def test_nothing_above_the_threshold() -> None:
    assert propose(GRID, 9.0) == []
    assert cluster_mass(GRID, 9.0) == 0.0


@pytest.mark.parametrize("bad", [np.zeros((3, 3, 1), np.float32), np.zeros((3, 3), np.uint8)])
def test_a_wrong_map_is_refused(bad: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match=r"fused_map must be floating with shape \(H, W\)"):
        propose(bad, 0.5)  # type: ignore[arg-type]


def test_the_largest_mass_of_exchangeable_maps_gives_exact_p_values() -> None:
    """Each of n + 1 maps, ranked against the rest by its heaviest region, has p-values {1..n+1}/(n+1)."""
    rng = np.random.default_rng(0)
    maps = [ndimage.gaussian_filter(rng.normal(size=(30, 40)), 2).astype(np.float32) for _ in range(20)]
    p_values = []
    for i, own in enumerate(maps):
        rest = np.array([cluster_mass(m, 0.1) for j, m in enumerate(maps) if j != i])
        attributor = _attributor(0.1, lambda mass, rest=rest: (1 + (rest >= mass).sum()) / 20, alpha=0.999)
        regions = attributor.regions(_image((30, 40)), own, ())
        p_values.append(regions[0].p_value if regions else 1.0)
    np.testing.assert_allclose(sorted(p_values), np.arange(1, 21) / 20)


def _attributor(threshold, p_value, alpha=0.05, pixel=np.inf, parts=None, most=20):  # type: ignore[no-untyped-def]
    return ThresholdAttributor(threshold, pixel, p_value, lambda scores: parts or {}, alpha, most)


def test_regions_are_kept_by_mass_or_by_peak() -> None:
    def ids(alpha: float, pixel: float) -> list[tuple[int, int, int, int]]:
        attributor = _attributor(1.0, lambda mass: 0.01 if mass >= 8 else 0.2, alpha, pixel)
        return [region.xyxy for region in attributor.regions(_image(GRID.shape), GRID, ())]

    heavy, left, right = (6, 6, 7, 7), (1, 1, 3, 3), (7, 1, 9, 3)
    assert ids(0.05, 10.0) == [heavy]
    assert ids(0.05, 9.0) == [heavy]
    assert ids(0.05, 3.5) == [heavy, (8, 2, 9, 3)]
    assert ids(0.2, 10.0) == [heavy, left, (8, 2, 9, 3)]
    assert ids(0.005, 10.0) == []
    assert right not in ids(0.2, 10.0)


def test_the_heaviest_regions_are_shown_without_significance_when_asked_for() -> None:
    attributor = ThresholdAttributor(1.0, np.inf, lambda mass: 0.5, lambda scores: {}, 0.05, at_least=1)
    (region,) = attributor.regions(_image(GRID.shape), GRID, ())
    assert region.xyxy == (6, 6, 7, 7) and region.p_value == 0.5
    assert attributor.regions(_image(GRID.shape), np.zeros_like(GRID), ()) == ()


def test_members_of_a_region() -> None:
    residual = np.where(GRID > 0, 1.0, 0.0).astype(np.float32)
    bank = np.where(GRID == 3, 6.0, np.where(GRID > 0, -5.0, 0.0)).astype(np.float32)
    score = ImageScore("residual", 1.0, residual)
    attributor = ThresholdAttributor(
        1.0, np.inf, lambda mass: 0.02, lambda scores: {scores[0].scorer: residual, "bank": bank}
    )
    first, second, _ = attributor.regions(_image(GRID.shape, mm_per_pixel=0.5), GRID, [score])
    assert (first.region_id, second.region_id) == ("R1", "R2")
    assert first.evidence_share == {"residual": 1.0, "bank": 0.0}
    assert second.evidence_share == {"residual": pytest.approx(1 / 3), "bank": pytest.approx(2 / 3)}
    assert second.area_px == 3 and second.area_mm2 == 0.75 and second.mask.area == 3
    np.testing.assert_array_equal(second.mask.to_array(), (GRID > 1) & (np.indices(GRID.shape)[1] < 4))
    assert second.p_value == 0.02 and second.refined_by == "threshold"
    assert second.peak_xy == (2, 1) and second.peak_value == 3.0 and second.mass == 4.0


def test_without_positive_evidence_the_share_is_even() -> None:
    zero = np.zeros_like(GRID)
    (region,) = _attributor(8.0, lambda mass: 0.01, parts={"a": zero, "b": zero}).regions(_image(GRID.shape), GRID, ())
    assert region.evidence_share == {"a": 0.5, "b": 0.5} and region.area_mm2 is None


def test_at_most_the_heaviest_are_returned() -> None:
    regions = _attributor(1.0, lambda mass: 0.01, most=2).regions(_image(GRID.shape), GRID, ())
    assert [region.mass for region in regions] == [8.0, 4.0]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="region_alpha"):
        _attributor(1.0, lambda mass: 1.0, alpha=0.0)
    with pytest.raises(ValueError, match="max_regions"):
        _attributor(1.0, lambda mass: 1.0, most=0)
    with pytest.raises(ValueError, match=r"image's shape \(H, W\) = \(4, 4\), got \(8, 10\)"):
        _attributor(1.0, lambda mass: 1.0).regions(_image((4, 4)), GRID, ())
