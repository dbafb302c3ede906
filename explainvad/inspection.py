"""What is made of one image: its record and, where it is flagged, findings in words and the pictures to keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainvad.attribution.references import ReferenceGallery
from explainvad.encoding import encoded, sixteen_bit_png
from explainvad.explanation.alignment import align
from explainvad.explanation.describers.model import ModelDescriber
from explainvad.explanation.findings import measured_finding
from explainvad.explanation.part import part_mask
from explainvad.lot import LotFile
from explainvad.types import (
    Alignment,
    Finding,
    ImageRecord,
    ImageScore,
    InspectionImage,
    ReferenceMatch,
    Region,
    Verdict,
)
from explainvad.uncertainty.acquisition import acquisition_features
from explainvad.uncertainty.decomposition import Decomposition

EVIDENCE_SIDE = 1600  # px, longest side of a kept picture
EVIDENCE_QUALITY = 92  # of its JPEG


def acquired(
    image: InspectionImage, gallery: ReferenceGallery, reference: ReferenceMatch | None = None
) -> dict[str, float]:
    """How the picture was taken: what the acquisition gates look at. ``reference``: the nearest, where it is known."""
    reference = reference or gallery.nearest(image)[0]
    return acquisition_features(image, reference.distance, gallery.displacement(image))


def inspected(
    image: InspectionImage, scores: Sequence[ImageScore], verdict: Verdict, reference: ReferenceMatch
) -> ImageRecord:
    """The record of an image that was judged, without findings yet."""
    return ImageRecord(
        image_id=image.image_id,
        file=image.file,
        sha256=image.sha256,
        size_bytes=image.size_bytes,
        width=image.width,
        height=image.height,
        notes=image.notes,
        verdict=verdict,
        scores={s.scorer: s.value for s in scores},
        findings=(),
        reference=reference,
        artifacts={},
        failure=None,
    )


def not_inspected(file: LotFile, reason: str, image: InspectionImage | None = None) -> ImageRecord:
    """The record of a file that was not judged; ``image`` where it could at least be read."""
    return ImageRecord(
        image_id=file.image_id,
        file=file.file,
        sha256=image.sha256 if image else None,
        size_bytes=image.size_bytes if image else None,
        width=image.width if image else None,
        height=image.height if image else None,
        notes=image.notes if image else (),
        verdict=None,
        scores={},
        findings=(),
        reference=None,
        artifacts={},
        failure=reason,
    )


def describe(
    image: InspectionImage,
    regions: Sequence[Region],
    model: ModelDescriber | None = None,
    reference: bytes = b"",
) -> tuple[tuple[Finding, ...], Alignment | None]:
    """Measure each region, say it in words, and check every sentence against the measurements.

    The picture of the nearest ``reference`` (JPEG bytes) is what colours are compared with where it can be laid over
    the image, as the alignment says. ``model`` adds sentences of its own; it is shown the reference too.
    """
    part = part_mask(image) if regions else None
    anomalous = np.zeros((image.height, image.width), dtype=np.bool_)
    for region in regions:
        anomalous |= region.mask.to_array()
    aligned = align(image, reference, anomalous, part) if regions and reference else None
    findings = tuple(measured_finding(image, region, part, anomalous, aligned) for region in regions)
    alignment = None if aligned is None else aligned.alignment
    if model is not None and findings:
        findings = model.describe(image, findings, reference, alignment)
    return findings, alignment


def artifacts(
    image: InspectionImage,
    fused_map: NDArray[np.float32],
    doubt: Decomposition,
    regions: Sequence[Region],
    reference: bytes,
    map_maximum: float,
) -> dict[str, bytes]:
    """Files to keep of a flagged image, path below the run folder -> bytes.

    ``maps/`` holds the fused map as 16-bit grey PNG, 65535 standing for ``map_maximum`` and more, and the parts of the
    ``doubt`` on a coarser grid, 65535 standing for 1 bit; ``masks/`` the region numbers (0: none), ``evidence/`` the
    picture as inspected and its nearest ``reference`` (JPEG bytes).
    """
    labels = np.zeros(fused_map.shape, dtype=np.uint8)
    for number, region in reversed(list(enumerate(regions, start=1))):
        labels[region.mask.to_array()] = number
    picture = Image.fromarray(image.pixels)
    picture.thumbnail((EVIDENCE_SIDE, EVIDENCE_SIDE), Image.Resampling.LANCZOS)
    return {
        f"evidence/{image.image_id}.jpg": encoded(picture, "JPEG", quality=EVIDENCE_QUALITY),
        f"evidence/{image.image_id}-reference.jpg": reference,
        f"maps/{image.image_id}.png": sixteen_bit_png(fused_map / map_maximum),
        f"maps/{image.image_id}-aleatoric.png": sixteen_bit_png(doubt.aleatoric),
        f"maps/{image.image_id}-within.png": sixteen_bit_png(doubt.within),
        f"maps/{image.image_id}-between.png": sixteen_bit_png(doubt.between),
        f"masks/{image.image_id}.png": encoded(Image.fromarray(labels), "PNG"),
    }
