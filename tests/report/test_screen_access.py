"""The HTML report for everybody: without scripts, without a mouse, without seeing, in the dark, on a phone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from browser import Browser
from selenium.webdriver.common.keys import Keys

from explainvad.types import LotReport

VIEWS = ["", "img-00022"]

# Texts whose contrast with what lies behind them is less than 4.5, or 3 for large ones
FAINT = """
const lit = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const rgba = (c) => { const v = c.match(/[\\d.]+/g).map(Number); return v.length > 3 ? v : [...v, 1] };
const light = ([r, g, b]) => 0.2126 * lit(r) + 0.7152 * lit(g) + 0.0722 * lit(b);
const behind = (e) => { for (; e; e = e.parentElement) {
  const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c } return [255, 255, 255] };
const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
return [...document.body.querySelectorAll('*')].filter((e) => own(e) && e.checkVisibility() && !e.closest('svg')
  && !e.disabled && e.matches(':not(.unseen, .unseen *, :disabled *)')).map((e) => {
  const style = getComputedStyle(e), back = behind(e), part = style.opacity;
  const fore = rgba(style.color).slice(0, 3).map((v, k) => v * part + back[k] * (1 - part));
  const [low, high] = [light(fore), light(back)].sort((a, b) => a - b);
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.6 && style.fontWeight >= 600);
  return [(high + 0.05) / (low + 0.05), large ? 3 : 4.5, e.className, e.textContent.slice(0, 40)];
}).filter(([ratio, least]) => ratio < least)"""


def test_without_scripts_all_is_there_and_no_control_is_dead(
    scriptless: Browser, screen: Path, lot_report: LotReport
) -> None:
    scriptless.open(screen)
    flagged = [r.image_id for r in lot_report.records if r.flagged]
    assert [s.get_attribute("id") for s in scriptless.seen("section.image")] == flagged
    assert len(scriptless.seen(".grid tbody tr")) == 30
    assert scriptless.seen("button, input[type=range], input[type=search], dialog, kbd") == []
    text = scriptless.one("body").text
    for part in ("Lot statement", "Method and decision rule", "Model card", "Measured place: upper left", "Region R5"):
        assert part in text
    # Photograph under its map and outlines, beside the reference
    scriptless.run("document.querySelector('.image').scrollIntoView()")
    assert all(len(scriptless.seen(f"#{flagged[0]} {s}")) == 1 for s in (".photo", ".map-1", ".outlines", ".reference"))
    left, right = (scriptless.one(f"#{flagged[0]} {s}").rect for s in (".inspected", ".nominal"))
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]


def test_outlines_are_switched_without_scripts(scriptless: Browser, screen: Path) -> None:
    scriptless.open(screen)
    box = scriptless.one("#img-00005 .regions")
    scriptless.run("arguments[0].scrollIntoView()", box)
    assert scriptless.seen("#img-00005 .outlines")
    box.click()
    assert not scriptless.seen("#img-00005 .outlines")


@pytest.mark.parametrize("view", VIEWS)
def test_every_control_and_picture_has_a_name(browser: Browser, screen: Path, view: str) -> None:
    browser.open(screen, view)
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    told = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    roles = {"button", "checkbox", "radio", "slider", "searchbox", "link", "image", "img", "dialog", "table"}
    controls = [(role, name) for role, name in told if role in roles]
    assert len(controls) > 15
    assert [c for c in controls if c[0] != "table" and not any(map(str.isalpha, c[1]))] == []
    assert browser.run("return [...document.images].filter(i => !i.hasAttribute('alt')).length") == 0
    assert {"banner", "main", "navigation"} <= {role for role, _ in told}
    assert [role for role, _ in told].count("main") == 1
    names = [name for role, name in told if role == "navigation"]
    assert len(names) == len(set(names)) and all(names)


@pytest.mark.parametrize("view", VIEWS)
def test_headings_go_down_by_single_steps(browser: Browser, screen: Path, view: str) -> None:
    browser.open(screen, view)
    levels = [int(h.tag_name[1]) for h in browser.seen("h1, h2, h3, h4")]
    assert levels[0] == 1 and levels.count(1) == 1 and len(levels) > 4
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_page_is_well_formed_for_assistive_software(browser: Browser, screen: Path) -> None:
    browser.open(screen)
    assert browser.run("return document.documentElement.lang") == "en"
    ids = browser.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))  # type: ignore[arg-type]
    assert browser.run("return document.querySelectorAll('thead th:not([scope=col])').length") == 0
    assert browser.run("return document.querySelectorAll('[tabindex]:not([tabindex=\"-1\"])').length") == 0


def test_focus_goes_in_reading_order_and_can_be_seen(browser: Browser, screen: Path) -> None:
    browser.open(screen)
    order = []
    for _ in range(24):
        browser.press(Keys.TAB)
        order.append(browser.focused().splitlines()[0].strip())
        outline = browser.run(
            "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]"
        )
        assert outline[0] != "none" and outline[1] != "0px", order  # type: ignore[index]
    assert order == [
        "Skip to the list of files", "Files", "Summary", "Statement", "Method", "Model card", "Record", "Keys ?",
        "Method and decision rule", "filter-text", "reject", "defer", "not-inspected", "not-flagged",
        "Image", "File", "Decision", "p-value", "Score", "Regions", "Reasons", "img-00005", "img-00009", "img-00015",
    ]  # fmt: skip


def test_opened_image_is_announced_by_its_heading(browser: Browser, screen: Path) -> None:
    browser.open(screen)
    browser.press("j", Keys.ENTER)
    assert browser.focused().startswith("img-00005 flange_005.png")
    assert browser.one(".position").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_texts_stand_out_in_both_schemes(browser: Browser, screen: Path, scheme: str, view: str) -> None:
    browser.look(scheme)
    browser.open(screen, view)
    paper = browser.run("return getComputedStyle(document.querySelector('section')).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert browser.run(FAINT) == []


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_cut_off_on_a_phone(browser: Browser, screen: Path, view: str) -> None:
    browser.look(width=400)
    browser.open(screen, view)
    assert browser.run("return document.documentElement.scrollWidth") == 400
    if not view:
        widths = browser.run(
            "return [...document.querySelectorAll('.grid tbody tr')].map(r => r.getBoundingClientRect().right)"
        )
        assert max(widths) <= 400  # type: ignore[type-var]
