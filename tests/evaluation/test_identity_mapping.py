"""The stress test measures what it says: copiers have a small signature, and results survive their file."""

from pathlib import Path

import numpy as np
import pytest

from explainvad.demo.logical import draw_tray
from explainvad.detection.signatures import COPIED
from explainvad.evaluation.experiments import AUPRO, AUROC, GOOD, ExperimentData
from explainvad.evaluation.identity_mapping import GRID, LONGER, REMEDIES, StressTest, Trial, variance_ratio
from explainvad.types import ImageScore, InspectionImage


@pytest.fixture(scope="module")
def data() -> ExperimentData:
    kinds = [GOOD] * 10 + ["stain"] * 3
    trays = [draw_tray(kind, i, np.random.default_rng([6, i])) for i, kind in enumerate(kinds)]
    images = [
        InspectionImage(f"tray-{i}", f"{i}.png", tray.picture, f"{i}", 1, Path("tray.png"))
        for i, tray in enumerate(trays)
    ]
    return ExperimentData(images[:5], images[5:], np.array(kinds[5:]), [tray.mask for tray in trays[5:]])


class Rebuilder:
    """Rebuilds the tray of the same name, and what is new on it to a certain share."""

    def __init__(self, data: ExperimentData, copied: float) -> None:
        self.normal = {image.image_id: image.pixels.astype(np.float32) for image in data.test}
        self.copied = copied

    def score(self, images):
        rng = np.random.default_rng(0)
        found = []
        for image in images:
            new = (1 - self.copied) * (image.pixels - self.normal[image.image_id])
            residual = np.abs(new + rng.normal(0, 4, new.shape)).mean(axis=2)
            found.append(ImageScore("rebuilder", 0.0, residual.astype(np.float32)))
        return found


@pytest.mark.parametrize(("copied", "fails"), [(1.0, True), (0.0, False)])
def test_who_copies_everything_has_a_small_signature(data: ExperimentData, copied: float, fails: bool) -> None:
    assert (variance_ratio(Rebuilder(data, copied), data) < COPIED) == fails


def test_trials_are_trained_measured_and_kept(data: ExperimentData, tmp_path: Path) -> None:
    trials = [Trial(48, 0.5, steps=2), Trial(6, 0.0, "memory", steps=2)]
    test = StressTest.measure(data, trials, ["stain"], n_resamples=20)

    assert test.ratio.shape == test.residual.shape == (2,)
    assert (test.ratio >= 1).all() and (test.residual > 0).all()
    assert {metric: rows.shape for metric, rows in test.draws.items()} == {AUROC: (2, 21), AUPRO: (2, 21)}

    test.save(tmp_path / "test.npz")
    again = StressTest.load(tmp_path / "test.npz")
    assert again.trials == test.trials == tuple(trials)
    assert np.array_equal(again.ratio, test.ratio) and np.array_equal(again.residual, test.residual)
    assert all(np.allclose(again.draws[metric], test.draws[metric], atol=1e-6) for metric in (AUROC, AUPRO))


def test_trials_are_the_scorer_with_those_options_and_have_names_of_their_own() -> None:
    trials = (*GRID, *REMEDIES, *LONGER)
    options = [trial.arm.options for trial in trials]

    assert len({trial.name for trial in trials}) == len(trials)
    assert {trial.arm.scorer for trial in trials} == {"vit-ae"}
    assert [o["query"] for o in options if "query" in o] == [True]
    assert {o["memory"] for o in options if "memory" in o} == {64}
    assert Trial(6, 0.5).name == "6 numbers, 50% masked"
