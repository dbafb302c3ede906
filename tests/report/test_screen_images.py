"""The HTML report in a real Chromium: one image, its layers, its keys, and the way to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from fabricated_lot import many_flagged
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from explainvad.report import html_report
from explainvad.report.render import ReportRenderer

IMAGE = "img-00005"  # one region
STAGE = ".image.open .inspected"


def _open_image(browser: Browser) -> str:
    return ",".join(str(e.get_attribute("id")) for e in browser.seen("section"))


def _ready(browser: Browser) -> bool:
    return browser.run("return document.readyState") == "complete"


def _set_opacity(browser: Browser, percent: int) -> None:
    script = "const s = arguments[0]; s.value = arguments[1]; s.dispatchEvent(new Event('input', { bubbles: true }))"
    browser.run(script, browser.one(".image.open .opacity"), percent)


def test_opacity_fades_the_map_and_zero_leaves_the_photograph_untouched(browser: Browser, screen: Path) -> None:
    browser.open(screen, IMAGE)
    assert _open_image(browser) == IMAGE
    browser.press("r")  # no outlines
    pictures = {}
    for percent in (100, 50, 0):
        _set_opacity(browser, percent)
        pictures[percent] = browser.pixels(STAGE)
        assert browser.one(".image.open output").text == f"{percent} %"
    browser.run("for (const e of document.querySelectorAll('.open .map, .open .outlines')) e.remove()")
    assert (pictures[0] == browser.pixels(STAGE)).all()
    changed = np.abs(pictures[100] - pictures[0]).max(axis=2) > 40
    assert 0.002 < changed.mean() < 0.1  # the region, not the whole picture
    half = pictures[50][changed].mean(axis=0)
    np.testing.assert_allclose(half, (pictures[100][changed] + pictures[0][changed]).mean(axis=0) / 2, atol=4)


def test_key_for_opacity_goes_to_none_and_back(browser: Browser, screen: Path) -> None:
    browser.open(screen, IMAGE)
    _set_opacity(browser, 40)
    told = []
    for _ in range(3):
        browser.press("o")
        told.append(browser.one(".image.open output").text)
    assert told == ["0 %", "40 %", "0 %"]


def test_outlines_are_switched(browser: Browser, screen: Path) -> None:
    browser.open(screen, IMAGE)
    browser.press("o")
    outlined = browser.pixels(STAGE)
    browser.press("r")
    plain = browser.pixels(STAGE)
    assert 0.001 < (np.abs(outlined - plain).max(axis=2) > 60).mean() < 0.05
    browser.one(".image.open .regions").click()
    assert (browser.pixels(STAGE) == outlined).all()


def test_without_motion_each_press_of_blink_swaps_the_picture(browser: Browser, screen: Path) -> None:
    browser.open(screen, IMAGE)
    inspected = browser.pixels(STAGE)
    browser.run("window.setInterval = () => { window.moves = true }")
    browser.press("b")
    assert browser.one(".image.open .blink-toggle").get_attribute("aria-pressed") == "true"
    shown, nominal = browser.pixels(STAGE), browser.pixels(".image.open .nominal")
    inner = np.s_[60:-4, 4:-4]  # the word "Reference" stands above; the two lie half a pixel apart
    assert np.abs(shown - nominal)[inner].mean() < 2
    assert (np.abs(shown - inspected)[inner].max(axis=2) > 40).mean() > 0.01
    assert browser.run("return window.moves || document.getAnimations().length") == 0
    browser.press("b")
    assert (browser.pixels(STAGE) == inspected).all()


def test_blink_goes_back_and_forth_until_it_is_stopped(browser: Browser, screen: Path) -> None:
    browser.look(motion="no-preference")
    browser.open(screen, IMAGE)
    browser.one(".image.open .blink-toggle").click()
    swapped = "return document.querySelector('.open .viewer').classList.contains('nominal-shown')"
    for expected in (True, False, True):
        WebDriverWait(browser.driver, 10, 0.02).until(lambda _, e=expected: browser.run(swapped) is e)
    browser.press("b")
    assert browser.run(swapped) is False
    assert browser.one(".image.open .blink-toggle").get_attribute("aria-pressed") == "false"
    browser.press("b", "j")  # leaving the image stops it, too
    assert browser.run("return document.querySelectorAll('.nominal-shown').length") == 0


def test_zoom_magnifies_both_pictures_alike(browser: Browser, screen: Path) -> None:
    browser.open(screen, IMAGE)
    whole = browser.run("return document.querySelector('.open .photo').getBoundingClientRect().width")
    browser.press("z")
    boxes = browser.run(
        "return ['.open .photo', '.open .nominal .reference', '.open .outlines path'].map(s => {"
        "const stage = document.querySelector(s).closest('.stage').getBoundingClientRect();"
        "const b = document.querySelector(s).getBoundingClientRect();"
        "return [b.width, b.x - stage.x, b.y - stage.y, b.x + b.width - stage.x, stage.width] })"
    )
    photo, reference, path = boxes  # type: ignore[misc]
    assert photo == pytest.approx(reference, abs=1) and photo[0] > 2 * whole  # type: ignore[operator]
    assert path[1] > 0 and path[3] < path[4] and path[2] > 0 and path[0] > 0.3 * path[4]  # the region fills the stage
    pressed = [b.text for b in browser.seen(".zoom[aria-pressed=true]")]
    browser.press("z")
    assert (pressed, [b.text for b in browser.seen(".zoom[aria-pressed=true]")]) == (["R1"], ["Whole"])


def test_keys_go_through_the_list_as_it_is_filtered_and_sorted(browser: Browser, screen: Path) -> None:
    browser.open(screen)
    browser.one(".chip [value=defer]").click()
    (score,) = [b for b in browser.seen(".grid thead button") if b.text.strip() == "Score"]
    score.click()
    score.click()  # highest first: 22, 9, 5, 15
    browser.press("j")
    assert browser.focused() == "img-00022"
    browser.press(Keys.ENTER)
    seen = [_open_image(browser)]
    for key in ("j", Keys.ARROW_RIGHT, "j", "j", "k", Keys.ARROW_LEFT):
        browser.press(key)
        seen.append(_open_image(browser))
    assert [name[-2:] for name in seen] == ["22", "09", "05", "15", "15", "05", "09"]
    assert browser.one(".position").text == "img-00009, 2 of 4"
    assert browser.one(".imagebar .next").is_enabled()
    browser.press(Keys.ESCAPE)
    assert browser.focused() == "img-00009" and browser.seen(".grid")
    browser.driver.back()
    assert _open_image(browser) == "img-00009"


def test_settings_go_along_to_the_next_image(browser: Browser, screen: Path) -> None:
    browser.open(screen, IMAGE)
    _set_opacity(browser, 30)
    browser.press("r", "j")
    assert browser.one(".image.open output").text == "30 %"
    assert not browser.one(".image.open .regions").is_selected()


def test_list_of_keys_opens_and_single_keys_can_be_switched_off(browser: Browser, screen: Path) -> None:
    browser.open(screen, IMAGE)
    browser.press("?")
    assert browser.seen("dialog[open]") and "Blink against" in browser.one("dialog").text
    browser.press("j")  # keys rest while it is open
    assert _open_image(browser) == IMAGE
    browser.one(".keys-on").click()
    browser.press(Keys.ESCAPE)
    assert not browser.seen("dialog[open]") and _open_image(browser) == IMAGE
    browser.press("j", "o")
    assert _open_image(browser) == IMAGE and browser.one(".image.open output").text == "75 %"


def test_slash_leads_from_an_image_to_the_filter(browser: Browser, screen: Path) -> None:
    browser.open(screen, IMAGE)
    browser.press("/", "j")
    assert browser.focused() == "filter-text"
    assert browser.one("#filter-text").get_attribute("value") == "j"


def test_images_on_further_pages_are_within_reach(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_report, "IMAGES_A_PAGE", 2)
    *beside, page = ReportRenderer().render(many_flagged(tmp_path / "run", 5), tmp_path, ["html"])
    browser.open(page, "img-00002")
    steps = [("j", beside[0], 3), ("j", beside[0], 4), ("j", beside[1], 5), ("k", beside[0], 4), ("k", beside[0], 3)]
    for key, there, number in (*steps, ("k", page, 2)):
        browser.press(key)
        url = f"{there.as_uri()}#img-{number:05d}"
        WebDriverWait(browser.driver, 10).until(lambda driver, url=url: driver.current_url == url and _ready(browser))
        assert _open_image(browser) == f"img-{number:05d}"
        assert browser.one(".imagebar .next").is_enabled() == (number < 5)
    browser.open(beside[1])
    assert [e.text for e in browser.seen(".grid tbody tr th")] == ["img-00005"]
    browser.one("nav[aria-label=Report] a").click()
    assert browser.driver.current_url == f"{page.as_uri()}#files"
    assert browser.complaints() == []
