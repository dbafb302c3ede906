"""Training counts as a gain where it beats every random initialisation by more than these differ among themselves."""

import numpy as np
import pytest

from explainvad.evaluation.experiment_seeds import AgainstSeeds
from explainvad.evaluation.experiments import AUPRO, AUROC, GOOD, Comparison, ExperimentData, Scored

N = 40  # images of each class


def study(**shifts: float) -> AgainstSeeds:
    """Arms whose defective images score so much more than good ones, in standard deviations; "trained" is one."""
    kinds = np.array([GOOD] * N + ["blot"] * N)
    rng = np.random.default_rng(0)
    scored = [
        Scored(name, None, rng.normal(shift * (kinds != GOOD)), [], 0.0, np.zeros(2 * N))
        for name, shift in shifts.items()
    ]
    data = ExperimentData([], [None] * len(kinds), kinds, [None] * len(kinds))
    comparison = Comparison(data, scored, {"structural": ["blot"]}, 200)
    return AgainstSeeds(comparison, "trained", [name for name in shifts if name != "trained"], "structural", AUROC)


def test_a_gain_over_every_seed_is_one() -> None:
    found = study(trained=3.0, one=0.0, two=0.3)
    assert found.direction == "higher"
    assert found.best_seed == "two" and found.estimates["two"] > found.estimates["one"]
    assert "trained" in found.sentence() and "two" in found.sentence() and "finds more" in found.sentence()
    low, high = sorted(found.estimates.values())
    assert found.noise() == f"AUROC on structural defects of 2 random initialisations: {low:.2f} to {high:.2f}."


def test_a_loss_to_every_seed_is_one() -> None:
    assert study(trained=0.0, one=3.0, two=3.2).direction == "lower"


@pytest.mark.parametrize("seeds", [{"one": 0.0, "two": 2.0}, {"one": 0.0, "two": 1.5}])
def test_a_gain_that_one_lucky_seed_shares_is_none(seeds: dict[str, float]) -> None:
    assert study(trained=2.0, **seeds).direction == "not shown"


def test_a_gain_that_is_smaller_than_what_seeds_differ_by_is_none() -> None:
    found = study(trained=3.0, one=-3.0, two=1.0)
    assert found.spread > 0.5 and not found.beyond_seeds
    assert found.direction == "not shown"
    assert "finds more" in found.sentence()  # over images alone it is shown


def test_a_metric_that_the_data_cannot_define_shows_nothing() -> None:
    found = study(trained=3.0, one=0.0)
    blind = AgainstSeeds(found.comparison, found.trained, found.seeds, found.group, AUPRO)  # nobody drew masks
    assert (blind.direction, blind.estimates, blind.spread) == ("not shown", {}, 0.0)
    assert blind.noise() == "AUPRO on structural defects is not defined for the seeds."
