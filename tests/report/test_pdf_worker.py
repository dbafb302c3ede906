"""The process that makes the PDF: what it refuses, when it gives up, and how it keeps one page an image."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import pikepdf
import pydyf
import pytest

from explainvad.errors import RenderError
from explainvad.report import render
from explainvad.report.pdf_worker import _finish


def _job(folder: Path, html: str, assets: dict[str, str], single_pages: Sequence[str] = ()) -> Path:
    (folder / "assets").mkdir(parents=True)
    (folder / "attachments").mkdir()
    (folder / "report.html").write_text(html, "utf-8")
    job = {"issued": "2026-03-14T09:27:41+00:00", "assets": assets, "attachments": []}
    (folder / "job.json").write_text(json.dumps(job | {"single_pages": list(single_pages)}))
    return folder


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('<img alt="x" src="file:///etc/passwd">', "file:///etc/passwd"),
        ('<img alt="x" src="https://example.org/x.png">', "https://example.org/x.png"),
        ('<img alt="x" src="asset:absent.jpg">', "absent.jpg"),
        ('<img alt="x" src="asset:../job.json">', "job.json"),
        ('<img src="asset:dot.svg">', "alt"),
    ],
)
def test_worker_refuses_foreign_missing_and_mute_pictures(tmp_path: Path, body: str, complaint: str) -> None:
    html = f'<html lang="en"><title>t</title><body>{body}</body></html>'
    folder = _job(tmp_path / "job", html, {"dot.svg": "image/svg+xml"})
    (folder / "assets" / "dot.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')
    with pytest.raises(RenderError, match=re.escape(complaint)):
        render._run_worker(folder, 0, 60)


@pytest.mark.parametrize(("text_mm", "pages"), [(60, 2), (95, 3)])
def test_picture_gives_way_to_a_section_that_would_spill(tmp_path: Path, text_mm: int, pages: int) -> None:
    style = f"""@page {{ size: 100mm; margin: 0 }} section {{ break-before: page }}
        figure {{ margin: 0 }} .h90 figure > img {{ display: block; max-height: 90mm }} p {{ margin: 0; height: 5mm }}
        .pictures + div {{ height: {text_mm - 5}mm }}"""
    picture = '<div class="pictures h90"><figure><img alt="a dot" src="asset:dot.svg"></figure></div>'
    first = f'<section id="img-00001">{picture}<div></div><p>text</p></section>'
    second = f'<section id="img-00002">{picture}</section>'
    html = f'<html lang="en"><head><title>t</title><style>{style}</style></head><body>{first}{second}</body></html>'
    folder = _job(tmp_path / "job", html, {"dot.svg": "image/svg+xml"}, ["img-00001", "img-00002"])
    (folder / "assets" / "dot.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="800" height="800"/>')
    render._run_worker(folder, 0, 60)
    with pikepdf.open(folder / "report.pdf") as pdf:
        assert len(pdf.pages) == pages


def test_slow_worker_is_stopped(tmp_path: Path) -> None:
    folder = _job(tmp_path / "job", '<html lang="en"><title>t</title></html>', {})
    with pytest.raises(RenderError, match="not ready"):
        render._run_worker(folder, 0, 0.05)


def test_no_deflated_stream_ends_in_a_carriage_return() -> None:
    contents = (b"q" * k for k in range(256))
    ambiguous = next(c for c in contents if zlib.compress(c, 9).endswith(b"\r"))
    pdf = pydyf.PDF()
    streams = [pydyf.Stream([ambiguous], compress=True), pydyf.Stream([b"q Q"], compress=True)]
    for stream in streams:
        pdf.add_object(stream)
    _finish(None, pdf)
    assert [stream.compress for stream in streams] == [False, True]
    assert streams[0].data.endswith(b"\nstream\n" + ambiguous + b"\nendstream")


def test_associated_files_are_listed_once_in_their_order() -> None:
    pdf = pydyf.PDF()
    pdf.catalog["AF"] = pydyf.Array([b"7 0 R", b"5 0 R", b"7 0 R"])
    _finish(None, pdf)
    assert list(pdf.catalog["AF"]) == [b"7 0 R", b"5 0 R"]
