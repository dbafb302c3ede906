"""Arms are fitted to good images alone, meet the same images, and are compared image by image."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import CNN, write_store

from explainvad.detection.backbones import Backbones
from explainvad.detection.weights import WeightStore
from explainvad.errors import ConfigError, LotError
from explainvad.evaluation.differences import direction, said
from explainvad.evaluation.experiment_figures import (
    difference_figure,
    interval_figure,
    kinds_figure,
    maps_figure,
    scores_figure,
)
from explainvad.evaluation.experiments import (
    AUPRO,
    AUROC,
    GOOD,
    Arm,
    Comparison,
    ExperimentData,
    Scored,
    fit_and_score,
    groups_of,
    runnable,
    weights_or_random,
)
from explainvad.types import Interval

SIDE = 64
TINY = {"resolution": 64, "backbone": "embedded", "layers": [1]}
ARMS = [Arm("bank", "patchcore", TINY), Arm("attention", "sa-patchcore", TINY)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ruled plates; a blot is a structural defect, a plate turned by a right angle passes for a logical one."""
    root, rng = tmp_path_factory.mktemp("plates"), np.random.default_rng(1)
    rule = np.where(np.arange(SIDE) % 8 < 4, 90, 150)[:, None] + np.zeros((1, SIDE))
    for part, count in {"train/good": 6, "test/good": 6, "test/blot": 4, "test/turned": 3}.items():
        for i in range(count):
            plate = rule.T if part == "test/turned" else rule
            picture = plate + rng.normal(0, 4, (SIDE, SIDE))
            mask = np.zeros((SIDE, SIDE), bool)
            if part == "test/blot":
                mask[20:34, 10 + 5 * i : 26 + 5 * i] = True
                picture[mask] = 20
            for name, pixels in ((f"{part}/{i}.png", picture), (f"ground_truth/blot/{i}.png", mask * 255.0)):
                if name.startswith("ground_truth") and not mask.any():
                    continue
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name)
    return root


@pytest.fixture(scope="module")
def data(folder: Path) -> ExperimentData:
    return ExperimentData.load(folder)


@pytest.fixture(scope="module")
def comparison(data: ExperimentData, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    backbones = Backbones(WeightStore(tmp_path_factory.mktemp("no weights")), bf16=False)
    return Comparison(data, fit_and_score(ARMS, data, backbones), groups_of(data, ["turned"]), n_resamples=100)


def test_the_data_are_what_the_folder_says(data: ExperimentData) -> None:
    assert len(data.fit) == 6 and len(data.test) == len(data.masks) == 13
    assert {kind: int((data.kinds == kind).sum()) for kind in set(data.kinds.tolist())} == {
        GOOD: 6, "blot": 4, "turned": 3,
    }  # fmt: skip
    by_kind = {kind: [m for m, k in zip(data.masks, data.kinds, strict=True) if k == kind] for kind in set(data.kinds)}
    assert all(mask is None for mask in by_kind["turned"])
    assert all(mask is not None and not mask.any() for mask in by_kind[GOOD])
    assert all(mask is not None and mask.sum() == 14 * 16 for mask in by_kind["blot"])
    assert not {image.sha256 for image in data.fit} & {image.sha256 for image in data.test}


def test_fewer_images_can_be_drawn_and_are_the_same_each_time(folder: Path) -> None:
    few, again = (ExperimentData.load(folder, seed=4, most_fit=3, most_each=2) for _ in range(2))

    assert len(few.fit) == 3 and sorted(few.kinds) == ["blot", "blot", GOOD, GOOD, "turned", "turned"]
    assert [image.file for image in few.test] == [image.file for image in again.test]


def test_the_good_images_of_a_flat_folder_are_fitted_to_or_tested_on_but_never_both(folder: Path, tmp_path) -> None:
    for part in ("good", "blot"):
        shutil.copytree(folder / "test" / part, tmp_path / part)
    flat = ExperimentData.load(tmp_path)

    assert len(flat.fit) + (flat.kinds == GOOD).sum() == 6 and len(flat.fit) == 4
    assert not {image.sha256 for image in flat.fit} & {image.sha256 for image in flat.test}


def test_images_that_cannot_be_used_are_named_and_never_passed_over(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "plates")
    damaged = tmp_path / "plates" / "test" / "turned" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:200])

    found = ExperimentData.load(tmp_path / "plates")
    assert len(found.test) == 12 and len(found.skipped) == 1 and found.skipped[0].startswith("test/turned/1.png: ")


def test_a_folder_without_a_usable_image_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "plates")
    for file in (tmp_path / "plates" / "train").rglob("*.png"):
        file.write_bytes(file.read_bytes()[:200])

    with pytest.raises(LotError, match="0 to fit on and 13 to test on"):
        ExperimentData.load(tmp_path / "plates")


