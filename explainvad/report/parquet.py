"""results.parquet: one row per file of the lot, with types, units and regions, for data frames."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from explainvad.errors import RenderError
from explainvad.types import Finding, ImageRecord, LotReport

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_ID = "urn:explainvad:results:1"


def results_parquet(report: LotReport) -> bytes:
    """Return one row per file of the lot, in lot order.

    Each field carries its unit where it has one (metadata ``unit``), the file ``schema``, ``lot_id``, ``report_id`` and
    ``head_hash``. Texts are those of the record: nothing is escaped for a spreadsheet. What is not known is null;
    ``regions`` and ``reasons`` are null where a file was not inspected, and empty where nothing was found. Raises
    :class:`RenderError` when a text cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = {
        "schema": SCHEMA_ID,
        "lot_id": report.lot.lot_id,
        "report_id": report.provenance.report_id,
        "head_hash": report.provenance.head_hash,
    }
    try:
        table = pa.Table.from_pylist(list(map(_row, report.records)), _schema(pa).with_metadata(source))
    except (UnicodeEncodeError, pa.ArrowException) as error:
        raise RenderError(f"results.parquet: a value cannot be written: {error}") from error
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def _schema(pa: Any) -> pa.Schema:
    text, number, integer = pa.string(), pa.float64(), pa.int64()

    def field(name: str, kind: pa.DataType, unit: str | None = None, nullable: bool = True) -> pa.Field:
        return pa.field(name, kind, nullable, {"unit": unit} if unit else None)

    region = pa.struct(
        [
            field("region_id", text, nullable=False),
            *(field(name, integer, "px", nullable=False) for name in ("x0", "y0", "x1", "y1", "peak_x", "peak_y")),
            field("peak_value", number, "fused-map units", nullable=False),
            field("p_value", number, nullable=False),
            field("area_px", integer, "px", nullable=False),
            field("area_mm2", number, "mm2"),
            *(field(name, number, "px", nullable=False) for name in ("length_px", "width_px")),
            *(field(name, number, "mm") for name in ("length_mm", "width_mm")),
            field("place", text, nullable=False),
            field("refined_by", text, nullable=False),
            field("outline", text, nullable=False),
            field("agreement", number),
        ]
    )
    return pa.schema(
        [
            field("image_id", text, nullable=False),
            field("file", text, nullable=False),
            field("sha256", text),
            field("size_bytes", integer, "byte"),
            *(field(name, integer, "px") for name in ("width", "height")),
            field("decision", pa.dictionary(pa.int8(), text), nullable=False),
            field("cell", text),
            field("p_value", number),
            field("alpha", number),
            field("defect_p_value", number),
            field("beta", number),
            field("score", number, "decades of surprise"),
            *(field(name, number) for name in ("probability_lower", "probability_upper", "probability_prior")),
            *(field(name, number, "bit") for name in ("aleatoric", "epistemic", "epistemic_within")),
            *(field(name, number, "bit") for name in ("epistemic_between", "epistemic_limit")),
            field("scores", pa.map_(text, number)),
            field("scorer_p_values", pa.map_(text, number)),
            field("reasons", pa.list_(text)),
            field("regions", pa.list_(region)),
            field("notes", pa.list_(text), nullable=False),
            field("failure", text),
        ]
    )


def _row(record: ImageRecord) -> dict[str, Any]:
    row = {
        "image_id": record.image_id,
        "file": record.file,
        "sha256": record.sha256,
        "size_bytes": record.size_bytes,
        "width": record.width,
        "height": record.height,
        "decision": record.decision.value,
        "notes": list(record.notes),
        "failure": record.failure,
    }
    verdict = record.verdict
    if verdict is None:
        return row
    return row | {
        "cell": verdict.cell,
        "p_value": verdict.p_value,
        "alpha": verdict.alpha,
        "defect_p_value": verdict.defect_p_value,
        "beta": verdict.beta,
        "score": verdict.score,
        "probability_lower": verdict.probability.lower,
        "probability_upper": verdict.probability.upper,
        "probability_prior": verdict.probability.prior,
        "aleatoric": verdict.aleatoric,
        "epistemic": verdict.epistemic,
        "epistemic_within": verdict.epistemic_within,
        "epistemic_between": verdict.epistemic_between,
        "epistemic_limit": verdict.epistemic_limit,
        "scores": sorted(record.scores.items()),
        "scorer_p_values": sorted(verdict.scorer_p_values.items()),
        "reasons": list(verdict.reasons),
        "regions": list(map(_region, record.findings)),
    }


def _region(finding: Finding) -> dict[str, Any]:
    region, facts = finding.region, finding.facts
    x0, y0, x1, y1 = region.xyxy
    peak_x, peak_y = region.peak_xy
    return {
        "region_id": region.region_id,
        **{"x0": x0, "y0": y0, "x1": x1, "y1": y1, "peak_x": peak_x, "peak_y": peak_y},
        "peak_value": region.peak_value,
        "p_value": region.p_value,
        "area_px": region.area_px,
        "area_mm2": region.area_mm2,
        "length_px": facts.length_px,
        "width_px": facts.width_px,
        "length_mm": facts.length_mm,
        "width_mm": facts.width_mm,
        "place": facts.place,
        "refined_by": region.refined_by,
        "outline": region.outline,
        "agreement": region.refinement.agreement if region.refinement else None,
    }
