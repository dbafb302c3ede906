"""regions.coco.json, read back with pycocotools and compared with the record pixel for pixel."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fabricated_lot import HOSTILE, quiet_lot
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from explainvad.report.coco import column_runs, regions_coco
from explainvad.types import LotReport, Mask


@pytest.fixture(scope="module")
def loaded(lot_report: LotReport, tmp_path_factory: pytest.TempPathFactory) -> COCO:
    path = tmp_path_factory.mktemp("coco") / "regions.coco.json"
    path.write_bytes(regions_coco(lot_report))
    return COCO(path)


def test_every_inspected_image_and_region_is_there_under_its_own_id(lot_report: LotReport, loaded: COCO) -> None:
    by_id = dict(enumerate(lot_report.records, start=1))
    assert sorted(loaded.getImgIds()) == [k for k, r in by_id.items() if r.verdict is not None]
    for key in loaded.getImgIds():
        image, record = loaded.imgs[key], by_id[key]
        assert (image["file_name"], image["width"], image["height"]) == (record.file, record.width, record.height)
        assert (image["record_id"], image["sha256"]) == (record.image_id, record.sha256)
        assert (image["decision"], image["p_value"]) == (record.decision, record.verdict and record.verdict.p_value)
        regions = [finding.region.region_id for finding in record.findings]
        assert [loaded.anns[k]["region_id"] for k in loaded.getAnnIds(imgIds=key)] == regions
    assert list(loaded.anns) == list(range(1, len(loaded.anns) + 1))
    assert len(loaded.anns) == sum(len(r.findings) for r in lot_report.records) > 8
    assert loaded.imgs[9]["file_name"] == HOSTILE
    assert loaded.loadCats(loaded.getCatIds()) == [{"id": 1, "name": "anomaly", "supercategory": "anomaly"}]


def test_masks_boxes_and_areas_are_those_of_the_regions(lot_report: LotReport, loaded: COCO) -> None:
    for annotation in loaded.anns.values():
        record = lot_report.records[annotation["image_id"] - 1]
        (region,) = [f.region for f in record.findings if f.region.region_id == annotation["region_id"]]
        assert np.array_equal(loaded.annToMask(annotation).astype(bool), region.mask.to_array())
        assert annotation["area"] == oracle.area(loaded.annToRLE(annotation)) == region.area_px
        assert annotation["bbox"] == oracle.toBbox(loaded.annToRLE(annotation)).tolist()
        assert (annotation["p_value"], annotation["peak_value"]) == (region.p_value, region.peak_value)
        assert annotation["iscrowd"] == 0
        assert "score" not in annotation


@pytest.mark.parametrize(
    "rows",
    [
        ["...", "..."],
        ["###", "###"],
        ["#..", "..#"],
        ["..#", "#.."],
        ["##.", "#.#", "###"],  # a hole
        ["#", "#", "."],
        ["#.#.#"],
        [".#.", ".#.", "#.#"],  # the end of a column touches the start of the next
    ],
)
def test_run_lengths_are_those_of_pycocotools(rows: list[str]) -> None:
    _same_as_the_oracle(np.array([[c == "#" for c in row] for row in rows]))


def test_run_lengths_of_random_masks_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        _same_as_the_oracle(rng.random(rng.integers(1, 12, 2)) < rng.random())


def _same_as_the_oracle(mask: np.ndarray) -> None:
    runs = column_runs(Mask.from_array(mask))
    height, width = mask.shape
    ours = oracle.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    assert ours == oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert runs[-1] > 0 and all(runs[1:])


def test_it_says_where_it_comes_from(lot_report: LotReport) -> None:
    document = json.loads(regions_coco(lot_report))
    provenance = lot_report.provenance
    info = document["info"]
    assert (info["report_id"], info["head_hash"]) == (provenance.report_id, provenance.head_hash)
    assert (info["date_created"], info["contributor"]) == (provenance.finished_at, provenance.software)
    assert info["year"] == int(provenance.finished_at[:4])
    assert {image["license"] for image in document["images"]} == {licence["id"] for licence in document["licenses"]}
    assert regions_coco(lot_report) == regions_coco(lot_report)


def test_a_lot_without_flagged_or_inspected_images_has_no_annotations(lot_report: LotReport, tmp_path: Path) -> None:
    quiet = json.loads(regions_coco(quiet_lot(tmp_path)))
    assert (len(quiet["images"]), quiet["annotations"]) == (3, [])
    missed = replace(lot_report, records=tuple(r for r in lot_report.records if r.verdict is None))
    assert json.loads(regions_coco(missed))["images"] == []
