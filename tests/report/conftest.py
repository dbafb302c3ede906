"""One fabricated lot for all report tests, rendered once."""

from __future__ import annotations

from pathlib import Path

import pytest
from fabricated_lot import full_lot

from explainvad.report.render import ReportRenderer
from explainvad.types import LotReport


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
