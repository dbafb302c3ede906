"""The PDF of a report: parts of few pages, rendered by worker processes and merged into one file.

Nothing here grows with pictures: a worker makes those of its own part. Where a part turns out to have another number of
pages than was expected, the parts that print a number which this changes are rendered again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from explainvad.errors import RenderError
from explainvad.report.attachments import Attachment, printed
from explainvad.report.branding import Branding
from explainvad.report.context import authors_of, flagged_images, issued_at
from explainvad.report.pdf_merge import merge
from explainvad.report.pdf_parts import (
    COMMON,
    IMAGES_PER_PART,
    REPORT,
    Common,
    Numbering,
    Part,
    PartJob,
    RenderedPart,
    divided,
    numbered,
    without_findings,
    written,
)
from explainvad.report.pdf_pool import Job, Limits, WorkerPool
from explainvad.types import ImageRecord, LotReport

_ROUNDS = 4


class PdfRenderer:
    """Renders the PDF of one report. ``workers``: processes at a time, by default one for each of up to four cores."""

    def __init__(
        self,
        seconds_per_page: float = 5.0,
        workers: int | None = None,
        images_per_part: int = IMAGES_PER_PART,
        limits: Limits | None = None,
    ) -> None:
        self._seconds_per_page, self._images_per_part, self._limits = seconds_per_page, images_per_part, limits
        self._workers = workers or min(4, os.cpu_count() or 1)

    def render(
        self,
        report: LotReport,
        shown: Sequence[ImageRecord],
        files: Sequence[Attachment],
        branding: Branding,
        folder: Path,
    ) -> Path:
        """Write the PDF into the empty ``folder``: a page for each record of ``shown``, and ``files`` attached.

        Raises RenderError, IntegrityError where a picture of the record was altered, OSError where there is no room.
        """
        issued = issued_at(report)
        parts = divided(report, shown, self._images_per_part)
        common = Common(
            run_dir=report.run_dir.resolve(),
            shown=tuple(record.image_id for record in shown),
            flagged=flagged_images(report),
            listed=any(part.kind == "list" for part in parts),
            images_per_part=self._images_per_part if len(parts) > 1 else 0,
            authors=authors_of(report),
            attachments=tuple(printed(files)),
            branding=branding,
        )
        (folder / COMMON).write_bytes(written(common))
        (folder / REPORT).write_bytes(without_findings(report))
        with WorkerPool(folder, min(self._workers, len(parts)), issued.timestamp(), self._limits) as pool:
            rendered = self._rendered(parts, folder, pool)
        merge(rendered, files, issued, folder / "report.pdf")
        return folder / "report.pdf"

    def _rendered(self, parts: Sequence[Part], folder: Path, pool: WorkerPool) -> list[RenderedPart]:
        """Render all parts, and those again whose numbers were wrong."""
        known: dict[int, RenderedPart] = {}
        used: dict[int, Numbering] = {}  # of the parts that are rendered, not only laid out

        def ask(indices: Sequence[int], numberings: Sequence[Numbering], measure: bool) -> None:
            files = [folder / f"part-{i}.pdf" for i in indices]
            jobs = [PartJob(parts[i], i, numberings[i], measure, f) for i, f in zip(indices, files, strict=True)]
            answers = pool.run([self._job(job, folder) for job in jobs])
            known.update({i: RenderedPart.of(f, a) for i, f, a in zip(indices, files, answers, strict=True)})

        ask([i for i, part in enumerate(parts) if part.expected is None], numbered(parts, known), measure=True)
        for _ in range(_ROUNDS):
            numberings = numbered(parts, known)
            stale = [i for i, numbering in enumerate(numberings) if used.get(i) != numbering]
            if not stale:
                return [known[i] for i in range(len(parts))]
            ask(stale, numberings, measure=False)
            used.update({i: numberings[i] for i in stale})
        raise RenderError("the PDF could not be rendered: its page numbers change from one rendering to the next")

    def _job(self, job: PartJob, folder: Path) -> Job:
        file = folder / f"job-{job.index}.json"
        file.write_bytes(written(job))
        return Job(file, job.part.words, 60 + self._seconds_per_page * (10 + (job.part.expected or 0)))
