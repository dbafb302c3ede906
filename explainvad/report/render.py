"""LotReport -> report.pdf, report.html, results.csv, report.json, and further exports where they are asked for.

All formats are made from the same record: PDF and HTML share their templates, and the PDF embeds the JSON, the CSV, the
ledger and the masks. The same report gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from explainvad.errors import RenderError, StorageError, UsageError
from explainvad.report.assets import templates_folder
from explainvad.report.attachments import attachments, printed
from explainvad.report.branding import Branding, load_branding
from explainvad.report.coco import regions_coco
from explainvad.report.exports import report_json, results_csv
from explainvad.report.html_report import html_files
from explainvad.report.image_page import shown_records
from explainvad.report.parquet import results_parquet
from explainvad.report.pixel_maps import pixel_maps
from explainvad.report.scratch import scratch_folder
from explainvad.report.signature_fields import field_states
from explainvad.types import ImageRecord, LotReport, Pages
from explainvad.whole_files import pieces_of, sync_folder, write_whole

if TYPE_CHECKING:
    from explainvad.report.pdf_report import PdfRenderer

FILES: Mapping[str, str] = {
    "pdf": "report.pdf",
    "html": "report.html",
    "csv": "results.csv",
    "json": "report.json",
    "parquet": "results.parquet",
    "coco": "regions.coco.json",
    "maps": "maps_tiff",  # a folder
}
DEFAULT_FORMATS = ("pdf", "html", "csv", "json")
_SCRATCH = ".partial"  # one for all files, so that the next rendering writes over what a killed one left


class ReportRenderer:
    """Writes a finished report. ``pdf`` renders the PDF; by default as :class:`PdfRenderer` does."""

    def __init__(self, pdf: PdfRenderer | None = None) -> None:
        self._pdf = pdf

    def render(
        self,
        report: LotReport,
        out: Path,
        formats: Sequence[str] = DEFAULT_FORMATS,
        *,
        pages: Pages | None = None,
        templates: Path | None = None,
    ) -> list[Path]:
        """Write ``formats`` (some of FILES) into the folder ``out``; return the files' paths in that order.

        ``pages`` says which images get one: "flagged", or "all" that were judged; as the run was configured when not
        given. Where there are many, HTML has further pages in a folder beside ``report.html``. ``templates`` is a
        folder with a theme and templates in place of ours. Each file appears whole or not at all; where the PDF cannot
        be rendered, the others are written before its error is raised.

        Raises :class:`UsageError` for an unknown format, a fault in ``templates`` or a signed PDF in the way,
        :class:`IntegrityError` when a picture of the record was altered, :class:`RenderError` when a format cannot be
        produced, :class:`StorageError` when ``out`` cannot be written.
        """
        unknown = [name for name in formats if name not in FILES]
        if unknown or not formats:
            raise UsageError(f"formats must be some of {', '.join(FILES)}, got {', '.join(unknown) or 'none'}")
        wanted = [name for name in FILES if name in formats]
        _refuse_signed(out, wanted)
        branding = load_branding(templates, templates_folder())
        shown = shown_records(report, pages or configured_pages(report))

        with ExitStack() as temporary:
            return self._written(report, out, wanted, shown, branding, temporary)

    def _written(
        self,
        report: LotReport,
        out: Path,
        wanted: Sequence[str],
        shown: Sequence[ImageRecord],
        branding: Branding,
        temporary: ExitStack,
    ) -> list[Path]:
        """Make and write the formats; ``temporary`` holds what is needed until they are written."""
        # Make everything before the first file is written: an altered picture must leave no half report.
        exports = {"csv": results_csv(report), "json": report_json(report)}
        rendered: dict[str, Mapping[str, bytes | Iterable[bytes]]]
        rendered = {name: {FILES[name]: data} for name, data in exports.items()}
        failure: RenderError | None = None
        if "parquet" in wanted:
            rendered["parquet"] = {FILES["parquet"]: results_parquet(report)}
        if "coco" in wanted:
            rendered["coco"] = {FILES["coco"]: regions_coco(report)}
        if "pdf" in wanted or "html" in wanted:
            attached = attachments(report, exports, shown)
            if "html" in wanted:
                rendered["html"] = html_files(report, shown, printed(attached), branding)
            if "pdf" in wanted:
                from explainvad.report.pdf_report import PdfRenderer

                try:
                    folder = temporary.enter_context(scratch_folder())
                    pdf = (self._pdf or PdfRenderer()).render(report, shown, attached, branding, folder)
                    rendered["pdf"] = {FILES["pdf"]: pieces_of(pdf)}
                except RenderError as error:
                    failure = error
        maps = pixel_maps(report) if "maps" in wanted else iter(())  # too much to keep: made one by one
        try:
            out.mkdir(parents=True, exist_ok=True)
            files = [file for name in wanted if name in rendered for file in rendered[name].items()]
            further = ((f"{FILES['maps']}/{name}", data) for name, data in maps)
            paths = [_write_whole(out, *file) for file in chain(files, further)]
            for folder in {out, *(path.parent for path in paths)}:
                sync_folder(folder)
        except OSError as error:
            raise StorageError(
                f"the report cannot be written to {out} ({error.strerror}): free space or name another folder"
            ) from error
        if failure is not None:
            failure.written = tuple(paths)
            raise failure
        return paths


def configured_pages(report: LotReport) -> Pages:
    """Which images get a page by the configuration that the run was recorded with."""
    return "all" if report.provenance.config.get("pages") == "all" else "flagged"


def _refuse_signed(out: Path, wanted: Sequence[str]) -> None:
    """Raise UsageError when a signed PDF lies where one is to be written."""
    there = out / FILES["pdf"]
    if "pdf" in wanted and there.is_file() and any(field_states(there).values()):
        raise UsageError(f"{there} is signed, and a signed report is never overwritten; render into another folder")


def _write_whole(out: Path, name: str, data: bytes | Iterable[bytes]) -> Path:
    """Write the file whole, or leave what is there as it is.

    Raises :class:`StorageError` when the folder of a ``name`` with one is a link.
    """
    path = out / name
    if path.parent != out:
        if path.parent.is_symlink():
            raise StorageError(f"{path.parent} is a link, which could lead anywhere; expected a folder: remove it")
        path.parent.mkdir(exist_ok=True)
    write_whole(path, data, out / _SCRATCH)
    return path
