"""What the report promises, measured on images that were simulated with dependent scorers and smooth maps.

A count of events that should happen at most at rate alpha is compared with its exact distribution over calibration
sets *and* images, the beta-binomial one, in a band that it leaves with probability 1e-6. Every way of
calibrating that is known to be wrong must leave the band in the same test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from exact_bands import OUTSIDE, holds, is_bounded
from made_scores import image_scores, scored_image
from numpy.typing import NDArray
from scipy import ndimage, spatial, stats

from explainvad.attribution.regions import cluster_mass
from explainvad.types import Decision, Verdict
from explainvad.uncertainty import calibrator as module
from explainvad.uncertainty.calibration_set import CalibrationSet
from explainvad.uncertainty.calibrator import Calibrator
from explainvad.uncertainty.conformal import p_values, threshold
from explainvad.uncertainty.fusion import Fusion
from explainvad.uncertainty.splits import grouped_split

Array = NDArray[np.float64]

# --- Scores: fuse first, conformalise last

N_CAL, N_TEST, ALPHA = 999, 2000, 0.05


@dataclass(frozen=True)
class Scores:
    """Raw scores of NORM, CAL and test images: dicts of arrays by scorer."""

    norm: dict[str, Array]
    cal: dict[str, Array]
    test: dict[str, Array]

    def fused(self) -> tuple[Array, Array]:
        """Fused scores of CAL and test images."""
        fusion = Fusion.fit(self.norm, dict.fromkeys(self.norm, (0.0, 1.0)))

        def fuse(scores: dict[str, Array]) -> Array:
            rows = zip(*scores.values(), strict=True)
            return np.array([fusion.score(image_scores(dict(zip(scores, row, strict=True)))) for row in rows])

        return fuse(self.cal), fuse(self.test)


def dependent(rng: np.random.Generator, n: int) -> dict[str, Array]:
    """Three scorers with correlation 0.9, one of them with heavy tails and one with steps."""
    z = np.sqrt(0.9) * rng.standard_normal(n) + np.sqrt(0.1) * rng.standard_normal((3, n))
    return {"plain": z[0], "heavy": np.exp(2 * z[1]), "stepped": 0.1 * np.round(10 * z[2])}


@pytest.fixture(scope="module", params=[1, 2, 3])
def scores(request: pytest.FixtureRequest) -> Scores:
    rng = np.random.default_rng(request.param)
    return Scores(dependent(rng, 100), dependent(rng, N_CAL), dependent(rng, N_TEST))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_reject_count_of_the_fused_score(scores: Scores, alpha: float) -> None:
    cal, test = scores.fused()
    assert holds(p_values(cal, test) <= alpha, N_CAL, alpha)


def test_negative_control_combining_p_values_of_dependent_scorers(scores: Scores) -> None:
    each = np.array([p_values(scores.cal[name], scores.test[name]) for name in scores.cal])
    fisher = stats.chi2.sf(-2 * np.log(each).sum(axis=0), 2 * len(each))
    assert not is_bounded(fisher <= ALPHA, N_CAL, ALPHA)


def test_negative_control_the_plain_quantile_of_few_images() -> None:
    # 1 - alpha without the (n + 1): 13.6 % false rejects at a nominal 10 % with n = 20
    rng = np.random.default_rng(4)
    cal, test = rng.standard_normal((20_000, 20)), rng.standard_normal(20_000)
    limit = stats.binom.isf(OUTSIDE, 20_000, 0.1)
    plain = np.quantile(cal, 0.9, axis=1, method="inverted_cdf")
    assert (test > [threshold(c, 0.1) for c in cal]).sum() <= limit < (test > plain).sum()


@pytest.mark.parametrize(("seen", "kept"), [(False, True), (True, False)])
def test_calibrating_on_images_in_the_bank_breaks_the_guarantee(seen: bool, kept: bool) -> None:
    rng = np.random.default_rng(5)
    train, unseen, norm, test = (rng.standard_normal((n, 6)) for n in (N_CAL, N_CAL, 100, N_TEST))
    bank = spatial.cKDTree(train)

    def score(features: Array) -> dict[str, Array]:
        distance = bank.query(features)[0]
        return {"bank": distance, "size": np.linalg.norm(features, axis=1) + distance}

    # Seen again by the camera: the same parts, with a little noise
    cal = train + 0.05 * rng.standard_normal(train.shape) if seen else unseen
    fused_cal, fused_test = Scores(score(norm), score(cal), score(test)).fused()
    assert is_bounded(p_values(fused_cal, fused_test) <= ALPHA, N_CAL, ALPHA) is kept


def test_one_picture_of_each_part_keeps_the_guarantee_and_all_pictures_break_it() -> None:
    # 8 parts of 10 pictures; CAL holds 4 or more parts. Every round deals, calibrates and judges a new part
    labels = [f"part-{i // 10}" for i in range(80)]
    alpha, rounds = 0.2, 5000
    rng = np.random.default_rng(6)
    flags: list[tuple[bool, bool]] = []
    for seed in range(rounds):
        parts = np.sqrt(0.9) * np.repeat(rng.standard_normal(9), 10)
        pictures = parts + np.sqrt(0.1) * rng.standard_normal(90)
        cal = grouped_split(labels, "", seed, cal_needed=4).cal[""]
        groups = {i // 10 for i in cal}
        every = [i for i in range(80) if i // 10 in groups]
        one_p, every_p = (float(p_values(pictures[list(chosen)], pictures[80])) for chosen in (cal, every))
        flags.append((one_p <= alpha, every_p <= alpha))
    one_rejects, every_rejects = np.sum(flags, axis=0)
    limit = stats.binom.isf(OUTSIDE, rounds, alpha)
    assert one_rejects <= limit < every_rejects


# --- The whole calibrator: verdicts, maps, regions, deferrals

N_DEF, GAMMA, BETA = 199, 0.05, 0.10
SHIFT = 1.5  # of a defect's scores, so that many defects are missed by a rule that does not bound misses


@dataclass(frozen=True)
class Judged:
    """Verdicts on and maps of new images."""

    calibrator: Calibrator
    verdicts: list[Verdict]
    maps: list[NDArray[np.float32]]

    def flags(self, event: Callable[[Verdict], bool]) -> NDArray[np.bool_]:
        return np.array([event(v) for v in self.verdicts])

    @property
    def cal(self) -> CalibrationSet:
        return self.calibrator.cell("")


@pytest.fixture(scope="module", autouse=True)
def _intervals_once() -> Iterator[None]:
    """The interval of a count is the slowest part of a verdict, and the same counts come again and again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "clopper_pearson", cache(module.clopper_pearson))
        yield