def test_arms_are_measured_on_all_images(comparison: Comparison) -> None:
    assert [s.arm for s in comparison.scored] == ["bank", "attention"]
    for s in comparison.scored:
        assert s.values.shape == s.seconds.shape == (13,) and len(s.maps) == 13
        assert s.fit_seconds > 0 and (s.seconds > 0).all()
        assert s.megabytes == pytest.approx(sum(a.nbytes for a in s.scorer.state()[0].values()) / 1e6)
    best = comparison.interval("bank", "structural", AUROC)
    assert best is not None and best.estimate > 0.9
    assert comparison.by_kind()["bank"]["blot"] == best.estimate


def test_a_scorer_gives_an_image_the_same_score_whatever_else_is_tested(data: ExperimentData, comparison) -> None:
    alone = ExperimentData(data.fit, data.test[3:5], data.kinds[3:5], data.masks[3:5])
    (again,) = fit_and_score(ARMS[:1], alone, Backbones(bf16=False))

    assert again.values == pytest.approx(comparison.scored[0].values[3:5])


def test_groups_without_masks_have_no_aupro(comparison: Comparison) -> None:
    assert comparison.present == ("structural", "logical")
    assert comparison.interval("bank", "logical", AUPRO) is None
    assert comparison.difference("bank", "attention", "logical", AUPRO) is None
    assert {(r["group"], r["metric"]) for r in comparison.rows()} == {
        ("structural", AUROC), ("structural", AUPRO), ("logical", AUROC),
    }  # fmt: skip


def test_an_arm_has_nothing_over_itself(comparison: Comparison) -> None:
    same = comparison.difference("bank", "bank", "structural", AUROC)
    assert same is not None and (same.estimate, same.lower, same.upper) == (0, 0, 0)


def test_a_difference_is_that_of_the_estimates(data: ExperimentData) -> None:
    """Scores that are right by construction against scores that are wrong by construction."""
    right = (data.kinds != GOOD).astype(float)
    maps = [np.zeros((SIDE, SIDE), np.float32)] * len(right)
    scored = [Scored(name, None, s, maps, 0.0, right) for name, s in (("right", right), ("wrong", -right))]
    comparison = Comparison(data, scored, groups_of(data, ()), 50)
    found = comparison.difference("right", "wrong", "structural", AUROC)

    assert found is not None and (found.estimate, found.lower, found.upper) == (1, 1, 1)
    assert direction(found) == "higher"
    assert comparison.sentence("wrong", "right", "structural", AUROC) == (
        "AUROC on structural defects: wrong 0.00 [0.00, 0.00], right 1.00 [1.00, 1.00], a difference of -1.000 "
        "[-1.000, -1.000]: **the former finds less**."
    )


def test_missing_weights_are_told_and_wrong_options_refused(tmp_path: Path) -> None:
    backbones = Backbones(WeightStore(tmp_path))
    found, lacking = runnable([ARMS[0], Arm("dino", "anomaly-dino", {"backbone": "dino-small"})], backbones)

    assert [arm.name for arm in found] == ["bank"]
    assert len(lacking) == 1 and lacking[0].startswith("dino was not run: ") and "models pull dino-small" in lacking[0]
    with pytest.raises(ConfigError, match="odd arm"):
        Arm("odd arm", "patchcore", {"layer": [1]}).build(backbones)


def test_a_network_without_weights_is_used_untrained(tmp_path: Path) -> None:
    store = write_store(tmp_path)
    backbones = Backbones(WeightStore(store))

    assert weights_or_random(CNN, backbones) == CNN
    assert weights_or_random("resnet-18", backbones) == "resnet-18:random"


@pytest.mark.parametrize(
    ("interval", "word", "text"),
    [
        (Interval(0.10, 0.02, 0.20, 0.95), "higher", "+0.100 [+0.020, +0.200]"),
        (Interval(-0.10, -0.20, -0.02, 0.95), "lower", "-0.100 [-0.200, -0.020]"),
        (Interval(0.10, 0.00, 0.20, 0.95), "not shown", "+0.100 [+0.000, +0.200]"),
        (None, "not shown", "not defined"),
    ],
)
def test_a_direction_is_claimed_only_where_the_whole_interval_has_it(interval, word, text) -> None:
    assert direction(interval) == word
    assert said(interval, signed=True) == text


def test_figures_show_every_arm(comparison: Comparison) -> None:
    labels = [text.get_text() for text in interval_figure(comparison).axes[0].get_yticklabels()]
    assert labels == ["bank", "attention"]
    assert [t.get_text() for t in kinds_figure(comparison).axes[0].get_xticklabels()] == ["blot", "turned"]
    assert [axes.get_title() for axes in scores_figure(comparison).axes] == ["bank", "attention"]
    assert len(maps_figure(comparison).axes) == 3 * 2
    difference = difference_figure(comparison, [("attention", "bank")])
    assert [t.get_text() for t in difference.axes[0].get_yticklabels()] == ["attention\nover bank"]
