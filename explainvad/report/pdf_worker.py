"""The process that runs WeasyPrint: ``python -m explainvad.report.pdf_worker FOLDER BYTES``.

It is a process of its own because importing WeasyPrint sets PIL's LOAD_TRUNCATED_IMAGES for the whole process, and a
scorer must refuse half a JPEG. FOLDER holds what all parts share; job files are named on standard input, one a line,
and each is answered with a line of JSON on standard output. BYTES caps the memory of the process.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import resource
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import psutil
from pydantic import TypeAdapter

from explainvad.errors import IntegrityError, RenderError
from explainvad.report.assets import MEDIA, template_environment
from explainvad.report.branding import template_faults
from explainvad.report.context import lot_graphics, report_context, scale_graphics
from explainvad.report.image_page import ImagePage, image_page
from explainvad.report.pdf_engine import Engine
from explainvad.report.pdf_parts import COMMON, REPORT, ROWS_PER_PAGE, WHOLE, Common, PartJob
from explainvad.report.pdf_tags import FOREIGN, finish
from explainvad.report.schema import report_of
from explainvad.report.scratch import no_room
from explainvad.types import LotReport

_POINTS = 0.75  # in a CSS pixel
_AFTER_IMAGES = "model-card"  # name of the section that follows them
_SMALLEST = "{ max-height: 28mm !important }"


class _Complaints(logging.Handler):
    """Collects errors: WeasyPrint only logs a missing picture or alternative text, and goes on."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class PartRenderer:
    """Renders parts of one report, one after the other."""

    def __init__(self, common: Common, report: LotReport) -> None:
        self._common, self._report = common, report
        ids = set(common.shown)
        shown = [record for record in report.records if record.image_id in ids]
        self._context = report_context(report, shown, common.attachments, common.branding)
        # These were decided before the findings were left out, and with the division into parts
        self._context |= {"flagged": common.flagged, "listed": common.listed, "authors": common.authors}
        self._context["images_per_part"] = common.images_per_part
        self._environment = template_environment(common.branding)
        self._engine = Engine()
        self._complaints = _Complaints()
        logging.getLogger("weasyprint").addHandler(self._complaints)

    def render(self, job: PartJob) -> dict[str, Any]:
        """Write the part's file and say what is in it; see :class:`explainvad.report.pdf_merge.RenderedPart`.

        Raises RenderError, and IntegrityError where a picture of the record was altered.
        """
        with template_faults():
            html, assets = self._html(job)
        html, foreign = _with_foreign_links(html, job)
        return self.write(html, assets, {record.image_id for record in job.part.records}, job) | {"links": foreign}

    def _html(self, job: PartJob) -> tuple[str, dict[str, bytes]]:
        """Return the part's page source, and the pictures that it shows."""
        common, report, part = self._common, self._report, job.part
        assets: dict[str, bytes] = dict([common.branding.logo]) if common.branding.logo else {}
        pages: list[ImagePage] = []
        if part.kind in ("images", WHOLE):
            calibration = report.model.calibration
            assets |= scale_graphics(self._environment, calibration)
            for number, record in enumerate(part.records, part.start + 1):
                page, pictures = image_page(report.run_dir, record, number, len(common.shown), calibration)
                pages.append(page)
                assets |= pictures
        if part.kind in ("front", "back", WHOLE):
            assets |= lot_graphics(self._environment, report)
        rows = common.flagged[part.start : part.start + part.rows]
        html = self._environment.get_template("print.html").render(
            self._context,
            part=part.kind,
            numbering=job.numbering,
            pages=pages,
            lists=[rows[i : i + ROWS_PER_PAGE] for i in range(0, len(rows), ROWS_PER_PAGE)],
            first_list=part.start == 0,
            asset=lambda name: f"asset:{name}",
        )
        return html, assets

    def write(
        self, html: str, assets: Mapping[str, bytes], single_pages: Collection[str], job: PartJob
    ) -> dict[str, Any]:
        """Lay out and write one page source. ``single_pages`` are ids of headings that should have a page each."""
        import weasyprint
        from weasyprint.urls import FatalURLFetchingError, URLFetcher, URLFetcherResponse

        class AssetFetcher(URLFetcher):  # type: ignore[misc]
            """Knows ``asset:NAME`` for the part's own pictures, and nothing else: no file, no network."""

            def fetch(self, url: str, headers: object = None) -> Any:
                name = url.removeprefix("asset:")
                if not url.startswith("asset:") or name not in assets:
                    raise ValueError(f"{url} is no asset of this report")
                return URLFetcherResponse(url, assets[name], {"Content-Type": MEDIA[Path(name).suffix]})

        self._complaints.lines.clear()
        fetcher = AssetFetcher(allowed_protocols={"asset"}, fail_on_errors=True)
        options = {"pdf_variant": "pdf/a-3a", "pdf_identifier": False, "uncompressed_pdf": True}
        source = self._engine.source(html, fetcher)
        try:
            document = source.render(**options)
        except FatalURLFetchingError as error:
            raise RenderError(f"{job.part.words} could not be rendered: {error}: {error.__cause__}") from error
        overlong = _overlong(document, single_pages)
        if overlong:
            # A font that is wider than expected, or a text that wraps more often: make room and lay out again.
            smaller = ",".join(f"#{name} ~ .pictures figure > img" for name in overlong)
            sheet = weasyprint.CSS(string=f"{smaller} {_SMALLEST}", url_fetcher=fetcher)
            document = source.render(stylesheets=[sheet], **options)
        if not job.measure:
            document.write_pdf(job.target, finisher=lambda _document, pdf: finish(pdf, job.index), **options)
        if self._complaints.lines:
            raise RenderError(f"{job.part.words} could not be rendered: {' | '.join(self._complaints.lines[:4])}")
        return _contents(document)


