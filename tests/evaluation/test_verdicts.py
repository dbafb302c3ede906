"""What is said of labelled verdicts, in JSON and as figures, and what is not said without labelled defects."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scored_examples import scored_images

from explainvad.evaluation.calibration import merged_probability, reliability_bins
from explainvad.evaluation.resplit import judge
from explainvad.evaluation.selective_risk import augrc, selective_risks
from explainvad.evaluation.verdicts import LabelledVerdicts
from explainvad.types import Decision, ProbabilityBound

IMAGES = scored_images()
FIGURES = ["levels", "reliability", "risk_coverage", "passed_by_type", "detection_power"]


@pytest.fixture(scope="module")
def labelled() -> LabelledVerdicts:
    j = judge(IMAGES, 0)
    kinds = [None if kind == "good" else str(kind) for kind in IMAGES.kinds[j.index]]
    return LabelledVerdicts(j.verdicts, kinds, [round(size**2) for size in IMAGES.sizes[j.index]], j.n_cal)


def test_results_are_json_and_add_up(labelled: LabelledVerdicts) -> None:
    results = json.loads(json.dumps(labelled.results(), allow_nan=False))
    deferred = [v.decision is Decision.DEFER for v in labelled.verdicts]
    assert results["deferral_rate"] == pytest.approx(np.mean(deferred)) == pytest.approx(1 - results["coverage"])
    assert {row["group"]: row["n"] for row in results["passed_by_type"]}.keys() == {"dent", "scratch"}
    assert (
        sum(row["n"] for row in results["passed_by_type"]) == sum(row["n"] for row in results["passed_by_size"]) == 30
    )
    passed = sum(v.decision.passed for v, k in zip(labelled.verdicts, labelled.kinds, strict=True) if k)
    assert sum(row["n"] * row["rate"]["estimate"] for row in results["passed_by_type"]) == pytest.approx(passed)
    level = next(row for row in results["levels"] if row["alpha"] == 0.05)
    good = [v.p_value for v, kind in zip(labelled.verdicts, labelled.kinds, strict=True) if kind is None]
    assert level["rate"]["estimate"] == np.mean(np.array(good) <= 0.05)
    power = results["detection_power"]
    found = [v.p_value <= v.alpha for v, kind in zip(labelled.verdicts, labelled.kinds, strict=True) if kind]
    assert (power["n"], power["hits"], power["kind"]) == (30, sum(found), "labelled")


def test_deferral_is_measured_by_the_errors_of_the_rule(labelled: LabelledVerdicts) -> None:
    wrong = np.array(
        [
            float((v.p_value <= v.alpha) != (k is not None))
            for v, k in zip(labelled.verdicts, labelled.kinds, strict=True)
        ]
    )
    within = augrc(selective_risks(wrong, [v.epistemic_within for v in labelled.verdicts]))
    score = augrc(selective_risks(wrong, [v.score for v in labelled.verdicts]))
    risk = labelled.results()["selective_risk"]
    assert risk["by"]["epistemic, within scorers"]["augrc"]["estimate"] == pytest.approx(within)
    assert risk["augrc_within_less_score"]["estimate"] == pytest.approx(within - score)
    assert risk["augrc_within_less_random"]["estimate"] == pytest.approx(within - wrong.mean() / 2)


def test_probabilities_are_moved_to_the_share_of_defects(labelled: LabelledVerdicts) -> None:
    share = 30 / 84
    rare = [replace(v, probability=moved(v.probability, share, 0.01)) for v in labelled.verdicts]
    there = replace(labelled, verdicts=rare).results()["probability"]
    here = labelled.results()["probability"]
    assert here["share_of_defects"] == pytest.approx(share)
    for name in ("ece", "nll"):
        assert there[name] == pytest.approx(here[name])
    ends = np.array([(v.probability.lower, v.probability.upper) for v in labelled.verdicts], dtype=float).T
    y = np.array([kind is not None for kind in labelled.kinds])
    bins = reliability_bins(y, merged_probability(*ends))  # judged at this share already
    assert [b["prediction"] for b in here["reliability"]] == pytest.approx([b.prediction for b in bins])


def moved(p: ProbabilityBound, share: float, prior: float) -> ProbabilityBound:
    """The same evidence at another prior."""

    def end(value: float) -> float:
        odds = prior / (1 - prior) / (share / (1 - share))
        return value * odds / (value * odds + 1 - value)

    assert p.lower is not None
    return replace(p, lower=end(p.lower), upper=end(p.upper), prior=prior)


@pytest.mark.parametrize("change", [{"lower": None}, {"synthetic": True}])
def test_what_is_no_probability_is_not_evaluated_as_one(
    labelled: LabelledVerdicts, change: dict[str, bool | None], tmp_path: Path
) -> None:
    verdicts = [replace(v, probability=replace(v.probability, **change)) for v in labelled.verdicts]
    bounded = replace(labelled, verdicts=verdicts)
    assert bounded.results()["probability"] is None
    assert [path.stem for path in bounded.save_figures(tmp_path)] == [name for name in FIGURES if name != "reliability"]


def test_all_figures_are_drawn(labelled: LabelledVerdicts, tmp_path: Path) -> None:
    paths = labelled.save_figures(tmp_path)
    assert [path.stem for path in paths] == FIGURES
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_good_images_alone_say_little(labelled: LabelledVerdicts, tmp_path: Path) -> None:
    good = [v for v, kind in zip(labelled.verdicts, labelled.kinds, strict=True) if kind is None]
    alone = LabelledVerdicts(good, [None] * len(good), [0] * len(good), None)
    results = alone.results()
    assert results["levels"] == results["passed_by_type"] == results["passed_by_size"] == []
    assert results["probability"] is results["selective_risk"] is results["detection_power"] is None
    assert alone.save_figures(tmp_path) == []
