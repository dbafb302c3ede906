"""The HTML report in a real Chromium: the list of files and what the page asks for."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Browser
from fabricated_lot import Builder, verdict_of
from selenium.webdriver.common.keys import Keys

from explainvad.report.render import ReportRenderer
from explainvad.types import Decision

FLAGGED = ["img-00005", "img-00009", "img-00015", "img-00019", "img-00022", "img-00027"]


def _column(browser: Browser, number: int) -> list[str]:
    """The texts of a column, of the rows that are there."""
    script = "return [...document.querySelectorAll('.grid tbody tr')].map(row => row.cells[arguments[0]].innerText)"
    return browser.run(script, number)  # type: ignore[return-value]


def _sort(browser: Browser, name: str) -> str:
    """Press a column's button; its aria-sort."""
    (button,) = [b for b in browser.seen(".grid thead button") if b.text.strip() == name]
    button.click()
    return str(browser.run("return arguments[0].closest('th').ariaSort", button))


def test_page_asks_for_nothing_and_complains_of_nothing(browser: Browser, screen: Path) -> None:
    browser.open(screen)
    browser.press("j", Keys.ENTER, "o", "b", "b", "r", "z", "m", Keys.ESCAPE, "/")
    assert browser.requests() == {screen.as_uri(), "data:"}
    assert browser.complaints() == []


def test_policy_is_at_work(browser: Browser, screen: Path) -> None:
    browser.open(screen)
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 2\" style=\"width:1px\">')"
    )
    assert browser.run("return window.hacked") is None
    told = " ".join(browser.complaints())
    assert "script-src" in told and "style-src" in told and "img-src" in told


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and the paths that somebody asked it for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_hostile_record_neither_runs_nor_calls_home(
    browser: Browser, tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    address, asked = listener
    bad = [
        f'"><img src="{address}/img" onerror="window.hacked=1"><script>window.hacked=1</script>',
        f"</title></style></script><script src={address}/js></script><base href={address}>",
        f"<style>@import '{address}/css'; body {{ display: none }}</style>",
        f'<meta http-equiv="refresh" content="0;{address}/go">',
        f'" autofocus onfocus="window.hacked=1" style="background:url({address}/url)',
        "javascript:window.hacked=1",
    ]
    b = Builder(tmp_path / "run")
    for text in bad:
        b.inspected(text, verdict_of(Decision.REJECT, 3.0, 1 / 96, (text,)), [(250, 130, 20, 9)], notes=(text,))
    b.missed("".join(bad), "".join(bad))
    report = b.report()
    report = replace(report, lot=replace(report.lot, lot_id=bad[1] + "\u202ekcah", part=bad[0], site=bad[2]))
    (page,) = ReportRenderer().render(report, tmp_path, ["html"])
    browser.open(page)
    browser.press("j", Keys.ENTER, "b", "b")
    assert browser.driver.title.startswith("img-00001, Inspection report EV-")
    browser.press(Keys.ESCAPE, "/", "x")
    assert browser.run("return window.hacked") is None
    assert browser.run("return document.scripts.length") == 1
    title = browser.driver.title
    assert title.startswith("Inspection report EV-7F3A-91C2-04BD, lot </title>") and r"\u202ekcah" in title
    assert asked == [] and browser.requests() == {page.as_uri(), "data:"} and browser.complaints() == []


@pytest.mark.parametrize(
    ("name", "column", "first", "last"),
    [
        ("Image", 0, "img-00030", "img-00001"),
        ("File", 1, "+notes.txt.png", "truncated.jpg"),
        ("Decision", 2, "◆ Reject", "● Not flagged"),
        ("Regions", 5, "0", "—"),
    ],
)
def test_list_is_sorted_by_any_column(
    browser: Browser, screen: Path, name: str, column: int, first: str, last: str
) -> None:
    browser.open(screen)
    assert _sort(browser, name) == "ascending"
    if name == "Image":
        assert _sort(browser, name) == "descending"
    texts = _column(browser, column)
    assert (len(texts), texts[0].strip(), texts[-1].strip()) == (30, first, last)
    assert len(browser.seen("th[aria-sort]")) == 1


@pytest.mark.parametrize(("name", "column"), [("p-value", 3), ("Score", 4)])
def test_numbers_sort_as_numbers_and_missing_ones_come_last(
    browser: Browser, screen: Path, name: str, column: int
) -> None:
    browser.open(screen)
    for direction, sign in (("ascending", 1), ("descending", -1)):
        assert _sort(browser, name) == direction
        texts = _column(browser, column)
        values = [float(t.replace("−", "-")) for t in texts if t != "—"]
        assert len(values) == 27 and values == sorted(values, reverse=sign < 0)
        assert texts[-3:] == ["—"] * 3


def test_filter_and_its_counts(browser: Browser, screen: Path) -> None:
    browser.open(screen)
    assert browser.one(".count").text == "30 files"
    browser.press("/", *"sharpness")
    assert browser.one(".count").text == "1 of 30 files"
    assert [" ".join(c.text.split()) for c in browser.seen(".chip")] == [
        "◆ Reject 0", "▲ Defer to a person 1", "✕ Not inspected 0", "● Not flagged 0",
    ]  # fmt: skip
    assert _column(browser, 0) == ["img-00019"]
    browser.one("#filter-text").clear()
    browser.press("x", Keys.BACKSPACE)
    browser.one(".chip [value=not-flagged]").click()
    browser.one(".chip [value=not-inspected]").click()
    assert browser.one(".count").text == "6 of 30 files"
    assert _column(browser, 0) == FLAGGED
    browser.press("/", *"FLANGE 022")  # words, in any case
    assert _column(browser, 0) == ["img-00022"]
    assert browser.one(".count").get_attribute("aria-live") == "polite"


def test_long_list_is_laid_out_by_portions_and_filtered_as_a_whole(browser: Browser, tmp_path: Path) -> None:
    b = Builder(tmp_path / "run")
    b.good(620)
    b.inspected("last.png", verdict_of(Decision.REJECT, 3.0, 1 / 96), [(250, 130, 20, 9)])
    (page,) = ReportRenderer().render(b.report(), tmp_path, ["html"])
    assert page.read_text("utf-8").count('<table class="grid">') == 2  # what a reader without scripts gets
    browser.open(page)
    assert len(_column(browser, 0)) == 500
    assert browser.one(".count").text == "621 files, the first 500 shown"
    browser.press("j")  # the only image lies beyond what is laid out
    assert browser.focused() == "img-00621" and len(_column(browser, 0)) == 621
    assert not browser.seen(".more")
    browser.press("/", "f", Keys.BACKSPACE)
    assert len(_column(browser, 0)) == 500
    browser.one(".more button").click()
    assert len(_column(browser, 0)) == 621
    browser.press("/", *"flange_577")
    assert _column(browser, 1) == ["flange_577.png"] and browser.one(".count").text == "1 of 621 files"
