"""regions.coco.json: the regions of a lot as COCO instances, for annotation tools and training."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from explainvad.report.exports import canonical_json
from explainvad.types import JSON, Finding, ImageRecord, LotReport, Mask

SCHEMA_ID = "urn:explainvad:regions:1"
_CATEGORY: dict[str, JSON] = {"id": 1, "name": "anomaly", "supercategory": "anomaly"}
_LICENCE: dict[str, JSON] = {"id": 1, "name": "not stated: the images belong to whoever took them", "url": ""}


def regions_coco(report: LotReport) -> bytes:
    """Return the inspected images and their regions in COCO's instance format, as canonical JSON.

    Image ids are positions in the lot; annotation ids count the regions in the order of the record. Masks are
    uncompressed run lengths, which also keep holes, pixel for pixel, and not polygons. ``iscrowd`` is 0 nevertheless:
    each region is one object, and training tools and COCO's own evaluation pass over crowds. A p-value is no
    detector's confidence, so there is no ``score``. What the record says stands in keys of its own: ``region_id``,
    ``p_value``, ``peak_value`` and ``decision`` of an annotation; ``record_id``, ``sha256``, ``decision`` and
    ``p_value`` of an image; the report's identity in ``info``. Files that were not inspected are left out, because an
    image without annotations is one in which nothing was found. Raises :class:`RenderError` when a value has no JSON
    form.
    """
    inspected = [(number, r) for number, r in enumerate(report.records, start=1) if r.verdict is not None]
    findings = [(number, record, finding) for number, record in inspected for finding in record.findings]
    document: dict[str, JSON] = {
        "info": _info(report),
        "licenses": [_LICENCE],
        "categories": [_CATEGORY],
        "images": [_image(number, record) for number, record in inspected],
        "annotations": [_annotation(k, *found) for k, found in enumerate(findings, start=1)],
    }
    return canonical_json("regions.coco.json", document)


def column_runs(mask: Mask) -> list[int]:
    """Return a mask's run lengths column by column, as COCO counts them; they start with a run of zeros."""
    # Where set pixels lie; only they are looked at, because most of an image is no region
    ends, lengths = np.cumsum(mask.counts)[1::2], np.asarray(mask.counts[1::2], dtype=np.int64)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    y, x = np.divmod(np.repeat(ends - lengths, lengths) + within, mask.width)
    size = mask.height * mask.width
    if x.size == 0:
        return [size]

    # The same places, column by column, and the gaps between them
    left = x.min()
    columns = np.zeros((x.max() - left + 1, mask.height), dtype=np.bool_)
    columns[x - left, y] = True
    places = np.flatnonzero(columns) + left * mask.height
    gap = np.flatnonzero(np.diff(places) > 1)
    starts, stops = places[np.r_[0, gap + 1]], places[np.r_[gap, places.size - 1]] + 1
    edges = np.r_[0, np.column_stack((starts, stops)).ravel(), size]
    counts: list[int] = np.diff(edges).tolist()
    return counts if counts[-1] else counts[:-1]


def _info(report: LotReport) -> dict[str, JSON]:
    provenance = report.provenance
    return {
        "year": datetime.fromisoformat(provenance.finished_at).year,
        "version": SCHEMA_ID,
        "description": f"Anomalous regions of lot {report.lot.lot_id}, found by software and not reviewed",
        "contributor": provenance.software,
        "url": "",
        "date_created": provenance.finished_at,
        "report_id": provenance.report_id,
        "head_hash": provenance.head_hash,
        "model_id": report.model.model_id,
    }


def _image(number: int, record: ImageRecord) -> dict[str, JSON]:
    assert record.verdict is not None
    return {
        "id": number,
        "file_name": record.file,
        "width": record.width,
        "height": record.height,
        "license": _LICENCE["id"],
        "record_id": record.image_id,
        "sha256": record.sha256,
        "decision": record.decision.value,
        "p_value": record.verdict.p_value,
    }


def _annotation(number: int, image_number: int, record: ImageRecord, finding: Finding) -> dict[str, JSON]:
    region = finding.region
    x0, y0, x1, y1 = region.xyxy
    counts: list[JSON] = [*column_runs(region.mask)]
    return {
        "id": number,
        "image_id": image_number,
        "category_id": _CATEGORY["id"],
        "segmentation": {"size": [region.mask.height, region.mask.width], "counts": counts},
        "area": region.area_px,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
        "region_id": region.region_id,
        "p_value": region.p_value,
        "peak_value": region.peak_value,
        "decision": record.decision.value,
    }