def _with_foreign_links(html: str, job: PartJob) -> tuple[str, list[str]]:
    """Make links to other parts such that WeasyPrint leaves them alone, and give them the number of their page.

    Values of the report cannot look like a link: their quotes are escaped.
    """
    own = set(re.findall(r'\bid="([^"]+)"', html))
    foreign: set[str] = set()

    def link(match: re.Match[str]) -> str:
        name = match[1]
        if name in own:
            return match[0]
        foreign.add(name)
        page = job.numbering.pages.get(name, 1000 if job.measure else None)
        return f'href="{FOREIGN}{name}"' + ("" if page is None else f' data-page="{page}"')

    return re.sub(r'\bhref="#([^"]+)"', link, html), sorted(foreign)


def _overlong(document: Any, single_pages: Collection[str]) -> list[str]:
    """The names of ``single_pages`` that are followed by a page without one of them."""
    latest, overlong = "", []
    for page in document.pages:
        here = [name for name in page.anchors if name in single_pages]
        if _AFTER_IMAGES in page.anchors:
            break
        if not here and latest and latest not in overlong:
            overlong.append(latest)
        latest = here[-1] if here else latest
    return overlong


def _contents(document: Any) -> dict[str, Any]:
    """Where the names and bookmarks of a document are, in PDF points."""
    anchors: dict[str, tuple[int, float, float]] = {}
    bookmarks: list[tuple[int, str, tuple[int, float, float]]] = []
    for number, page in enumerate(document.pages):
        for name, (x, y, *_) in page.anchors.items():
            anchors.setdefault(name, (number, x * _POINTS, (page.height - y) * _POINTS))
        for level, title, (x, y), _state in page.bookmarks:
            bookmarks.append((level, title, (number, x * _POINTS, (page.height - y) * _POINTS)))
    return {"pages": len(document.pages), "anchors": anchors, "bookmarks": bookmarks}


def main(folder: Path, data_bytes: int) -> None:
    """Answer the jobs that standard input names."""
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))
    answers = sys.stdout
    sys.stdout = sys.stderr  # what anything prints is no answer
    gc.disable()  # collecting the many small boxes of a part in use costs a fifth of the time
    common = TypeAdapter(Common).validate_json((folder / COMMON).read_bytes())
    renderer = PartRenderer(common, report_of((folder / REPORT).read_bytes(), common.run_dir))
    job_type = TypeAdapter(PartJob)
    for line in _jobs():
        try:
            answer = renderer.render(job_type.validate_json(Path(line.rstrip("\n")).read_bytes()))
        except IntegrityError as error:
            answer = {"failure": "integrity", "message": str(error)}
        except RenderError as error:
            answer = {"failure": "render", "message": str(error)}
        except OSError as error:
            if error.errno is None:  # no fault of the file system, but an error of a library that calls itself one
                raise
            answer = {"failure": "storage", "message": str(no_room(folder, error))}
        except MemoryError:
            answer = {"failure": "memory"}
        gc.collect()
        answers.write(json.dumps(answer | {"resident_bytes": _resident_bytes()}) + "\n")
        answers.flush()


def _jobs() -> Iterator[str]:
    """The lines of standard input. Its end is the end of the process, of a job too: nobody waits for the answer."""
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def _resident_bytes() -> int:
    """Memory that this process holds. Not the largest so far of getrusage, which takes in that of the parent."""
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