def calibrate(rng: np.random.Generator, n_cal: int, n_def: int = 0) -> Calibrator:
    return Calibrator.fit(
        (scored_image(rng) for _ in range(60)),
        {"": (scored_image(rng) for _ in range(n_cal))},
        cluster_mass,
        {"": (scored_image(rng, SHIFT)[0] for _ in range(n_def))},
    )


def judge(calibrator: Calibrator, rng: np.random.Generator, count: int, shift: float = 0.0) -> Judged:
    verdicts, maps = [], []
    for _ in range(count):
        scores, features = scored_image(rng, shift)
        levels = {"alpha": ALPHA, "beta": BETA, "gamma": GAMMA, "prior": 0.05}
        verdicts.append(calibrator.verdict(scores, features, **levels))
        maps.append(calibrator.scales.fusion.map(scores))
    return Judged(calibrator, verdicts, maps)


@pytest.fixture(scope="module")
def normal() -> Judged:
    rng = np.random.default_rng(7)
    return judge(calibrate(rng, 499), rng, 1500)


@pytest.fixture(scope="module")
def defective() -> Judged:
    rng = np.random.default_rng(8)
    return judge(calibrate(rng, 499, N_DEF), rng, 1500, SHIFT)


def test_p_values_of_normal_images(normal: Judged) -> None:
    for alpha in (0.01, 0.05, 0.1, 0.3):
        assert holds(np.array([v.p_value <= alpha for v in normal.verdicts]), normal.cal.n, alpha)
    for name in ("patches", "pixels"):
        p = np.array([v.scorer_p_values[name] for v in normal.verdicts])
        assert holds(p <= ALPHA, normal.cal.n, ALPHA)


def test_normal_images_rejected(normal: Judged) -> None:
    assert normal.flags(lambda v: v.decision is Decision.REJECT).any()
    assert is_bounded(normal.flags(lambda v: v.decision is Decision.REJECT), normal.cal.n, ALPHA)


def test_normal_images_deferred_by_each_rule(normal: Judged) -> None:
    assert holds(normal.flags(lambda v: any(not g.passed for g in v.gates)), normal.cal.n, GAMMA)
    assert holds(normal.flags(lambda v: v.epistemic_within > v.epistemic_limit), normal.cal.n, GAMMA)


def test_normal_maps_with_any_pixel_above_the_pixel_threshold(normal: Judged) -> None:
    for alpha in (0.01, 0.05, 0.2):
        limit = normal.cal.pixel_threshold(alpha)
        assert holds(np.array([bool((m > limit).any()) for m in normal.maps]), normal.cal.n, alpha)


def test_normal_maps_with_any_region_at_p_at_most_alpha(normal: Judged) -> None:
    mass = [cluster_mass(m, normal.calibrator.scales.cluster_threshold) for m in normal.maps]
    for alpha in (0.01, 0.05, 0.2):
        assert holds(np.array([normal.cal.region_p_value(x) <= alpha for x in mass]), normal.cal.n, alpha)


def test_negative_control_pooling_pixels() -> None:
    rng = np.random.default_rng(9)
    n, m, side = 199, 500, 12
    maps = ndimage.gaussian_filter(rng.standard_normal((n + m, side, side)), (0, 1, 1))
    cal, test = maps[:n], maps[n:].reshape(m, -1)
    pooled = p_values(cal.ravel(), test)  # takes n * H * W dependent pixels for as many calibration values
    assert not is_bounded(np.min(pooled, axis=1) <= ALPHA, n, ALPHA)
    assert holds(np.max(test, axis=1) > threshold(cal.max(axis=(1, 2)), ALPHA), n, ALPHA)


def test_defects_accepted(defective: Judged) -> None:
    accepted = defective.flags(lambda v: v.decision is Decision.ACCEPT)
    assert accepted.any()
    assert is_bounded(accepted, N_DEF, BETA)
    assert holds(defective.flags(lambda v: (v.defect_p_value or 0) <= BETA), N_DEF, BETA)


def test_negative_control_accepting_all_that_is_not_rejected(defective: Judged) -> None:
    assert not is_bounded(defective.flags(lambda v: v.p_value > ALPHA), N_DEF, BETA)


def test_labelled_defects_keep_the_bound_on_false_rejects() -> None:
    rng = np.random.default_rng(10)
    judged = judge(calibrate(rng, 199, 59), rng, 500)
    assert is_bounded(judged.flags(lambda v: v.decision is Decision.REJECT), 199, ALPHA)
    assert judged.flags(lambda v: v.decision is Decision.ACCEPT).any()
