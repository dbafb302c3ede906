"""One fabricated lot for all report tests, rendered once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fabricated_lot import full_lot

from explainvad.report.render import ReportRenderer
from explainvad.types import LotReport

if TYPE_CHECKING:  # selenium is loaded only where a browser is
    from browser import Browser


@pytest.fixture(scope="session")
def lot_report(tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    """Thirty files of every kind; tests must not change its run folder."""
    return full_lot(tmp_path_factory.mktemp("fabricated") / "run")


@pytest.fixture(scope="session")
def rendered(lot_report: LotReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the lot's report in all formats."""
    out = tmp_path_factory.mktemp("rendered")
    ReportRenderer().render(lot_report, out)
    return out


@pytest.fixture(scope="session")
def screen(lot_report: LotReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lot's HTML report."""
    (page,) = ReportRenderer().render(lot_report, tmp_path_factory.mktemp("screen"), ["html"])
    return page


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests; see ``browser`` for a fresh look at it."""
    from browser import CHROMIUM, DRIVER, Browser

    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip(f"needs {CHROMIUM} and {DRIVER}, the Debian packages chromium and chromium-driver")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """Chromium with a light, still, wide window."""
    chromium.look()
    return chromium


@pytest.fixture
def scriptless(browser: Browser) -> Iterator[Browser]:
    """Chromium that runs no scripts of pages."""
    browser.allow_scripts(False)
    yield browser
    browser.allow_scripts(True)
