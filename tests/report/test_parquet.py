"""results.parquet, read back with pyarrow and compared with the record."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fabricated_lot import HOSTILE, quiet_lot

from explainvad.errors import RenderError
from explainvad.report.parquet import SCHEMA_ID, results_parquet
from explainvad.types import ImageRecord, LotReport


def _read(report: LotReport) -> pa.Table:
    return pq.read_table(io.BytesIO(results_parquet(report)))


def _expected(record: ImageRecord) -> dict[str, object]:
    v = record.verdict
    return {
        "image_id": record.image_id,
        "file": record.file,
        "sha256": record.sha256,
        "size_bytes": record.size_bytes,
        "width": record.width,
        "height": record.height,
        "decision": record.decision.value,
        "p_value": v and v.p_value,
        "score": v and v.score,
        "epistemic": v and v.epistemic,
        "probability_upper": v and v.probability.upper,
        "scores": v and sorted(record.scores.items()),
        "reasons": v and list(v.reasons),
        "notes": list(record.notes),
        "failure": record.failure,
    }


def test_each_row_is_the_record_of_its_file(lot_report: LotReport) -> None:
    rows = _read(lot_report).to_pylist()
    assert len(rows) == len(lot_report.records) == 30
    for row, record in zip(rows, lot_report.records, strict=True):
        assert {key: row[key] for key in _expected(record)} == _expected(record)


def test_regions_are_rows_within_rows(lot_report: LotReport) -> None:
    rows = _read(lot_report).to_pylist()
    for row, record in zip(rows, lot_report.records, strict=True):
        if record.verdict is None:
            assert row["regions"] is None
            continue
        assert len(row["regions"]) == len(record.findings)
        for got, finding in zip(row["regions"], record.findings, strict=True):
            region, facts = finding.region, finding.facts
            assert (got["region_id"], got["p_value"], got["area_px"]) == (
                region.region_id,
                region.p_value,
                region.area_px,
            )
            assert (got["x0"], got["y0"], got["x1"], got["y1"]) == region.xyxy
            assert (got["peak_x"], got["peak_y"], got["peak_value"]) == (*region.peak_xy, region.peak_value)
            assert (got["area_mm2"], got["length_mm"]) == (region.area_mm2, facts.length_mm)
    measured = [region["area_mm2"] is not None for row in rows for region in row["regions"] or ()]
    assert any(measured) and not all(measured)


def test_types_units_and_source_are_in_the_file(lot_report: LotReport) -> None:
    schema = pq.read_schema(io.BytesIO(results_parquet(lot_report)))
    assert schema.field("decision").type == pa.dictionary(pa.int8(), pa.string())
    assert schema.field("p_value").type == pa.float64()
    assert schema.field("reasons").type == pa.list_(pa.string())
    region = schema.field("regions").type.value_type
    units = {field.name: (field.metadata or {}).get(b"unit") for field in (*schema, *region)}
    assert (units["width"], units["score"], units["epistemic"]) == (b"px", b"decades of surprise", b"bit")
    assert (units["area_mm2"], units["length_mm"], units["p_value"]) == (b"mm2", b"mm", None)
    assert {k.decode(): v.decode() for k, v in schema.metadata.items()} == {
        "schema": SCHEMA_ID,
        "lot_id": lot_report.lot.lot_id,
        "report_id": lot_report.provenance.report_id,
        "head_hash": lot_report.provenance.head_hash,
    }


def test_names_stand_as_they_are_in_the_record(lot_report: LotReport) -> None:
    files = _read(lot_report).column("file").to_pylist()
    assert files[8] == HOSTILE
    assert "+notes.txt.png" in files


def test_the_same_report_gives_the_same_bytes_and_they_hold_the_head(lot_report: LotReport) -> None:
    data = results_parquet(lot_report)
    assert results_parquet(lot_report) == data
    assert lot_report.provenance.head_hash.encode() in data  # what verify looks for


def test_a_lot_without_flagged_or_inspected_images_has_the_same_schema(lot_report: LotReport, tmp_path: Path) -> None:
    quiet = _read(quiet_lot(tmp_path))
    assert quiet.column("regions").to_pylist() == [[], [], []]
    missed = replace(lot_report, records=tuple(r for r in lot_report.records if r.verdict is None))
    table = _read(missed)
    assert table.column("p_value").null_count == len(table) == 3
    assert all(table.column("failure").to_pylist())
    assert table.schema.equals(quiet.schema)


def test_text_that_is_no_text_is_refused(lot_report: LotReport) -> None:
    record = replace(lot_report.records[0], file="\udcff.png")
    with pytest.raises(RenderError, match=r"results\.parquet"):
        results_parquet(replace(lot_report, records=(record,)))
