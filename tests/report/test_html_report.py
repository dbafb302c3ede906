"""The HTML report as bytes: held together by its policy, closed to what a record says, dealt to pages."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
from fabricated_lot import Builder, many_flagged, quiet_lot, verdict_of
from page_text import image_sections

from explainvad.record.verify import REPORT_FOLDERS
from explainvad.report import html_report
from explainvad.report.render import ReportRenderer
from explainvad.types import Decision, LotReport

NASTY = '"><img src=x onerror=hacked()></title><script>hacked()</script>{{ 7 * 7 }}'


def _only(pattern: str, page: str) -> str:
    (found,) = re.findall(pattern, page, re.S)
    return str(found)


def _policy_hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_policy_lets_in_one_style_sheet_one_script_and_pictures_of_the_page(screen: Path) -> None:
    page = screen.read_text("utf-8")
    style, script = _only("<style>(.*?)</style>", page), _only("<script>(.*?)</script>", page)
    assert _only('http-equiv="Content-Security-Policy" content="(.*?)"', page) == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_policy_hash(style)}'; "
        f"script-src 'sha256-{_policy_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert "\r" not in style + script and "<!--" not in script


def test_nothing_is_fetched_and_nothing_is_inline(screen: Path) -> None:
    page = screen.read_text("utf-8")
    text = re.sub("<(style|script)>.*?</\\1>", "", page, flags=re.S)
    tags = re.findall(r"<\w[^>]*>", text)
    assert len(tags) > 500
    for tag in tags:
        assert not re.search(r"\s(style|on\w+|srcset|action|formaction)=", tag), tag[:200]
        for target in re.findall(r'\s(?:src|href)="([^"]*)', tag):
            assert re.match(r"#[\w-]+$|data:(image/(jpeg|png|webp|svg\+xml);base64)?,", target), target[:200]
    style = _only("<style>(.*?)</style>", page)
    assert not re.search(r"url\((?!#)|@import|https?:", style)
    assert not re.search(r"https?:|fetch|XMLHttp|innerHTML|eval\(|import\(", _only("<script>(.*?)</script>", page))


def test_values_of_a_record_stay_text_in_every_place(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    b.inspected(NASTY, verdict_of(Decision.REJECT, 3.0, 1 / 96, (NASTY,)), [(250, 130, 20, 9)], notes=(NASTY,))
    b.inspected("turned \u202egnp.exe\u2066 \x07.png", verdict_of(Decision.DEFER, 3.0, 0.2, ("\u200bunseen",)))
    b.missed(NASTY, NASTY)
    report = b.report()
    report = replace(report, lot=replace(report.lot, lot_id=NASTY, part=NASTY, operator=NASTY))
    ReportRenderer().render(report, tmp_path, ["html"])
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<script") == 1 and "<img src=x" not in page and page.count("</title>") == 1
    assert page.count(html.escape(NASTY).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")) >= 6
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069]", page)
    assert r"turned \u202egnp.exe\u2066 \x07.png" in page


def test_every_file_has_a_row_with_word_mark_and_numbers(lot_report: LotReport, screen: Path) -> None:
    body = _only("<tbody>(.*?)</tbody>", _only('<table class="grid">(.*?)</table>', screen.read_text("utf-8")))
    rows = re.findall("<tr.*?</tr>", body, re.S)
    assert len(rows) == len(lot_report.records) == 30
    for record, row in zip(lot_report.records, rows, strict=True):
        assert record.image_id in row and record.file in html.unescape(row)
        assert ("thumb" in row) == record.flagged == (f'href="#{record.image_id}"' in row)
        if record.verdict:
            assert f'data-value="{record.verdict.p_value}"' in row and f'data-value="{record.verdict.score}"' in row
    text = " ".join(rows)
    for told in ("◆</span> Reject", "▲</span> Defer to a person", "●</span> Not flagged", "✕</span> Not inspected"):
        assert told in text
    assert "the file is empty" in text and "p = 0.0104 is at most alpha = 0.05" in text


def test_image_shows_all_regions_sentences_and_reasons(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    marks = [(140 + 180 * (k % 3), 90 + 150 * (k // 3), 12, 12) for k in range(9)]
    reasons = tuple(f"gate {k} is outside [0, 1], the range of the reference images" for k in range(12))
    b.inspected("a.png", verdict_of(Decision.DEFER, 3.0, 0.2, reasons), marks)
    ReportRenderer().render(b.report(), tmp_path, ["html"])
    (text,) = image_sections(tmp_path)
    assert all(f"Region R{k} " in text for k in range(1, 10))
    assert text.count("It is darker than the same place") == 9
    assert all(f"gate {k} is outside" in text for k in range(12))


def test_same_report_gives_the_same_bytes(lot_report: LotReport, screen: Path, tmp_path: Path) -> None:
    (again,) = ReportRenderer().render(lot_report, tmp_path, ["html"])
    assert again.read_bytes() == screen.read_bytes()


def test_image_stays_light(screen: Path, lot_report: LotReport) -> None:
    sections = re.findall('<section class="image".*?</section>', screen.read_text("utf-8"), re.S)
    assert len(sections) == sum(r.flagged for r in lot_report.records)
    assert max(map(len, sections)) < 200_000


def test_lot_without_flagged_images_has_a_list_all_the_same(tmp_path: Path) -> None:
    (path,) = ReportRenderer().render(quiet_lot(tmp_path / "run"), tmp_path, ["html"])
    page = path.read_text("utf-8")
    assert '<p class="count" role="status" aria-live="polite">3 files</p>' in page
    assert '<section class="image"' not in page and 'class="pages"' not in page


def _dealt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(html_report, "IMAGES_A_PAGE", 2)
    return ReportRenderer().render(many_flagged(tmp_path / "run", 5), tmp_path / "out", ["html"])


def test_many_flagged_images_are_dealt_to_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = _dealt(tmp_path, monkeypatch)
    assert [p.relative_to(tmp_path / "out").as_posix() for p in paths] == [
        "report_images/flagged-0003-0004.html", "report_images/flagged-0005-0005.html", "report.html",
    ]  # fmt: skip
    assert html_report.FOLDER in REPORT_FOLDERS  # what verification looks into
    told = [re.findall(r'<section class="image" id="(.*?)"', p.read_text("utf-8")) for p in paths]
    assert told == [["img-00003", "img-00004"], ["img-00005"], ["img-00001", "img-00002"]]
    assert [p.read_text("utf-8").count("<tr data-kind") for p in paths] == [2, 1, 5]
    policies = {_only('Security-Policy" content="(.*?)"', p.read_text("utf-8")) for p in paths}
    assert len(policies) == 1
    assert sorted(p.name for p in (tmp_path / "out").rglob(".*")) == []


def test_every_link_between_pages_leads_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = _dealt(tmp_path, monkeypatch)
    n = 0
    for path in paths:
        page = path.read_text("utf-8")
        for target in re.findall(r'href="((?!data:)[^"]+)"', page):
            name, _, anchor = target.partition("#")
            there = (path.parent / name).resolve() if name else path
            assert there in [p.resolve() for p in paths], target
            assert not anchor or f'id="{anchor}"' in there.read_text("utf-8"), target
            n += bool(name)
    assert n >= 3 + 2 * 3  # from the list to three images, and between the pages
    assert 'href="report_images/flagged-0003-0004.html" data-first="img-00003"' in paths[-1].read_text("utf-8")
    assert 'rel="prev"' in paths[1].read_text("utf-8") and 'rel="next"' not in paths[1].read_text("utf-8")


def test_numbers_of_pages_sort_by_name() -> None:
    records = [None] * 12_345  # only their number counts
    names = [page.name for page in html_report._pages(records)]  # type: ignore[arg-type]
    assert len(names) == 124 and names[0] == "report.html"
    assert names[1] == "report_images/flagged-00101-00200.html" and names[-1].endswith("-12345.html")
    assert names[1:] == sorted(names[1:])


def test_other_maps_of_the_record_can_be_laid_over(tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    b.inspected("a.png", verdict_of(Decision.REJECT, 3.0, 1 / 96), [(250, 130, 20, 9)])
    (record,) = b.records
    data = (tmp_path / "run" / "maps" / "img-00001.png").read_bytes()
    more = {}
    for name in ("within", "edge-attribution"):
        (tmp_path / "run" / "maps" / f"img-00001-{name}.png").write_bytes(data)
        more[f"maps/img-00001-{name}.png"] = hashlib.sha256(data).hexdigest()
    b.records[0] = replace(record, artifacts={**record.artifacts, **more})
    (path,) = ReportRenderer().render(b.report(), tmp_path, ["html"])
    page = path.read_text("utf-8")
    names = re.findall(r'class="pick-\d+"(?: checked)?>([^<]+)', page)
    assert names == ["Anomaly", "edge attribution", "Doubt within scorers"]
    assert page.count('<div class="map ') == 3
