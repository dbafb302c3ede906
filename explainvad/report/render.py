"""LotReport -> report.pdf, report.html, results.csv, report.json, and further exports where they are asked for.

All formats are made from the same record: PDF and HTML share their templates, and the PDF embeds the
JSON, the CSV and the ledger. The same report gives the same bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from explainvad.errors import RenderError, StorageError, UsageError
from explainvad.report.assets import read_ledger, template_environment
from explainvad.report.coco import regions_coco
from explainvad.report.context import Attachment, issued_at, lot_graphics, report_context
from explainvad.report.exports import report_json, results_csv
from explainvad.report.html_report import html_files
from explainvad.report.image_page import image_pages
from explainvad.report.parquet import results_parquet
from explainvad.report.pixel_maps import pixel_maps
from explainvad.report.signature_fields import field_states
from explainvad.types import LotReport

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
_MEDIA = {".jpg": "image/jpeg", ".svg": "image/svg+xml"}
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class ReportRenderer:
    """Writes a finished report. ``seconds_per_page`` bounds the time that the PDF process may take."""

    def __init__(self, seconds_per_page: float = 5.0) -> None:
        self.seconds_per_page = seconds_per_page

    def render(self, report: LotReport, out: Path, formats: Sequence[str] = DEFAULT_FORMATS) -> list[Path]:
        """Write ``formats`` (some of FILES) into the folder ``out``; return the files' paths in that order.

        A lot with many flagged images has further HTML pages, in a folder beside ``report.html``.

        Each file appears whole or not at all. Raises :class:`UsageError` for an unknown format,
        :class:`IntegrityError` when a picture of the record was altered, :class:`RenderError` when a format
        cannot be produced, :class:`StorageError` when ``out`` cannot be written.
        """
        unknown = [name for name in formats if name not in FILES]
        if unknown or not formats:
            raise UsageError(f"formats must be some of {', '.join(FILES)}, got {', '.join(unknown) or 'none'}")
        wanted = [name for name in FILES if name in formats]
        _refuse_signed(out, wanted)

        # Make everything before the first file is written: an altered picture must leave no half report.
        exports = {"csv": results_csv(report), "json": report_json(report)}
        rendered = {name: {FILES[name]: data} for name, data in exports.items()}
        if "parquet" in wanted:
            rendered["parquet"] = {FILES["parquet"]: results_parquet(report)}
        if "coco" in wanted:
            rendered["coco"] = {FILES["coco"]: regions_coco(report)}
        if "pdf" in wanted:
            rendered["pdf"] = {FILES["pdf"]: _Document(report, exports).pdf(self.seconds_per_page)}
        if "html" in wanted:
            rendered["html"] = html_files(report, _attachments(report, exports))
        maps = pixel_maps(report) if "maps" in wanted else iter(())  # too much to keep: made one by one
        try:
            out.mkdir(parents=True, exist_ok=True)
            files = [file for name in wanted if name != "maps" for file in rendered[name].items()]
            return [_write_whole(out, *file) for file in chain(files, ((f"{FILES['maps']}/{m}", d) for m, d in maps))]
        except OSError as error:
            raise StorageError(
                f"the report cannot be written to {out} ({error.strerror}): free space or name another folder"
            ) from error


def _refuse_signed(out: Path, wanted: Sequence[str]) -> None:
    """Raise UsageError when a signed PDF lies where one is to be written."""
    there = out / FILES["pdf"]
    if "pdf" in wanted and there.is_file() and any(field_states(there.read_bytes()).values()):
        raise UsageError(f"{there} is signed, and a signed report is never overwritten; render into another folder")


class _Document:
    """The pages of a report with their pictures, to be printed as PDF."""

    def __init__(self, report: LotReport, exports: Mapping[str, bytes]) -> None:
        self.environment = template_environment()
        self.issued = issued_at(report)
        self.attachments = _attachments(report, exports)
        self.pages, pictures = image_pages(report)
        self.assets = pictures | lot_graphics(self.environment, report)
        self.context = report_context(report, self.pages, self.attachments)

    def pdf(self, seconds_per_page: float) -> bytes:
        """Return the PDF, made by a process of its own. Raises :class:`RenderError` when that fails."""
        html = self._rendered()
        with tempfile.TemporaryDirectory(prefix="explainvad-") as scratch:
            folder = Path(scratch)
            try:
                self._write_job(folder, html)
            except OSError as error:
                raise StorageError(f"no room for the report's pictures in {folder} ({error.strerror})") from error
            _run_worker(folder, self.issued.timestamp(), 60 + seconds_per_page * (10 + len(self.pages)))
            return (folder / "report.pdf").read_bytes()

    def _rendered(self) -> str:
        sheets = ["style/base.css", "style/print.css"]
        return self.environment.get_template("report.html").render(
            self.context, asset=lambda name: f"asset:{name}", sheets=sheets
        )

    def _write_job(self, folder: Path, html: str) -> None:
        job: dict[str, Any] = {
            "issued": self.issued.isoformat(),
            "single_pages": [page.record.image_id for page in self.pages],
            "assets": {name: _MEDIA[Path(name).suffix] for name in self.assets},
            "attachments": [
                {"name": a.name, "description": a.description, "relationship": a.relationship} for a in self.attachments
            ],
        }
        (folder / "assets").mkdir()
        (folder / "attachments").mkdir()
        for name, data in self.assets.items():
            (folder / "assets" / name).write_bytes(data)
        for a in self.attachments:
            (folder / "attachments" / a.name).write_bytes(a.data)
        (folder / "report.html").write_text(html, "utf-8")
        (folder / "job.json").write_text(json.dumps(job), "utf-8")


def _attachments(report: LotReport, exports: Mapping[str, bytes]) -> list[Attachment]:
    """What a PDF carries, in the order of their names, as its name tree must be."""
    ledger = read_ledger(report.run_dir, report.provenance.n_ledger_lines)
    return [
        Attachment("ledger.jsonl", ledger, "Hash-chained record of the run", "Source"),
        Attachment("report.json", exports["json"], "This report for machines", "Data"),
        Attachment("results.csv", exports["csv"], "One row for each file of the lot", "Data"),
    ]


def _run_worker(folder: Path, issued: float, timeout: float) -> None:
    """Run the PDF process on a job folder, with every source of chance fixed."""
    search_path = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(search_path),
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": str(int(issued)),  # font subsets carry a date
        "TZ": "UTC",
    }
    command = [sys.executable, "-m", "explainvad.report.pdf_worker", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise RenderError(f"the PDF was not ready after {timeout:.0f} s; render html, csv and json instead") from error
    if done.returncode != 0:
        last = " | ".join(done.stderr.strip().splitlines()[-4:]) or "no message"
        raise RenderError(f"the PDF could not be rendered (exit code {done.returncode}): {last}")


def _write_whole(out: Path, name: str, data: bytes) -> Path:
    """Write beside the target, sync, and rename: a reader sees the old file or the new one.

    Raises :class:`StorageError` when the folder of a ``name`` with one is a link.
    """
    path = out / name
    if path.parent != out:
        if path.parent.is_symlink():
            raise StorageError(f"{path.parent} is a link, which could lead anywhere; expected a folder: remove it")
        path.parent.mkdir(exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=out, prefix=f".{path.name}-")
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
