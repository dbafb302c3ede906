"""results.csv and report.json."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import rfc8785
from fabricated_lot import HOSTILE, quiet_lot

from explainvad.errors import RenderError
from explainvad.report.exports import plain, report_json, results_csv
from explainvad.report.schema import SCHEMA_FILE, report_of, report_schema
from explainvad.types import Decision, LotReport


def _rows(report: LotReport) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(results_csv(report).decode("utf-8"), newline="")))


def test_csv_has_one_row_for_each_file_and_the_promised_columns_first(lot_report: LotReport) -> None:
    header = results_csv(lot_report).split(b"\n", 1)[0]
    assert header.startswith(b"file,sha256,decision,p_value,score,epistemic,n_regions,reasons,")
    rows = _rows(lot_report)
    assert len(rows) == lot_report.statistics.n_files == 30
    assert {d: sum(r["decision"] == d for r in rows) for d in Decision} == dict(lot_report.statistics.counts)


def test_csv_keeps_full_precision_and_leaves_numbers_of_uninspected_files_empty(lot_report: LotReport) -> None:
    rows = _rows(lot_report)
    assert float(rows[4]["p_value"]) == 1 / 96
    assert rows[8]["n_regions"] == "5"
    missed = rows[9]
    assert (missed["decision"], missed["p_value"], missed["score"], missed["n_regions"]) == (
        "NOT_INSPECTED",
        "",
        "",
        "",
    )
    assert missed["reasons"].startswith("the JPEG ends after 1,204")


def test_csv_text_cannot_become_a_formula(lot_report: LotReport) -> None:
    rows = _rows(lot_report)
    assert rows[8]["file"] == f"'{HOSTILE}"
    assert rows[22]["file"] == "'+notes.txt.png"
    assert not any(cell[:1] in "=+-@\t\r" for row in rows for cell in (row["file"], row["reasons"]) if cell)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_escapes_every_formula_start(tmp_path: Path, start: str) -> None:
    report = quiet_lot(tmp_path)
    record = replace(report.records[0], file=f"{start}1+1")
    assert _rows(replace(report, records=(record,)))[0]["file"] == f"'{start}1+1".replace("\r", "\\r")


def test_json_is_the_whole_report_in_canonical_form(lot_report: LotReport) -> None:
    data = report_json(lot_report)
    document = json.loads(data)
    assert set(document) == {"lot", "records", "statistics", "model", "provenance", "audit"}
    assert rfc8785.dumps(document) == data
    assert document["records"][4]["verdict"]["p_value"] == 1 / 96
    assert document["records"][4]["findings"][0]["region"]["mask"]["counts"]
    assert document["records"][9]["failure"].startswith("the JPEG")
    assert str(lot_report.run_dir) not in data.decode()


def test_shipped_schema_is_the_one_of_the_value_types() -> None:
    shipped = json.loads(SCHEMA_FILE.read_text("utf-8"))
    assert shipped == report_schema(), "run: python -m explainvad.report.schema > explainvad/report/report.schema.json"


def test_schema_requires_every_key_and_allows_no_other(lot_report: LotReport) -> None:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(report_schema())
    Draft202012Validator.check_schema(report_schema())
    document = json.loads(report_json(lot_report))
    del document["records"][0]["sha256"]
    assert not validator.is_valid(document)
    document = json.loads(report_json(lot_report))
    document["model"]["calibration"]["surprise"] = 1
    assert not validator.is_valid(document)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_refuses_what_json_cannot_say(lot_report: LotReport, value: float) -> None:
    statistics = replace(lot_report.statistics, expected_false_rejects=value)
    with pytest.raises(RenderError, match=r"report\.json"):
        report_json(replace(lot_report, statistics=statistics))


def test_json_names_the_place_that_breaks_the_schema(lot_report: LotReport) -> None:
    wrong = replace(lot_report, lot=replace(lot_report.lot, part=7))  # type: ignore[arg-type]
    with pytest.raises(RenderError, match=r"\$\.lot\.part"):
        report_json(wrong)


def test_plain_refuses_objects_without_a_json_form() -> None:
    with pytest.raises(RenderError, match="set"):
        plain({"a": {1, 2}})


def test_json_is_read_back_whole(lot_report: LotReport) -> None:
    read = report_of(report_json(lot_report), lot_report.run_dir)
    assert report_json(read) == report_json(lot_report)
    assert (read.run_dir, type(read.records[0]), type(read.provenance)) == (
        lot_report.run_dir,
        type(lot_report.records[0]),
        type(lot_report.provenance),
    )
    with pytest.raises(ValueError, match="statistics"):
        report_of(b'{"lot": {}}', lot_report.run_dir)
