"""A theme and templates of one's own: strictly validated, and unable to read, to send or to break anything."""

from __future__ import annotations

import io
from pathlib import Path

import page
import pikepdf
import pytest
from fabricated_lot import many_flagged, quiet_lot
from loopback import listening
from page_text import text_of
from pdf_structure import elements
from pdf_text import page_text
from PIL import Image

from explainvad.errors import ConfigError, RenderError, UsageError
from explainvad.report.assets import template_environment, templates_folder
from explainvad.report.branding import ACCENT, Branding, load_branding, template_faults
from explainvad.report.pdf_report import PdfRenderer
from explainvad.report.render import ReportRenderer
from explainvad.types import LotReport

THEME = 'issuer = "Nordlicht Inspection"\nlogo = "logo.png"\naccent = "#7a1f5c"\nfooter = "QF-12 rev. 3"\n'
CANARY = "the canary's own words"


def brand(folder: Path, **files: str | bytes) -> Branding:
    """Write files (name -> content) and load them; ``theme_toml`` is theme.toml."""
    for name, content in files.items():
        path = folder / name.replace("_toml", ".toml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_branding(folder, templates_folder())


def png(mode: str = "RGBA", size: tuple[int, int] = (120, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


def render(report: LotReport, folder: Path, own: Path, formats: tuple[str, ...] = ("pdf",)) -> Path:
    ReportRenderer(PdfRenderer(workers=1)).render(report, folder, formats, templates=own)
    return folder


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    """A lot of which no image is flagged."""
    return quiet_lot(tmp_path_factory.mktemp("quiet") / "run")


def test_theme_is_on_the_pages_and_the_file_stays_accessible(quiet: LotReport, tmp_path: Path) -> None:
    branding = brand(tmp_path / "own", theme_toml=THEME, **{"logo.png": png()})
    out = render(quiet, tmp_path / "out", tmp_path / "own", ("pdf", "html"))
    for profile in ("pdfa-3a", "pdfua-1"):
        failures = page.validate_pdf(out / "report.pdf", profile=profile).failures
        assert [f.message for f in failures if "Length" not in f.message] == []
    with pikepdf.open(out / "report.pdf") as pdf:
        texts = [page_text(sheet) for sheet in pdf.pages]
        assert "Logo of Nordlicht Inspection" in {str(e.Alt) for e in elements(pdf) if e.S == "/Figure"}
    assert all("QF-12rev.3" in text for text in texts)
    assert "IssuedbyNordlichtInspection" in texts[0]
    assert branding.sha256 in texts[-1] and "templatesorathemeofitsissuer" in texts[-1]
    html = (out / "report.html").read_text("utf-8")
    assert "#7a1f5c" in html and ACCENT not in html.split("</style>")[0]


def test_template_takes_the_place_of_ours_alone(quiet: LotReport, tmp_path: Path) -> None:
    method = '<section class="method" id="method"><h2>Our method</h2></section>'
    brand(tmp_path / "own", **{"partials/method.html": method})
    out = render(quiet, tmp_path / "out", tmp_path / "own")
    with pikepdf.open(out / "report.pdf") as pdf:
        text = "".join(page_text(sheet) for sheet in pdf.pages)
    assert "Ourmethod" in text and "Decisionrule" not in text.replace("Methodanddecisionrule", "")
    assert "Lotstatement" in text and "Modelcard" in text


@pytest.mark.parametrize(
    ("theme", "complaint"),
    [
        ('acent = "#000000"', "unknown key acent; the nearest known one is accent"),
        ('accent = "red"', "accent = 'red'"),
        ('accent = "#000000;} body{display:none"', "accent = "),
        ('accent = "#ffee88"', "contrast to white is 1.2"),
        ('footer = "two\\nlines"', "footer = "),
        ('logo = "logo.png"', "logo needs issuer"),
        ('issuer = "x"\nlogo = "absent.png"', "logo = 'absent.png' names no PNG, JPEG or SVG file of this folder"),
        ('issuer = "x"\nlogo = "../logo.png"', "names no PNG, JPEG or SVG file of this folder"),
        ("issuer = ", "expected a readable TOML file"),
    ],
)
def test_fault_in_the_theme_is_named(theme: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        brand(tmp_path, theme_toml=theme)
    assert complaint in str(caught.value) and "theme.toml" in str(caught.value)
    assert isinstance(caught.value, ConfigError) or "expected" in complaint or "names" in complaint


def test_fault_of_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expects a folder"):
        load_branding(tmp_path / "absent", templates_folder())
    with pytest.raises(UsageError, match=r"covr\.html replaces no template; the nearest known one is partials/cover"):
        brand(tmp_path / "a", **{"partials/covr.html": "x"})
    with pytest.raises(UsageError, match=r"cover\.html, line 2: "):
        brand(tmp_path / "b", **{"partials/cover.html": "<p>\n{% if %}"})
    with pytest.raises(UsageError, match="not UTF-8"):
        brand(tmp_path / "c", **{"partials/cover.html": b"\xff"})
    with pytest.raises(UsageError, match="expected a PNG or JPEG logo"):
        brand(tmp_path / "d", theme_toml='issuer = "x"\nlogo = "logo.png"', **{"logo.png": b"not a picture"})
    with pytest.raises(UsageError, match="no DOCTYPE or ENTITY"):
        svg = '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg>&a;</svg>'
        brand(tmp_path / "e", theme_toml='issuer = "x"\nlogo = "logo.svg"', **{"logo.svg": svg})


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(CANARY)
    own = tmp_path / "own"
    (own / "partials").mkdir(parents=True)
    (own / "partials" / "cover.html").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match=r"cover\.html is a link"):
        load_branding(own, templates_folder())


def test_hash_stands_for_every_file(tmp_path: Path) -> None:
    first = brand(tmp_path, theme_toml='issuer = "a"').sha256
    assert first == load_branding(tmp_path, templates_folder()).sha256 and len(first) == 64
    assert brand(tmp_path, theme_toml='issuer = "b"').sha256 != first
    assert load_branding(None, templates_folder()).sha256 == ""


def test_fault_while_a_template_runs_names_its_line(quiet: LotReport, tmp_path: Path) -> None:
    brand(tmp_path / "own", **{"partials/cover.html": "<h1>x</h1>\n<p>{{ lot.lott }}</p>"})
    with pytest.raises(RenderError, match=r"partials/cover\.html, line 2: UndefinedError: .*lott"):
        render(quiet, tmp_path / "out", tmp_path / "own")


@pytest.mark.parametrize(
    "source",
    [
        "{% include '../../secret' %}",
        "{% include '/CANARY' %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ kind.__globals__ }}",
        "{{ asset.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('cat CANARY').read() }}",
        "{{ lot.__class__ }}",
        "{{ '{0.__class__}'.format(lot) }}",
        "{% for a in range(100000000) %}{% endfor %}",
    ],
)
def test_sandbox_refuses(source: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    branding = brand(tmp_path / "own", **{"partials/cover.html": source.replace("CANARY", str(secret))})
    template = template_environment(branding).get_template("partials/cover.html")
    with pytest.raises(RenderError, match=r"cover\.html"), template_faults():
        shown = template.render(lot=quiet_lot(tmp_path / "run").lot, kind=text_of, asset=text_of)
        assert CANARY not in shown and "class" not in shown


@pytest.mark.parametrize(
    "source",
    [
        '<img alt="x" src="file://CANARY">',
        '<img alt="x" src="http://127.0.0.1:PORT/x.png">',
        '<link rel="stylesheet" href="http://127.0.0.1:PORT/x.css">',
        '<link rel="attachment" href="file://CANARY">',
        '<style>@import url("http://127.0.0.1:PORT/x.css");</style>',
        '<style>@font-face { font-family: x; src: url("file://CANARY") } h1 { font-family: x }</style>',
        '<h1 style="background: url(http://127.0.0.1:PORT/x.png)">x</h1>',
        '<svg xmlns="http://www.w3.org/2000/svg"><image href="file://CANARY" width="9" height="9"/></svg>',
    ],
)
def test_hostile_template_reads_and_sends_nothing(source: str, quiet: LotReport, tmp_path: Path) -> None:
    canary = tmp_path / "canary.png"
    canary.write_bytes(png("RGB") + CANARY.encode())
    with listening() as listener:
        hostile = source.replace("CANARY", str(canary)).replace("PORT", str(listener.port))
        brand(tmp_path / "own", **{"partials/cover.html": f'<section class="cover"><h1>x</h1>{hostile}</section>'})
        try:
            render(quiet, tmp_path / "out", tmp_path / "own")
        except RenderError:
            pass
        else:
            with pikepdf.open(tmp_path / "out" / "report.pdf") as pdf:
                streams = [o.read_raw_bytes() for o in pdf.objects if isinstance(o, pikepdf.Stream)]
                attached = [spec.get_file().read_bytes() for spec in pdf.attachments.values()]
            assert not any(CANARY.encode() in data for data in (*streams, *attached))
    assert listener.calls == []


def test_value_of_the_lot_is_no_markup_in_an_own_template(tmp_path: Path) -> None:
    report = many_flagged(tmp_path / "run", 1)
    cover = '<section class="cover"><h1>{{ lot.part }}</h1></section>'
    branding = brand(tmp_path / "own", **{"partials/cover.html": cover})
    template = template_environment(branding).get_template("partials/cover.html")
    assert "&lt;b&gt;" in template.render(lot={"part": "<b>"})
    assert report.lot.part in text_of(template.render(lot=report.lot))
