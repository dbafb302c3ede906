"""Between record and report: a finished run as a LotReport whose rendered files are entered in its own record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from explainvad.errors import RenderError
from explainvad.record.finished import read_report
from explainvad.record.run import Run
from explainvad.report.render import FILES, ReportRenderer
from explainvad.types import LotReport, Pages


class RecordedRenderer:
    """Renders a report and, where the files go into the run's own folder, notes their hashes in its ledger."""

    def render(
        self,
        report: LotReport,
        out: Path,
        formats: Sequence[str],
        *,
        pages: Pages | None = None,
        templates: Path | None = None,
    ) -> list[Path]:
        """Write ``formats`` below ``out``; see :meth:`ReportRenderer.render`.

        Raises UsageError, before anything is rendered, when a file of the run that would be overwritten is signed.
        """
        if out.resolve() != report.run_dir.resolve():
            return ReportRenderer().render(report, out, formats, pages=pages, templates=templates)
        with Run.reopen(report.run_dir) as run:
            run.refuse_overwriting([FILES[name] for name in formats if name in FILES])
            try:
                paths = ReportRenderer().render(report, out, formats, pages=pages, templates=templates)
            except RenderError as error:
                run.note_rendered(error.written)
                raise
            run.note_rendered(paths)
        return paths


def load_report(run_dir: str | Path) -> LotReport:
    """Read a finished run. Raises UsageError, IntegrityError or StorageError as :func:`read_report` does."""
    return read_report(run_dir, RecordedRenderer())
