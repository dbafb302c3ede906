"""What is kept of one file of a lot: verdict, regions, facts, checked sentences. Free of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from explainvad.types.attributions import KeptExplanation
from explainvad.types.images import XYXY, Mask, require
from explainvad.types.statistics import Interval


class Decision(StrEnum):
    """What is said about one file of a lot."""

    REJECT = "REJECT"  # p <= alpha: as rare among normal parts as alpha says
    DEFER = "DEFER"  # a person must look
    ACCEPT = "ACCEPT"  # only where labelled defects bound the misses
    NOT_FLAGGED = "NOT_FLAGGED"  # no evidence against the part; never called accepted
    NOT_INSPECTED = "NOT_INSPECTED"  # the file could not be inspected; its reason is named

    @property
    def passed(self) -> bool:
        """Whether the image goes on without a person looking at it."""
        return self in (Decision.ACCEPT, Decision.NOT_FLAGGED)


class ClaimStatus(StrEnum):
    """Result of checking a statement against the measured facts."""

    SUPPORTED = "supported"
    PARTLY = "partly"
    CONTRADICTED = "contradicted"
    UNVERIFIABLE = "unverifiable"


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilityBound:
    """Bounds on P(defect | image), with the assumption that earns them.

    Without labelled defects only ``upper`` is known. ``synthetic``: calibrated on synthetic defects, which says nothing
    of real ones.
    """

    upper: float
    prior: float
    method: str
    lower: float | None = None
    synthetic: bool = False


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
    ``epistemic`` and ``aleatoric`` are in bits; ``epistemic`` is the sum of its parts within and between families
    of scorers, and ``epistemic_limit`` is that of the part within, beyond which an image is deferred.
    ``p_interval`` says how far few calibration images leave the tail probability of the score open; it covers that
    with 95 % confidence after calibration by a split, and somewhat less often after leave-one-out.
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
    epistemic_within: float = 0.0
    epistemic_between: float = 0.0
    p_interval: Interval | None = None  # Clopper-Pearson, 95 %
    cell: str = ""  # of Mondrian calibration; empty where there is only one

    @property
    def gates_passed(self) -> bool:
        """Whether the picture was taken like the reference pictures, so that ``p_value`` may be used."""
        return all(gate.passed for gate in self.gates)

    def __post_init__(self) -> None:
        require(self.decision is not Decision.NOT_INSPECTED, "a verdict needs an inspected image")
        require(0 < self.p_value <= 1, f"p_value must lie in (0, 1], got {self.p_value}")


@dataclass(frozen=True, slots=True, eq=False)
class Refinement:
    """What came of asking a segmentation model for a region's outline.

    ``agreement`` in [0, 1] says how well its best mask accounts for the evidence (attribution.sam_choice);
    below ``limit`` the mask was dropped and the outline is the threshold's.
    """

    model: str  # "SAM vit_b"
    agreement: float
    limit: float
    dropped: str = ""  # why the mask was dropped: "SAM disagreed (0.21 < 0.50)"; empty where it is the outline

    def __post_init__(self) -> None:
        require(0 <= self.agreement <= 1, f"agreement must lie in [0, 1], got {self.agreement}")

    @property
    def words(self) -> str:
        """Whose outline it is, and why, in words."""
        if self.dropped:
            return f"threshold outline kept: {self.dropped}"
        return f"outline by {self.model}, agreement {self.agreement:.2f}"


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One anomalous region. ``xyxy`` is in px, half-open; ``peak_xy`` the pixel of largest evidence.

    The region is a cluster of pixels above the cluster threshold. ``peak_xy``, ``peak_value``, ``mass`` (the sum over
    the cluster of fused map - cluster threshold), ``p_value`` (which compares the mass with the largest one of every
    calibration image) and ``evidence_share`` (adds up to 1 over the scorers) are always those of the cluster.
    ``mask``, ``xyxy``, ``area_px`` and ``area_mm2`` are those of the outline: the cluster's own where ``refined_by`` is
    "threshold", SAM's where it is "sam". ``refinement`` is None where no outline was asked for.
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
    refinement: Refinement | None = None

    @property
    def outline(self) -> str:
        """Whose outline it is, in words."""
        return f"outline by {self.refined_by}" if self.refinement is None else self.refinement.words


@dataclass(frozen=True, slots=True, eq=False)
class RegionFacts:
    """Measured facts of one region; lengths in px, and in mm where the scale is known."""

    place: str  # "upper left", in the part's frame; one of explanation.facts.PLACES
    cells: tuple[str, ...]  # every cell of the 3 x 3 grid that holds >= 20 % of the region
    frame: str  # "part" or "image": what the grid was laid over
    image_place: str  # the same two with the grid laid over the image, whatever ``frame`` is
    image_cells: tuple[str, ...]
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
    baseline: str  # "surrounding ring", or "reference image" where it was laid over the image
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
class WordProbability:
    """How probable a word of a fixed vocabulary was to the local model that chose it, given all that it wrote before.

    Products over the word's ``n_tokens``, closing quote included, at temperature 1: ``raw`` under the model's own
    distribution, ``masked`` under that over the tokens that the grammar allowed. ``removed`` is the share of its own
    probability that the grammar took from the model on the way: raw = masked * (1 - removed).
    """

    word: str
    raw: float
    masked: float
    removed: float
    n_tokens: int

    def __post_init__(self) -> None:
        for name in ("raw", "masked", "removed"):
            require(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """A region, its facts, and the words about it.

    ``word_probabilities`` are those of the words that a local model chose, by field; empty where none did.
    """

    region: Region
    facts: RegionFacts
    sentences: tuple[Sentence, ...]
    word_probabilities: Mapping[str, WordProbability] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """The similarity that takes the centre of an image's pixel (x, y, 1) to that of a reference, px.

    The reference is thought of as brought to the image's size.
    """

    matrix: tuple[tuple[float, float, float], tuple[float, float, float]]
    agreement: float  # correlation of the lengths of both gradients outside the regions, in [-1, 1]

    def coefficients(
        self, frame: tuple[int, int], shown: tuple[int, int], reference: tuple[int, int]
    ) -> tuple[float, float, float, float, float, float]:
        """For Pillow's affine transform, which counts from the corners of pixels.

        From a picture of the image to one of the reference, of sizes ``shown`` and ``reference``; all are
        (width, height), px, that of the image itself is ``frame``.
        """
        (a, b, x), (c, d, y) = self.matrix
        x, y = x + 0.5 - (a + b) / 2, y + 0.5 - (c + d) / 2
        right, down = frame[0] / shown[0], frame[1] / shown[1]
        wide, high = reference[0] / frame[0], reference[1] / frame[1]
        return wide * a * right, wide * b * down, wide * x, high * c * right, high * d * down, high * y

    def moved(self, xyxy: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Where a box lies on the reference: about its moved centre, neither turned nor scaled."""
        (a, b, dx), (c, d, dy) = self.matrix
        x, y = (xyxy[0] + xyxy[2] - 1) / 2, (xyxy[1] + xyxy[3] - 1) / 2
        right, down = a * x + b * y + dx - x, c * x + d * y + dy - y
        return xyxy[0] + right, xyxy[1] + down, xyxy[2] + right, xyxy[3] + down


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceMatch:
    """The nearest nominal image of the bundle, shown beside the finding."""

    reference_id: str
    sha256: str
    distance: float  # trimmed root mean square difference of standardised thumbnails, >= 0
    alignment: Alignment | None = None  # None where it does not register, or was not asked for


@dataclass(frozen=True, slots=True, eq=False)
class ImageRecord:
    """All that is kept of one file of the lot: the body of one ledger line.

    ``artifacts`` maps paths below the run folder to the sha256 of their bytes. ``failure`` says why a
    file was not inspected; then ``verdict`` is None. ``explanation`` is None where none was asked for.
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
    explanation: KeptExplanation | None = None

    def __post_init__(self) -> None:
        require(
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
