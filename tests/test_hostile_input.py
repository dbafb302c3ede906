"""Names, texts, pictures and templates made to do harm: nothing is read, nothing is sent, nothing is passed off."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pikepdf
import pypdfium2
import pytest
from command_line import Outcome, explainvad, tree
from loopback import Listener, listening
from PIL import Image, PngImagePlugin
from signed_runs import People
from test_bad_input import bomb
from tiny_parts import RUSTY, part

from explainvad import LotReport, verify_run
from explainvad.record.finished import read_report
from explainvad.report.render import FILES
from explainvad.report.stamp import stamp_pdf
from explainvad.signing import sign

CANARY = "the canary's own words"
HIDDEN = "words within a picture"
CHROMIUM = Path("/usr/bin/chromium")

# Name of a file -> the same as it is shown
NAMES = {
    "<img src=x onerror=alert(1)>.png": "<img src=x onerror=alert(1)>.png",
    "<h1>All parts accepted<h1>.png": "<h1>All parts accepted<h1>.png",
    "{{ 7*7 }}{% include 'x' %}.png": "{{ 7*7 }}{% include 'x' %}.png",
    "up\\..\\..\\canary.png": r"up\\..\\..\\canary.png",
    "up%2f..%2f..%2fcanary.png": "up%2f..%2f..%2fcanary.png",
    "url(file:canary).png": "url(file:canary).png",
    "javascript:alert(1).png": "javascript:alert(1).png",
    "=HYPERLINK(A1).png": "=HYPERLINK(A1).png",
    "bell\x07 \x1b]0;title\x07.png": r"bell\x07 \x1b]0;title\x07.png",
    "two\r\nlines.png": r"two\x0d\x0alines.png",
    "pass\u202egnp.tcejer": r"pass\u202egnp.tcejer",
    "isolate\u2066\u200b.png": r"isolate\u2066\u200b.png",
    "x" * 250 + ".png": "",  # too long to be shown whole
}
# Key of lot.toml -> its value; CANARY and PORT are filled in
VALUES = {
    "lot_id": "<script>fetch('http://127.0.0.1:PORT/a')</script>",
    "part": "{{ 7*7 }} {% include '/etc/passwd' %}",
    "customer": "</td></tr></table><h1>All parts accepted</h1>",
    "operator": "<img src='http://127.0.0.1:PORT/b'>",
    "reviewer": "<img src='file://CANARY'>",
    "site": "javascript:fetch('http://127.0.0.1:PORT/c')",
    "procedure": "url(http://127.0.0.1:PORT/d) url(file://CANARY)",
    "camera": "<link rel=attachment href=file://CANARY>",
    "optics": "</style><style>@import 'http://127.0.0.1:PORT/e'</style>",
    "serials": "%PDF-1.7 endstream endobj (x) Tj \\",
    "drawing": "=cmd|' /C calc'!A0",
    "acceptance_criteria": "../../CANARY",
}


@dataclass(frozen=True)
class Inspected:
    run_dir: Path
    values: dict[str, str]
    outcome: Outcome
    canary: Path

    @property
    def files(self) -> dict[str, bytes]:
        return tree(self.run_dir)


@pytest.fixture(scope="module")
def of_the_lot() -> Iterator[Listener]:
    """Whom the texts of the lot name."""
    with listening() as listener:
        yield listener
    assert listener.calls == []


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that ends in words of its own."""
    path = tmp_path_factory.mktemp("elsewhere") / "canary.png"
    Image.fromarray(part(90)).save(path)
    path.write_bytes(path.read_bytes() + CANARY.encode())
    return path


