"""Calibration schemes through the whole flow: few images, cells, labelled and synthetic defects, lot after lot."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny_parts import CONFIG, GOOD, RUSTY, write_lot, write_part, write_references

from explainvad import Decision, Inspector, LotReport, verify_run
from explainvad.errors import ConfigError, TooFewImagesError, UsageError
from explainvad.evaluation.evaluate import evaluate_dataset

FEW = 24


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of few reference images."""
    folder = tmp_path_factory.mktemp("few")
    references = write_references(folder / "reference", FEW)
    return Inspector.fit(references, config=CONFIG).save(folder / "few.evad")


@pytest.fixture(scope="module")
def celled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two cameras, the second one's pictures darker."""
    folder = tmp_path_factory.mktemp("cells")
    for camera in ("cam1", "cam2"):
        for seed in range(44):
            write_part(folder / "reference" / camera / f"part_{seed:03d}.png", seed + 500 * (camera == "cam2"))
    config = CONFIG.model_copy(update={"group_by": r"(cam\d)"})
    return Inspector.fit(folder / "reference", config=config).save(folder / "cells.evad")


def fresh(model: Path, folder: Path) -> Inspector:
    """A copy of the model, which has seen no lot."""
    return Inspector.load(shutil.copytree(model, folder / model.name), "cpu")


# --- Few reference images


def test_few_images_are_each_judged_by_the_others(few: Path, tmp_path: Path) -> None:
    inspector = fresh(few, tmp_path)
    facts = inspector.card().calibration
    assert (facts.scheme, facts.n_fit, facts.n_cal, facts.conditional_alpha) == ("leave-one-out", FEW, FEW, None)
    missing = inspector.card().fallbacks
    assert any(line.startswith("reconstruction scorer: not used") for line in missing)
    assert any(line.startswith("adaptation of the backbone: not done") for line in missing)
    report = inspector.analyze(write_lot(tmp_path / "lot", [*[GOOD] * 10, RUSTY, RUSTY]), tmp_path / "run")
    by_kind = [(r.file[3:-4], r.decision) for r in report.records]
    assert sum(d is Decision.REJECT for kind, d in by_kind if kind == GOOD) <= 3
    assert all(d in (Decision.REJECT, Decision.DEFER) for kind, d in by_kind if kind == RUSTY)
    assert [r.scores.keys() for r in report.records] == [{"memory_bank"}] * 12
    text = " ".join(report.render(formats=("html",))[0].read_text("utf-8").split())
    assert "leave-one-out" in text and "jackknife-minmax" in text and "with 95 % confidence</th>" not in text
    assert verify_run(report.run_dir).ok


def test_calibration_scores_of_few_images_are_those_against_the_others(few: Path) -> None:
    inspector = Inspector.load(few, "cpu")
    bank = inspector.ensemble.bank
    reference = few.parent / "reference"
    from explainvad.lot import collect_references, read_image

    files = collect_references([reference])
    image = read_image(files[3])
    left_out = inspector.ensemble.without([3]).score(image)
    known = inspector.calibrator.cell("")
    assert known.by_scorer["memory_bank"][3] == pytest.approx(left_out[0].value)
    assert bank.score([image])[0].value < left_out[0].value  # against all, itself among them


@pytest.mark.thorough
def test_the_scheme_can_be_asked_for(tmp_path: Path) -> None:
    references = write_references(tmp_path / "reference", 40)
    split = Inspector.fit(references, config=CONFIG, scheme="split")
    assert split.card().calibration.scheme == "split" and split.split.scheme == "split"
    with pytest.raises(TooFewImagesError, match="6 reference images of different parts are too few"):
        Inspector.fit([references / f"part_{i:03d}.png" for i in range(6)], config=CONFIG)


# --- Cells


def test_each_cell_has_its_own_calibration(celled: Path, tmp_path: Path) -> None:
    inspector = fresh(celled, tmp_path)
    facts = inspector.card().calibration
    assert [f.cell for f in facts.cells] == ["cam1", "cam2"]
    assert facts.n_cal == sum(f.n_cal for f in facts.cells)
    assert facts.smallest_p == max(f.smallest_p for f in facts.cells)
    for camera in ("cam1", "cam2", "cam3"):
        write_lot(tmp_path / "lot" / camera, [GOOD, GOOD, RUSTY], first=2000 + 10 * int(camera[-1]))
    write_part(tmp_path / "lot" / "stray.png", 3000)
    report = inspector.analyze(tmp_path / "lot", tmp_path / "run")
    for record in report.records:
        camera = record.file.split("/")[0]
        if camera in ("cam1", "cam2"):
            assert record.verdict is not None and record.verdict.cell == camera
            known = inspector.calibrator.cell(camera)
            assert record.verdict.p_value == known.p_value(record.verdict.score)
        else:
            belongs = "cam3" if camera == "cam3" else "no cell"
            assert record.failure is not None and record.failure.startswith(
                f"belongs to {belongs}, and only cam1, cam2 are calibrated"
            )
    text = report.render(formats=("html",))[0].read_text("utf-8")
    assert "Cells, each calibrated by itself" in text


