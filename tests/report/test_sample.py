"""The report that the repository shows: what belongs together in it stands together."""

from __future__ import annotations

import csv
from pathlib import Path

import pikepdf
from pdf_text import page_text

SAMPLES = Path(__file__).resolve().parents[2] / "reports" / "samples"


def test_the_few_files_that_were_not_inspected_stand_on_one_page() -> None:
    with (SAMPLES / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        missed = [row["file"] for row in csv.DictReader(file) if row["decision"] == "NOT_INSPECTED"]
    with pikepdf.open(SAMPLES / "report.pdf") as pdf:
        (page,) = (text for sheet in pdf.pages if "Filesnotinspected" in (text := page_text(sheet)))
    assert len(missed) == 2 and all(name in page for name in missed)
