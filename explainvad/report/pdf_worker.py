"""The process that runs WeasyPrint: ``python -m explainvad.report.pdf_worker FOLDER``.

It is a process of its own because importing WeasyPrint sets PIL's LOAD_TRUNCATED_IMAGES for the whole
process, and a scorer must refuse half a JPEG. FOLDER holds ``report.html``, ``job.json``, ``assets/`` and
``attachments/``; the worker adds ``report.pdf``. Any problem ends it with exit code 1 and a line on stderr.
"""

from __future__ import annotations

import gc
import io
import json
import logging
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pikepdf

from explainvad.report.signature_fields import add_signature_fields

_UA_IDENTITY = b"""<rdf:Description rdf:about="" xmlns:pdfuaid="http://www.aiim.org/pdfua/ns/id/">\
<pdfuaid:part>1</pdfuaid:part></rdf:Description>
<rdf:Description rdf:about="" xmlns:pdfaExtension="http://www.aiim.org/pdfa/ns/extension/" \
xmlns:pdfaSchema="http://www.aiim.org/pdfa/ns/schema#" xmlns:pdfaProperty="http://www.aiim.org/pdfa/ns/property#">\
<pdfaExtension:schemas><rdf:Bag><rdf:li rdf:parseType="Resource">\
<pdfaSchema:schema>PDF/UA Universal Accessibility Schema</pdfaSchema:schema>\
<pdfaSchema:namespaceURI>http://www.aiim.org/pdfua/ns/id/</pdfaSchema:namespaceURI>\
<pdfaSchema:prefix>pdfuaid</pdfaSchema:prefix><pdfaSchema:property><rdf:Seq><rdf:li rdf:parseType="Resource">\
<pdfaProperty:name>part</pdfaProperty:name><pdfaProperty:valueType>Integer</pdfaProperty:valueType>\
<pdfaProperty:category>internal</pdfaProperty:category>\
<pdfaProperty:description>PDF/UA part</pdfaProperty:description></rdf:li></rdf:Seq></pdfaSchema:property>\
</rdf:li></rdf:Bag></pdfaExtension:schemas></rdf:Description></rdf:RDF>"""


class _Complaints(logging.Handler):
    """Collects errors: WeasyPrint only logs a missing picture or alternative text, and goes on."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main(folder: Path) -> int:
    """Render the job in ``folder``; return the exit code."""
    gc.disable()  # one short-lived document: collecting its many small boxes costs a fifth of the time
    _list_pages_once()
    import weasyprint
    from weasyprint.urls import URLFetcher, URLFetcherResponse

    class AssetFetcher(URLFetcher):  # type: ignore[misc]
        """Knows ``asset:NAME`` for the job's own files, and nothing else: no file, no network."""

        def fetch(self, url: str, headers: object = None) -> Any:
            name = url.removeprefix("asset:")
            if not url.startswith("asset:") or name not in assets:
                raise ValueError(f"{url} is no asset of this report")
            return URLFetcherResponse(url, (folder / "assets" / name).read_bytes(), {"Content-Type": assets[name]})

    job = json.loads((folder / "job.json").read_text("utf-8"))
    assets: dict[str, str] = job["assets"]
    complaints = _Complaints()
    logger = logging.getLogger("weasyprint")
    logger.addHandler(complaints)

    fetcher = AssetFetcher(allowed_protocols={"asset"}, fail_on_errors=True)
    issued = datetime.fromisoformat(job["issued"])
    attachments = [
        weasyprint.Attachment(
            file_obj=io.BytesIO((folder / "attachments" / a["name"]).read_bytes()),
            name=a["name"],
            description=a["description"],
            relationship=a["relationship"],
            created=issued,
            modified=issued,
            url_fetcher=fetcher,
        )
        for a in job["attachments"]
    ]
    html = weasyprint.HTML(string=(folder / "report.html").read_text("utf-8"), url_fetcher=fetcher)
    options = {"pdf_variant": "pdf/a-3a", "attachments": attachments}
    document = html.render(**options)
    pages_of = Counter(name for page in document.pages for name in page.anchors)
    overlong = [name for name in job["single_pages"] if pages_of[name] > 1]
    if overlong:
        # A font that is wider than expected, or a text that wraps more often: make room and lay out again.
        smaller = ",".join(f"#{name} .pictures figure > img" for name in overlong)
        sheet = weasyprint.CSS(string=f"{smaller} {{ max-height: 28mm !important }}", url_fetcher=fetcher)
        document = html.render(stylesheets=[sheet], **options)
    document.write_pdf(folder / "pages.pdf", finisher=_finish, **options)
    with pikepdf.open(folder / "pages.pdf") as pdf:
        add_signature_fields(pdf)
        # Streams stay as they are: WeasyPrint's and _finish's way to store them is the archival one
        pdf.save(folder / "report.pdf", compress_streams=False, deterministic_id=True)
    for line in complaints.lines:
        print(line, file=sys.stderr)
    return 1 if complaints.lines else 0


def _list_pages_once() -> None:
    """Keep pydyf's list of page references, made anew for each structure element: quadratic in the pages."""
    import pydyf

    listed = pydyf.PDF.page_references.fget
    known: dict[int, Any] = {}

    def page_references(pdf: Any) -> Any:
        count = len(pdf.pages["Kids"])
        if count not in known:
            known[count] = listed(pdf)
        return known[count]

    pydyf.PDF.page_references = property(page_references)


def _finish(_document: object, pdf: Any) -> None:
    """Make the file PDF/A-3a and PDF/UA-1: both declared in plain metadata, each associated file listed once."""
    for item in pdf.objects:
        # Deflated data that ends in a carriage return looks one byte shorter than its Length: store it as it is.
        if getattr(item, "compress", False) and item.data.endswith(b"\r\nendstream"):
            item.compress = False
        if getattr(item, "extra", {}).get("Type") == "/Metadata":
            item.compress = False
            item.stream = [part.replace(b"</rdf:RDF>", _UA_IDENTITY, 1) for part in item.stream]
    associated = pdf.catalog.get("AF", [])
    associated[:] = dict.fromkeys(associated)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