@pytest.fixture(scope="module")
def hostile(model: Path, canary: Path, of_the_lot: Listener, tmp_path_factory: pytest.TempPathFactory) -> Inspected:
    """A lot in which everything is hostile, inspected and reported in all formats."""
    root = tmp_path_factory.mktemp("hostile")
    lot = root / "lot"
    lot.mkdir()
    for seed, name in enumerate(NAMES):
        Image.fromarray(part(200 + seed, RUSTY if seed < 3 else "good")).save(lot / name, "PNG")
    (lot / "link.png").symlink_to(canary)
    (lot / "link-up.png").symlink_to(os.path.relpath(canary, lot))
    bomb(lot / "bomb.png")
    with_metadata(lot)
    values = {key: filled(value, canary, of_the_lot) for key, value in VALUES.items()}
    (lot / "lot.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()), "utf-8")
    outcome = explainvad("analyze", lot, "--model", model, "--out", root / "run", "--formats", ",".join(FILES))
    return Inspected(root / "run", values, outcome, canary)


def filled(text: str, canary: Path, listener: Listener) -> str:
    return text.replace("CANARY", str(canary)).replace("PORT", str(listener.port))


def with_metadata(lot: Path) -> None:
    """Two rusty parts, which are kept as evidence, with text of every kind in them, some of it huge."""
    exif = Image.Exif()
    exif[0x010E] = f"<script>{HIDDEN}</script>"  # ImageDescription
    exif[0x8298] = HIDDEN * 1500  # Copyright: as much as fits
    Image.fromarray(part(300, RUSTY)).save(lot / "exif.jpg", exif=exif, comment=HIDDEN.encode(), quality=95)
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", f"<script>{HIDDEN}</script>")
    text.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta>{HIDDEN}</x:xmpmeta>")
    text.add_text("Comment", HIDDEN * 20_000, zip=True)
    Image.fromarray(part(301, RUSTY)).save(lot / "text.png", pnginfo=text)


def pdf_bytes(content: bytes) -> list[bytes]:
    """All that a PDF holds: its streams inflated, attachments among them, and its text."""
    with pikepdf.open(io.BytesIO(content)) as pdf:
        streams = [each for each in pdf.objects if isinstance(each, pikepdf.Stream)]
        raw = [stream.read_raw_bytes() for stream in streams]
        inflated = [s.read_bytes() for s in streams if s.get("/Filter") in (None, pikepdf.Name.FlateDecode)]
    return [*raw, *inflated, pdf_text(content).encode()]


def pdf_text(content: bytes) -> str:
    """What the pages of a PDF print, without blanks."""
    with pypdfium2.PdfDocument(content) as pdf:
        return "".join("".join(page.get_textpage().get_text_bounded().split()) for page in pdf)


def everything(files: dict[str, bytes]) -> list[bytes]:
    return [*files.values(), *(piece for name in files if name.endswith(".pdf") for piece in pdf_bytes(files[name]))]


def shown(text: str) -> str:
    return "".join(text.split())


def test_the_lot_is_inspected_whole(hostile: Inspected) -> None:
    assert (hostile.outcome.code, hostile.outcome.err) == (3, "")
    assert hostile.outcome.out.replace("\n", "").isprintable()
    assert verify_run(hostile.run_dir).ok
    rows = list(csv.DictReader(hostile.files["results.csv"].decode().splitlines()))
    decisions = {row["file"].removeprefix("'"): row["decision"] for row in rows}
    assert {*filter(None, NAMES.values()), "exif.jpg", "text.png"} <= decisions.keys()
    failed = {name for name, decision in decisions.items() if decision == "NOT_INSPECTED"}
    assert failed == {"link.png", "link-up.png", "bomb.png"}
    assert decisions["exif.jpg"] == decisions["text.png"] == "REJECT"
    assert max(map(len, decisions)) <= 160


def test_nothing_of_other_files_and_of_metadata_is_in_any_output(hostile: Inspected) -> None:
    pieces = everything(hostile.files)
    assert len(pieces) > 100
    for words in (CANARY, HIDDEN, "root:x:0"):
        assert not any(words.encode() in piece for piece in pieces), words
    kept = [name for name in hostile.files if name.startswith("evidence/")]
    assert kept and all(not Image.open(hostile.run_dir / name).getexif() for name in kept)


def test_texts_are_printed_as_they_are_and_change_no_heading(hostile: Inspected, report: LotReport) -> None:
    page, text = hostile.files["report.html"].decode(), pdf_text(hostile.files["report.pdf"])
    as_read = shown(html.unescape(re.sub(r"<[^>]*>", "", page)))
    for key, value in hostile.values.items():
        assert shown(value)[:30] in as_read, key  # longer ones are shortened in the middle
        assert shown(value)[:30] in text, key
    named_on_paper = {record.file for record in read_report(hostile.run_dir).records if record.flagged}
    assert len(named_on_paper & set(NAMES.values())) >= 3
    for name in filter(None, NAMES.values()):
        assert shown(name) in as_read, name
        assert shown(name)[:20] in text or name not in named_on_paper, name
    usual = (report.run_dir / "report.html").read_text("utf-8")
    for tag in ("h1", "script", "style", "title", "iframe", "link", "form"):
        assert len(re.findall(f"<{tag}[ >]", page)) == len(re.findall(f"<{tag}[ >]", usual)), tag
    assert re.findall("<h1.*?</h1>", page) == re.findall("<h1.*?</h1>", usual)
    with pikepdf.open(hostile.run_dir / "report.pdf") as pdf, pikepdf.open(report.run_dir / "report.pdf") as other:
        told, expected = ([str(item.title) for item in p.open_outline().root] for p in (pdf, other))
        assert told == expected
        assert set(pdf.attachments) & {"canary.png", "passwd"} == set()
        links = [a.A.URI for sheet in pdf.pages for a in sheet.get("/Annots", []) if "/URI" in a.get("/A", {})]
    assert links == []


def test_a_browser_that_shows_the_report_sends_nothing(
    hostile: Inspected, of_the_lot: Listener, tmp_path: Path
) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}, the Debian package chromium")
    page = hostile.run_dir / "report.html"
    seen = browse(page, tmp_path)
    assert "All parts accepted" in seen and "<h1>All parts accepted" not in seen
    assert of_the_lot.calls == []


