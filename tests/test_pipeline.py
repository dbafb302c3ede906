"""The whole flow in Python: fit, save, load, analyze, render."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from command_line import ledger
from tiny_parts import CONFIG, GOOD, HEIGHT, N_REFERENCES, RUST, RUSTY, WIDTH, write_lot, write_part, write_references

from explainvad import Decision, Inspector, LotReport, verify_run
from explainvad.errors import ConfigError, LotError, NotFittedError, RunConflictError, TooFewImagesError, UsageError
from explainvad.fitting import Fitted
from explainvad.lot import read_image, scan
from explainvad.types import ClaimStatus
from explainvad.uncertainty.splits import LEAVE_ONE_OUT


def test_every_file_has_its_record_and_the_counts_add_up(report: LotReport, lot: Path) -> None:
    files = sorted(p.name for p in lot.iterdir() if p.name != "lot.toml")
    assert [r.file for r in report.records] == files
    assert [r.image_id for r in report.records] == [f"img-{i:05d}" for i in range(1, len(files) + 1)]
    assert [r.sha256 for r in report.records] == [hashlib.sha256((lot / f).read_bytes()).hexdigest() for f in files]
    counts = Counter(r.decision.value for r in report.records)
    statistics = report.statistics
    assert statistics.counts == {d.value: counts[d.value] for d in Decision}
    assert statistics.n_files == statistics.n_inspected == len(files) == sum(statistics.counts.values())
    assert statistics.reject_rate is not None
    assert statistics.reject_rate.estimate == counts["REJECT"] / len(files)
    assert statistics.expected_false_rejects == pytest.approx(0.1 * len(files))


def test_decisions_tell_the_kinds_apart(report: LotReport) -> None:
    by_kind: dict[str, list[Decision]] = {}
    for record in report.records:
        by_kind.setdefault(record.file[3:-4], []).append(record.decision)
    assert Counter(by_kind["good"]).most_common(1)[0][0] is Decision.NOT_FLAGGED
    assert set(by_kind["rusty"]) <= {Decision.REJECT, Decision.DEFER} and Decision.REJECT in by_kind["rusty"]
    assert by_kind["foreign"] == [Decision.DEFER]


def test_a_verdict_is_consistent_with_its_numbers(report: LotReport) -> None:
    smallest = report.model.calibration.smallest_p
    assert smallest == 1 / (report.model.calibration.n_cal + 1)
    for record in report.records:
        verdict = record.verdict
        assert verdict is not None and verdict.alpha == 0.1
        assert smallest <= verdict.p_value <= 1
        assert set(verdict.scorer_p_values) == set(record.scores) == {"reconstruction", "memory_bank"}
        assert bool(verdict.reasons) == record.flagged
        if record.decision is Decision.REJECT:
            assert verdict.p_value <= verdict.alpha and all(g.passed for g in verdict.gates)
        if record.decision is Decision.NOT_FLAGGED:
            assert verdict.p_value > verdict.alpha and all(g.passed for g in verdict.gates)


def test_the_rust_is_found_measured_and_described(report: LotReport) -> None:
    rust = np.zeros((HEIGHT, WIDTH), dtype=bool)
    rust[RUST] = True
    rusty = [r for r in report.records if RUSTY in r.file]
    assert len(rusty) == 3
    for record in rusty:
        assert any((f.region.mask.to_array() & rust).any() for f in record.findings)
        for finding in record.findings:
            assert finding.region.area_mm2 == pytest.approx(finding.region.area_px * 0.25)  # 0.5 mm per pixel
            assert finding.sentences
            assert {s.status for s in finding.sentences} == {ClaimStatus.SUPPORTED}


def test_only_flagged_images_keep_artifacts_and_these_are_as_recorded(report: LotReport) -> None:
    kept = set()
    for record in report.records:
        assert bool(record.artifacts) == record.flagged
        for name, sha256 in record.artifacts.items():
            assert hashlib.sha256((report.run_dir / name).read_bytes()).hexdigest() == sha256
            kept.add(name)
    on_disk = {p.relative_to(report.run_dir).as_posix() for p in report.run_dir.rglob("*") if p.is_file()}
    rendered = {"report.pdf", "report.html", "results.csv", "report.json"}
    assert on_disk == kept | rendered | {"ledger.jsonl"}
    assert verify_run(report.run_dir).ok


def test_the_report_says_where_it_comes_from(report: LotReport, model: Path, inspector: Inspector) -> None:
    assert (report.lot.lot_id, report.lot.part, report.lot.mm_per_pixel) == ("L-7", "Ribbed disc", 0.5)
    assert report.model.model_id == hashlib.sha256((model / "manifest.json").read_bytes()).hexdigest()
    assert report.model.calibration.n_fit + report.model.calibration.n_norm + report.model.calibration.n_cal == 60
    assert report.model.fallbacks and report.provenance.fallbacks == report.model.fallbacks
    assert report.provenance.config["alpha"] == 0.1 and "device" not in report.provenance.config
    assert report.provenance.resumed == 0
    assert len(ledger(report.run_dir)) == report.provenance.n_ledger_lines + 1  # and the line of the rendering


def test_a_saved_and_loaded_model_gives_identical_verdicts(fitted: Inspector, inspector: Inspector, lot: Path) -> None:
    assert inspector.model_id == fitted.model_id != ""
    for file in scan(lot):
        image = read_image(file)
        one, map_one = fitted.inspect_with_map(image)
        other, map_other = inspector.inspect_with_map(image)
        assert asdict(one) == asdict(other)
        assert np.array_equal(map_one, map_other)
    assert asdict(fitted.card()) == asdict(inspector.card())


def test_a_loaded_model_is_saved_again_as_it_was(inspector: Inspector, model: Path, tmp_path: Path) -> None:
    again = Inspector.load(model)
    again.save(tmp_path / "again.evad")
    assert again.model_id == inspector.model_id


def test_render_writes_the_formats_asked_for(report: LotReport, tmp_path: Path) -> None:
    assert [p.name for p in report.render(tmp_path / "new", formats=["json", "csv"])] == ["results.csv", "report.json"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["report.json", "results.csv"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new" / "results.csv").read_text("utf-8"))))
    assert list(rows[0])[:8] == [
        *("file", "sha256", "decision", "p_value"),
        *("score", "epistemic", "n_regions", "reasons"),
    ]
    for row, record in zip(rows, report.records, strict=True):
        verdict = record.verdict
        assert verdict is not None
        assert (row["file"], row["sha256"], row["decision"]) == (record.file, record.sha256, record.decision.value)
        assert [float(row[n]) for n in ("p_value", "score", "epistemic")] == [
            verdict.p_value,
            verdict.score,
            verdict.epistemic,
        ]
        assert int(row["n_regions"]) == len(record.findings)


def test_levels_may_be_given_to_analyze(inspector: Inspector, tmp_path: Path) -> None:
    lot = write_lot(tmp_path / "lot", [RUSTY])
    strict = inspector.analyze(lot, tmp_path / "strict", alpha=0.05)
    assert strict.records[0].verdict is not None and strict.records[0].verdict.alpha == 0.05
    assert strict.model.calibration.alpha == strict.provenance.config["alpha"] == 0.05
    assert inspector.config.alpha == 0.1
    with pytest.raises(ConfigError, match="unknown key alhpa; the nearest known one is alpha"):
        inspector.analyze(lot, tmp_path / "never", alhpa=0.05)
    with pytest.raises(TooFewImagesError, match="needs at least 999 calibration images, got 29"):
        inspector.analyze(lot, tmp_path / "never", alpha=0.001)
    assert not (tmp_path / "never").exists()


def test_pictures_of_all_images_are_kept_where_all_get_a_page(inspector: Inspector, tmp_path: Path) -> None:
    write_lot(tmp_path / "lot", [GOOD, RUSTY])
    with pytest.raises(UsageError, match="analyze --pages all"):
        inspector.analyze(tmp_path / "lot", tmp_path / "few").render(tmp_path, ["csv"], pages="all")
    report = inspector.analyze(tmp_path / "lot", tmp_path / "all", pages="all")
    assert report.provenance.config["pages"] == "all" and not report.records[0].flagged
    assert all(f"evidence/{r.image_id}.jpg" in r.artifacts and f"maps/{r.image_id}.png" in r.artifacts
               for r in report.records)  # fmt: skip
    with pytest.raises(RunConflictError, match="pages"):
        inspector.analyze(tmp_path / "lot", tmp_path / "all")


def test_the_run_goes_to_reports_when_no_folder_is_named(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lot(tmp_path / "lot42", [GOOD])
    monkeypatch.chdir(tmp_path)
    assert inspector.analyze("lot42/").run_dir == Path("reports/lot42")
    assert (tmp_path / "reports" / "lot42" / "ledger.jsonl").is_file()


def test_a_run_inside_its_own_lot_is_refused(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot = write_lot(tmp_path / "lot42", [GOOD])
    monkeypatch.chdir(lot)  # where the default, reports/lot42, would be full of new items at the next start
    with pytest.raises(UsageError, match="--out"):
        inspector.analyze(".")
    assert [p.name for p in lot.iterdir()] == ["00_good.png"]


def test_a_model_that_was_never_saved_has_no_name_on_record(fitted: Inspector, lot: Path, tmp_path: Path) -> None:
    parts = Fitted(fitted.ensemble, fitted.calibrator, fitted.gallery, fitted.split, fitted.fitted)
    unsaved = Inspector(fitted.config, parts)
    with pytest.raises((NotFittedError, UsageError), match="save"):
        unsaved.analyze(lot, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_progress_counts_the_images(inspector: Inspector, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    inspector.analyze(
        write_lot(tmp_path / "lot", [GOOD] * 3), tmp_path / "run", progress=lambda *step: seen.append(step)
    )
    assert seen == [("inspecting", i, 3) for i in (1, 2, 3)]


class TestFit:
    """What ``fit`` refuses before it starts, and what it leaves out and says so."""

    def test_too_few_images_names_the_number_needed(self, tmp_path: Path) -> None:
        write_references(tmp_path / "few", 20)
        with pytest.raises(TooFewImagesError, match=r"20 reference images .* 9 for CAL \(25 together"):
            Inspector.fit(tmp_path / "few", config=CONFIG, scheme="split")
        write_references(tmp_path / "fewer", 8)
        with pytest.raises(TooFewImagesError, match=r"^8 reference images of different parts are too few: .* least 9"):
            Inspector.fit(tmp_path / "fewer", config=CONFIG)

    def test_settings_are_checked_by_name_and_value(self, references: Path) -> None:
        with pytest.raises(ConfigError, match="unknown key alhpa; the nearest known one is alpha"):
            Inspector.fit(references, alhpa=0.1)
        with pytest.raises(ConfigError, match="profile = 'strandard'"):
            Inspector.fit(references, profile="strandard")

    def test_no_readable_reference_is_an_error_with_the_first_reason(self, tmp_path: Path) -> None:
        (tmp_path / "notes.png").write_text("not a picture")
        with pytest.raises(LotError, match=r"no readable reference image in .*notes\.png: not an image: text content"):
            Inspector.fit(tmp_path, config=CONFIG)
        with pytest.raises(LotError, match="does not exist"):
            Inspector.fit(tmp_path / "nowhere", config=CONFIG)

    def test_too_few_defects_for_beta_are_refused_before_the_training(self, references: Path, tmp_path: Path) -> None:
        defects = write_lot(tmp_path / "defects", [RUSTY] * 3)
        with pytest.raises(TooFewImagesError, match="accepting"):
            Inspector.fit(references, config=CONFIG, defects=defects, progress=pytest.fail)

    def test_labelled_defects_groups_and_skipped_files_reach_the_card(
        self, references: Path, tmp_path: Path, lot: Path
    ) -> None:
        extra = tmp_path / "extra"
        write_part(extra / "part_000.png", 0)  # the content of a reference
        (extra / "torn.png").write_bytes(b"\x89PNG")
        defects = write_lot(tmp_path / "defects", [RUSTY] * 12, first=2000)
        inspector = Inspector.fit([references, extra], config=CONFIG, defects=defects)
        card = inspector.card()
        assert card.calibration.n_def == 12 and card.calibration.beta == 0.1
        left_out = [line for line in card.fallbacks if line.startswith("reference image left out: ")]
        assert len(left_out) == 2
        assert "part_000.png: same content as" in left_out[0] and "torn.png" in left_out[1]
        inspector.save(tmp_path / "labelled.evad")
        labelled = Inspector.load(tmp_path / "labelled.evad")
        with pytest.raises(TooFewImagesError, match=r"accepting .* needs at least 99 calibration images, got 12"):
            labelled.analyze(lot, tmp_path / "run", beta=0.01)
        assert not (tmp_path / "run").exists()
        decisions = [record.decision for record in labelled.analyze(lot, tmp_path / "run").records]
        assert Decision.ACCEPT in decisions and Decision.NOT_FLAGGED not in decisions
        assert card.calibration.n_groups == N_REFERENCES


def test_a_deferral_level_that_calibration_cannot_hold_is_a_named_fallback(inspector: Inspector) -> None:
    n = inspector.calibrator.cell("").n
    named = [line for line in inspector.card().fallbacks if line.startswith("deferral level")]
    assert inspector.config.gamma < 1 / (n + 1) and named == [
        f"deferral level gamma = 0.02 was asked for; with {n} calibration images {1 / (n + 1):.3g} is in force"
    ]
    wider = inspector.config.model_copy(update={"gamma": 0.1})
    assert not any(line.startswith("deferral level") for line in inspector.card(wider).fallbacks)


def test_of_few_parts_each_is_judged_without_any_of_its_pictures(tmp_path: Path) -> None:
    for seed in range(24):  # two pictures of every part
        write_part(tmp_path / f"part_{seed // 2:02d}_{seed % 2}.png", seed)
    few = Inspector.fit(tmp_path, config=CONFIG, group=r"part_(\d\d)")
    assert few.split.scheme == LEAVE_ONE_OUT and few.split.n_groups == 12
    (cal,) = few.split.cal.values()
    assert sorted(i // 2 for i in cal) == list(range(12))
    images = [read_image(file) for file in scan(tmp_path)]
    expected = []
    for i in cal:
        pair = [i - i % 2, i - i % 2 + 1]
        (score,) = few.ensemble.without(pair).score(images[i])
        assert score.value > few.ensemble.score(images[i])[0].value  # which would know it by heart
        expected.append(few.calibrator.scales.fusion.score([score]))
    assert few.calibrator.cell("").fused.tolist() == expected
