"""Pages of every judged image, where the run kept pictures of all: what they say of images that are not flagged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pikepdf
import pytest
from fabricated_lot import SMALL_P, Builder, quiet_lot, verdict_of
from page_text import image_sections, sections_of
from pdf_structure import targets
from pdf_text import page_text

from explainvad.errors import UsageError
from explainvad.report.image_page import shown_records
from explainvad.report.render import ReportRenderer, configured_pages
from explainvad.types import Decision, LotReport


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    """Four files: one rejected, one not flagged, one accepted, one that could not be inspected."""
    b = Builder(tmp_path_factory.mktemp("kept") / "run")
    b.inspected("bad.png", verdict_of(Decision.REJECT, 3.0, 1 / 96, SMALL_P), [(250, 130, 20, 9)])
    b.inspected("good.png", verdict_of(Decision.NOT_FLAGGED, 0.2, 0.6), keep=True)
    b.inspected("fine.png", verdict_of(Decision.ACCEPT, 0.1, 0.8), keep=True)
    b.missed("empty.png", "the file is empty")
    report = b.report()
    return replace(report, provenance=replace(report.provenance, config={"pages": "all"}))


@pytest.mark.thorough
def test_all_judged_images_get_a_page_by_the_runs_own_configuration(kept: LotReport, tmp_path: Path) -> None:
    ReportRenderer().render(kept, tmp_path, ["pdf", "html"])
    with pikepdf.open(tmp_path / "report.pdf") as pdf:
        at, texts = targets(pdf), [page_text(sheet) for sheet in pdf.pages]
    assert [at[f"img-0000{k}"] for k in (1, 2, 3)] == [4, 5, 6] and "img-00004" not in at
    assert "Inspectedimages" in texts[4] and texts[4].startswith("1of3") and "Automaticdecision●Notflagged" in texts[5]
    assert "Automaticdecision■Accept" in texts[6] and "Defer" not in texts[5] + texts[6]
    assert "Noregionwascutout" in texts[5] and "Humanverdict" in texts[5]
    assert "Inspectedimages5Modelcard8" in texts[0] and "Flaggedimages5" not in texts[0]
    bad, good, _ = image_sections(tmp_path)
    assert "◆ Reject" in bad and "● Not flagged" in good and "Inspected image 2 of 3" in good


def test_flagged_ones_alone_where_that_is_asked(kept: LotReport, tmp_path: Path) -> None:
    ReportRenderer().render(kept, tmp_path, ["html"], pages="flagged")
    assert len(image_sections(tmp_path)) == 1
    assert "Flagged image 1 of 1" in sections_of(tmp_path)["image"]


def test_run_that_kept_no_pictures_says_what_to_do(tmp_path: Path) -> None:
    report = quiet_lot(tmp_path)
    assert configured_pages(report) == "flagged" and shown_records(report, "flagged") == ()
    with pytest.raises(UsageError, match=r"none of 3 .*img-00001.*analyze --pages all and another --out"):
        ReportRenderer().render(report, tmp_path / "out", ["pdf"], pages="all")
    with pytest.raises(UsageError, match="flagged or all"):
        ReportRenderer().render(report, tmp_path / "out", ["csv"], pages="some")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
