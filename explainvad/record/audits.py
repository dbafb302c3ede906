"""Audits of a finished run: random samples of what passed, drawn for a person to look at, and what was found.

A draw is answered before the next one is made, so that no sample can be looked at and dropped. ``audit/`` in the
run folder holds, for draw N, the sheet ``sample-N.csv``, which the auditor fills in, and ``results-N.csv``, the
copy of the table that was taken in. Only the copy's hash is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from explainvad.types import AuditResult

AUDIT_FOLDER = "audit"
_OWN_FILE = re.compile(r"(sample|results)-[0-9]+\.csv")


@dataclass(frozen=True, slots=True, eq=False)
class AuditDraw:
    """A sample of the images that passed, in the lot's order; ``draw`` counts the samples of a run from 1."""

    draw: int
    confidence: float
    limit: float  # share of defective images that the audit is to exclude
    population: int  # images that passed
    sample: tuple[str, ...]  # image ids

    def __post_init__(self) -> None:
        for name, value in (("confidence", self.confidence), ("limit", self.limit)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {value}")


@dataclass(slots=True)
class AuditTrail:
    """The draws and results of a run so far; ``files`` holds the copies taken in, path -> sha256."""

    draws: list[AuditDraw] = field(default_factory=list)
    results: list[AuditResult] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def open_draw(self) -> AuditDraw | None:
        """The draw that has no results yet."""
        return self.draws[-1] if len(self.draws) > len(self.results) else None

    @property
    def names(self) -> set[str]:
        """The files that the draws and results account for."""
        return {*self.files, *(sample_file(draw.draw) for draw in self.draws)}

    def check_draw(self, draw: AuditDraw, passed: Sequence[str]) -> None:
        """Raise ValueError unless ``draw`` is the next one, of the image ids that ``passed`` (in the lot's order)."""
        if self.open_draw is not None:
            raise ValueError(f"draw {self.open_draw.draw} has no results yet")
        for name, expected in (("draw", len(self.draws) + 1), ("population", len(passed))):
            if (got := getattr(draw, name)) != expected:
                raise ValueError(f"{name} must be {expected}, got {got}")
        if not draw.sample or not _is_part(draw.sample, passed):
            raise ValueError("the sample must hold images that passed, each once and in the lot's order")

    def check_result(self, result: AuditResult) -> None:
        """Raise ValueError unless ``result`` answers the open draw and its numbers are possible."""
        draw = self.open_draw
        if draw is None:
            raise ValueError("no draw waits for results")
        answered = (result.n_draws, result.n_population, result.sample, result.confidence, result.limit)
        if answered != (draw.draw, draw.population, draw.sample, draw.confidence, draw.limit):
            raise ValueError(f"the results are not those of draw {draw.draw}")
        if not _is_part(result.defective, draw.sample):
            raise ValueError("defective must hold images of the sample, each once and in its order")
        n_defective = len(result.defective)
        most = draw.population - len(draw.sample) + n_defective
        if not n_defective <= result.upper_count <= most:
            raise ValueError(f"upper_count must lie in [{n_defective}, {most}], got {result.upper_count}")
        if not result.auditor.strip():
            raise ValueError("the auditor must have a name")


def sample_file(draw: int) -> str:
    """Return where the sheet of a draw lies, below the run folder."""
    return f"{AUDIT_FOLDER}/sample-{draw}.csv"


def results_file(draw: int) -> str:
    """Return where the table taken in for a draw lies, below the run folder."""
    return f"{AUDIT_FOLDER}/results-{draw}.csv"


def audit_entries(root: Path) -> Iterator[str]:
    """Yield the sheets and tables below ``root`` as relative paths, and not what an auditor keeps beside them."""
    folder = root / AUDIT_FOLDER
    if folder.is_symlink():
        yield AUDIT_FOLDER
    elif folder.is_dir():
        names = sorted(path.name for path in folder.iterdir())
        yield from (f"{AUDIT_FOLDER}/{name}" for name in names if _OWN_FILE.fullmatch(name))


def _is_part(some: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether ``some`` holds members of ``whole``, each once and in its order."""
    chosen = set(some)
    return list(some) == [member for member in whole if member in chosen]
