"""The bootstrap draws whole images within each class, and pixel intervals are those of drawn images."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from test_pixel_metrics import best_f1, sorted_aupro, synthetic

from explainvad.evaluation.metrics.cost import measured_cost
from explainvad.evaluation.metrics.pixels import PixelMetrics
from explainvad.evaluation.metrics.resampling import Measured, Resampling, interval_text


def test_each_class_keeps_its_size_and_images_are_drawn_with_replacement() -> None:
    defective = np.arange(40) < 7
    weights = Resampling(50).weights(defective)
    assert weights.shape == (50, 40)
    assert (weights[:, :7].sum(axis=1) == 7).all() and (weights[:, 7:].sum(axis=1) == 33).all()
    assert (weights.max(axis=1) > 1).all()
    assert weights.mean() == pytest.approx(1)


def test_one_class_is_drawn_by_itself() -> None:
    assert (Resampling(5).weights(np.ones(3, dtype=np.bool_)).sum(axis=1) == 3).all()


def test_seeds() -> None:
    defective = np.arange(30) < 10
    one, again, other = (Resampling(20, seed).weights(defective) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_interval_has_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    how = Resampling(4000, confidence=0.9)
    means = how.weights(np.zeros(400, dtype=np.bool_)) @ values / 400
    measured = how.measured(float(values.mean()), means)
    assert measured.lower is not None and measured.upper is not None and measured.confidence == 0.9
    reach = 1.645 * values.std() / 20
    assert measured.lower == pytest.approx(values.mean() - reach, abs=0.1 * reach)
    assert measured.upper == pytest.approx(values.mean() + reach, abs=0.1 * reach)


def test_without_resamples_there_is_no_interval() -> None:
    assert Resampling(0).measured(0.5, None) == Measured(0.5, None, None, None)


def test_values_that_are_not_defined_are_left_out() -> None:
    measured = Resampling(4).measured(0.5, np.array([np.nan, 0.25, 0.25, 0.25]))
    assert (measured.lower, measured.upper) == (0.25, 0.25)
    assert Resampling(2).measured(0.5, np.full(2, np.nan)).lower is None


@pytest.mark.parametrize("side", [48, 300], ids=["all thresholds", "few thresholds"])
def test_pixel_intervals_are_those_of_drawn_images_one_by_one(side: int) -> None:
    maps, masks = synthetic(5, n_images=9, side=side)
    floats = [m.astype(np.float32) for m in maps]
    metrics, how = PixelMetrics(), Resampling(15, seed=4)
    for m, g in zip(floats, masks, strict=True):
        metrics.update(m, g)
    s = metrics.compute(resampling=how)
    drawn = [
        np.repeat(np.arange(len(maps)), w.astype(int)) for w in how.weights(np.array([bool(g.any()) for g in masks]))
    ]

    def pixels(i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([masks[k].ravel() for k in i]), np.concatenate([floats[k].ravel() for k in i])

    for measured, values in (
        (s.auroc, [roc_auc_score(*pixels(i)) for i in drawn]),
        (s.aupr, [average_precision_score(*pixels(i)) for i in drawn]),
        (s.f1_max, [best_f1(*pixels(i)) for i in drawn]),
        (s.aupro[0.05], [sorted_aupro([floats[k] for k in i], [masks[k] for k in i], 0.05) for i in drawn]),
    ):
        assert measured is not None
        lower, upper = np.quantile(values, [0.025, 0.975])
        assert (measured.lower, measured.upper) == pytest.approx((lower, upper), abs=1e-4)


def test_pixels_of_one_image_do_not_count_as_independent() -> None:
    # Half of the defect images are found, half are not: what the interval knows is images, not their 2,000 pixels
    metrics = PixelMetrics()
    rng = np.random.default_rng(0)
    for i in range(16):
        g = np.zeros((50, 50), dtype=np.bool_)
        g[5:45] = i % 2 == 1
        metrics.update((rng.standard_normal(g.shape) + 9 * g * (i % 4 == 1)).astype(np.float32), g)
    auroc = metrics.compute(resampling=Resampling(400)).auroc
    assert auroc is not None and auroc.lower is not None and auroc.upper is not None
    # 8 defect images that score 1 or 1/2: the standard error is 1/4 / sqrt(8)
    assert auroc.upper - auroc.lower == pytest.approx(2 * 1.96 * 0.25 / np.sqrt(8), rel=0.25)


def test_cost_is_the_mean_over_images_with_its_interval() -> None:
    cost = measured_cost([0.1, 0.2, 0.3, 1.0], Resampling(200))
    assert cost.mean.estimate == pytest.approx(0.4) and cost.median == pytest.approx(0.25)
    assert cost.mean.lower is not None and cost.mean.upper is not None
    assert 0.1 <= cost.mean.lower < 0.4 < cost.mean.upper <= 1.0
    assert cost.peak_mib > 10 and cost.gpu_peak_mib is None
    assert measured_cost([1.0], Resampling(0), 3 * 2**20).gpu_peak_mib == 3


def test_memory_is_that_of_this_process_and_not_of_the_one_that_started_it() -> None:
    ballast = np.ones(100_000_000)  # 763 MiB, written to
    code = "from explainvad.evaluation.metrics.cost import peak_mib; print(peak_mib())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ballast[-1] == 1 and 10 < float(said.stdout) < 500


def test_a_metric_as_tables_show_it() -> None:
    value = {"estimate": 0.875, "lower": 0.5, "upper": 1.0}
    assert interval_text(value, 2) == "0.88 [0.50, 1.00]"
    assert interval_text({"estimate": 0.875, "n_categories": 2}, 1, scale=100) == "87.5"
    assert interval_text(value | {"lower": None, "upper": None}, 3) == "0.875"
    assert (interval_text(None, 2), interval_text(None, 2, "not defined")) == ("-", "not defined")
