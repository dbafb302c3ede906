"""results.csv and report.json: the report for machines."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import ValidationError

from explainvad.errors import RenderError
from explainvad.report.schema import report_of
from explainvad.types import JSON, ImageRecord, LotReport

COLUMNS = (
    *("file", "sha256", "decision", "p_value", "score", "epistemic", "n_regions", "reasons"),
    *("image_id", "width", "height", "size_bytes"),
)
_OMITTED = {"run_dir", "renderer"}  # where a report lies and who draws it are no part of its content
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def results_csv(report: LotReport) -> bytes:
    """Return one row per file of the lot, in lot order; UTF-8, header first.

    Text that a spreadsheet would run as a formula is preceded by an apostrophe. Numbers have full
    precision; they are empty where a file was not inspected, and ``reasons`` then holds the failure.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_row(record) for record in report.records)
    return table.getvalue().encode("utf-8", "backslashreplace")


def _row(record: ImageRecord) -> list[object]:
    verdict = record.verdict
    if verdict is None:
        numbers: list[object] = [None, None, None, None]
        reasons = record.failure or ""
    else:
        numbers = [verdict.p_value, verdict.score, verdict.epistemic, len(record.findings)]
        reasons = "; ".join(verdict.reasons)
    return [
        spreadsheet_text(record.file),
        record.sha256,
        record.decision.value,
        *numbers,
        spreadsheet_text(reasons),
        record.image_id,
        record.width,
        record.height,
        record.size_bytes,
    ]


def spreadsheet_text(cell: str) -> str:
    """Keep a spreadsheet from running a cell as a formula, and a carriage return from ending a row."""
    safe = f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell
    return safe.replace("\r", "\\r")  # the csv module would leave a lone carriage return unquoted


def report_json(report: LotReport) -> bytes:
    """Return the whole report as canonical JSON (RFC 8785) that satisfies ``report.schema.json``.

    Raises :class:`RenderError` when a value has no JSON form or breaks the schema.
    """
    data = canonical_json("report.json", plain(report))
    try:
        report_of(data, report.run_dir)  # by the types that the schema is made of; a general validator takes far longer
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in first["loc"])
        raise RenderError(f"report.json: ${place}: {first['msg'][:200]}") from error
    return data


def canonical_json(name: str, document: JSON) -> bytes:
    """Return ``document`` as canonical JSON (RFC 8785). Raises :class:`RenderError`, which names the file ``name``."""
    import rfc8785

    try:
        data: bytes = rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise RenderError(f"{name}: a value cannot be written as JSON: {error}") from error
    return data


def plain(value: Any) -> JSON:
    """Turn report values into dicts, lists and scalars; dataclass fields become keys."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.name not in _OMITTED}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise RenderError(f"report.json: {type(value).__name__} is no report value")
