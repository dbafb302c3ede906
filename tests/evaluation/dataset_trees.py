"""Tiny trees of each public data set's layout, made of noise that differs from file to file."""

from __future__ import annotations

import csv
import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SHAPE = (6, 9)  # (H, W)


def write_image(path: Path, shape: tuple[int, int] = SHAPE, **save: object) -> Path:
    """Write noise that differs from path to path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.as_posix().encode()))
    Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(path, **save)
    return path


def write_mask(path: Path, shape: tuple[int, int] = SHAPE, value: int = 255) -> Path:
    """Six pixels of ``value``, which may be 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(shape, dtype=np.uint8)
    values[1:3, 2:5] = value
    Image.fromarray(values).save(path)
    return path


def write_mvtec_ad(root: Path, *categories: str) -> Path:
    """MVTec AD's layout, which MPDD shares."""
    for category in categories:
        for name in ("train/good/000.png", "train/good/001.png", "test/good/000.png", "test/hole/000.png"):
            write_image(root / category / name)
        write_mask(root / category / "ground_truth/hole/000_mask.png")
    return root


def write_mvtec_ad_2(root: Path) -> Path:
    """Two categories, with the private test images that have no labels."""
    for category in ("can", "rice"):
        place = root / category
        for name in ("train/good/000_regular.png", "validation/good/100_regular.png", "test_public/good/000_shift.png"):
            write_image(place / name)
        write_image(place / "test_public/bad/001_overexposed.png")
        write_mask(place / "test_public/ground_truth/bad/001_overexposed_mask.png")
        write_image(place / "test_private/007_regular.png")
        write_image(place / "test_private_mixed/008_mixed.png")
    return root


def write_mvtec_loco(root: Path) -> Path:
    """One category, with an image of two annotated defects."""
    place = root / "juice_bottle"
    for name in ("train/good/000.png", "validation/good/000.png", "test/good/000.png"):
        write_image(place / name)
    for kind in ("logical_anomalies", "structural_anomalies"):
        write_image(place / "test" / kind / "000.png")
        write_mask(place / "ground_truth" / kind / "000" / "000.png", value=255)
    second = np.zeros(SHAPE, dtype=np.uint8)
    second[4, :] = 254
    Image.fromarray(second).save(place / "ground_truth/logical_anomalies/000/001.png")
    kinds = [
        {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 4, "relative_saturation": False},
        {"defect_name": "label", "pixel_value": 254, "saturation_threshold": 0.5, "relative_saturation": True},
    ]
    (place / "defects_config.json").write_text(json.dumps(kinds))
    return root


def write_visa(root: Path) -> Path:
    """Two objects and the table of splits; masks hold small numbers."""
    rows = []
    for name in ("candle", "pcb1"):
        data = f"{name}/Data"
        for split, number in (("train", 0), ("train", 1), ("test", 2)):
            write_image(root / f"{data}/Images/Normal/{number:04d}.JPG")
            rows.append((name, split, "normal", f"{data}/Images/Normal/{number:04d}.JPG", ""))
        write_image(root / f"{data}/Images/Anomaly/000.JPG")
        write_mask(root / f"{data}/Masks/Anomaly/000.png", value=3)
        rows.append((name, "test", "anomaly", f"{data}/Images/Anomaly/000.JPG", f"{data}/Masks/Anomaly/000.png"))
    (root / "split_csv").mkdir()
    write_csv(root / "split_csv/1cls.csv", ("object", "split", "label", "image", "mask"), rows)
    return root


def write_btad(root: Path) -> Path:
    """Two of the three products; images and masks of one are BMP."""
    for product, suffix in (("01", "png"), ("03", "bmp")):
        for name in ("train/ok/0000", "test/ok/0001", "test/ko/0002"):
            write_image(root / product / f"{name}.bmp")
        write_mask(root / product / f"ground_truth/ko/0002.{suffix}")
    return root


def write_real_iad(root: Path) -> Path:
    """One category, as images of two sizes with its list of splits."""
    rows: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
    for size, shape in (("1024", SHAPE), ("256", (3, 5))):
        base = root / f"realiad_{size}" / "audiojack"
        for split, name in (("train", "OK/S0001/a_0001_OK_C1.jpg"), ("test", "OK/S0002/a_0002_OK_C1.jpg")):
            write_image(base / name, shape)
            if size == "1024":
                rows[split].append({"anomaly_class": "OK", "image_path": name, "mask_path": None})
        defect = "NG/BX/S0003/a_0003_NG_BX_C1"
        write_image(base / f"{defect}.jpg", shape)
        write_mask(base / f"{defect}_mask.png", shape)
    rows["test"].append({"anomaly_class": "BX", "image_path": f"{defect}.jpg", "mask_path": f"{defect}_mask.png"})
    listed = root / "realiad_jsons/realiad_jsons/audiojack.json"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps({"meta": {"normal_class": "OK", "prefix": "audiojack/"}, **rows}))
    return root


def write_bmad(root: Path) -> Path:
    """One category with labelled pixels and one without."""
    for name in (
        *("train/good/img/00003_60.png", "valid/good/img/00025_99.png", "valid/Ungood/img/00124_60.png"),
        *("test/good/img/00000_96.png", "test/Ungood/img/00002_60.png"),
    ):
        write_image(root / "Brain" / name)
    for name in ("valid/Ungood/label/00124_60.png", "test/Ungood/label/00002_60.png"):
        write_mask(root / "Brain" / name, value=4)
    for name in ("train/good/1.png", "valid/good/2.png", "valid/Ungood/3.png", "test/good/4.png", "test/Ungood/5.png"):
        write_image(root / "Chest" / name)
    return root


def write_kolektor(root: Path) -> Path:
    """Good and defective images in both splits, each with its mask beside it."""
    for name, value in (("train/10000", 0), ("train/10001", 255), ("test/20000", 0), ("test/20001", 255)):
        write_image(root / f"{name}.png")
        write_mask(root / f"{name}_GT.png", value=value)
    return root


def write_listed(root: Path) -> Path:
    """One's own CSV file, with an image that has two masks. Returns the file."""
    for name in ("a.png", "b.png", "c.png", "d.png"):
        write_image(root / "pictures" / name)
    write_mask(root / "masks/d_0.png")
    write_mask(root / "masks/d_1.png")
    rows = [
        ("pictures/a.png", "good", "train", ""),
        ("pictures/b.png", "", "validation", ""),
        ("pictures/c.png", "OK", "", ""),
        ("pictures/d.png", "scratch", "test", "masks/d_0.png; masks/d_1.png"),
    ]
    return write_csv(root / "list.csv", ("image", "label", "split", "mask"), rows)


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    """Write a table."""
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path
