"""Values that travel through the flow, and the protocols of its stages. Needs numpy only.

Arrays live in the original image's frame (row 0 at the top, x to the right, y down). A larger score is
always more anomalous. What is recorded is free of arrays, so that it can be written to the
ledger as it is.
"""

from explainvad.types.images import (
    ImageScore,
    InspectionImage,
    Mask,
)
from explainvad.types.protocols import (
    Attributor,
    Describer,
    Progress,
    Scorer,
)
from explainvad.types.records import (
    XYXY,
    Claim,
    ClaimStatus,
    Decision,
    Finding,
    GateResult,
    ImageRecord,
    ProbabilityBound,
    ReferenceMatch,
    Refinement,
    Region,
    RegionFacts,
    Sentence,
    Verdict,
)
from explainvad.types.reports import (
    JSON,
    CalibrationFacts,
    LotInfo,
    LotReport,
    ModelCard,
    Pages,
    Provenance,
    Renderer,
    ScorerCard,
)
from explainvad.types.statistics import (
    AuditResult,
    ChartPoint,
    ControlChart,
    DetectionPower,
    Drift,
    DriftStream,
    Interval,
    LotStatistics,
)

__all__ = [
    "JSON",
    "XYXY",
    "Attributor",
    "AuditResult",
    "CalibrationFacts",
    "ChartPoint",
    "Claim",
    "ClaimStatus",
    "ControlChart",
    "Decision",
    "Describer",
    "DetectionPower",
    "Drift",
    "DriftStream",
    "Finding",
    "GateResult",
    "ImageRecord",
    "ImageScore",
    "InspectionImage",
    "Interval",
    "LotInfo",
    "LotReport",
    "LotStatistics",
    "Mask",
    "ModelCard",
    "Pages",
    "ProbabilityBound",
    "Progress",
    "Provenance",
    "ReferenceMatch",
    "Refinement",
    "Region",
    "RegionFacts",
    "Renderer",
    "Scorer",
    "ScorerCard",
    "Sentence",
    "Verdict",
]
