"""The calibrator as a whole: each image against the others, the same verdicts after JSON, refusals."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
from made_scores import Scored, image_scores, scored_image
from numpy.typing import NDArray

from explainvad.attribution.regions import cluster_mass
from explainvad.errors import NotFittedError, TooFewImagesError
from explainvad.types import Decision, Verdict
from explainvad.uncertainty.calibrator import CLUSTER_QUANTILE, Calibrator
from explainvad.uncertainty.conformal import conditional_alpha, significant_ranks
from explainvad.uncertainty.fusion import MAP_QUANTILES
from explainvad.uncertainty.splits import Split

LEVELS = {"alpha": 0.1, "beta": 0.2, "gamma": 0.1, "prior": 0.05}


@cache
def images(seed: int, n: int, shift: float = 0.0) -> tuple[Scored, ...]:
    rng = np.random.default_rng(seed)
    return tuple(scored_image(rng, shift) for _ in range(n))


def fit(cal: tuple[Scored, ...], defects: tuple[Scored, ...] = ()) -> Calibrator:
    return Calibrator.fit(iter(images(0, 20)), iter(cal), (scores for scores, _ in defects), cluster_mass)


def verdicts(calibrator: Calibrator, judged: tuple[Scored, ...], **levels: float) -> list[Verdict]:
    return [calibrator.verdict(scores, features, **{**LEVELS, **levels}) for scores, features in judged]


def test_each_image_against_the_others_has_exactly_the_uniform_p_values() -> None:
    everything = images(1, 20)
    n = len(everything) - 1
    p, above, regions, gates, epistemic = [], [], [], [], []
    for i, one in enumerate(everything):
        calibrator = fit(everything[:i] + everything[i + 1 :])
        (verdict,) = verdicts(calibrator, (one,))
        fused_map = calibrator.fusion.map(one[0])
        p.append(verdict.p_value)
        above.append(bool((fused_map > calibrator.pixel_threshold(LEVELS["alpha"])).any()))
        regions.append(calibrator.region_p_value(cluster_mass(fused_map, calibrator.cluster_threshold)))
        gates.append(any(not g.passed for g in verdict.gates))
        epistemic.append(verdict.epistemic > verdict.epistemic_limit)
    uniform = [k / (n + 1) for k in range(1, n + 2)]
    assert sorted(p) == uniform
    assert sum(above) == significant_ranks(n, LEVELS["alpha"]) == 2
    with_regions = sum(r < 1 for r in regions)  # the others tie at mass 0
    assert with_regions > 0
    assert sorted(regions) == uniform[:with_regions] + [1.0] * (n + 1 - with_regions)
    assert sum(gates) == significant_ranks(n, LEVELS["gamma"])
    assert sum(epistemic) <= significant_ranks(n, LEVELS["gamma"])


@pytest.mark.parametrize("labelled", [False, True])
def test_state_through_json_gives_identical_verdicts(labelled: bool) -> None:
    calibrator = fit(images(2, 25), images(3, 9, 2.0) if labelled else ())
    restored = Calibrator.restore(json.loads(json.dumps(calibrator.state(), sort_keys=True, allow_nan=False)))
    judged = images(4, 20) + images(5, 20, 1.5)
    for ours, theirs in zip(verdicts(calibrator, judged), verdicts(restored, judged), strict=True):
        assert asdict(ours) == asdict(theirs)
    for scores, _ in judged:
        assert np.array_equal(calibrator.fusion.map(scores), restored.fusion.map(scores))
    assert asdict(calibrator.facts(split(), **facts_levels())) == asdict(restored.facts(split(), **facts_levels()))
    assert restored.region_p_value(0.5) == calibrator.region_p_value(0.5)
    assert restored.state() == calibrator.state()


def split() -> Split:
    return Split((0, 1, 2), (3, 4), tuple(range(5, 30)), 30, "every image its own group")


def facts_levels() -> dict[str, float]:
    return {name: LEVELS[name] for name in ("alpha", "beta", "gamma")}


def test_a_verdict_does_not_depend_on_what_was_judged_before() -> None:
    calibrator, judged = fit(images(2, 25)), images(4, 10)
    alone = [asdict(v) for one in judged for v in verdicts(calibrator, (one,))]
    assert alone == [asdict(v) for v in verdicts(calibrator, judged[::-1])][::-1]


def test_a_verdict_carries_the_numbers_behind_it() -> None:
    calibrator = fit(images(2, 25), images(3, 9, 2.0))
    scores, features = images(4, 1)[0]
    v = calibrator.verdict(scores, features, **LEVELS)
    fused = [calibrator.fusion.score(s) for s, _ in images(2, 25)]
    defects = [calibrator.fusion.score(s) for s, _ in images(3, 9, 2.0)]
    assert calibrator.fused.tolist() == fused
    assert v.p_value == (1 + sum(f >= v.score for f in fused)) / 26
    assert v.defect_p_value == (1 + sum(d <= v.score for d in defects)) / 10
    for s in scores:
        cal = [t.value for other, _ in images(2, 25) for t in other if t.scorer == s.scorer]
        assert v.scorer_p_values[s.scorer] == (1 + sum(c >= s.value for c in cal)) / 26
    assert (v.alpha, v.beta, v.probability.prior) == (0.1, 0.2, 0.05)
    assert {g.name for g in v.gates} == set(features)
    # gamma (n + 1) = 2.6: the second largest is the limit
    assert v.epistemic_limit == sorted(calibrator.epistemic)[-2]


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


def test_scales_come_from_norm_alone() -> None:
    norm = images(0, 20)
    maps: dict[str, list[NDArray[np.float32]]] = {}
    for scores, _ in norm:
        for s in scores:
            maps.setdefault(s.scorer, []).append(s.anomaly_map[::3, ::3].ravel())
    calibrator = fit(images(2, 25))
    for name, pixels in maps.items():
        low, high = np.quantile(np.concatenate(pixels), MAP_QUANTILES)
        assert calibrator.fusion.map_offset[name] == pytest.approx(float(low))
        assert calibrator.fusion.map_scale[name] == pytest.approx(float(high - low))
        assert calibrator.fusion.ranks[name].ordered[-1] == max(
            s.value for scores, _ in norm for s in scores if s.scorer == name
        )
    fused = np.concatenate([calibrator.fusion.map(scores)[::3, ::3].ravel() for scores, _ in norm])
    assert calibrator.cluster_threshold == pytest.approx(float(np.quantile(fused, CLUSTER_QUANTILE)), rel=1e-4)
    other = fit(images(6, 25, 3.0))
    assert other.cluster_threshold == calibrator.cluster_threshold
    assert other.gates.centre == calibrator.gates.centre


def test_facts_add_up() -> None:
    calibrator = fit(images(2, 25), images(3, 9, 2.0))
    facts = calibrator.facts(split(), **facts_levels())
    assert (facts.n_fit, facts.n_norm, facts.n_cal, facts.n_groups, facts.n_def) == (3, 2, 25, 30, 9)
    assert facts.smallest_p == 1 / 26
    assert facts.conditional_alpha == conditional_alpha(25, 0.1)
    assert list(facts.scores) == sorted(facts.scores) == sorted(calibrator.fused)
    assert facts.score_threshold == facts.scores[-2]
    assert facts.pixel_threshold == sorted(calibrator.map_maximum)[-2]
    assert (facts.alpha, facts.beta, facts.gamma) == (0.1, 0.2, 0.1)
    assert fit(images(2, 25)).facts(split(), **facts_levels()).beta is None


def test_gamma_is_never_finer_than_calibration_can_tell() -> None:
    calibrator = fit(images(2, 25))
    assert calibrator.gamma(0.001) == 1 / 26
    assert calibrator.gamma(0.2) == 0.2
    (verdict,) = verdicts(calibrator, images(4, 1), gamma=0.001)
    assert verdict.epistemic_limit == max(calibrator.epistemic)


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
        Calibrator.fit(images(0, 1), images(2, 9), (), cluster_mass)


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
        [of_size(6 + i) for i in range(9)], [of_size(5 + i) for i in range(12)], (), cluster_mass
    )
    assert calibrator.n == 12
    (verdict,) = verdicts(calibrator, (of_size(20),))
    assert 0 < verdict.p_value <= 1
