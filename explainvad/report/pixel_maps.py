"""maps_tiff/: the anomaly map of each flagged image as a 16-bit TIFF that says what its grey values mean."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import numpy as np
from PIL import Image

from explainvad.encoding import encoded
from explainvad.report.assets import read_artifact
from explainvad.report.figures import HeatScale
from explainvad.types import ImageRecord, LotReport

SCHEMA_ID = "urn:explainvad:map:1"
_IMAGE_DESCRIPTION, _PREDICTOR = 270, 317  # TIFF tags
_HORIZONTAL_DIFFERENCES = 2
_LARGEST = 65535


def pixel_maps(report: LotReport) -> Iterator[tuple[str, bytes]]:
    """Yield a file name and a TIFF for each flagged image: its fused map, (height, width) in the image's own frame.

    The grey values are those of the PNG that the record keeps in ``maps/``, unchanged. The tag ImageDescription holds
    JSON: the map is ``dn * scale + offset``, and a value of 65535 stands for that and more; ``pixel_threshold`` and
    ``cluster_threshold`` are on the map's scale. All maps are compared with the record before the first is yielded:
    raises :class:`IntegrityError` when one was altered.
    """
    flagged = [record for record in report.records if record.flagged]
    for record in flagged:
        _stored_map(report, record)
    return ((f"{record.image_id}.tiff", _tiff(report, record)) for record in flagged)


def _stored_map(report: LotReport, record: ImageRecord) -> bytes:
    return read_artifact(report.run_dir, record, f"maps/{record.image_id}.png")


def _tiff(report: LotReport, record: ImageRecord) -> bytes:
    with Image.open(io.BytesIO(_stored_map(report, record)), formats=["PNG"]) as stored:
        values = np.asarray(stored, dtype=np.uint16)
    tags = {_IMAGE_DESCRIPTION: _description(report, record), _PREDICTOR: _HORIZONTAL_DIFFERENCES}
    return encoded(Image.fromarray(values), "TIFF", compression="tiff_adobe_deflate", tiffinfo=tags)


def _description(report: LotReport, record: ImageRecord) -> str:
    """JSON in ASCII, all that the tag can hold."""
    assert record.verdict is not None
    heat = HeatScale.of(report.model.calibration.of(record.verdict.cell))
    return json.dumps(
        {
            "schema": SCHEMA_ID,
            "quantity": "fused anomaly map",
            "scale": heat.top / _LARGEST,
            "offset": 0.0,
            "pixel_threshold": heat.pixel,
            "cluster_threshold": heat.cluster,
            "image_id": record.image_id,
            "file": record.file,
            "image_sha256": record.sha256,
            "model_id": report.model.model_id,
            "report_id": report.provenance.report_id,
        }
    )
