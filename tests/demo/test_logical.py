"""Generated logical defects: a rule is broken where the mask says, and nowhere is a piece that good trays lack."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from explainvad.demo.logical import HEIGHT, KINDS, WIDTH, Tray, additional, make_logical, mismatch, missing, photograph
from explainvad.evaluation.datasets.load import load_dataset
from explainvad.evaluation.datasets.masks import read_defects

SHAPE = (HEIGHT, WIDTH)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_logical(tmp_path_factory.mktemp("logical"), n_train=4, n_good=3, n_each=2)


def test_it_is_read_as_mvtec_loco_with_its_saturations(made: Path) -> None:
    dataset = load_dataset(made, kind="mvtec-loco")
    kinds = [item.defect for item in dataset.test]
    assert (len(dataset.train), kinds.count(None)) == (4 + 3, 3)
    assert (kinds.count("logical_anomalies"), kinds.count("structural_anomalies")) == (6, 2)
    assert len(dataset.saturations) == len(KINDS)
    for item in dataset.test:
        for defect in read_defects(item, SHAPE, dataset.saturations):
            assert 0 < defect.saturation <= defect.mask.sum()


def test_the_same_seed_makes_the_same_files(made: Path, tmp_path: Path) -> None:
    def contents(root: Path) -> dict[str, str]:
        files = sorted(p for p in root.rglob("*") if p.is_file())
        return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert contents(make_logical(tmp_path / "again", n_train=4, n_good=3, n_each=2)) == contents(made)
    other = contents(make_logical(tmp_path / "other", seed=1, n_train=4, n_good=3, n_each=2))
    assert all(
        other[name] != digest
        for name, digest in contents(made).items()
        if "ground_truth" not in name and name.endswith("png")
    )


@pytest.mark.parametrize("seed", range(5))
def test_good_trays_keep_both_rules(seed: int) -> None:
    tray = Tray.draw(rng(seed))
    assert sorted(pin.compartment for pin in tray.pins) == list(range(6))
    assert tray.label == tray.bar and not tray.scratch


def test_each_logical_defect_breaks_one_rule_with_normal_pieces() -> None:
    tray = Tray.draw(rng())
    assert [p.compartment for p in missing(rng(), tray)[0].pins] != list(range(6))
    assert len(missing(rng(), tray)[0].pins) == 5 and len(additional(rng(), tray)[0].pins) == 7
    changed, _ = mismatch(rng(), tray)
    assert changed.bar != changed.label == tray.label and changed.pins == tray.pins


@pytest.mark.parametrize("name", KINDS)
def test_pictures_differ_from_the_good_one_inside_the_mask_only(name: str) -> None:
    make, kind, *_ = KINDS[name]
    for seed in range(5):
        tray = Tray.draw(rng(seed))
        changed, mask = make(rng(seed), tray)
        difference = np.abs(photograph(changed, rng(9)).astype(int) - photograph(tray, rng(9))).max(axis=2) > 25
        assert mask.dtype == np.bool_ and mask.shape == SHAPE and mask.any()
        if name == "additional_pin":  # the pin that was there has moved
            difference &= mask
        elif name == "label_mismatch":  # where the bar was longer, there is nothing now
            difference[:, 96:] = False
        grown = np.pad(mask, 1)
        near = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:] | mask
        assert not (difference & ~near).any()
        if kind == "structural_anomalies":
            assert (difference & mask).sum() > 0.5 * mask.sum()
