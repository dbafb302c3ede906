"""Reads the text of a rendered HTML report by its sections."""

from __future__ import annotations

import html
import re
from pathlib import Path

from explainvad.report.render import ReportRenderer
from explainvad.types import LotReport


def sections(report: LotReport, folder: Path) -> dict[str, str]:
    """Render ``report`` into ``folder``; the text of its sections by class, of the last one where there are several."""
    ReportRenderer().render(report, folder, ["html"])
    return sections_of(folder)


def sections_of(folder: Path) -> dict[str, str]:
    """The same of a report that was rendered before; blanks of any kind become one blank."""
    return {name: text_of(body) for name, body in _bodies(folder)}


def image_sections(folder: Path) -> list[str]:
    """The text of the page of each flagged image."""
    return [text_of(body) for name, body in _bodies(folder) if name == "image"]


def text_of(body: str) -> str:
    """Text without tags and entities, blanks of any kind as one."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def _bodies(folder: Path) -> list[tuple[str, str]]:
    page = (folder / "report.html").read_text("utf-8")
    return re.findall(r'<section class="([\w-]+)[^"]*"[^>]*>(.*?)</section>', page, re.S)
