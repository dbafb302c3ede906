"""The promise of the demo, kept with its own settings: detected, located, deferred where the picture is foreign."""

from __future__ import annotations

from pathlib import Path

import pytest

from explainvad import Inspector
from explainvad.demo import DEMO_CONFIG, make_demo
from explainvad.evaluation.evaluate import evaluate_dataset


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_the_demo_lot_is_detected_and_its_defects_are_located(tmp_path: Path) -> None:
    folders = make_demo(tmp_path / "demo")
    model = Inspector.fit(folders.reference, config=DEMO_CONFIG).save(tmp_path / "flange.evad")
    results = evaluate_dataset(folders.labelled, tmp_path / "evaluation", model=model).results
    assert results["n_good"] == 14 and results["n_defect"] == 14
    assert results["image_auroc"]["estimate"] >= 0.99
    assert results["pixel"]["aupro"]["0.30"]["estimate"] >= 0.90
    assert results["by_type"]["foreign_part"]["DEFER"] == 1
    defects = [row for name, row in results["by_type"].items() if name != "good"]
    assert sum(row["flagged_with_mask"] for row in defects) >= 12
    assert all(row["flagged_with_mask"] == row["hits"] for row in defects), defects
