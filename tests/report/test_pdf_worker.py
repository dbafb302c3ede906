"""The process that makes a part of the PDF: what it refuses, and how it keeps one page an image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pikepdf
import pydyf
import pytest

from explainvad.report import render_process
from explainvad.report.pdf_tags import _compress

# WeasyPrint is for render processes only, so the renderer is driven from one.
DRIVER = """
import json, logging, sys
from pathlib import Path
from explainvad.errors import RenderError
from explainvad.report.pdf_engine import Engine
from explainvad.report.pdf_parts import Numbering, Part, PartJob
from explainvad.report.pdf_worker import PartRenderer, _Complaints

job = json.load(sys.stdin)
renderer = PartRenderer.__new__(PartRenderer)
renderer._engine, renderer._complaints = Engine(quick=job["quick"]), _Complaints()
logging.getLogger("weasyprint").addHandler(renderer._complaints)
part = PartJob(Part("images", "a part"), 1, Numbering(1, 1, {}), False, Path(job["target"]))
assets = {name: text.encode() for name, text in job["assets"].items()}
try:
    print(json.dumps(renderer.write(job["html"], assets, job["single_pages"], part)))
except RenderError as error:
    print(json.dumps({"error": str(error)}))
"""
DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="800" height="800"/>'


def write(target: Path, html: str, single_pages: tuple[str, ...] = (), quick: bool = True) -> dict[str, object]:
    job = {
        "html": html,
        "assets": {"dot.svg": DOT},
        "single_pages": single_pages,
        "quick": quick,
        "target": str(target),
    }
    command = [sys.executable, "-c", DRIVER]
    done = subprocess.run(
        command, input=json.dumps(job), capture_output=True, text=True, env=render_process.environment(), check=True
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


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
    answer = write(tmp_path / "x.pdf", f'<html lang="en"><title>t</title><body>{body}</body></html>')
    assert complaint in str(answer["error"]) and "a part could not be rendered" in str(answer["error"])


@pytest.mark.parametrize(("text_mm", "pages"), [(60, 2), (95, 3)])
def test_picture_gives_way_to_a_section_that_would_spill(tmp_path: Path, text_mm: int, pages: int) -> None:
    style = f"""@page {{ size: 100mm; margin: 0 }} section + section {{ break-before: page }}
        h3 {{ margin: 0; height: 0 }}
        figure {{ margin: 0 }} .h90 figure > img {{ display: block; max-height: 90mm }} p {{ margin: 0; height: 5mm }}
        .pictures + div {{ height: {text_mm - 5}mm }}"""
    picture = '<div class="pictures h90"><figure><img alt="a dot" src="asset:dot.svg"></figure></div>'
    first = f'<section><h3 id="img-00001"></h3>{picture}<div></div><p>text</p></section>'
    second = f'<section><h3 id="img-00002"></h3>{picture}</section>'
    html = f'<html lang="en"><head><title>t</title><style>{style}</style></head><body>{first}{second}</body></html>'
    assert write(tmp_path / "x.pdf", html, ("img-00001", "img-00002"))["pages"] == pages


def test_quick_engine_draws_what_weasyprint_draws(tmp_path: Path) -> None:
    style = """@page { size: 120mm 90mm; margin: 6mm } section + section { break-before: page } body { font-size: 9pt }
        table { border-collapse: collapse; width: 100%; table-layout: fixed } td, th { border: .4pt solid #888 }
        .n { text-align: right } .box { box-sizing: border-box; width: 50%; padding: 2%; border: 1pt solid }
        .j { text-align: justify; width: 40mm } del { color: #b00 } ol { margin: 0 }"""
    section = """<section><h3 id="s{k}">Heading {k}</h3><p>The same words &amp; an &eacute; on every page, <b>bold</b>,
        <del>gone</del>&nbsp;<a href="#s0">link</a><br>≤ α ✓ and {k} more.</p><p class="j">Some words that are spread
        over the width of three lines or so</p><div class="box">boxed</div><ol><li>one<li>two</ol>
        <table><tr><th scope="col">Name<th scope="col" class="n">Value</tr><tr><td rowspan="2">same<td class="n">{k}
        <tr><td>same</table><img alt="a dot" style="height: 9mm" src="asset:dot.svg"></section>"""
    sections = "".join(section.replace("{k}", str(k)) for k in range(4))
    head = f"<head><title>t</title><style>{style}</style></head>"
    html = f'<!DOCTYPE html><html lang="en">{head}<body>{sections}</body></html>'
    answers = [write(tmp_path / f"{quick}.pdf", html, quick=quick) for quick in (True, False)]
    assert answers[0] == answers[1] and answers[0]["pages"] == 4
    with pikepdf.open(tmp_path / "True.pdf") as quick, pikepdf.open(tmp_path / "False.pdf") as plain:
        for ours, theirs in zip(quick.pages, plain.pages, strict=True):
            assert ours.Contents.read_bytes() == theirs.Contents.read_bytes()


def test_no_deflated_stream_ends_in_a_carriage_return() -> None:
    contents = (b"q" * k for k in range(2000))
    ambiguous = next(c for c in contents if zlib.compress(c).endswith(b"\r"))
    pdf = pydyf.PDF()
    streams = [pydyf.Stream([ambiguous]), pydyf.Stream([b"q Q"])]
    for stream in streams:
        pdf.add_object(stream)
    _compress(pdf)
    assert ["Filter" in stream.extra for stream in streams] == [False, True]
    assert streams[0].data.endswith(b"\nstream\n" + ambiguous + b"\nendstream")
    assert re.search(rb"/Filter /FlateDecode", streams[1].data)
