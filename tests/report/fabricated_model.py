"""The parts of a fabricated report that no image changes: lot, model, provenance."""

from __future__ import annotations

import numpy as np

from explainvad.types import CalibrationFacts, LotInfo, ModelCard, Provenance, ScorerCard

PIXEL_THRESHOLD, CLUSTER_THRESHOLD = 4.2, 2.9

LOT = LotInfo(
    lot_id="2026-0342",
    part="Bearing flange, anodised",
    drawing="BF-2210",
    revision="C",
    serials="BF-26-0401 to BF-26-0430",
    customer="Nordlicht Pumps",
    issuer="Flansch & Söhne, Quality, Werkstr. 1",
    site="Plant 2, line 4",
    operator="M. Okafor",
    operator_role="line inspector",
    reviewer="J. Lindqvist",
    reviewer_role="quality engineer",
    procedure="QP-7.3 rev. 5",
    acceptance_criteria="WI-118, section 4: no mark longer than 2 mm",
    sampling_plan="every part",
    deviations="station 3 stood still from 10:05 to 10:20",
    camera="12 MP area scan",
    optics="35 mm, f/8",
    lighting="dome, white",
    camera_calibration="CAL-0712, 2026-05-04",
    mm_per_pixel=0.125,
    report_revision="2",
    supersedes="EV-1111-2222-3333",
)

AUTOENCODER = ScorerCard(
    name="masked autoencoder",
    family="reconstruction",
    summary="Rebuilds hidden patches from the visible ones; what it cannot rebuild is anomalous. "
    "Scores only hidden patches, over complementary masks.",
    source="He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022",
    weights="trained on the reference images",
    facts={"parameters": "1.9 million", "patch": "8 px", "masks": "4 complementary"},
)

MEMORY_BANK = ScorerCard(
    name="memory bank",
    family="memory bank",
    summary="Distance of each patch to the nearest of a coreset of normal patches.",
    source="Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022",
    weights="encoder of the masked autoencoder",
    facts={"bank rows": "4,000 of 61,440", "neighbours": "1"},
)

CALIBRATION = CalibrationFacts(
    n_fit=150,
    n_norm=40,
    n_cal=95,
    n_groups=285,
    grouping="every image its own group",
    alpha=0.05,
    smallest_p=1 / 96,
    conditional_alpha=0.0812,
    scores=tuple(float(s) for s in np.sort(np.random.default_rng(5).exponential(0.42, 95) + 0.05)),
    score_threshold=1.42,
    pixel_threshold=PIXEL_THRESHOLD,
    cluster_threshold=CLUSTER_THRESHOLD,
    gamma=0.0105,
)

MODEL = ModelCard(
    model_id="9d41c07be2a85f36" * 4,
    profile="embedded",
    intended_use="Finds deviations of one part from its reference images, under the camera and lighting of "
    "those images. It supports a person who decides; it does not release parts.",
    scorers=(AUTOENCODER, MEMORY_BANK),
    calibration=CALIBRATION,
    image_sizes="640 x 480 px",
    seed=7,
    fitted_at="2026-03-09T14:02:11Z",
    fit_seconds=171.3,
    versions={"explainvad": "0.1.0", "numpy": "2.4.1", "torch": "2.11.0"},
    limits=(
        "Defects smaller than one patch (8 px) can be missed.",
        "Parts rotated by more than 10 degrees were not among the reference images.",
    ),
    fallbacks=("CLIP scorer: not used, no weights",),
)

PROVENANCE = Provenance(
    report_id="EV-7F3A-91C2-04BD",
    started_at="2026-03-14T09:26:53Z",
    finished_at="2026-03-14T09:27:41Z",
    software="explainvad 0.1.0",
    versions={"numpy": "2.4.1", "pillow": "13.0.0", "python": "3.11.9", "scipy": "1.17.0", "torch": "2.11.0"},
    platform="Linux x86_64, CPU, 2 threads",
    config={
        "alpha": 0.05,
        "gamma": 0.01,
        "profile": "embedded",
        "regions": {"minimum_area_px": 12, "refine": None},
        "scorers": ["masked autoencoder", "memory bank"],
        "resume": True,
    },
    head_hash="c0ffee5eed" * 6 + "beef",
    n_ledger_lines=30,
    fallbacks=("Describer “vlm”: not used, no weights; the measured text stands instead",),
    resumed=1,
)
