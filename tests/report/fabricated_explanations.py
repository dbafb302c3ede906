"""Explanations that no scorer gave: a ramp and a signed blob for chosen images of a fabricated lot."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from fabricated_pictures import HEIGHT, WIDTH

from explainvad.kept_maps import kept_explanation
from explainvad.types import (
    AttributionMap,
    Explanation,
    LotReport,
    NearestNormal,
    NotGiven,
    PhraseRelevance,
    WordRelevance,
)

BANK, OTHER = "memory bank", "masked autoencoder"
PLACE = (0.5, 0.25, 0.52, 0.27)


def with_explanations(report: LotReport, *image_ids: str, file: str = "part <7>.png") -> LotReport:
    """The report with two maps, three nearest normal patches, a phrase and a lack for each of ``image_ids``."""
    records = []
    for record in report.records:
        if record.image_id in image_ids:
            explanation, files = kept_explanation(record, ("evidence", "gradients"), lambda at: _explanation(file))
            for name, data in files.items():
                (report.run_dir / name).parent.mkdir(exist_ok=True)
                (report.run_dir / name).write_bytes(data)
            hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
            record = replace(record, explanation=explanation, artifacts={**record.artifacts, **hashes})
        records.append(record)
    config = {**report.provenance.config, "attribution": {"maps": ["evidence", "gradients"]}}
    return replace(report, records=tuple(records), provenance=replace(report.provenance, config=config))


def _explanation(file: str) -> Explanation:
    ramp = np.tile(np.linspace(0, 3, WIDTH, dtype=np.float32), (HEIGHT, 1))
    signed = np.zeros((HEIGHT, WIDTH), np.float32)
    signed[100:200, 100:200], signed[300:400, 300:400] = 2.0, -1.0
    facts = {"convergence_delta": 0.0125}
    return Explanation(
        image_id="",
        file="",
        maps=(
            AttributionMap("distance", BANK, "distance before smoothing", "its score", "8 x 8 cells", ramp),
            AttributionMap("occlusion", BANK, "a square <moved>", "its score", "8 x 8 cells", signed, True, facts),
        ),
        nearest=(
            NearestNormal(OTHER, (0, 0, 8, 8), 9.0, file, "", 1, (0, 0), None),
            NearestNormal(BANK, (0, 0, 8, 8), 0.75, file, "", 2, (1, 1), PLACE),
            NearestNormal(BANK, (248, 128, 280, 140), 0.5, file, "", 3, (4, 4), PLACE),
        ),
        phrases=(PhraseRelevance(BANK, "a torn seal", True, 0.31, 0.12, (WordRelevance("torn", 0.2),)),),
        not_given=(NotGiven("grad-cam", OTHER, "it has no convolution"),),
        baseline="the nearest reference picture",
    )