def test_cells_can_be_named_by_a_table(celled: Path, tmp_path: Path) -> None:
    inspector = fresh(celled, tmp_path)
    lot = write_lot(tmp_path / "lot", [GOOD, GOOD])
    table = tmp_path / "cells.csv"
    table.write_text("file,group\n00_good.png,cam2\n01_good.png,cam1\n")
    report = inspector.analyze(lot, tmp_path / "run", group_by=str(table))
    assert [r.verdict and r.verdict.cell for r in report.records] == ["cam2", "cam1"]


@pytest.mark.thorough
def test_an_evaluation_judges_each_image_in_its_cell(celled: Path, tmp_path: Path) -> None:
    for i, camera in enumerate(("cam1", "cam2", "cam3")):
        write_part(tmp_path / "data" / "good" / f"{camera}.png", 7000 + i)
        write_part(tmp_path / "data" / "rust" / f"{camera}.png", 7100 + i, RUSTY)
    result = evaluate_dataset(tmp_path / "data", tmp_path / "out", model=celled).results
    assert (result["n_good"], result["n_defect"]) == (2, 2)
    assert result["not_inspected"] == [
        f"{kind}/cam3.png: belongs to cam3, and only cam1, cam2 are calibrated: calibrate this one, or name it so"
        for kind in ("good", "rust")
    ]
    assert result["calibration"]["levels"] == []  # of two calibrations there is no one band


