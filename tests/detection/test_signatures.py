"""The signatures of failure on arrays made by hand, with both verdicts of each."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from patterned import pattern, picture
from scipy.ndimage import gaussian_filter

from explainvad.detection.signatures import (
    FailureSignature,
    bank_latency,
    domain_gap,
    identity_mapping,
    overfitting,
    planted,
)
from explainvad.detection.synthesis.whole import with_defect

Maps = list[NDArray[np.float32]]


# --- Identity mapping


def ramp_maps(rises: list[float]) -> tuple[Maps, Maps, list[NDArray[np.bool_]]]:
    """Maps 0, 1, …, 99 (spread 1.4826 x 25), and the same with a rise in one corner."""
    normal = [np.arange(100, dtype=np.float32).reshape(10, 10) for _ in rises]
    mask = np.zeros((10, 10), dtype=bool)
    mask[:3, :3] = True
    return normal, [m + np.float32(rise) * mask for m, rise in zip(normal, rises, strict=True)], [mask] * len(rises)


def test_the_ratio_is_the_median_over_images_of_the_rise_in_spreads() -> None:
    spread = 1.4826 * 25
    found = identity_mapping(*ramp_maps([0.0, 0.5 * spread, 2 * spread, 3 * spread, 40 * spread]))
    assert found.value == pytest.approx(1 + 2**2, rel=1e-6)
    assert not found.failed and "5.0" in found.sentence and "does not copy" in found.sentence
    found = identity_mapping(*ramp_maps([0.0, 0.0, 0.9 * spread, 3 * spread, 3 * spread]))
    assert found.value == pytest.approx(1.81, rel=1e-6)
    assert found.failed and "may copy" in found.sentence


def test_a_residual_that_falls_at_defects_is_no_reaction() -> None:
    assert identity_mapping(*ramp_maps([-500.0] * 5)).value == 1.0


def test_the_rise_is_against_the_same_places_not_against_the_rest() -> None:
    """The corner of the largest residuals: rebuilding it badly says nothing of defects."""
    normal, _, _ = ramp_maps([0.0] * 5)
    mask = np.zeros((10, 10), dtype=bool)
    mask[-3:, -3:] = True
    assert identity_mapping(normal, normal, [mask] * 5).value == 1.0


def test_one_wild_pixel_moves_nothing() -> None:
    normal, defect, masks = ramp_maps([80.0] * 5)
    expected = identity_mapping(normal, defect, masks).value
    for maps in (normal, defect):
        for m in maps:
            m[5, 5] = 1e9
    defect[0][0, 0] = defect[1][1, 1] = -1e9
    assert identity_mapping(normal, defect, masks).value == pytest.approx(expected, rel=0.05)


def test_unit_and_zero_of_the_maps_do_not_matter() -> None:
    normal, defect, masks = ramp_maps([30.0, 50.0, 60.0, 90.0, 10.0])
    moved = [[np.float32(0.125) * m - 700 for m in maps] for maps in (normal, defect)]
    assert identity_mapping(*moved, masks).value == pytest.approx(identity_mapping(normal, defect, masks).value)


def test_even_maps_have_a_verdict() -> None:
    _, _, masks = ramp_maps([0.0] * 5)
    even = [np.zeros((10, 10), dtype=np.float32)] * 5
    copied, found = identity_mapping(even, even, masks), identity_mapping(even, [m + 1e-6 for m in even], masks)
    assert copied.value == 1.0 and copied.failed
    assert np.isfinite(found.value) and not found.failed


@pytest.mark.parametrize("copies", [True, False])
def test_copying_is_told_from_rebuilding_what_is_normal(copies: bool) -> None:
    rng = np.random.default_rng(0)
    parts = [picture(pattern(seed, 96, 96)) for seed in range(12)]
    normal, defect, masks = [], [], []
    for i, part in enumerate(parts):
        image, _ = with_defect(part, parts[i - 1], 3, i)
        masks.append(planted(part.pixels, image.pixels))
        for maps, seen in ((normal, part), (defect, image)):
            rebuilt = (seen if copies else part).pixels + rng.normal(0, 6, part.pixels.shape)
            residual = np.square(seen.pixels - rebuilt).mean(axis=2)
            maps.append(gaussian_filter(residual, 2).astype(np.float32))
    found = identity_mapping(normal, defect, masks)
    assert found.failed is copies, found


def test_a_planted_defect_is_where_a_channel_changed() -> None:
    before = np.full((4, 5, 3), 7, dtype=np.uint8)
    after = before.copy()
    after[1, 2, 2] = 13  # by 6
    after[2, 3] = 12  # by 5: not seen
    after[3, 4, 0] = 0  # by 7, downwards
    assert np.argwhere(planted(before, after)).tolist() == [[1, 2], [3, 4]]


def test_pairs_that_do_not_fit_are_refused() -> None:
    normal, defect, masks = ramp_maps([1.0] * 5)
    with pytest.raises(ValueError, match=r"5 images or more.*got 4, 4 and 4"):
        identity_mapping(normal[:4], defect[:4], masks[:4])
    with pytest.raises(ValueError, match="got 5, 5 and 4"):
        identity_mapping(normal, defect, masks[:4])
    with pytest.raises(ValueError, match="with 0 px"):
        identity_mapping(normal, defect, [np.zeros((10, 10), dtype=bool)] * 5)
    with pytest.raises(ValueError, match=r"got \(10, 10\), \(10, 10\) and \(2, 50\)"):
        identity_mapping(normal, defect, [np.ones((2, 50), dtype=bool)] * 5)


# --- Over-fitting


def test_alarms_are_counted_above_the_rank_and_called_beyond_chance() -> None:
    fitted = np.arange(1, 101)  # the 96th smallest is the threshold, ceil(0.95 * 101)
    held_out = np.array([96.0] * 34 + [96.5] * 6)
    found = overfitting(fitted[::-1], held_out)
    assert found.value == 6 / 40
    # chance of 8 or more of 40: of all ways in which 8 of the 140 could lie above 5 of the fitted ones
    assert found.limit == 8 / 40 and not found.failed and "6 of 40" in found.sentence
    assert overfitting(fitted, np.array([0.0] * 32 + [99.0] * 8)).failed
    assert not overfitting(fitted, np.array([0.0] * 33 + [99.0] * 7)).failed


@pytest.mark.parametrize(("fitted", "held_out"), [(60, 20), (100, 40), (12, 30), (400, 200)])
def test_scores_of_one_distribution_are_seldom_called_over_fitted(fitted: int, held_out: int) -> None:
    rng = np.random.default_rng(0)
    failed = [overfitting(rng.exponential(size=fitted), rng.exponential(size=held_out)).failed for _ in range(1000)]
    assert np.mean(failed) < 0.01 + 3 * (0.01 * 0.99 / 1000) ** 0.5


def test_the_limit_is_no_larger_than_chance_asks_for() -> None:
    """One alarm fewer than the limit must not be rare enough already."""
    rng = np.random.default_rng(1)
    found = overfitting(np.arange(100.0), np.zeros(40))
    alarms = np.array([overfitting(rng.random(100), rng.random(40)).value for _ in range(4000)])
    assert np.mean(alarms >= found.limit - 1e-9) < 0.01 < np.mean(alarms >= found.limit - 1.5 / 40)


def test_a_scorer_that_knows_its_images_is_found() -> None:
    rng = np.random.default_rng(2)
    found = overfitting(rng.normal(0, 1, 80), rng.normal(2, 1, 30))
    assert found.failed and found.value > 0.4 and "too well" in found.sentence


def test_few_images_are_never_enough() -> None:
    found = overfitting([1.0, 2.0, 3.0], [9.0, 9.0])
    assert (found.value, found.failed) == (1.0, False)
    assert found.limit > 1 and "too few" in found.sentence


@pytest.mark.parametrize("scores", [[], [np.inf], [[1.0]]])
def test_scores_that_are_none_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="finite fitted scores"):
        overfitting(scores, [1.0])
    with pytest.raises(ValueError, match="finite held-out scores"):
        overfitting([1.0], scores)


# --- Domain gap and latency


def test_separation_below_the_limit_is_a_domain_gap() -> None:
    gap, told = domain_gap(0.29, 0.3, 7), domain_gap(0.3, 0.3, 7)
    assert gap.failed and not told.failed
    assert "On 7 images" in gap.sentence and "do not tell" in gap.sentence and "mean something" in told.sentence
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1\.2"):
        domain_gap(1.2, 0.3, 7)


def test_a_search_longer_than_the_forward_pass_is_called_slow() -> None:
    slow = bank_latency([0.03, 0.012, 0.011], [0.010, 0.010, 5.0], 20_000)
    assert slow.failed and slow.value == pytest.approx(1.2)
    assert "20,000 rows takes 12.0 ms an image, 1.20 times the backbone's 10.0 ms" in slow.sentence
    assert not bank_latency([0.01], [0.01], 5).failed
    with pytest.raises(ValueError, match="forward times above 0"):
        bank_latency([0.01], [0.0], 5)
    with pytest.raises(ValueError, match="search times above 0"):
        bank_latency([], [0.1], 5)


def test_signatures_are_plain_values() -> None:
    found = [
        domain_gap(0.1, 0.3, 2),
        bank_latency([1], [2], 3),
        overfitting([1, 2], [1]),
        identity_mapping(*ramp_maps([0.0] * 5)),
    ]
    assert [s.name for s in found] == ["domain gap", "bank latency", "over-fitting to normals", "identity mapping"]
    for signature in found:
        assert signature == FailureSignature(**asdict(signature))
        assert [type(v) for v in asdict(signature).values()] == [str, float, float, bool, str]
        assert signature.sentence.endswith(".") and "  " not in signature.sentence
