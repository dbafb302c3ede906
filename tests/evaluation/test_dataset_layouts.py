"""Each public data set is recognised by its layout, read with splits, labels and masks, and named with its licence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import explainvad
from dataset_trees import (
    SHAPE,
    write_bmad,
    write_btad,
    write_csv,
    write_image,
    write_kolektor,
    write_listed,
    write_mask,
    write_mvtec_ad,
    write_mvtec_ad_2,
    write_mvtec_loco,
    write_real_iad,
    write_visa,
)

from explainvad.errors import LotError
from explainvad.evaluation.datasets.items import LabelledDataset
from explainvad.evaluation.datasets.load import LAYOUTS, find_dataset, load_dataset
from explainvad.evaluation.datasets.masks import read_defects, read_truth

Row = tuple[str, str, str | None, int]


def rows(dataset: LabelledDataset) -> list[Row]:
    return [(item.file, item.split, item.defect, len(item.mask_paths)) for item in dataset.items]


def refusal(root: Path, category: str | None = None, kind: str | None = None) -> str:
    with pytest.raises(LotError) as caught:
        load_dataset(root, category, kind)
    return str(caught.value)


TREES: dict[str, tuple[Callable[[Path], Path], str | None, list[Row]]] = {
    "mvtec-ad-2": (
        write_mvtec_ad_2,
        "can",
        [
            ("train/good/000_regular.png", "train", None, 0),
            ("validation/good/100_regular.png", "validation", None, 0),
            ("test_public/good/000_shift.png", "test", None, 0),
            ("test_public/bad/001_overexposed.png", "test", "bad", 1),
        ],
    ),
    "mvtec-loco": (
        write_mvtec_loco,
        "juice_bottle",
        [
            ("train/good/000.png", "train", None, 0),
            ("validation/good/000.png", "validation", None, 0),
            ("test/good/000.png", "test", None, 0),
            ("test/logical_anomalies/000.png", "test", "logical_anomalies", 2),
            ("test/structural_anomalies/000.png", "test", "structural_anomalies", 1),
        ],
    ),
    "visa": (
        write_visa,
        "pcb1",
        [
            ("pcb1/Data/Images/Normal/0000.JPG", "train", None, 0),
            ("pcb1/Data/Images/Normal/0001.JPG", "train", None, 0),
            ("pcb1/Data/Images/Normal/0002.JPG", "test", None, 0),
            ("pcb1/Data/Images/Anomaly/000.JPG", "test", "anomaly", 1),
        ],
    ),
    "btad": (
        write_btad,
        "03",
        [
            ("train/ok/0000.bmp", "train", None, 0),
            ("test/ok/0001.bmp", "test", None, 0),
            ("test/ko/0002.bmp", "test", "ko", 1),
        ],
    ),
    "real-iad": (
        write_real_iad,
        "audiojack",
        [
            ("realiad_1024/audiojack/OK/S0001/a_0001_OK_C1.jpg", "train", None, 0),
            ("realiad_1024/audiojack/OK/S0002/a_0002_OK_C1.jpg", "test", None, 0),
            ("realiad_1024/audiojack/NG/BX/S0003/a_0003_NG_BX_C1.jpg", "test", "BX", 1),
        ],
    ),
    "bmad": (
        write_bmad,
        "Brain",
        [
            ("train/good/img/00003_60.png", "train", None, 0),
            ("valid/good/img/00025_99.png", "validation", None, 0),
            ("valid/Ungood/img/00124_60.png", "validation", "Ungood", 1),
            ("test/good/img/00000_96.png", "test", None, 0),
            ("test/Ungood/img/00002_60.png", "test", "Ungood", 1),
        ],
    ),
    "kolektorsdd2": (
        write_kolektor,
        None,
        [
            ("train/10000.png", "train", None, 0),
            ("train/10001.png", "train", "defect", 1),
            ("test/20000.png", "test", None, 0),
            ("test/20001.png", "test", "defect", 1),
        ],
    ),
    "csv": (
        write_listed,
        None,
        [
            ("pictures/a.png", "train", None, 0),
            ("pictures/b.png", "validation", None, 0),
            ("pictures/c.png", "test", None, 0),
            ("pictures/d.png", "test", "scratch", 2),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_layout_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    write, category, expected = TREES[name]
    root = write(tmp_path)
    assert find_dataset(root).layout == name
    dataset = load_dataset(root, category)
    assert rows(dataset) == expected
    assert (dataset.category, dataset.source) == (category, LAYOUTS[name].source)
    assert load_dataset(root, category, name) == dataset
    for item in dataset.items:
        truth = read_truth(item, SHAPE)
        assert truth is not None and truth.any() == (item.defect is not None)
    fit = {item.path for item in dataset.items if item.split != "test" and item.defect is None}
    assert set(dataset.train) == fit and len(dataset.train) == len(fit)
    assert all(item.split == "test" for item in dataset.test) and dataset.test
    assert set(dataset.sha256) == {item.path for item in dataset.items}


@pytest.mark.parametrize("name", ["mvtec-ad-2", "mvtec-loco", "btad", "bmad"])
def test_a_category_may_be_named_by_its_own_folder(name: str, tmp_path: Path) -> None:
    write, category, expected = TREES[name]
    dataset = load_dataset(write(tmp_path) / str(category))
    assert rows(dataset) == expected and dataset.source is LAYOUTS[name].source


@pytest.mark.parametrize("name", ["mvtec-ad-2", "visa", "btad", "bmad"])
def test_one_of_several_categories_has_to_be_named(name: str, tmp_path: Path) -> None:
    root = TREES[name][0](tmp_path)
    message = refusal(root)
    assert all(str(category) in message for category in find_dataset(root).categories)
    assert "has no category 'nail'" in refusal(root, "nail")


# --- MVTec AD and MPDD share a layout


def test_categories_tell_mvtec_ad_from_mpdd_and_from_ones_own(tmp_path: Path) -> None:
    mvtec = write_mvtec_ad(tmp_path / "a", "bottle", "cable")
    mpdd = write_mvtec_ad(tmp_path / "b", "tubes", "connector")
    own = write_mvtec_ad(tmp_path / "c", "flange")
    alone = write_mvtec_ad(tmp_path / "d", "bottle")  # anybody may have bottles
    downloaded = write_mvtec_ad(tmp_path / "mvtec_ad", "bottle")
    for root, category, name in (
        (mvtec, "bottle", "MVTec AD"),
        (mvtec / "bottle", None, "MVTec AD"),
        (mpdd, "tubes", "MPDD"),
        (own, "flange", "own data"),
        (alone, "bottle", "own data"),
        (downloaded, "bottle", "MVTec AD"),
    ):
        assert load_dataset(root, category).source.name == name
    assert load_dataset(alone, kind="mvtec-ad").source.name == "own data"


def test_ones_own_category_in_a_known_layout_does_not_get_its_licence(tmp_path: Path) -> None:
    for write, theirs in ((write_mvtec_loco, "juice_bottle"), (write_mvtec_ad_2, "can")):
        root = write(tmp_path / theirs)
        (root / theirs).rename(root / "gearbox")
        assert load_dataset(root / "gearbox").source.name == "own data"


# --- Licences


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.source.page])
def test_missing_data_say_where_to_get_them(name: str, tmp_path: Path) -> None:
    source = LAYOUTS[name].source
    for root in (tmp_path, tmp_path / "missing"):
        message = refusal(root, kind=name)
        assert source.name in message and source.page in message and source.licence.name in message
    assert source.page in refusal(tmp_path)


def test_licences_say_whether_commercial_use_is_allowed(tmp_path: Path) -> None:
    visa = load_dataset(write_visa(tmp_path / "visa"), "pcb1").source.licence
    assert str(visa) == "CC BY 4.0, commercial use allowed"
    kolektor = load_dataset(write_kolektor(tmp_path / "ksdd2")).source.licence
    assert str(kolektor) == "CC BY-NC-SA 4.0, non-commercial use only"
    own = load_dataset(write_listed(tmp_path / "own")).source.licence
    assert str(own) == "licence not stated, terms of use not stated" and own.commercial is None


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    message = refusal(tmp_path, kind="mvtec")
    assert all(name in message for name in LAYOUTS)


def test_the_command_line_names_category_and_layout(tmp_path: Path) -> None:
    root = write_mvtec_ad_2(tmp_path / "data")
    done = explainvad("evaluate", root, "--out", tmp_path / "out", "--category", "nail")
    assert done.code == 2 and "has no category 'nail'; it has can, rice" in done.err
    done = explainvad("evaluate", root, "--out", tmp_path / "out", "--layout", "visa")
    assert done.code == 2 and "get it from https://github.com/amazon-science/spot-diff" in done.err


# --- Masks of their own kinds


def test_loco_defects_have_the_saturation_of_their_grey_value(tmp_path: Path) -> None:
    dataset = load_dataset(write_mvtec_loco(tmp_path))
    (item,) = (item for item in dataset.items if item.defect == "logical_anomalies")
    first, second = read_defects(item, SHAPE, dataset.saturations)
    assert (first.mask.sum(), first.saturation) == (6, 4)  # absolute, in px
    assert (second.mask.sum(), second.saturation) == (9, 4.5)  # half of its area
    assert np.array_equal(read_truth(item, SHAPE), first.mask | second.mask)


def test_loco_saturation_is_at_most_the_area(tmp_path: Path) -> None:
    place = write_mvtec_loco(tmp_path) / "juice_bottle"
    kinds = [{"pixel_value": v, "saturation_threshold": 900, "relative_saturation": False} for v in (254, 255)]
    (place / "defects_config.json").write_text(json.dumps(kinds))
    dataset = load_dataset(place)
    assert [d.saturation for i in dataset.items for d in read_defects(i, SHAPE, dataset.saturations)] == [6, 9, 6]


def test_two_masks_of_a_csv_row_are_joined(tmp_path: Path) -> None:
    path = write_listed(tmp_path)
    other = np.zeros(SHAPE, dtype=np.uint8)
    other[5, 5] = 255
    from PIL import Image

    Image.fromarray(other).save(tmp_path / "masks/d_1.png")
    (item,) = (item for item in load_dataset(path).items if item.defect)
    truth = read_truth(item, SHAPE)
    assert truth is not None and truth.sum() == 7 and truth[5, 5]


def test_bmad_without_labelled_pixels_is_told(tmp_path: Path) -> None:
    assert load_dataset(write_bmad(tmp_path), "Chest").unmasked_defects == ("Ungood",)


def test_own_csv_may_have_categories(tmp_path: Path) -> None:
    for name in "abcd":
        write_image(tmp_path / f"{name}.png")
    table = [("a.png", "good", "nut"), ("b.png", "crack", "nut"), ("c.png", "good", "bolt"), ("d.png", "bent", "bolt")]
    path = write_csv(tmp_path / "list.csv", ("image", "label", "category"), table)
    assert [item.defect for item in load_dataset(path, "bolt").items] == [None, "bent"]
    assert "name one of bolt, nut" in refusal(path)


# --- What is wrong is called by name


def unlink(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


def copy(source: str, target: str) -> Callable[[Path], object]:
    return lambda root: shutil.copy(root / source, root / target)


def mask(name: str, shape: tuple[int, int] = SHAPE, value: int = 255) -> Callable[[Path], object]:
    return lambda root: write_mask(root / name, shape, value)


PROBLEMS = [
    ("mvtec-ad-2", unlink("can/test_public/ground_truth/bad/001_overexposed_mask.png"),
     "test_public/bad/001_overexposed.png", "no mask; MVTec AD 2 has one for every defect"),
    ("mvtec-ad-2", copy("can/validation/good/100_regular.png", "can/test_public/good/9.png"),
     "test_public/good/9.png", "100_regular.png; a leak from validation into test"),
    ("mvtec-ad-2", copy("can/train/good/000_regular.png", "can/validation/good/9.png"),
     "validation/good/9.png", "000_regular.png; a leak from training into validation"),
    ("mvtec-loco", unlink("juice_bottle/ground_truth/structural_anomalies/000/000.png"),
     "test/structural_anomalies/000.png", "no mask; MVTec LOCO AD has one for every defect"),
    ("mvtec-loco", mask("juice_bottle/ground_truth/logical_anomalies/000/000.png", (9, 6)),
     "ground_truth/logical_anomalies/000/000.png", "(H, W) = (6, 9), got (9, 6)"),
    ("mvtec-loco", mask("juice_bottle/ground_truth/logical_anomalies/000/000.png", value=7),
     "ground_truth/logical_anomalies/000/000.png", "one of the grey values 254, 255, got [7]"),
    ("mvtec-loco", mask("juice_bottle/ground_truth/logical_anomalies/003/000.png"),
     "ground_truth/logical_anomalies/003", "masks without image"),
    ("visa", unlink("pcb1/Data/Masks/Anomaly/000.png"), "pcb1/Data/Masks/Anomaly/000.png", "there is no such file"),
    ("visa", mask("pcb1/Data/Masks/Anomaly/000.png", (5, 5)), "pcb1/Data/Masks/Anomaly/000.png", "got (5, 5)"),
    ("visa", copy("pcb1/Data/Images/Normal/0000.JPG", "pcb1/Data/Images/Normal/0002.JPG"),
     "pcb1/Data/Images/Normal/0002.JPG", "0000.JPG; a leak from training into test"),
    ("visa", copy("pcb1/Data/Images/Normal/0002.JPG", "pcb1/Data/Images/Anomaly/000.JPG"),
     "pcb1/Data/Images/Anomaly/000.JPG", "0002.JPG, under another label"),
    ("btad", mask("03/ground_truth/ko/0007.bmp"), "ground_truth/ko/0007.bmp", "mask without image"),
    ("real-iad", unlink("realiad_1024/audiojack/OK/S0002/a_0002_OK_C1.jpg"),
     "realiad_1024/audiojack/OK/S0002/a_0002_OK_C1.jpg", "there is no such file"),
    ("bmad", mask("Brain/test/Ungood/label/9.png"), "test/Ungood/label/9.png", "mask without image"),
    ("bmad", copy("Brain/valid/good/img/00025_99.png", "Brain/test/good/img/1.png"),
     "test/good/img/1.png", "00025_99.png; a leak from validation into test"),
    ("kolektorsdd2", unlink("test/20000_GT.png"), "test/20000.png", "no mask; expected 20000_GT.png"),
    ("kolektorsdd2", unlink("test/20000.png"), "test/20000_GT.png", "mask without image"),
    ("kolektorsdd2", copy("train/10000.png", "test/20000.png"), "test/20000.png", "10000.png; a leak from training"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "culprit", "problem"), PROBLEMS)
def test_problem_is_named(
    name: str, change: Callable[[Path], object], culprit: str, problem: str, tmp_path: Path
) -> None:
    write, category, _ = TREES[name]
    root = write(tmp_path)
    load_dataset(root, category)
    change(root)
    lines = [line for line in refusal(root, category).splitlines() if f"{culprit}: " in line]
    assert len(lines) == 1 and problem in lines[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "cannot be read"),
        ('[{"pixel_value": 255}]', "cannot be read"),
        ('[{"pixel_value": 255, "saturation_threshold": 0, "relative_saturation": false}]', "must be above 0"),
        ('[{"pixel_value": 255, "saturation_threshold": 2, "relative_saturation": true}]', "at most 1"),
    ],
)
def test_faults_of_loco_saturations_are_named(text: str, problem: str, tmp_path: Path) -> None:
    root = write_mvtec_loco(tmp_path)
    (root / "juice_bottle/defects_config.json").write_text(text)
    message = refusal(root)
    assert "defects_config.json" in message and problem in message


@pytest.mark.parametrize(
    ("header", "row", "problem"),
    [
        (("picture", "label"), ("a.png", "good"), "no column image; expected image, label, got picture, label"),
        (("image", "label", "split"), ("a.png", "good", "testing"), "split must be train, validation or test"),
        (("image", "label"), ("../a.png", "good"), "outside of"),
        (("image", "label"), ("z.png", "good"), "there is no such file"),
        (("image", "label", "mask"), ("a.png", "good", "b.png"), "a good image with the mask b.png"),
        (("image", "label"), ("a.png", "good"), "no defect images for the test"),
        (("image", "label"), ("a.png", "dent"), "no good images for the test"),
    ],
)
def test_faults_of_a_csv_file_are_named(
    header: tuple[str, ...], row: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    write_image(tmp_path / "own/a.png")
    write_image(tmp_path / "own/b.png")
    write_image(tmp_path / "a.png")
    assert problem in refusal(write_csv(tmp_path / "own/list.csv", header, [row]))


def test_a_broken_list_of_real_iad_is_named(tmp_path: Path) -> None:
    root = write_real_iad(tmp_path)
    listed = root / "realiad_jsons/realiad_jsons/audiojack.json"
    listed.write_text(json.dumps({"train": [{"image_path": "x.jpg"}], "test": []}))
    assert f"{listed}: cannot be read as a list of Real-IAD" in refusal(root)
    shutil.rmtree(root / "realiad_1024")
    shutil.rmtree(root / "realiad_256")
    assert "no images of audiojack" in refusal(root)