def test_a_rule_for_a_model_without_cells_is_refused(inspector: Inspector, lot: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this model has one calibration for all"):
        inspector.analyze(lot, tmp_path / "run", group_by="(cam)")


def test_reference_images_outside_every_cell_are_refused(tmp_path: Path) -> None:
    references = write_references(tmp_path / "reference")
    with pytest.raises(ConfigError, match="does not match"):
        Inspector.fit(references, config=CONFIG, group_by=r"(cam\d)")


# --- Labelled and synthetic defects


def test_enough_labelled_defects_give_an_interval_and_a_share(references: Path, tmp_path: Path) -> None:
    for seed in range(40):
        write_part(tmp_path / "defects" / f"rust_{seed // 2}_{seed % 2}.png", 4000 + seed, RUSTY)
    inspector = Inspector.fit(references, config=CONFIG, defects=tmp_path / "defects", group=r"(?:part|rust)_(\d+)")
    inspector.save(tmp_path / "labelled.evad")
    facts = inspector.card().calibration
    assert facts.n_def == 20  # one picture of each of 20 defective parts
    report = inspector.analyze(write_lot(tmp_path / "lot", [*[GOOD] * 8, *[RUSTY] * 4]), tmp_path / "run")
    for record in report.records:
        assert record.verdict is not None and record.verdict.probability.lower is not None
        assert 0 <= record.verdict.probability.lower <= record.verdict.probability.upper <= 1
        assert not record.verdict.probability.synthetic
    share = report.statistics.defect_rate
    assert share is not None and share.lower <= 4 / 12 <= share.upper
    assert report.statistics.at_least_defective is not None and report.statistics.at_least_defective <= 5


@pytest.mark.thorough
def test_few_images_cells_and_defects_together(tmp_path: Path) -> None:
    for camera in ("cam1", "cam2", "cam3"):
        for part in range(10):
            seed = part + 100 * int(camera[-1])
            if camera != "cam3":
                write_part(tmp_path / "reference" / camera / f"part{part}_{camera}.png", seed)
            for shot in (0, 1):
                write_part(tmp_path / "defects" / camera / f"part{part}_{shot}.png", 3000 + 2 * seed + shot, RUSTY)
    rules = {"group_by": r"(cam\d)", "group": r"part(\d+)_"}
    inspector = Inspector.fit(tmp_path / "reference", config=CONFIG, defects=tmp_path / "defects", **rules)
    facts = inspector.card().calibration
    # ten parts under both cameras; of each part with a defect one picture for each camera
    assert (facts.scheme, facts.n_groups) == ("leave-one-out", 10)
    assert [(f.cell, f.n_cal, f.n_def) for f in facts.cells] == [("cam1", 10, 10), ("cam2", 10, 10)]
    notes = inspector.card().fallbacks
    assert "labelled defects of cam3: left out, no reference images calibrate it" in notes
    assert "deferral level gamma = 0.02 was asked for; with 10 calibration images 0.0909 is in force" in notes


@pytest.mark.thorough
def test_synthetic_defects_are_stamped_and_never_accept(references: Path, tmp_path: Path) -> None:
    inspector = Inspector.fit(references, config=CONFIG, synthetic_defects=40)
    restored = Inspector.load(inspector.save(tmp_path / "synthetic.evad"), "cpu")
    facts = restored.card().calibration
    assert (facts.n_synthetic, facts.n_def, facts.beta) == (40, 0, None)
    assert facts.power is not None and facts.power.kind == "synthetic" and facts.power.n == 40
    assert facts.power.hits == sum(restored.calibrator.cell("").p_value(s) <= 0.1 for s in synthetic_scores(restored))
    report = restored.analyze(write_lot(tmp_path / "lot", [GOOD] * 6), tmp_path / "run")
    assert Decision.ACCEPT not in {r.decision for r in report.records}
    for record in report.records:
        assert record.verdict is not None and record.verdict.probability.synthetic
        assert record.verdict.probability.method.startswith("synthetic: calibrated on 40 synthetic defects")
    assert report.statistics.defect_rate is None
    text = report.render(formats=("html",))[0].read_text("utf-8")
    assert "says nothing of real ones" in text and "Power of detection on synthetic defects" in text


def synthetic_scores(inspector: Inspector) -> list[float]:
    return list(inspector.calibrator.cell("").synthetic)


# --- Lot after lot


def analyze(inspector: Inspector, folder: Path, name: str, first: int) -> LotReport:
    lot = folder / name
    if not lot.exists():
        write_lot(lot, [GOOD] * 6, first)
    return inspector.analyze(lot, folder / f"run-{name}-{len(list(folder.iterdir()))}")


def test_streams_and_chart_go_on_from_lot_to_lot(model: Path, tmp_path: Path) -> None:
    inspector = fresh(model, tmp_path)
    one = analyze(inspector, tmp_path, "one", 5000)
    two = analyze(inspector, tmp_path, "two", 5100)
    assert one.statistics.drift is not None and two.statistics.drift is not None
    assert (one.statistics.drift.n_lots, one.statistics.chart) == (0, None)
    assert (two.statistics.drift.n_lots, two.statistics.drift.n_images) == (1, 6)
    assert two.statistics.chart is not None and [p.lot_id for p in two.statistics.chart.points] == ["one", "two"]
    assert {s.name for s in two.statistics.drift.streams} == {"scores", "acquisition"}
    assert not two.statistics.drift.suspended
    # the same lot again, after another: the same statement, and it is not counted twice
    again = analyze(inspector, tmp_path, "one", 5000)
    assert asdict(again.statistics) == asdict(one.statistics)
    three = analyze(inspector, tmp_path, "three", 5200)
    assert three.statistics.drift is not None and three.statistics.drift.n_lots == 2


def test_an_image_that_comes_again_in_another_lot_counts_once(model: Path, tmp_path: Path) -> None:
    inspector = fresh(model, tmp_path)
    first = analyze(inspector, tmp_path, "one", 5000)
    shutil.copytree(tmp_path / "one", tmp_path / "grown")
    write_part(tmp_path / "grown" / "zz.png", 5999)
    analyze(inspector, tmp_path, "grown", 0)
    from explainvad.record.history import history_path, read_history

    assert inspector.path is not None
    lots = read_history(history_path(inspector.path), inspector.model_id)
    assert [len(lot.images) for lot in lots] == [len(first.records), 1]


def test_drifted_pictures_suspend_the_guarantees(model: Path, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    inspector = fresh(model, tmp_path)
    lot = write_lot(tmp_path / "lot", [GOOD] * 40, 6000)
    for path in lot.iterdir():  # a lamp that ages
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
        Image.fromarray((0.8 * pixels).astype(np.uint8)).save(path)
    report = inspector.analyze(lot, tmp_path / "run")
    drift = report.statistics.drift
    assert drift is not None and drift.suspended
    alarmed = {s.name: s.alarm for s in drift.streams}["acquisition"]
    assert alarmed is not None and alarmed.startswith("lot lot, img-000")
    text = report.render(formats=("html",))[0].read_text("utf-8")
    assert text.count("Drift alarm: the images seen so far") == 3  # cover, statement, method


def test_a_history_that_cannot_be_written_is_said(model: Path, tmp_path: Path) -> None:
    inspector = fresh(model, tmp_path)
    assert inspector.path is not None
    inspector.path.with_name(f"{inspector.path.name}.history.jsonl").mkdir()  # in its place
    report = analyze(inspector, tmp_path, "one", 5000)
    assert any(line.startswith("history of the model not kept") for line in report.provenance.fallbacks)
    assert report.statistics.drift is not None and report.statistics.drift.n_lots == 0
