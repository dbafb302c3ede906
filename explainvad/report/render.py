"""LotReport -> report.pdf, report.html, results.csv, report.json.

All formats are made from the same record: PDF and HTML through the same templates, and the PDF embeds the
JSON, the CSV, the ledger and the masks. The same report gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from explainvad.errors import RenderError, StorageError, UsageError
from explainvad.report.assets import template_environment, templates_folder
from explainvad.report.attachments import Attachment, attachments, printed
from explainvad.report.branding import Branding, load_branding, template_faults
from explainvad.report.context import lot_graphics, report_context, scale_graphics
from explainvad.report.exports import report_json, results_csv
from explainvad.report.image_page import image_page, shown_records
from explainvad.types import ImageRecord, LotReport, Pages

if TYPE_CHECKING:
    from explainvad.report.pdf_report import PdfRenderer

FILES: Mapping[str, str] = {
    "pdf": "report.pdf",
    "html": "report.html",
    "csv": "results.csv",
    "json": "report.json",
}
_MEDIA = {".jpg": "image/jpeg", ".png": "image/png", ".svg": "image/svg+xml"}


class ReportRenderer:
    """Writes a finished report. ``pdf`` renders the PDF; by default as :class:`PdfRenderer` does."""

    def __init__(self, pdf: PdfRenderer | None = None) -> None:
        self._pdf = pdf

    def render(
        self,
        report: LotReport,
        out: Path,
        formats: Sequence[str] = tuple(FILES),
        *,
        pages: Pages | None = None,
        templates: Path | None = None,
    ) -> list[Path]:
        """Write ``formats`` (of pdf, html, csv, json) into the folder ``out``; return the paths in that order.

        ``pages`` says which images get one: "flagged", or "all" that were judged; as the run was configured when not
        given. ``templates`` is a folder with a theme and templates in place of ours. Each file appears whole or not
        at all; where the PDF cannot be rendered, the others are written before its error is raised.

        Raises :class:`UsageError` for an unknown format or a fault in ``templates``, :class:`IntegrityError` when a
        picture of the record was altered, :class:`RenderError` when a format cannot be produced,
        :class:`StorageError` when ``out`` cannot be written.
        """
        unknown = [name for name in formats if name not in FILES]
        if unknown or not formats:
            raise UsageError(f"formats must be some of {', '.join(FILES)}, got {', '.join(unknown) or 'none'}")
        wanted = [name for name in FILES if name in formats]
        branding = load_branding(templates, templates_folder())
        shown = shown_records(report, pages or configured_pages(report))

        # Make everything before the first file is written: an altered picture must leave no half report.
        rendered = {"csv": results_csv(report), "json": report_json(report)}
        failure: RenderError | None = None
        if "pdf" in wanted or "html" in wanted:
            files = attachments(report, rendered, shown)
            if "html" in wanted:
                rendered["html"] = _Document(report, shown, files, branding).html().encode()
            if "pdf" in wanted:
                from explainvad.report.pdf_report import PdfRenderer

                try:
                    rendered["pdf"] = (self._pdf or PdfRenderer()).render(report, shown, files, branding)
                except RenderError as error:
                    failure = error
        try:
            out.mkdir(parents=True, exist_ok=True)
            paths = [_write_whole(out / FILES[name], rendered[name]) for name in wanted if name in rendered]
        except OSError as error:
            raise StorageError(
                f"the report cannot be written to {out} ({error.strerror}): free space or name another folder"
            ) from error
        if failure is not None:
            raise failure
        return paths


def configured_pages(report: LotReport) -> Pages:
    """Which images get a page by the configuration that the run was recorded with."""
    return "all" if report.provenance.config.get("pages") == "all" else "flagged"


class _Document:
    """The pages of a report with their pictures, to be printed as HTML."""

    def __init__(
        self, report: LotReport, shown: Sequence[ImageRecord], files: Sequence[Attachment], branding: Branding
    ) -> None:
        self.environment = template_environment(branding)
        calibration = report.model.calibration
        self.assets = lot_graphics(self.environment, report) | scale_graphics(self.environment, calibration)
        self.assets |= dict([branding.logo]) if branding.logo else {}
        pages = []
        for number, record in enumerate(shown, 1):
            page, pictures = image_page(report.run_dir, record, number, len(shown), calibration)
            pages.append(page)
            self.assets |= pictures
        self.context = report_context(report, shown, printed(files), branding) | {"pages": pages}

    def html(self) -> str:
        """Return one self-contained page: pictures inside, nothing fetched, nothing run."""
        with template_faults():
            return self._rendered("screen", self._data_uri)

    def _data_uri(self, name: str) -> str:
        return f"data:{_MEDIA[Path(name).suffix]};base64,{base64.b64encode(self.assets[name]).decode()}"

    def _rendered(self, medium: str, asset: Callable[[str], str]) -> str:
        sheets = ["style/base.css", f"style/{medium}.css"]
        style = "".join(self.environment.get_template(sheet).render() for sheet in sheets)
        # The content security policy names the style sheet by its hash: no other style, and no script, can act.
        style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        return self.environment.get_template("report.html").render(
            self.context, medium=medium, asset=asset, sheets=sheets, style_hash=style_hash
        )


def _write_whole(path: Path, data: bytes) -> Path:
    """Write beside the target, sync, and rename: a reader sees the old file or the new one."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    return path
