"""The process that makes a part of the PDF: what it refuses, and how it keeps one page an image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pikepdf
import pydyf
import pytest
from pypdfium2 import PdfDocument
from scipy.ndimage import maximum_filter, minimum_filter

from explainvad.report import render_process
from explainvad.report.pdf_tags import _compress
from explainvad.report.quick_styles import tells_kin_alike

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
        "assets": {"dot.svg": DOT, "graphic.svg": GRAPHIC, "shaded.svg": SHADED},
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


RULED = """<style>
    @page { size: 90mm 60mm; margin: 8mm; @top-left { content: "run"; border-bottom: .5pt solid #00f } }
    @page wide { margin: 12mm; @top-left { content: none } }
    section + section { break-before: page } section:nth-child(3) { page: wide } section > p { margin: 1mm }
    p + p { color: #060 } p:first-child { font-weight: bold } p:last-child { text-decoration: underline }
    p:first-of-type::before { content: "> " } .odd + p { font-style: italic } [title] { letter-spacing: 1pt }
    .left { border-left: 3pt solid #b00; padding-left: 2mm } .right { border-right: 2pt solid #0a0 }
    .top { border-top: 1pt solid rgba(0, 0, 200, .5) } .under { border-bottom: 1.5pt solid; color: #909 }
    .dots { border-bottom: 2pt dotted #333 } .round { border-top: 4pt solid #a50; border-radius: 3mm }
    .tinted { background: #ffc } .hidden { visibility: hidden; border-bottom: 9pt solid } .far { float: right }
    h2 { font-size: 6pt; margin: 0; bookmark-label: attr(data-bookmark) } h2::after { content: attr(data-page) }
    img { height: 7mm } img.small { height: 4mm } TAIL</style>"""
GRAPHIC = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20" width="80" height="40" font-size="9"
    fill="#3c4750"><rect width="40" height="9" fill="#d0d"/><path d="M2 2v11" stroke="#1a2026"/>
    <text x="2" y="18">a b</text></svg>"""
SHADED = GRAPHIC.replace("<rect", '<linearGradient id="g"><stop offset="0" stop-color="#f00"/><stop offset="1"'
    ' stop-color="#00f"/></linearGradient><rect').replace("#d0d", "url(#g)")  # fmt: skip


@pytest.mark.parametrize("tail", ["", "p ~ p { margin-left: 4mm }", "p:nth-of-type(even) { color: red }"])
def test_quick_engine_looks_like_weasyprint_where_it_draws_in_fewer_steps(tmp_path: Path, tail: str) -> None:
    names = ["odd left", "right", "odd top", "under", "dots", "round", "tinted under", "hidden", "far under"]
    words = "".join(f'<p class="{name}">{name} {{k}}</p>' for name in names)
    pictures = "".join(
        f'<img alt="x" class="{c}" src="asset:{n}.svg">' for n in ("graphic", "shaded") for c in ("", "small")
    )
    head = '<h2 data-bookmark="B {k}" data-page="{k}">page </h2>'
    section = (
        f'<section id="s{{k}}">{head}<p title="{{k}}">a<p>b<div>{words}</div><div>{pictures}<p>c<p>d</div></section>'
    )
    body = "".join(section.replace("{k}", str(k)) for k in range(14))
    html = f'<html lang="en"><head><title>t</title>{RULED.replace("TAIL", tail)}</head><body>{body}</body></html>'
    answers = [write(tmp_path / f"{quick}.pdf", html, quick=quick) for quick in (True, False)]
    assert answers[0] == answers[1]
    with PdfDocument(tmp_path / "True.pdf") as quick, PdfDocument(tmp_path / "False.pdf") as plain:
        assert len(quick) == len(plain) >= 14
        for ours, theirs in zip(quick, plain, strict=True):
            drawn, expected = (
                np.asarray(page.render(scale=3).to_pil().convert("RGB"), float) for page in (ours, theirs)
            )
            assert drawn.std() > 5, "an empty page says nothing"
            # A line that is filled may take a pixel more than one that is cut out
            for one, other in ((drawn, expected), (expected, drawn)):
                assert (one > minimum_filter(other, (3, 3, 1)) - 60).all()
                assert (one < maximum_filter(other, (3, 3, 1)) + 60).all()


@pytest.mark.parametrize(
    ("rules", "alike"),
    [
        ("p { color: #123456 } .a > b + c[title], td:nth-child(9)::after { content: '~' }", True),
        ("@page { margin: 1cm; @top-left { content: counter(page) } } /* p ~ q */ p:not([lang]) { top: 0 }", True),
        ("p ~ q { top: 0 }", False),
        ("#name { top: 0 }", False),
        ("a + b + c { top: 0 }", False),
        ("a + b, c + d { top: 0 }", True),
        ("td:nth-child(10) { top: 0 }", False),
        ("td:nth-child(2n) { top: 0 }", False),
        ("p:nth-last-child(2) { top: 0 }", False),
        ("p:has(img) { top: 0 }", False),
        ("img[src^='asset:a'] { top: 0 }", False),
        ("@media print { p ~ q { top: 0 } }", False),
        ("p { color: red; & ~ q { top: 0 } }", False),
        ("p { color: red; em { top: 0 } } @import url(x.css);", False),
    ],
)
def test_elements_are_styled_alike_only_by_rules_that_see_no_more_of_them(rules: str, alike: bool) -> None:
    assert tells_kin_alike(rules) is alike


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
