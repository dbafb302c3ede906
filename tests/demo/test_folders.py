"""The demo's folders: same seed, same bytes; counts, layout and refusals."""

import hashlib
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from explainvad.demo import DemoFolders, make_demo
from explainvad.demo.defects import DEFECTS
from explainvad.demo.folders import LOT_COMPOSITION
from explainvad.errors import UsageError
from explainvad.types import LotInfo

SEED = 5


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> DemoFolders:
    return make_demo(tmp_path_factory.mktemp("demo"), seed=SEED, n_reference=3)


def _digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _readable(path: Path) -> bool:
    try:
        Image.open(path).load()
    except (OSError, UnidentifiedImageError):
        return False
    return True


def test_counts(demo):
    kinds = {folder.name: len(list(folder.iterdir())) for folder in demo.labelled.iterdir()}
    kinds.pop("ground_truth")

    assert kinds == {
        "good": 14, "scratch": 3, "dent": 3, "stain": 3,
        "missing_feature": 2, "wrong_colour": 2, "foreign_part": 1,
    }  # fmt: skip
    assert len(list(demo.reference.iterdir())) == 3
    assert len([path for path in demo.lot.iterdir() if path.name != "lot.toml"]) == 30


def test_exactly_two_files_cannot_be_read(demo):
    unreadable = [path for path in demo.lot.glob("flange_*") if not _readable(path)]

    assert sorted(path.suffix for path in unreadable) == [".jpg", ".png"]
    text = next(path for path in unreadable if path.suffix == ".png")
    assert text.read_text(encoding="utf-8").startswith("Export failed")
    truncated = next(path for path in unreadable if path.suffix == ".jpg")
    assert Image.open(truncated).size == (400, 300)  # the header is whole, the pixels are not


def test_labelled_images_are_the_readable_files_of_the_lot(demo):
    lot = {path.name: path.read_bytes() for path in demo.lot.glob("flange_*") if _readable(path)}
    labelled = {
        path.name: path.read_bytes() for path in demo.labelled.rglob("*.jpg") if "ground_truth" not in path.parts
    }

    assert labelled == lot


def test_every_defect_has_a_binary_mask_that_is_not_empty(demo):
    checked = 0
    for kind in DEFECTS:
        stems = {path.stem for path in (demo.labelled / kind).iterdir()}
        masks = list((demo.labelled / "ground_truth" / kind).iterdir())
        assert {path.stem for path in masks} == stems
        for path in masks:
            mask = np.asarray(Image.open(path))
            assert mask.dtype == np.uint8 and mask.shape == (300, 400)
            assert set(np.unique(mask)) == {0, 255}
            checked += 1
    assert checked == 14
    assert not (demo.labelled / "ground_truth" / "good").exists()


def test_names_do_not_reveal_the_class(demo):
    names = sorted(path.name for path in demo.lot.glob("flange_*"))
    good = sorted(path.name for path in (demo.labelled / "good").iterdir())

    assert all(re.fullmatch(r"flange_21\d\d\.(jpg|png)", name) for name in names)
    assert good != [name for name in names if name.endswith(".jpg")][:14]


def test_pictures_carry_no_metadata(demo):
    with Image.open(demo.reference / "flange_0001.jpg") as image:
        assert image.size == (400, 300) and image.mode == "RGB"
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_lot_says_what_it_is(demo):
    lot = tomllib.loads((demo.lot / "lot.toml").read_text(encoding="utf-8"))

    of_later_reports = {"report_revision", "supersedes"}
    assert set(lot) == {field.name for field in fields(LotInfo)} - of_later_reports
    assert lot["lot_id"] == "42" and lot["mm_per_pixel"] == 0.4


def test_same_seed_gives_the_same_bytes_whatever_the_number_of_references(tmp_path, monkeypatch):
    for kind in LOT_COMPOSITION:
        monkeypatch.setitem(LOT_COMPOSITION, kind, 1)
    one, two = (make_demo(tmp_path / str(n), seed=SEED, n_reference=n) for n in (1, 2))

    assert len(_digests(one.labelled)) == 7 + 6
    assert _digests(one.lot) == _digests(two.lot)
    assert _digests(one.labelled) == _digests(two.labelled)
    assert _digests(one.reference).items() < _digests(two.reference).items()


def test_another_seed_gives_other_pictures_of_the_same_kinds(demo, tmp_path, monkeypatch):
    monkeypatch.setitem(LOT_COMPOSITION, "good", 1)
    for kind in DEFECTS:
        monkeypatch.setitem(LOT_COMPOSITION, kind, 0)
    other = make_demo(tmp_path / "other", seed=SEED + 1, n_reference=1)

    ours, theirs = (np.asarray(Image.open(f.reference / "flange_0001.jpg"), int) for f in (demo, other))
    assert 0.5 < np.abs(ours - theirs).mean() < 25


def test_a_whole_demo_is_left_as_it_is(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.root.rglob("*")}
    calls = []

    folders = make_demo(demo.root, seed=SEED, n_reference=3, progress=lambda done, total: calls.append(done))

    assert folders == demo and calls == []
    assert {path: path.stat().st_mtime_ns for path in demo.root.rglob("*")} == before


def test_an_interrupted_demo_is_made_again(tmp_path, monkeypatch):
    for kind in LOT_COMPOSITION:
        monkeypatch.setitem(LOT_COMPOSITION, kind, 0)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path, seed=SEED, n_reference=2, progress=stop)
    assert not (tmp_path / "reference" / "flange_0002.jpg").exists()

    calls = []
    folders = make_demo(tmp_path, seed=SEED, n_reference=2, progress=lambda done, total: calls.append((done, total)))

    assert calls == [(1, 2), (2, 2)]
    assert len(list(folders.reference.iterdir())) == 2


def test_a_folder_with_something_else_is_refused(tmp_path):
    mine = tmp_path / "thesis.txt"
    mine.write_text("irreplaceable")

    with pytest.raises(UsageError, match="new or empty folder"):
        make_demo(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]


def test_a_demo_with_other_settings_is_refused(demo):
    with pytest.raises(UsageError, match=f"seed {SEED} and 3 reference images, asked for were seed 8 and 3"):
        make_demo(demo.root, seed=8, n_reference=3)


@pytest.mark.parametrize(("seed", "n_reference"), [(-1, 3), (7, 0)])
def test_impossible_settings_are_refused_before_anything_is_written(tmp_path, seed, n_reference):
    with pytest.raises(UsageError, match="got seed"):
        make_demo(tmp_path / "new", seed=seed, n_reference=n_reference)
    assert not (tmp_path / "new").exists()
