"""Drives a real Chromium: what a report shows, does and asks for."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
_QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """A Chromium with one window. Motion is reduced unless a test asks for it: then nothing has to be waited for."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in (*_QUIET, f"--user-data-dir={profile}", "--window-size=1280,1000"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(
            options=options, service=Service(str(DRIVER))
        )  # a given path: nothing is fetched
        self.look()

    def look(self, scheme: str = "light", motion: str = "reduce", width: int = 1280) -> None:
        """Set what the reader's system prefers, and how wide the window is."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def allow_scripts(self, allowed: bool) -> None:
        """Let pages that are opened from now on run their scripts, or not."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    def open(self, page: Path, anchor: str = "") -> Browser:
        """Open a page anew, with nothing left of the one before; what was logged before is forgotten."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.as_uri() + (f"#{anchor}" if anchor else ""))
        return self

    def press(self, *keys: str) -> None:
        """Press keys, whatever has the focus."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def run(self, script: str, *arguments: object) -> object:
        """The value of a JavaScript function body."""
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str) -> WebElement:
        """The first element that a selector finds."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def seen(self, selector: str) -> list[WebElement]:
        """The elements that a selector finds and a reader can see."""
        return [e for e in self.driver.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()]

    def pixels(self, selector: str) -> np.ndarray:
        """What an element looks like: int (H, W, 3)."""
        picture = Image.open(io.BytesIO(self.one(selector).screenshot_as_png)).convert("RGB")
        return np.asarray(picture, dtype=int)

    def complaints(self) -> list[str]:
        """What the console says: errors and violations of the content security policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        """Beginnings of all addresses that were asked for since the page was opened."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {url if not url.startswith("data:") else "data:" for url in sent}

    def focused(self) -> str:
        """Name of the element that has the focus."""
        return str(self.run("const e = document.activeElement; return e.innerText || e.id || e.value"))
