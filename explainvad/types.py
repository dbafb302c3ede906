"""Values that travel through the flow, and the protocols of its stages. Needs numpy only.

Arrays live in the original image's frame (row 0 at the top, x to the right, y down). A larger score is
always more anomalous. Everything below :class:`ImageScore` is free of arrays, so that it can be written
to the ledger as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from explainvad.errors import NotFittedError

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
XYXY = tuple[int, int, int, int]
Progress = Callable[[str, int, int], None]  # what is done, how many, of how many


class Decision(StrEnum):
    """What is said about one file of a lot."""

    REJECT = "REJECT"  # p <= alpha: as rare among normal parts as alpha says
    DEFER = "DEFER"  # a person must look
    ACCEPT = "ACCEPT"  # only where labelled defects bound the misses
    NOT_FLAGGED = "NOT_FLAGGED"  # no evidence against the part; never called accepted
    NOT_INSPECTED = "NOT_INSPECTED"  # the file could not be inspected; its reason is named


class ClaimStatus(StrEnum):
    """Result of checking a statement against the measured facts."""

    SUPPORTED = "supported"
    PARTLY = "partly"
    CONTRADICTED = "contradicted"
    UNVERIFIABLE = "unverifiable"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True, eq=False)
class InspectionImage:
    """One decoded image. ``pixels`` is uint8 RGB with shape (H, W, 3), EXIF orientation applied."""

    image_id: str
    file: str  # path below the lot, escaped for display
    pixels: NDArray[np.uint8]
    sha256: str  # of the file's bytes
    size_bytes: int
    source: Path
    mm_per_pixel: float | None = None
    notes: tuple[str, ...] = ()  # what decoding did: "16-bit, shown as value / 257", "first of 3 frames"

    def __post_init__(self) -> None:
        p = self.pixels
        _require(
            p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 and p.size > 0,
            f"pixels must be uint8 with shape (H, W, 3), got {p.dtype} {p.shape}",
        )

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class ImageScore:
    """What one scorer says of one image.

    ``value`` is in the scorer's own unit, >= -inf. ``anomaly_map`` is float32 (H, W) in the image's frame.
    ``evidence`` names further arrays that attribution may use (each with its frame in the scorer's docs).
    """

    scorer: str
    value: float
    anomaly_map: NDArray[np.float32]
    evidence: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        m = self.anomaly_map
        _require(
            m.dtype == np.float32 and m.ndim == 2,
            f"anomaly_map of {self.scorer} must be float32 with shape (H, W), got {m.dtype} {m.shape}",
        )
        _require(
            bool(np.isfinite(self.value)) and bool(np.isfinite(m).all()),
            f"the score and map of {self.scorer} must be finite",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A binary mask as run lengths, row by row, starting with a run of zeros (which may be empty)."""

    height: int
    width: int
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        _require(
            sum(self.counts) == self.height * self.width,
            f"run lengths must add up to {self.height} x {self.width}, got {sum(self.counts)}",
        )

    @classmethod
    def from_array(cls, mask: NDArray[np.bool_]) -> Mask:
        """Encode a bool array of shape (H, W)."""
        _require(
            mask.dtype == np.bool_ and mask.ndim == 2,
            f"mask must be bool with shape (H, W), got {mask.dtype} {mask.shape}",
        )
        flat = np.concatenate(([False], mask.ravel()))
        edges = np.flatnonzero(flat[1:] != flat[:-1])
        counts = np.diff(np.concatenate(([0], edges, [mask.size])))
        return cls(mask.shape[0], mask.shape[1], tuple(int(c) for c in counts))

    def to_array(self) -> NDArray[np.bool_]:
        """Decode to a bool array of shape (H, W)."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.height, self.width)

    @property
    def area(self) -> int:
        """Number of set pixels."""
        return sum(self.counts[1::2])


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilityBound:
    """An upper bound on P(defect | image), with the assumption that earns it."""

    upper: float
    prior: float
    method: str


@dataclass(frozen=True, slots=True, eq=False)
class GateResult:
    """One acquisition check: passed when ``lower <= value <= upper`` (limits from reference images)."""

    name: str
    value: float
    lower: float
    upper: float
    passed: bool
    meaning: str  # "sharpness (log variance of the Laplacian)"


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """The decision on one image and every number behind it.

    ``score`` is the fused score, in decades of surprise (-log10 of the fused tail rank), continuous.
    ``p_value`` is conformal: P(p_value <= alpha | normal) <= alpha for images exchangeable with CAL.
    ``epistemic`` and ``aleatoric`` are in bits.
    """

    decision: Decision
    score: float
    p_value: float
    alpha: float
    probability: ProbabilityBound
    aleatoric: float
    epistemic: float
    epistemic_limit: float
    scorer_p_values: Mapping[str, float]
    gates: tuple[GateResult, ...]
    reasons: tuple[str, ...]
    defect_p_value: float | None = None  # rank among labelled defects; None without them
    beta: float | None = None  # P(ACCEPT | defect like the labelled ones) <= beta

    def __post_init__(self) -> None:
        _require(self.decision is not Decision.NOT_INSPECTED, "a verdict needs an inspected image")
        _require(0 < self.p_value <= 1, f"p_value must lie in (0, 1], got {self.p_value}")


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One anomalous region. ``xyxy`` is in px, half-open; ``peak_xy`` the pixel of largest evidence.

    ``mass`` is the sum over the mask of (fused map - cluster threshold); ``p_value`` compares
    it with the largest mass of every calibration image. ``evidence_share`` adds up to 1 over the scorers.
    """

    region_id: str  # "R1" is the heaviest
    mask: Mask
    xyxy: XYXY
    peak_xy: tuple[int, int]
    peak_value: float
    mass: float
    area_px: int
    area_mm2: float | None
    p_value: float
    refined_by: str  # "threshold", or "sam"
    evidence_share: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class RegionFacts:
    """Measured facts of one region; lengths in px, and in mm where the scale is known."""

    place: str  # "upper left", in the part's frame; one of explanation.facts.PLACES
    cells: tuple[str, ...]  # every cell of the 3 x 3 grid that holds >= 20 % of the region
    frame: str  # "part" or "image": what the grid was laid over
    clock: int | None  # 1..12, None within the central zone
    radial_zone: str  # "centre", "middle" or "rim"
    touches_edge: bool  # of the image
    area_px: int
    area_mm2: float | None
    area_share: float  # of the part, else of the image, in [0, 1]
    length_px: float  # largest Feret diameter
    width_px: float  # smallest Feret diameter
    length_mm: float | None
    width_mm: float | None
    elongation: float  # length / width, >= 1
    solidity: float  # area / convex area, in (0, 1]
    holes: int
    shape: str  # "compact", "elongated", "irregular", ...
    orientation_deg: float | None  # from the x axis, counter-clockwise, [0, 180); only when elongation >= 1.8
    delta_l: float  # CIELAB, region minus baseline
    delta_a: float
    delta_b: float
    delta_e: float  # CIEDE2000
    noise_delta_e: float  # the same between two normal samples: below it, colour says nothing
    baseline: str  # "surrounding ring" or "reference image"
    brightness: str  # "darker", "brighter" or "not measurably different in brightness"
    colour: str | None  # "redder", "bluer", ... None below the noise floor


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """One checkable statement inside a sentence, and what measurement says of it."""

    kind: str  # "place", "size", "shape", "brightness", "colour", "count", ...
    stated: str
    measured: str
    status: ClaimStatus


@dataclass(frozen=True, slots=True, eq=False)
class Sentence:
    """One sentence of a description, with its author and the outcome of its check."""

    text: str
    author: str  # "measured text, no language model", or a model id
    status: ClaimStatus
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """A region, its facts, and the words about it."""

    region: Region
    facts: RegionFacts
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceMatch:
    """The nearest nominal image of the bundle, shown beside the finding."""

    reference_id: str
    sha256: str
    distance: float  # trimmed root mean square difference of standardised thumbnails, >= 0


@dataclass(frozen=True, slots=True, eq=False)
class ImageRecord:
    """All that is kept of one file of the lot: the body of one ledger line.

    ``artifacts`` maps paths below the run folder to the sha256 of their bytes. ``failure`` says why a
    file was not inspected; then ``verdict`` is None.
    """

    image_id: str  # "img-00001", by position in the lot's stable order
    file: str
    sha256: str | None
    size_bytes: int | None
    width: int | None
    height: int | None
    notes: tuple[str, ...]
    verdict: Verdict | None
    scores: Mapping[str, float]
    findings: tuple[Finding, ...]
    reference: ReferenceMatch | None
    artifacts: Mapping[str, str]
    failure: str | None

    def __post_init__(self) -> None:
        _require(
            (self.verdict is None) == (self.failure is not None),
            f"{self.image_id}: exactly one of verdict and failure must be given",
        )

    @property
    def decision(self) -> Decision:
        """The verdict's decision, or NOT_INSPECTED."""
        return Decision.NOT_INSPECTED if self.verdict is None else self.verdict.decision

    @property
    def flagged(self) -> bool:
        """Whether the image gets a page of its own: rejected or deferred."""
        return self.decision in (Decision.REJECT, Decision.DEFER)


@dataclass(frozen=True, slots=True, eq=False)
class LotInfo:
    """What ``lot.toml`` says of the lot; everything is optional and printed on the cover."""

    lot_id: str
    part: str | None = None
    drawing: str | None = None
    revision: str | None = None
    customer: str | None = None
    site: str | None = None
    operator: str | None = None
    procedure: str | None = None
    camera: str | None = None
    mm_per_pixel: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """An estimate with its confidence interval: Clopper-Pearson for rates, bootstrap for metrics."""

    estimate: float
    lower: float
    upper: float
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class LotStatistics:
    """Counts that reconcile, and what may be said of the lot as a whole."""

    n_files: int
    n_inspected: int
    counts: Mapping[str, int]  # by Decision value, zeros included; adds up to n_files
    reject_rate: Interval | None  # of the inspected; None when nothing was inspected
    defer_rate: Interval | None
    expected_false_rejects: float  # at most, if every inspected part were normal: alpha * n_inspected
    fdr_level: float
    fdr_rejected: tuple[str, ...]  # image ids on the Benjamini-Hochberg list at fdr_level


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationFacts:
    """What calibration found and what it can promise. Scores are fused scores, map values fused-map units."""

    n_fit: int
    n_norm: int
    n_cal: int
    n_groups: int
    grouping: str  # "every image its own group", or the rule that was given
    alpha: float
    smallest_p: float  # 1 / (n_cal + 1)
    conditional_alpha: float  # 95 % calibration-conditional bound on P(reject | normal)
    scores: tuple[float, ...]  # of CAL, ascending
    score_threshold: float  # p <= alpha strictly above it
    pixel_threshold: float  # P(any pixel above | normal) <= alpha
    cluster_threshold: float  # where regions are cut out; fixed before CAL
    gamma: float  # level of each deferral rule (epistemic, acquisition)
    n_def: int = 0  # labelled defects; without them nothing is ever accepted
    beta: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ScorerCard:
    """One member of the ensemble, as the report names it."""

    name: str
    family: str  # "reconstruction", "memory bank", ...
    summary: str
    source: str  # the paper
    weights: str  # "trained on the reference images", or hub id, hash and licence
    facts: Mapping[str, str]  # "bank rows": "4,000 of 61,440"


@dataclass(frozen=True, slots=True, eq=False)
class ModelCard:
    """Who made the verdicts."""

    model_id: str  # sha256 of the bundle's manifest
    profile: str
    intended_use: str
    scorers: tuple[ScorerCard, ...]
    calibration: CalibrationFacts
    image_sizes: str  # "400 x 300 px", or a range
    seed: int
    fitted_at: str  # ISO 8601, UTC
    fit_seconds: float | None
    versions: Mapping[str, str]
    limits: tuple[str, ...]  # what this model cannot do, in sentences
    fallbacks: tuple[str, ...]  # "CLIP scorer: not used, no weights"


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Where the numbers of a report come from."""

    report_id: str  # derived from the ledger's results head
    started_at: str  # ISO 8601, UTC
    finished_at: str
    software: str  # "explainvad 0.1.0"
    versions: Mapping[str, str]
    platform: str
    config: Mapping[str, JSON]
    head_hash: str  # sha256 of the ledger's last results line, printed in the PDF
    n_ledger_lines: int
    fallbacks: tuple[str, ...]
    resumed: int  # how often the run was taken up again


@dataclass(frozen=True, slots=True, eq=False)
class LotReport:
    """The finished inspection of one lot."""

    lot: LotInfo
    records: tuple[ImageRecord, ...]
    statistics: LotStatistics
    model: ModelCard
    provenance: Provenance
    run_dir: Path
    renderer: Renderer | None = None  # injected by the pipeline, so that these values know no stage

    def render(
        self, out: str | Path | None = None, formats: Sequence[str] = ("pdf", "html", "csv", "json")
    ) -> list[Path]:
        """Write the report files and return their paths. ``out`` defaults to the run's own folder.

        Raises :class:`explainvad.errors.RenderError` when a format cannot be produced.
        """
        if self.renderer is None:
            raise NotFittedError("this report has no renderer: read it with Inspector.analyze or explainvad render")
        return self.renderer.render(self, Path(out) if out is not None else self.run_dir, formats)


class Renderer(Protocol):
    """Turns a finished report into files."""

    def render(self, report: LotReport, out: Path, formats: Sequence[str]) -> list[Path]:
        """Write ``formats`` (of pdf, html, csv, json) below ``out`` and return their paths."""
        ...


class Scorer(Protocol):
    """One member of the ensemble. ``fit`` before ``score``, or NotFittedError."""

    name: str

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Learn what is normal."""

    def score(self, images: Sequence[InspectionImage]) -> list[ImageScore]:
        """Score images one by one: a score never depends on its neighbours in ``images``."""
        ...

    def card(self) -> ScorerCard:
        """Describe the fitted scorer for the report."""
        ...


class Attributor(Protocol):
    """Turns evidence into regions."""

    def regions(
        self, image: InspectionImage, fused_map: NDArray[np.float32], scores: Sequence[ImageScore]
    ) -> tuple[Region, ...]:
        """Cut regions out of a fused map (float32 (H, W)), heaviest first."""
        ...


class Describer(Protocol):
    """Writes sentences about a region. Every sentence is verified afterwards, whoever wrote it."""

    author: str

    def describe(self, image: InspectionImage, region: Region, facts: RegionFacts) -> tuple[str, ...]:
        """Return sentences, plain text, in reading order."""
        ...
