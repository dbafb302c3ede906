"""Both layouts load alike, and every defect of a data set itself is named before anything is measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import SHAPE, write_image, write_mask, write_mvtec_ad
from numpy.typing import NDArray
from PIL import Image

from explainvad.errors import LotError
from explainvad.evaluation.datasets.items import LabelledItem
from explainvad.evaluation.datasets.load import load_dataset
from explainvad.evaluation.datasets.masks import read_mask


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    root = tmp_path / "flat"
    for name in ("good/b.jpg", "good/a.png", "scratch/1.png", "scratch/2.png", "dent/1.JPG"):
        write_image(root / name)
    for name in ("scratch/1.png", "scratch/2_mask.png", "dent/1.png"):
        write_mask(root / "ground_truth" / name)
    return root


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    return write_mvtec_ad(tmp_path, "mvtec") / "mvtec"


def refusal(root: Path) -> str:
    with pytest.raises(LotError) as caught:
        load_dataset(root)
    return str(caught.value)


# --- Layouts


def test_flat_layout(flat: Path) -> None:
    dataset = load_dataset(flat)
    truth = flat / "ground_truth"
    assert dataset.root == flat
    assert dataset.train == ()
    assert dataset.items == (
        LabelledItem(flat / "good/a.png", "good/a.png", None),
        LabelledItem(flat / "good/b.jpg", "good/b.jpg", None),
        LabelledItem(flat / "dent/1.JPG", "dent/1.JPG", "dent", (truth / "dent/1.png",)),
        LabelledItem(flat / "scratch/1.png", "scratch/1.png", "scratch", (truth / "scratch/1.png",)),
        LabelledItem(flat / "scratch/2.png", "scratch/2.png", "scratch", (truth / "scratch/2_mask.png",)),
    )
    assert dataset.unmasked_defects == ()


def test_mvtec_layout(mvtec: Path) -> None:
    dataset = load_dataset(mvtec)
    assert dataset.train == (mvtec / "train/good/000.png", mvtec / "train/good/001.png")
    mask = mvtec / "ground_truth/hole/000_mask.png"
    assert dataset.test == (
        LabelledItem(mvtec / "test/good/000.png", "test/good/000.png", None),
        LabelledItem(mvtec / "test/hole/000.png", "test/hole/000.png", "hole", (mask,)),
    )


def test_neither_layout_is_answered_with_a_drawing(tmp_path: Path) -> None:
    write_image(tmp_path / "images/1.png")
    for root in (tmp_path, tmp_path / "missing", tmp_path / "images/1.png"):
        message = refusal(root)
        assert "neither fits" in message and str(root) in message
        for line in ("ROOT/good/*", "ROOT/<defect>/*", "ROOT/train/good/*", "ROOT/test/<defect>/*"):
            assert line in message


def test_both_layouts_at_once_are_refused(mvtec: Path) -> None:
    write_image(mvtec / "good/1.png")
    assert "both fit" in refusal(mvtec)


def test_what_is_no_part_of_the_data_set_is_passed_over(flat: Path) -> None:
    before = load_dataset(flat)
    (flat / "flat.evad").mkdir()
    (flat / "good/Thumbs.db").write_bytes(b"x")
    (flat / "good/.DS_Store").write_bytes(b"x")
    (flat / ".cache").mkdir()
    (flat / "readme.txt").write_text("beside the classes, not among them")
    assert load_dataset(flat) == before


def test_file_names_are_escaped_for_display(flat: Path) -> None:
    path = write_image(flat / "good/\u202egpj.png")
    assert LabelledItem(path, "good/\\u202egpj.png", None) in load_dataset(flat).items


def test_a_mask_suffix_in_the_image_name_is_part_of_the_name(flat: Path) -> None:
    # "1_mask" is an image of its own: its mask is 1_mask.png, and that of "1" stays 1.png
    write_image(flat / "scratch/1_mask.png")
    write_mask(flat / "ground_truth/scratch/1_mask.png")
    masks = {i.file: i.mask_paths for i in load_dataset(flat).items}
    assert masks["scratch/1.png"] == (flat / "ground_truth/scratch/1.png",)
    assert masks["scratch/1_mask.png"] == (flat / "ground_truth/scratch/1_mask.png",)


# --- Refused data sets, each by the name of the culprit


def remove(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


def image(name: str, shape: tuple[int, int] = SHAPE) -> Callable[[Path], object]:
    return lambda root: write_image(root / name, shape)


def mask(name: str, shape: tuple[int, int] = SHAPE) -> Callable[[Path], object]:
    return lambda root: write_mask(root / name, shape)


def content(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(data)


def copy(source: str, target: str) -> Callable[[Path], object]:
    return lambda root: shutil.copy(root / source, root / target)


@pytest.mark.parametrize(
    ("change", "culprit", "problem"),
    [
        (remove("ground_truth/scratch/1.png"), "scratch/1.png", "no mask in"),
        (mask("ground_truth/dent/7.png"), "ground_truth/dent/7.png", "mask without image"),
        (mask("ground_truth/crack/1.png"), "ground_truth/crack", "masks without images"),
        (mask("ground_truth/good/a.png"), "ground_truth/good", "masks without images"),
        (mask("ground_truth/dent/1_mask.png"), "ground_truth/dent/1_mask.png", "second mask of 1.JPG"),
        (image("dent/1.png"), "dent/1.png", "cannot tell it from 1.JPG"),
        (mask("ground_truth/dent/1.png", (9, 6)), "ground_truth/dent/1.png", "(H, W) = (6, 9), got (9, 6)"),
        (image("dent/1.JPG", (6, 10)), "ground_truth/dent/1.png", "(H, W) = (6, 10), got (6, 9)"),
        (content("ground_truth/dent/1.png", b"no picture"), "ground_truth/dent/1.png", "cannot be decoded"),
        (content("dent/1.JPG", b""), "dent/1.JPG", "cannot be read"),
        (content("good/notes.txt", b"hello"), "good/notes.txt", "expected only files ending in"),
        (image("good/more/1.png"), "good/more", "expected only files ending in"),
        (image("ground_truth/dent/1_mask.bmp"), "ground_truth/dent/1_mask.bmp", "ending in .png"),
        (lambda root: (root / "crack").mkdir(), "crack", "no images"),
        (lambda root: (root / "good/x.png").symlink_to("gone.png"), "good/x.png", "expected only files"),
        (copy("good/a.png", "good/c.png"), "good/c.png", "a.png; a leak once the good images are split"),
        (copy("good/a.png", "scratch/1.png"), "scratch/1.png", "good/a.png, under another label"),
        (copy("dent/1.JPG", "scratch/1.png"), "scratch/1.png", "dent/1.JPG, under another label"),
    ],
)  # fmt: skip
def test_flat_problem_is_named(flat: Path, change: Callable[[Path], object], culprit: str, problem: str) -> None:
    load_dataset(flat)
    change(flat)
    lines = [line for line in refusal(flat).splitlines() if line.startswith(f"  - {flat / culprit}: ")]
    assert len(lines) == 1 and problem in lines[0]


@pytest.mark.parametrize(
    ("change", "culprit", "problem"),
    [
        (copy("train/good/001.png", "test/good/009.png"), "test/good/009.png", "a leak from training into test"),
        (copy("train/good/001.png", "test/hole/000.png"), "test/hole/000.png", "a leak from training into test"),
        (copy("test/good/000.png", "test/hole/000.png"), "test/hole/000.png", "under another label"),
        (image("train/hole/1.png"), "train/hole", "training images must be normal"),
        (lambda root: shutil.rmtree(root / "train"), "train/good", "no images"),
        (lambda root: shutil.rmtree(root / "test/good"), "test/good", "no images"),
    ],
)  # fmt: skip
def test_mvtec_problem_is_named(mvtec: Path, change: Callable[[Path], object], culprit: str, problem: str) -> None:
    load_dataset(mvtec)
    change(mvtec)
    lines = [line for line in refusal(mvtec).splitlines() if line.startswith(f"  - {mvtec / culprit}: ")]
    assert len(lines) == 1 and problem in lines[0]


def test_repeats_within_a_class_of_mvtec_are_no_leak(mvtec: Path) -> None:
    shutil.copy(mvtec / "train/good/000.png", mvtec / "train/good/002.png")
    shutil.copy(mvtec / "test/good/000.png", mvtec / "test/good/002.png")
    assert len(load_dataset(mvtec).train) == 3


def test_no_good_images(flat: Path) -> None:
    for path in (flat / "good").iterdir():
        path.unlink()
    assert f"{flat / 'good'}: no images" in refusal(flat)


def test_no_defects(flat: Path) -> None:
    for name in ("scratch", "dent", "ground_truth"):
        shutil.rmtree(flat / name)
    assert f"{flat}: no defects" in refusal(flat)


def test_a_defect_type_without_any_mask_is_allowed_and_told(flat: Path) -> None:
    shutil.rmtree(flat / "ground_truth/scratch")
    dataset = load_dataset(flat)
    assert dataset.unmasked_defects == ("scratch",)
    assert [i.mask_paths == () for i in dataset.items if i.defect] == [False, True, True]
    shutil.rmtree(flat / "ground_truth")
    assert load_dataset(flat).unmasked_defects == ("dent", "scratch")


def test_all_problems_are_told_at_once_up_to_ten(flat: Path) -> None:
    for i in range(14):
        (flat / f"good/{i}.txt").touch()
    lines = refusal(flat).splitlines()
    assert len([line for line in lines if line.startswith("  - ")]) == 10
    assert lines[-1] == "  and 4 more"


def test_exif_orientation_decides_the_shape_of_the_mask(flat: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees when shown
    write_image(flat / "dent/1.JPG", SHAPE, exif=exif)
    assert "(H, W) = (9, 6), got (6, 9)" in refusal(flat)
    write_mask(flat / "ground_truth/dent/1.png", (9, 6))
    load_dataset(flat)


# --- Masks


def save_mask(path: Path, values: NDArray[np.generic], mode: str | None = None) -> Path:
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(path)
    return path


def test_mask_is_what_lies_above_half_of_the_full_range(tmp_path: Path) -> None:
    eight = save_mask(tmp_path / "8.png", np.array([[0, 127, 128, 255]], dtype=np.uint8))
    sixteen = save_mask(tmp_path / "16.png", np.array([[255, 32767, 32768, 65535]], dtype=np.uint16))
    for path in (eight, sixteen):
        got = read_mask(path, (1, 4))
        assert got.dtype == np.bool_
        assert got.tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA"])
def test_mask_in_any_png_mode(tmp_path: Path, mode: str) -> None:
    values = np.zeros(SHAPE, dtype=np.uint8)
    values[2:4, 1:6] = 255
    got = read_mask(save_mask(tmp_path / "m.png", values, mode), SHAPE)
    assert np.array_equal(got, values > 0)


def test_palette_mask_counts_colours_not_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 1]], dtype=np.uint8)).convert("P")
    picture.putdata([0, 1, 1])
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (1, 3)).tolist() == [[False, True, True]]


def test_mask_of_zeros_and_ones_is_refused_with_its_largest_value(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.png", np.eye(4, dtype=np.uint8))
    with pytest.raises(LotError, match=r"m\.png: no defect is marked; .* half of 255, got at most 1"):
        read_mask(path, (4, 4))


def test_mask_must_be_a_png_whatever_its_name_says(tmp_path: Path) -> None:
    Image.fromarray(np.full(SHAPE, 255, dtype=np.uint8)).save(tmp_path / "m.png", format="BMP")
    with pytest.raises(LotError, match="cannot be decoded"):
        read_mask(tmp_path / "m.png", SHAPE)


def test_mask_cut_off_anywhere_is_an_error_or_unchanged(tmp_path: Path) -> None:
    whole = write_mask(tmp_path / "whole.png")
    data, expected = whole.read_bytes(), read_mask(whole, SHAPE)
    for length in range(len(data)):
        path = tmp_path / "cut.png"
        path.write_bytes(data[:length])
        try:
            got = read_mask(path, SHAPE)
        except LotError as error:
            assert "cut.png" in str(error)
        else:
            assert np.array_equal(got, expected)  # only the end marker is missing


def test_mask_of_another_size_is_refused_before_its_pixels_are_decoded(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "m.png", (300, 400))
    path.write_bytes(path.read_bytes()[:60])  # header only: decoding would fail differently
    with pytest.raises(LotError, match="got \\(300, 400\\)"):
        read_mask(path, SHAPE)


def test_decompression_bomb_is_refused(tmp_path: Path) -> None:
    Image.new("1", (14_000, 14_000), 1).save(tmp_path / "bomb.png")
    with pytest.raises(LotError, match=r"bomb\.png"):
        read_mask(tmp_path / "bomb.png", (14_000, 14_000))
