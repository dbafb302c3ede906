"""maps_tiff/, read back with Pillow and compared with the maps of the record."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fabricated_lot import HOSTILE, quiet_lot
from fabricated_pictures import HEIGHT, WIDTH, fused_map
from PIL import Image

from explainvad.errors import IntegrityError
from explainvad.report.pixel_maps import pixel_maps
from explainvad.types import LotReport


def test_each_flagged_image_has_its_map_unchanged(lot_report: LotReport) -> None:
    tiffs = dict(pixel_maps(lot_report))
    flagged = [record for record in lot_report.records if record.flagged]
    assert list(tiffs) == [f"{record.image_id}.tiff" for record in flagged]
    for record, data in zip(flagged, tiffs.values(), strict=True):
        with Image.open(io.BytesIO(data)) as tiff:
            assert (tiff.format, tiff.mode, tiff.size) == ("TIFF", "I;16", (record.width, record.height))
            values = np.asarray(tiff)
        with Image.open(lot_report.run_dir / "maps" / f"{record.image_id}.png") as png:
            assert np.array_equal(values, np.asarray(png))
        assert values.shape == (HEIGHT, WIDTH)
        assert values.max() > 255


def test_the_tag_says_how_grey_values_become_map_values(lot_report: LotReport) -> None:
    data = dict(pixel_maps(lot_report))["img-00005.tiff"]
    with Image.open(io.BytesIO(data)) as tiff:
        told = json.loads(tiff.tag_v2[270])
        values = np.asarray(tiff)
    calibration, record = lot_report.model.calibration, lot_report.records[4]
    got = values * told["scale"] + told["offset"]
    original = np.minimum(fused_map([(250, 130, 26, 9)], 9.0), 4 * calibration.pixel_threshold)
    assert np.abs(got - original).max() <= told["scale"]
    assert told["pixel_threshold"] == calibration.pixel_threshold
    assert told["cluster_threshold"] == calibration.cluster_threshold
    assert (told["image_id"], told["image_sha256"], told["file"]) == (record.image_id, record.sha256, record.file)
    assert (told["model_id"], told["report_id"]) == (lot_report.model.model_id, lot_report.provenance.report_id)


def test_hostile_names_survive_the_tag(lot_report: LotReport) -> None:
    with Image.open(io.BytesIO(dict(pixel_maps(lot_report))["img-00009.tiff"])) as tiff:
        assert json.loads(tiff.tag_v2[270])["file"] == HOSTILE
    record = replace(lot_report.records[8], file="Prüfling 部品 🔧.png")
    ((_, data),) = pixel_maps(replace(lot_report, records=(record,)))
    with Image.open(io.BytesIO(data)) as tiff:
        assert tiff.tag_v2[270].isascii()
        assert json.loads(tiff.tag_v2[270])["file"] == record.file


def test_a_cell_has_a_scale_of_its_own(lot_report: LotReport) -> None:
    calibration = lot_report.model.calibration
    cells = tuple(replace(calibration, cell=cell, pixel_threshold=top) for cell, top in (("a", 1.0), ("b", 2.0)))
    model = replace(lot_report.model, calibration=replace(calibration, cells=cells))
    record = lot_report.records[4]
    assert record.verdict is not None
    record = replace(record, verdict=replace(record.verdict, cell="b"))
    ((_, data),) = pixel_maps(replace(lot_report, model=model, records=(record,)))
    with Image.open(io.BytesIO(data)) as tiff:
        assert json.loads(tiff.tag_v2[270])["scale"] == 4 * 2.0 / 65535


def test_an_altered_map_is_noticed_before_the_first_is_made(lot_report: LotReport, tmp_path: Path) -> None:
    run_dir = shutil.copytree(lot_report.run_dir, tmp_path / "run")
    last = [record for record in lot_report.records if record.flagged][-1]
    path = run_dir / "maps" / f"{last.image_id}.png"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match=f"{last.image_id}.png was altered"):
        pixel_maps(replace(lot_report, run_dir=run_dir))


def test_the_same_report_gives_the_same_bytes_and_a_quiet_one_none(lot_report: LotReport, tmp_path: Path) -> None:
    assert list(pixel_maps(lot_report)) == list(pixel_maps(lot_report))
    assert list(pixel_maps(quiet_lot(tmp_path))) == []
