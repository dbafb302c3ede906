"""Reads the text of a rendered HTML report by its sections."""

from __future__ import annotations

import html
import re
from pathlib import Path

from explainvad.report.image_page import ImagePage, image_page, shown_records
from explainvad.report.render import ReportRenderer
from explainvad.types import LotReport


def image_pages(report: LotReport) -> tuple[list[ImagePage], dict[str, bytes]]:
    """The pages of all flagged images, and the pictures that they show."""
    shown = shown_records(report, "flagged")
    calibration, pictures, pages = report.model.calibration, {}, []
    for number, record in enumerate(shown, 1):
        page, own = image_page(report.run_dir, record, number, len(shown), calibration)
        pages.append(page)
        pictures |= own
    return pages, pictures


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
