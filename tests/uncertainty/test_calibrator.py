"""The calibrator as a whole: each image against the others, the same verdicts after JSON, refusals."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
from made_scores import Scored, image_scores, scored_image
from numpy.typing import NDArray
from scipy import stats

from explainvad.attribution.regions import cluster_mass
from explainvad.errors import NotFittedError, TooFewImagesError
from explainvad.types import Decision, ImageScore, Verdict
from explainvad.uncertainty.calibrator import Calibrator
from explainvad.uncertainty.conformal import conditional_alpha, p_values, significant_ranks
from explainvad.uncertainty.fusion import MAP_QUANTILES
from explainvad.uncertainty.probability import MIN_DEFECTS, probability_bound
from explainvad.uncertainty.scales import CLUSTER_QUANTILE, PIXEL_STRIDE
from explainvad.uncertainty.splits import LEAVE_ONE_OUT, Split

LEVELS = {"alpha": 0.1, "beta": 0.2, "gamma": 0.1, "prior": 0.05}


@cache
def images(seed: int, n: int, shift: float = 0.0) -> tuple[Scored, ...]:
    rng = np.random.default_rng(seed)
    return tuple(scored_image(rng, shift) for _ in range(n))


def fit(cal: tuple[Scored, ...], defects: tuple[Scored, ...] = ()) -> Calibrator:
    known = {"": (scores for scores, _ in defects)}
    return Calibrator.fit(iter(images(0, 20)), {"": iter(cal)}, cluster_mass, known if defects else None)


def fit_cells(**cells: tuple[Scored, ...]) -> Calibrator:
    return Calibrator.fit(images(0, 20), cells, cluster_mass)


def verdicts(calibrator: Calibrator, judged: tuple[Scored, ...], cell: str = "", **levels: float) -> list[Verdict]:
    return [calibrator.verdict(scores, features, cell=cell, **{**LEVELS, **levels}) for scores, features in judged]


def test_each_image_against_the_others_has_exactly_the_uniform_p_values() -> None:
    everything = images(1, 20)
    n = len(everything) - 1
    p, above, regions, gates, epistemic = [], [], [], [], []
    for i, one in enumerate(everything):
        calibrator = fit(everything[:i] + everything[i + 1 :])
        (verdict,) = verdicts(calibrator, (one,))
        fused_map, known = calibrator.scales.fusion.map(one[0]), calibrator.cell("")
        p.append(verdict.p_value)
        above.append(bool((fused_map > known.pixel_threshold(LEVELS["alpha"])).any()))
        regions.append(known.region_p_value(cluster_mass(fused_map, calibrator.scales.cluster_threshold)))
        gates.append(any(not g.passed for g in verdict.gates))
        epistemic.append(verdict.epistemic_within > verdict.epistemic_limit)
    uniform = [k / (n + 1) for k in range(1, n + 2)]
    assert sorted(p) == uniform
    assert sum(above) == significant_ranks(n, LEVELS["alpha"]) == 2
    with_regions = sum(r < 1 for r in regions)  # the others tie at mass 0
    assert with_regions > 0
    assert sorted(regions) == uniform[:with_regions] + [1.0] * (n + 1 - with_regions)
    assert sum(gates) == significant_ranks(n, LEVELS["gamma"])
    assert sum(epistemic) == significant_ranks(n, LEVELS["gamma"])


@pytest.mark.parametrize("labelled", [False, True])
def test_state_through_json_gives_identical_verdicts(labelled: bool) -> None:
    calibrator = fit(images(2, 25), images(3, 9, 2.0) if labelled else ())
    restored = Calibrator.restore(json.loads(json.dumps(calibrator.state(), sort_keys=True, allow_nan=False)))
    judged = images(4, 20) + images(5, 20, 1.5)
    for ours, theirs in zip(verdicts(calibrator, judged), verdicts(restored, judged), strict=True):
        assert asdict(ours) == asdict(theirs)
    for scores, _ in judged:
        assert np.array_equal(calibrator.scales.fusion.map(scores), restored.scales.fusion.map(scores))
        ours, theirs = (one.scales.doubt_map(scores) for one in (calibrator, restored))
        assert np.array_equal(ours.epistemic, theirs.epistemic)
    assert asdict(calibrator.facts(split(), **facts_levels())) == asdict(restored.facts(split(), **facts_levels()))
    assert restored.cell("").region_p_value(0.5) == calibrator.cell("").region_p_value(0.5)
    assert restored.state() == calibrator.state()


def split() -> Split:
    return Split((0, 1, 2), (3, 4), {"": tuple(range(5, 30))}, 30, "every image its own group")


def facts_levels() -> dict[str, float]:
    return {name: LEVELS[name] for name in ("alpha", "beta", "gamma")}


def test_a_verdict_does_not_depend_on_what_was_judged_before() -> None:
    calibrator, judged = fit(images(2, 25)), images(4, 10)
    alone = [asdict(v) for one in judged for v in verdicts(calibrator, (one,))]
    assert alone == [asdict(v) for v in verdicts(calibrator, judged[::-1])][::-1]


def test_a_verdict_carries_the_numbers_behind_it() -> None:
    calibrator = fit(images(2, 25), images(3, 9, 2.0))
    scores, features = images(4, 1, 2.0)[0]
    v = calibrator.verdict(scores, features, **LEVELS)
    fused = [calibrator.scales.fusion.score(s) for s, _ in images(2, 25)]
    defects = [calibrator.scales.fusion.score(s) for s, _ in images(3, 9, 2.0)]
    assert calibrator.cell("").fused.tolist() == fused
    assert calibrator.cell("").defects.tolist() == defects
    assert v.p_value == (1 + sum(f >= v.score for f in fused)) / 26
    assert v.defect_p_value == (1 + sum(d <= v.score for d in defects)) / 10
    for s in scores:
        cal = [t.value for other, _ in images(2, 25) for t in other if t.scorer == s.scorer]
        assert v.scorer_p_values[s.scorer] == (1 + sum(c >= s.value for c in cal)) / 26
    assert (v.alpha, v.beta, v.probability.prior) == (0.1, 0.2, 0.05)
    assert {g.name for g in v.gates} == set(features)
    # gamma (n + 1) = 2.6: the second largest is the limit
    doubts = [calibrator.scales.doubt(s) for s, _ in images(2, 25)]
    assert calibrator.cell("").epistemic.tolist() == [float(d.within) for d in doubts]
    assert v.epistemic_limit == sorted(calibrator.cell("").epistemic)[-2]
    doubt = calibrator.scales.doubt(scores)
    assert (v.aleatoric, v.epistemic_within, v.epistemic_between) == (doubt.aleatoric, doubt.within, doubt.between)
    assert v.epistemic == v.epistemic_within + v.epistemic_between
    assert min(v.epistemic_within, v.epistemic_between) > 0


def test_labelled_defects_allow_to_accept_and_without_them_nothing_is() -> None:
    calm = images(4, 40, -3.0)
    assert {v.decision for v in verdicts(fit(images(2, 25)), calm)} <= {Decision.NOT_FLAGGED, Decision.DEFER}
    with_defects = verdicts(fit(images(2, 25), images(3, 9, 3.0)), calm)
    assert Decision.ACCEPT in {v.decision for v in with_defects}
    assert all(v.beta == 0.2 and v.defect_p_value is not None for v in with_defects)
    without = verdicts(fit(images(2, 25)), calm)
    assert all(v.beta is None and v.defect_p_value is None for v in without)


def test_defects_are_rejected() -> None:
    decisions = [v.decision for v in verdicts(fit(images(2, 25)), images(6, 30, 5.0))]
    assert decisions.count(Decision.REJECT) > 20


def test_an_image_that_was_taken_otherwise_is_deferred() -> None:
    calibrator = fit(images(2, 25))
    scores, features = images(6, 1, 6.0)[0]
    (verdict,) = verdicts(calibrator, ((scores, features | {"exposure": 250.0}),))
    assert verdict.p_value <= 0.1 and verdict.decision is Decision.DEFER
    assert verdict.reasons[0].startswith("exposure 250 is outside [")


def test_members_that_disagree_defer_and_scorers_that_disagree_do_not() -> None:
    found = verdicts(fit(images(2, 25)), images(7, 250, 0.5))
    passing = [v for v in found if v.p_value > v.alpha and all(g.passed for g in v.gates)]
    for v in passing:
        assert (v.decision is Decision.DEFER) == (v.epistemic_within > v.epistemic_limit)
    assert {v.decision for v in passing} == {Decision.DEFER, Decision.NOT_FLAGGED}
    assert any(v.epistemic_between > v.epistemic_limit for v in passing if v.decision is Decision.NOT_FLAGGED)


def test_scales_come_from_norm_alone() -> None:
    norm = images(0, 20)
    maps: dict[str, list[NDArray[np.float32]]] = {}
    for scores, _ in norm:
        for s in scores:
            maps.setdefault(s.scorer, []).append(s.anomaly_map[::PIXEL_STRIDE, ::PIXEL_STRIDE].ravel())
    scales = fit(images(2, 25)).scales
    for name, pixels in maps.items():
        low, high = np.quantile(np.concatenate(pixels), MAP_QUANTILES)
        assert scales.fusion.map_offset[name] == pytest.approx(float(low))
        assert scales.fusion.map_scale[name] == pytest.approx(float(high - low))
        assert scales.fusion.ranks[name].ordered[-1] == max(
            s.value for scores, _ in norm for s in scores if s.scorer == name
        )
    fused = np.concatenate([scales.fusion.map(scores)[::PIXEL_STRIDE, ::PIXEL_STRIDE].ravel() for scores, _ in norm])
    assert scales.cluster_threshold == pytest.approx(float(np.quantile(fused, CLUSTER_QUANTILE)), rel=1e-4)
    assert scales.gates.centre["exposure"] == np.median([features["exposure"] for _, features in norm])
    assert fit(images(6, 25, 3.0)).scales.state() == scales.state()


def test_facts_add_up() -> None:
    calibrator = fit(images(2, 25), images(3, 9, 2.0))
    facts = calibrator.facts(split(), **facts_levels())
    assert (facts.n_fit, facts.n_norm, facts.n_cal, facts.n_groups, facts.n_def) == (3, 2, 25, 30, 9)
    assert facts.smallest_p == 1 / 26
    assert facts.conditional_alpha == conditional_alpha(25, 0.1)
    known = calibrator.cell("")
    assert list(facts.scores) == sorted(facts.scores) == sorted(known.fused)
    assert facts.score_threshold == facts.scores[-2]
    assert facts.pixel_threshold == sorted(known.map_maximum)[-2]
    assert facts.cluster_threshold == calibrator.scales.cluster_threshold
    assert facts.n_detected == sum(score > facts.score_threshold for score in known.defects) > 0
    assert (facts.alpha, facts.beta, facts.gamma) == (0.1, 0.2, 0.1)
    assert (facts.scheme, facts.cell, facts.cells, facts.n_synthetic, facts.power) == ("split", "", (), 0, None)
    without = fit(images(2, 25)).facts(split(), **facts_levels())
    assert (without.beta, without.n_def, without.n_detected) == (None, 0, 0)


def test_gamma_is_never_finer_than_calibration_can_tell() -> None:
    calibrator = fit(images(2, 25))
    assert calibrator.cell("").gamma(0.001) == 1 / 26
    assert calibrator.cell("").gamma(0.2) == 0.2
    (verdict,) = verdicts(calibrator, images(4, 1), gamma=0.001)
    assert verdict.epistemic_limit == max(calibrator.cell("").epistemic)
    assert calibrator.facts(split(), **{**facts_levels(), "gamma": 0.001}).gamma == 1 / 26


def test_too_few_images_are_refused() -> None:
    calibrator = fit(images(2, 25), images(3, 3, 2.0))
    with pytest.raises(TooFewImagesError, match=r"alpha = 0\.01 for a verdict needs at least 99 .*, got 25"):
        verdicts(calibrator, images(4, 1), alpha=0.01)
    with pytest.raises(TooFewImagesError, match="needs at least 99"):
        calibrator.facts(split(), alpha=0.01, beta=0.2, gamma=0.1)
    with pytest.raises(TooFewImagesError, match=r"on labelled defects\) needs at least 4 .*, got 3"):
        verdicts(calibrator, images(4, 1))
    assert verdicts(calibrator, images(4, 1), beta=0.25)
    with pytest.raises(ValueError, match="at least 2 NORM scores"):
        Calibrator.fit(images(0, 1), {"": images(2, 9)}, cluster_mass)


def test_scores_of_another_ensemble_are_refused() -> None:
    calibrator = fit(images(2, 25))
    _, features = images(4, 1)[0]
    with pytest.raises(NotFittedError, match="fitted to the scorers"):
        calibrator.verdict(image_scores({"patches": 1.0}), features, **LEVELS)


def test_maps_of_different_sizes_calibrate_together() -> None:
    rng = np.random.default_rng(7)

    def of_size(side: int) -> Scored:
        fields: dict[str, NDArray[np.float64]] = {n: rng.standard_normal((side, 2 * side)) for n in ("a", "b")}
        return image_scores({n: float(f.max()) for n, f in fields.items()}, fields), {"exposure": rng.normal()}

    calibrator = Calibrator.fit(
        [of_size(6 + i) for i in range(9)], {"": [of_size(5 + i) for i in range(12)]}, cluster_mass
    )
    assert calibrator.cell("").n == 12
    (verdict,) = verdicts(calibrator, (of_size(20),))
    assert 0 < verdict.p_value <= 1


# --- The tail probability behind a p-value


def ladder(score: float) -> Scored:
    """An image of one scorer, with this score."""
    return image_scores({"only": score}), {"exposure": 0.0}


def test_the_interval_covers_the_tail_probability_of_any_score() -> None:
    # CAL lies beyond NORM at 10, 11, .. 34: a new image at 9.5 + i has 25 - i of them above it
    n = 25
    calibrator = Calibrator.fit(
        [ladder(i / 2) for i in range(20)], {"": [ladder(10.0 + i) for i in range(n)]}, cluster_mass
    )
    by_count = verdicts(calibrator, tuple(ladder(9.5 + n - k) for k in range(n + 1)))
    assert [v.p_value for v in by_count] == [(1 + k) / (n + 1) for k in range(n + 1)]
    intervals = [v.p_interval for v in by_count if v.p_interval is not None]
    assert [(i.estimate, i.confidence) for i in intervals] == [(k / n, 0.95) for k in range(n + 1)]
    # Of n independent images, each above the score with probability q, k are: is q in the interval then?
    for q in [0.0, 0.001, *np.linspace(0.01, 0.99, 99), 0.999, 1.0]:
        covered = np.array([i.lower <= q <= i.upper for i in intervals])
        assert stats.binom.pmf(np.arange(n + 1), n, q)[covered].sum() >= 0.95 - 1e-12
    # A one-sided half is never wider than it must be: the counts at hand are just as likely as 2.5 %
    for k in range(1, n):
        assert stats.binom.sf(k - 1, n, intervals[k].lower) == pytest.approx(0.025)
        assert stats.binom.cdf(k, n, intervals[k].upper) == pytest.approx(0.025)


# --- Cells


def test_a_cell_is_calibrated_by_its_own_images_alone() -> None:
    calibrator = fit_cells(left=images(2, 25), right=images(3, 15, 1.0))
    alone = {"left": fit(images(2, 25)), "right": fit(images(3, 15, 1.0))}
    judged = images(4, 12, 0.5)
    for name, single in alone.items():
        ours, theirs = verdicts(calibrator, judged, name), verdicts(single, judged)
        assert {v.cell for v in ours} == {name}
        assert [asdict(v) | {"cell": ""} for v in ours] == [asdict(v) for v in theirs]
        assert calibrator.cell(name).state() == single.cell("").state()
    assert [v.p_value for v in verdicts(calibrator, judged, "left")] != [
        v.p_value for v in verdicts(calibrator, judged, "right")
    ]


def test_an_uncalibrated_cell_is_refused_with_the_names_of_the_others() -> None:
    calibrator = fit_cells(right=images(3, 15), left=images(2, 25))
    for name in ("", "middle"):
        with pytest.raises(KeyError, match=f"one of the calibrated cells left, right, got '{name}'"):
            verdicts(calibrator, images(4, 1), name)


def test_facts_of_several_cells_are_the_weakest_promise_of_any() -> None:
    calibrator = fit_cells(left=images(2, 25), right=images(3, 15, 1.0))
    levels = {**facts_levels(), "gamma": 0.05}
    facts = calibrator.facts(split(), **levels)
    left, right = facts.cells
    assert (left.cell, right.cell, facts.cell) == ("left", "right", "")
    assert (left.n_cal, right.n_cal, facts.n_cal) == (25, 15, 40)
    for name, known in (("left", left), ("right", right)):
        assert facts.of(name) is known
        assert list(known.scores) == sorted(calibrator.cell(name).fused)
    single = {"left": fit(images(2, 25)), "right": fit(images(3, 15, 1.0))}
    for name, one in single.items():
        assert asdict(facts.of(name)) == asdict(one.facts(split(), **levels)) | {"cell": name}
    assert facts.smallest_p == right.smallest_p == 1 / 16
    assert facts.conditional_alpha == max(conditional_alpha(25, 0.1), conditional_alpha(15, 0.1))
    assert facts.score_threshold == right.score_threshold > left.score_threshold
    assert facts.pixel_threshold == max(left.pixel_threshold, right.pixel_threshold)
    assert facts.gamma == right.gamma == 1 / 16
    assert facts.scores == tuple(sorted((*left.scores, *right.scores)))
    assert facts.of("") is facts and facts.of("middle") is facts


def test_too_few_images_of_one_cell_are_refused_by_its_name() -> None:
    calibrator = fit_cells(left=images(2, 25), right=images(3, 8))
    with pytest.raises(TooFewImagesError, match="a verdict on right needs at least 9 calibration images, got 8"):
        calibrator.facts(split(), **facts_levels())
    assert verdicts(calibrator, images(4, 1), "left")
    with pytest.raises(TooFewImagesError, match="needs at least 9 calibration images, got 8"):
        verdicts(calibrator, images(4, 1), "right")


def test_cells_with_their_defects_survive_json() -> None:
    calibrator = Calibrator.fit(
        images(0, 20),
        {"left": images(2, 25), "right": images(3, 15)},
        cluster_mass,
        {"right": [scores for scores, _ in images(5, 9, 2.0)]},
        {"left": sized(images(6, 30, 1.0))},
    )
    restored = Calibrator.restore(json.loads(json.dumps(calibrator.state(), sort_keys=True, allow_nan=False)))
    assert restored.state() == calibrator.state()
    for name in ("left", "right"):
        ours, theirs = (verdicts(one, images(4, 10), name) for one in (calibrator, restored))
        assert [asdict(v) for v in ours] == [asdict(v) for v in theirs]
    ours, theirs = (one.facts(split(), **facts_levels()) for one in (calibrator, restored))
    assert asdict(ours) == asdict(theirs)
    assert (ours.n_def, ours.n_synthetic, ours.beta) == (9, 30, 0.2)
    assert [known.beta for known in ours.cells] == [None, 0.2]


# --- Probabilities and synthetic defects


def sized(defects: tuple[Scored, ...]) -> list[tuple[list[ImageScore], float]]:
    """With sizes of 1, 2, 3, .. px."""
    return [(scores, float(i)) for i, (scores, _) in enumerate(defects, start=1)]


def with_synthetic(known: tuple[Scored, ...] = (), alpha: float = 0.1) -> Calibrator:
    return Calibrator.fit(
        images(0, 20),
        {"": images(2, 25)},
        cluster_mass,
        {"": [scores for scores, _ in known]},
        {"": sized(images(6, 40, 1.0))},
        alpha,
    )


def test_the_probability_is_a_bound_from_the_p_value_until_defects_are_known() -> None:
    for known in ((), images(3, MIN_DEFECTS - 1, 2.0)):
        for verdict in verdicts(fit(images(2, 25), known), images(4, 5)):
            assert asdict(verdict.probability) == asdict(probability_bound(verdict.p_value, 0.05))
    calibrator = fit(images(2, 25), images(3, MIN_DEFECTS, 2.0))
    for verdict in verdicts(calibrator, images(4, 5)):
        assert verdict.probability.lower is not None and not verdict.probability.synthetic
        assert verdict.probability.lower <= verdict.probability.upper
        assert verdict.probability.method.startswith(f"Venn-Abers on {MIN_DEFECTS} labelled defects")


def test_synthetic_defects_are_stamped_and_allow_nothing_to_be_accepted() -> None:
    calibrator = with_synthetic()
    for verdict in verdicts(calibrator, images(4, 20, -2.0)):
        assert verdict.probability.synthetic and verdict.probability.lower is not None
        assert verdict.defect_p_value is None and verdict.beta is None
        assert verdict.decision is not Decision.ACCEPT
    facts = calibrator.facts(split(), **facts_levels())
    assert (facts.n_synthetic, facts.n_def, facts.beta) == (40, 0, None)


def test_labelled_defects_speak_before_synthetic_ones() -> None:
    both, labelled = with_synthetic(images(3, 30, 2.0)), fit(images(2, 25), images(3, 30, 2.0))
    for ours, theirs in zip(verdicts(both, images(4, 9)), verdicts(labelled, images(4, 9)), strict=True):
        assert asdict(ours) == asdict(theirs)
    few = with_synthetic(images(3, MIN_DEFECTS - 1, 2.0))  # too few to calibrate on; nothing made stands in for them
    assert {v.probability.lower for v in verdicts(few, images(4, 9))} == {None}


@pytest.mark.parametrize("alpha", [0.1, 5 / 26])
def test_power_counts_the_synthetic_defects_found_at_alpha(alpha: float) -> None:
    calibrator = with_synthetic(alpha=alpha)
    scores = [calibrator.scales.fusion.score(scores) for scores, _ in images(6, 40, 1.0)]
    assert calibrator.cell("").synthetic.tolist() == scores
    power = calibrator.power
    assert power is not None
    p = p_values(calibrator.cell("").fused, scores)
    hits = int((p <= alpha).sum())
    assert alpha == 0.1 or alpha in p  # p = alpha is a hit
    assert (power.n, power.hits, power.level, power.kind) == (40, hits, alpha, "synthetic")
    assert 0 < hits < 40
    assert calibrator.facts(split(), **facts_levels()).power is power
    assert fit(images(2, 25)).power is None


# --- Few reference images


def test_leave_one_out_promises_no_bound_for_this_calibration_set() -> None:
    everything = tuple(range(25))
    few = Split(everything, everything, {"": everything}, 25, "every image its own group", LEAVE_ONE_OUT, everything)
    facts = fit(images(2, 25)).facts(few, **facts_levels())
    assert (facts.scheme, facts.conditional_alpha) == (LEAVE_ONE_OUT, None)
    assert (facts.n_fit, facts.n_norm, facts.n_cal) == (25, 25, 25)