def browse(page: Path, folder: Path) -> str:
    """Open a page, let its scripts run, and return what has become of it."""
    quiet = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    command = (CHROMIUM, *quiet, f"--user-data-dir={folder}", "--virtual-time-budget=5000", "--dump-dom", page.as_uri())
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


MARKUP = """<section class="cover"><h1>x</h1>
<object data="http://127.0.0.1:PORT/1"></object><object data="file://CANARY"></object>
<embed src="http://127.0.0.1:PORT/2"><iframe src="http://127.0.0.1:PORT/3"></iframe>
<iframe src="file://CANARY"></iframe><script src="http://127.0.0.1:PORT/4"></script>
<script>fetch("http://127.0.0.1:PORT/5")</script><video poster="http://127.0.0.1:PORT/6"></video>
<img alt="x" srcset="http://127.0.0.1:PORT/7 1x"><svg><use href="http://127.0.0.1:PORT/8#x"/></svg>
<p style="list-style: url(http://127.0.0.1:PORT/9); cursor: url(file://CANARY)">x</p></section>
"""
SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="90" height="30">
<style>@import url("http://127.0.0.1:PORT/10"); rect { fill: url(http://127.0.0.1:PORT/11#x) }</style>
<image href="file://CANARY" width="9" height="9"/><image href="http://127.0.0.1:PORT/12" width="9" height="9"/>
<use href="file://CANARY#x"/><script>fetch("http://127.0.0.1:PORT/13")</script><rect width="9" height="9"/></svg>
"""
THEME = """issuer = "<img src='http://127.0.0.1:PORT/14'> {{ 7*7 }}"
footer = "</style> url(file://CANARY) \\\\22;} @import 'http://127.0.0.1:PORT/15'"
"""
TEMPLATES = {
    "markup": {"partials/cover.html": MARKUP},
    "logo": {"theme.toml": 'issuer = "x"\nlogo = "logo.svg"', "logo.svg": SVG},
    "theme": {"theme.toml": THEME},
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_templates_and_themes_read_and_send_nothing(
    kind: str, quiet_run: Path, canary: Path, listener: Listener, tmp_path: Path
) -> None:
    for name, text in TEMPLATES[kind].items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(filled(text, canary, listener), "utf-8")
    for formats in ("html", "pdf"):
        out = tmp_path / formats
        done = explainvad("render", quiet_run, "--templates", tmp_path / "own", "--out", out, "--formats", formats)
        refused = done.code != 0
        assert refused == (not out.exists() or not tree(out)), done.err
        assert not refused or CANARY not in done.err
        if not refused:
            assert not any(CANARY.encode() in piece for piece in everything(tree(out)))
    assert listener.calls == []
    if (tmp_path / "html" / "report.html").exists() and CHROMIUM.exists():
        browse(tmp_path / "html" / "report.html", tmp_path / "profile")
        # Chromium connects ahead to a host that markup names, and then is not allowed to ask anything
        assert b"".join(listener.calls) == b""


def test_a_signature_prints_markup_as_text(
    quiet_run: Path, people: People, canary: Path, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)  # certificates are valid at the real time only
    run_dir = shutil.copytree(quiet_run, tmp_path / "run")
    name = filled("<img src=http://127.0.0.1:PORT/16>", canary, listener)
    reason = filled("{{ 7*7 }}</p><h1>y</h1><img src=file://CANARY>", Path("/etc/passwd"), listener)
    sign(run_dir, people.first.key, name=name, meaning="<b>Approved</b>", reason=reason)
    assert verify_run(run_dir).ok
    text = pdf_text((run_dir / "report.pdf").read_bytes())
    drawn = stamp_pdf(name, "2026-01-01T00:00:00+00:00", "<b>Approved</b>", reason, (221, 32))
    assert shown(name) in pdf_text(drawn) and shown(reason) in pdf_text(drawn)
    assert "<b>Approved</b>" in pdf_text(drawn)
    assert text.count("49") == pdf_text((quiet_run / "report.pdf").read_bytes()).count("49")
    assert not any(b"root:x:0" in piece for piece in pdf_bytes((run_dir / "report.pdf").read_bytes()))
    assert listener.calls == []
