"""What the PDF embeds: the record, the report for machines, and the masks of the images that have a page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from explainvad.report.assets import read_artifact, read_ledger
from explainvad.types import ImageRecord, LotReport

HASHES = "attachments.sha256"
_PRINTED_MASKS = 12


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file embedded in the PDF."""

    name: str
    data: bytes
    description: str
    relationship: str  # of PDF/A-3: "Data", "Source" or "Supplement"

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    @property
    def sha256(self) -> str:
        """Hash of the attached bytes, as printed in the appendix."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Printed:
    """A line of the appendix: one attachment, or many whose hashes stand in :data:`HASHES`."""

    name: str
    description: str
    size: int
    sha256: str


def attachments(report: LotReport, exports: Mapping[str, bytes], shown: Sequence[ImageRecord]) -> list[Attachment]:
    """Return the attachments in the order of their names, as a PDF name tree must be.

    ``exports`` are the bytes of report.json ("json") and results.csv ("csv"); masks come of the images ``shown``.
    Raises :class:`explainvad.errors.IntegrityError` when the record lacks one of them or it was altered.
    """
    files = [
        Attachment("ledger.jsonl", read_ledger(report.run_dir, report.provenance.n_ledger_lines),
                   "Hash-chained record of the run", "Source"),
        Attachment("report.json", exports["json"], "This report for machines", "Data"),
        Attachment("results.csv", exports["csv"], "One row for each file of the lot", "Data"),
    ]  # fmt: skip
    masks = [(record, name) for record in shown for name in sorted(record.artifacts) if name.startswith("masks/")]
    for record, name in masks:
        data = read_artifact(report.run_dir, record, name)
        files.append(Attachment(name, data, f"Regions of {record.image_id}: 0 none, 1 R1, 2 R2", "Supplement"))
    if len(masks) > _PRINTED_MASKS:
        table = "".join(f"{file.sha256}  {file.name}\n" for file in files if file.name.startswith("masks/"))
        files.append(Attachment(HASHES, table.encode(), "sha256 of each mask, for sha256sum --check", "Data"))
    return sorted(files, key=lambda file: file.name.encode())


def printed(files: Sequence[Attachment]) -> list[Printed]:
    """Return the lines of the appendix: every file, but many masks as one line."""
    masks = [file for file in files if file.name.startswith("masks/")]
    folded = masks if len(masks) > _PRINTED_MASKS else []
    lines = [Printed(f.name, f.description, f.size, f.sha256) for f in files if f not in folded]
    if folded:
        words = f"Regions of {len(folded):,} images, one mask each"
        lines.append(Printed("masks/*.png", words, sum(f.size for f in folded), f"of each file: {HASHES}"))
    return lines
