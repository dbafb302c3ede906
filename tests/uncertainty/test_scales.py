"""The doubt about an image and about its places: spread counts, displacement does not."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from made_scores import Scored, image_scores, scored_image
from numpy.typing import NDArray

from explainvad.types import ImageScore
from explainvad.uncertainty.acquisition import AcquisitionGates
from explainvad.uncertainty.decomposition import Decomposition, decompose
from explainvad.uncertainty.fusion import MAP_QUANTILES, Fusion, TailRank
from explainvad.uncertainty.scales import Scales, centred

ORDINARY, RARE = (math.log(1 - q) for q in MAP_QUANTILES)  # log ranks of pixels at the two quantiles


def scored_images(seed: int, n: int, shift: float = 0.0) -> list[Scored]:
    rng = np.random.default_rng(seed)
    return [scored_image(rng, shift) for _ in range(n)]


@pytest.fixture(scope="module")
def scales() -> Scales:
    return Scales.fit(scored_images(0, 30))


def by_hand(*names: str) -> Scales:
    """NORM scores 0, 1, .. 9; pixels of 0 are at the lower quantile, pixels of 1 at the upper one."""
    ranks = {name: TailRank.fit(np.arange(10.0)) for name in names}
    fusion = Fusion(ranks, dict.fromkeys(names, 0.0), dict.fromkeys(names, 1.0))
    return Scales(fusion, AcquisitionGates({}, {}), 1.0)


def score(
    name: str,
    value: float = 0.0,
    members: tuple[float, ...] = (),
    anomaly_map: NDArray[np.float64] | None = None,
    maps: NDArray[np.float64] | None = None,
) -> ImageScore:
    whole = np.zeros((12, 12)) if anomaly_map is None else anomaly_map
    coarse = np.zeros((len(members), 1, 1)) if maps is None else maps
    if maps is not None and not members:
        members = (value,) * len(maps)
    return ImageScore(
        name, value, whole.astype(np.float32), {}, np.array(members, np.float32), coarse.astype(np.float32)
    )


def assert_same(ours: Decomposition, theirs: Decomposition, **tolerance: float) -> None:
    for part in ("aleatoric", "within", "between"):
        np.testing.assert_allclose(getattr(ours, part), getattr(theirs, part), **{"atol": 1e-6, **tolerance})


# --- The doubt about an image


def test_members_keep_their_spread_and_take_the_wholes_place() -> None:
    members = np.array([[1.0, 5.0], [3.0, 9.0]])
    np.testing.assert_allclose(centred(members, np.array([10.0, 20.0])), [[9.0, 18.0], [11.0, 22.0]])
    assert centred(np.empty((0, 2)), np.array([10.0, 20.0])).tolist() == [[10.0, 20.0]]
    assert centred(np.empty(0), 3.0).tolist() == [3.0]


def test_the_doubt_by_hand() -> None:
    # members 5, 7, 9 of a scorer that says 8 are taken for 6, 8, 10: the last lies one tenth beyond the NORM maximum
    scales = by_hand("a", "b")
    rank = scales.fusion.ranks["a"].log
    doubt = scales.doubt([score("a", 8.0, (5.0, 7.0, 9.0)), score("b", 2.0)])
    assert_same(doubt, decompose([[rank(6.0), rank(8.0), rank(10.0)], [rank(2.0)]]), atol=1e-12)
    assert doubt.within > 0 and doubt.between > 0
    assert doubt.epistemic.shape == ()


@pytest.mark.parametrize("moved", [-40.0, 0.5, 1000.0])
def test_members_that_all_lie_to_one_side_raise_no_doubt(scales: Scales, moved: float) -> None:
    disagreeing = 0
    for scores, _ in scored_images(1, 10, 2.0):
        by = np.float32(moved)
        away = [replace(s, members=s.members + by, member_maps=s.member_maps + by) for s in scores]
        assert_same(scales.doubt(away), scales.doubt(scores), atol=1e-4)
        assert_same(scales.doubt_map(away), scales.doubt_map(scores), atol=1e-3)
        disagreeing += scales.doubt(scores).within > 0 and (scales.doubt_map(scores).within > 0).any()
        agreeing = [replace(s, members=np.full_like(s.members, moved)) for s in scores]
        alone = [replace(s, members=s.members[:0], member_maps=s.member_maps[:0]) for s in scores]
        assert_same(scales.doubt(agreeing), scales.doubt(alone))
    assert disagreeing >= 8


def test_members_that_spread_wider_raise_more_doubt() -> None:
    scales = by_hand("a")
    within = [
        float(scales.doubt([score("a", 9.0, tuple(9.0 + width * x for x in (-1.0, 0.0, 1.0)))]).within)
        for width in (0.0, 0.5, 1.0, 2.0)
    ]
    assert within == sorted(within) and within[0] == 0 < within[1]


def test_without_members_the_scorers_alone_disagree(scales: Scales) -> None:
    for scores, _ in scored_images(2, 10, 2.0):
        alone = image_scores({s.scorer: s.value for s in scores})
        ranks = [[scales.fusion.ranks[s.scorer].log(s.value)] for s in scores]
        assert_same(scales.doubt(alone), decompose(ranks), atol=0)
        assert scales.doubt(alone).within == 0


# --- The doubt about its places


def constant(value: float, members: int, rows: int, cols: int) -> NDArray[np.float64]:
    return np.full((members, rows, cols), value)


def test_log_ranks_of_pixels_go_through_both_quantiles_and_on_in_a_straight_line() -> None:
    scales = by_hand("a", "b")
    for level, log_rank in (
        (0.0, ORDINARY),
        (1.0, RARE),
        (0.5, (ORDINARY + RARE) / 2),
        (5.0, ORDINARY + 5 * (RARE - ORDINARY)),
        (-100.0, 0.0),
    ):
        doubt = scales.doubt_map(
            [
                score("a", anomaly_map=np.full((6, 6), level), maps=constant(level, 2, 2, 3)),
                score("b", maps=constant(0.0, 2, 2, 3)),
            ]
        )
        assert_same(doubt, decompose([np.full((1, 2, 3), log_rank), np.full((1, 2, 3), ORDINARY)]))


def test_the_scaling_of_each_scorer_is_its_own() -> None:
    scales = by_hand("a", "b")
    fusion = replace(scales.fusion, map_offset={"a": 10.0, "b": -1.0}, map_scale={"a": 5.0, "b": 0.5})
    doubt = replace(scales, fusion=fusion).doubt_map(
        [
            score("a", anomaly_map=np.full((6, 6), 15.0), maps=constant(0.0, 2, 1, 1)),
            score("b", anomaly_map=np.full((6, 6), -1.0), maps=constant(0.0, 2, 1, 1)),
        ]
    )
    assert_same(doubt, decompose([np.full((1, 1, 1), RARE), np.full((1, 1, 1), ORDINARY)]))


def test_a_map_of_members_keeps_its_spread_and_takes_the_wholes_place() -> None:
    scales = by_hand("a")
    whole = np.kron(np.array([[2.0, 1.0], [0.5, 3.0]]), np.ones((3, 3)))
    spread = np.array([-0.5, 0.0, 0.5])[:, None, None]
    members = np.broadcast_to(100 + spread, (3, 2, 2))
    doubt = scales.doubt_map([score("a", anomaly_map=whole, maps=members)])
    ranks = ORDINARY + (whole[::3, ::3] + spread) * (RARE - ORDINARY)
    assert_same(doubt, decompose([np.minimum(ranks, 0)]))
    assert doubt.within.min() > 0 and not doubt.between.any()


def test_the_map_has_the_coarsest_grid_and_holds_means_over_its_cells() -> None:
    scales = by_hand("a", "b")
    field = np.arange(48.0).reshape(8, 6) / 48
    fine = np.stack([field, field + 1])
    coarse = np.stack([np.zeros((3, 4)), np.ones((3, 4))])
    doubt = scales.doubt_map(
        [score("a", anomaly_map=field, maps=fine), score("b", anomaly_map=np.zeros((10, 9)), maps=coarse)]
    )
    rows, cols = (slice(0, 2), slice(2, 5), slice(5, 8)), (slice(0, 1), slice(1, 3), slice(3, 4), slice(4, 6))
    blocks = np.array([[field[y, x].mean() for x in cols] for y in rows])
    spread = np.array([-0.5, 0.5])[:, None, None]
    a = ORDINARY + (blocks + spread) * (RARE - ORDINARY)
    b = ORDINARY + spread * np.ones((3, 4)) * (RARE - ORDINARY)
    assert_same(doubt, decompose([np.minimum(a, 0), np.minimum(b, 0)]))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [((8, 6), (4, 3), (4, 3)), ((8, 3), (4, 6), (4, 3)), ((7, 5), (7, 5), (7, 5)), ((1, 1), (9, 9), (1, 1))],
)
def test_each_side_of_the_grid_is_the_smaller_of_the_scorers(
    first: tuple[int, int], second: tuple[int, int], expected: tuple[int, int]
) -> None:
    rng = np.random.default_rng(3)
    doubt = by_hand("a", "b").doubt_map(
        [
            score("a", anomaly_map=rng.random((16, 20)), maps=rng.random((3, *first))),
            score("b", anomaly_map=rng.random((16, 20)), maps=rng.random((5, *second))),
        ]
    )
    for part in (doubt.aleatoric, doubt.within, doubt.between):
        assert part.shape == expected and np.isfinite(part).all()


def test_without_members_the_grid_is_that_of_the_maps() -> None:
    field = np.arange(12.0).reshape(3, 4) / 12
    doubt = by_hand("a", "b").doubt_map([score("a", anomaly_map=field), score("b", anomaly_map=0 * field)])
    pixels = ORDINARY + field[None] * (RARE - ORDINARY)
    assert_same(doubt, decompose([pixels, np.full((1, 3, 4), ORDINARY)]))
    assert doubt.between.shape == (3, 4) and not doubt.within.any()


def test_maps_far_beyond_every_normal_pixel_stay_finite() -> None:
    scales = by_hand("a", "b")
    field = np.array([[0.0, 1e4], [1e8, 1e30]])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        doubt = scales.doubt_map(
            [
                score("a", anomaly_map=field, maps=np.stack([field, field])),
                score("b", anomaly_map=np.zeros((2, 2)), maps=constant(0.0, 2, 2, 2)),
            ]
        )
    assert np.isfinite(doubt.epistemic).all()
    assert doubt.between[0, 0] == 0 < doubt.between[0, 1] == doubt.between[1, 1]


# --- At rest


def test_scales_survive_json(scales: Scales) -> None:
    restored = Scales.restore(json.loads(json.dumps(scales.state(), sort_keys=True, allow_nan=False)))
    assert restored.state() == scales.state()
    for scores, features in scored_images(4, 5, 1.0):
        assert restored.fusion.score(scores) == scales.fusion.score(scores)
        assert_same(restored.doubt(scores), scales.doubt(scores), atol=0)
        assert_same(restored.doubt_map(scores), scales.doubt_map(scores), atol=0)
        assert restored.gates.deviation(features) == scales.gates.deviation(features)


def test_norm_is_read_once_in_order() -> None:
    norm = scored_images(0, 30)
    assert Scales.fit(iter(norm)).state() == Scales.fit(norm).state()
