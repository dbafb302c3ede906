"""A finished lot: its statistics, the model that judged it, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from explainvad.errors import NotFittedError
from explainvad.types.records import ImageRecord
from explainvad.types.statistics import AuditResult, DetectionPower, LotStatistics

Pages = Literal["flagged", "all"]  # images with a page in the report
JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


@dataclass(frozen=True, slots=True, eq=False)
class LotInfo:
    """What ``lot.toml`` says of the lot; everything is optional and printed on the cover."""

    lot_id: str
    part: str | None = None
    serials: str | None = None
    drawing: str | None = None
    revision: str | None = None  # of the drawing
    customer: str | None = None
    issuer: str | None = None  # who answers for the report
    site: str | None = None
    operator: str | None = None
    operator_role: str | None = None
    reviewer: str | None = None
    reviewer_role: str | None = None
    procedure: str | None = None
    acceptance_criteria: str | None = None
    sampling_plan: str | None = None
    deviations: str | None = None  # from the procedure
    camera: str | None = None
    optics: str | None = None
    lighting: str | None = None
    camera_calibration: str | None = None  # its number and date
    mm_per_pixel: float | None = None
    report_revision: str | None = None
    supersedes: str | None = None  # the report that this one replaces


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
    conditional_alpha: float | None  # 95 % calibration-conditional bound on P(reject | normal), where there is one
    scores: tuple[float, ...]  # of CAL, ascending
    score_threshold: float  # p <= alpha strictly above it
    pixel_threshold: float  # P(any pixel above | normal) <= alpha
    cluster_threshold: float  # where regions are cut out; fixed before CAL
    gamma: float  # level of each deferral rule (epistemic, acquisition)
    n_def: int = 0  # labelled defects; without them nothing is ever accepted
    beta: float | None = None
    scheme: str = "split"  # or "leave-one-out": few reference images, each judged by all the others
    cell: str = ""  # of Mondrian calibration; these facts hold for its images
    cells: tuple[CalibrationFacts, ...] = ()  # one for each cell, where there are several
    n_detected: int = 0  # labelled defects with p <= alpha
    n_synthetic: int = 0  # synthetic defects that the probabilities were calibrated on
    power: DetectionPower | None = None

    def of(self, cell: str) -> CalibrationFacts:
        """The facts that hold for images of ``cell``."""
        return next((facts for facts in self.cells if facts.cell == cell), self)


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
    outlines: str | None = None  # who draws those of regions, with weights and their hash; None: the threshold


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
    audit: AuditResult | None = None  # what a person found in a random sample, once that is recorded

    def render(
        self,
        out: str | Path | None = None,
        formats: Sequence[str] = ("pdf", "html", "csv", "json"),
        *,
        pages: Pages | None = None,
        templates: str | Path | None = None,
    ) -> list[Path]:
        """Write the report files and return their paths. ``out`` defaults to the run's own folder.

        ``pages`` says which images get a page, by default those that the run was configured for; ``templates`` is a
        folder with a theme and templates of one's own.

        Raises :class:`explainvad.errors.RenderError` when a format cannot be produced.
        """
        if self.renderer is None:
            raise NotFittedError("this report has no renderer: read it with Inspector.analyze or explainvad render")
        folder = Path(out) if out is not None else self.run_dir
        own = None if templates is None else Path(templates)
        return self.renderer.render(self, folder, formats, pages=pages, templates=own)


class Renderer(Protocol):
    """Turns a finished report into files."""

    def render(
        self,
        report: LotReport,
        out: Path,
        formats: Sequence[str],
        *,
        pages: Pages | None = None,
        templates: Path | None = None,
    ) -> list[Path]:
        """Write ``formats`` (of pdf, html, csv, json, parquet, coco, maps) below ``out`` and return their paths."""
        ...
