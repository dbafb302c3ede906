"""Evaluation of a model on labelled images, against figures worked out here by other means."""

from __future__ import annotations

import json
import resource
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import explainvad
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from tiny_parts import CONFIG, FOREIGN, GOOD, HEIGHT, RUST, RUSTY, WIDTH, write_part

from explainvad import Decision, ImageRecord, Inspector
from explainvad.errors import LotError, StorageError, TooFewImagesError
from explainvad.evaluation import evaluate
from explainvad.evaluation.evaluate import Evaluation, evaluate_dataset
from explainvad.lot import LotFile, read_image

N_GOOD, N_RUSTY, N_FOREIGN = 10, 5, 2


def write_dataset(root: Path, n_good: int = N_GOOD, test: str = "") -> Path:
    """Good parts, rusty ones with their masks, and foreign ones without; below ``test`` in MVTec AD's layout."""
    for kind, n, first in ((GOOD, n_good, 5000), (RUSTY, N_RUSTY, 6000), (FOREIGN, N_FOREIGN, 7000)):
        for i in range(n):
            write_part(root / test / kind / f"{i:03d}.png", first + i, kind)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[RUST] = 255
    (root / "ground_truth" / RUSTY).mkdir(parents=True)
    for i in range(N_RUSTY):
        Image.fromarray(mask).save(root / "ground_truth" / RUSTY / f"{i:03d}_mask.png")
    return root


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    """Intervals from a few dozen resamples: what they are worth is tested with the metrics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "RESAMPLES", 40)
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="module")
def evaluation(dataset: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluate_dataset(dataset, tmp_path_factory.mktemp("out"), model=model, config=CONFIG)


@pytest.fixture(scope="module")
def records(dataset: Path, inspector: Inspector) -> dict[str, list[ImageRecord]]:
    """What the model finds, image by image, by kind."""
    found = {}
    for kind in (GOOD, RUSTY, FOREIGN):
        images = (read_image(LotFile("x", p.name, p, dataset)) for p in sorted((dataset / kind).iterdir()))
        found[kind] = [inspector.inspect(image)[0] for image in images]
    return found


def test_image_metrics_are_those_of_the_verdicts(evaluation: Evaluation, records: dict[str, list[ImageRecord]]) -> None:
    ordered = [record for kind in records.values() for record in kind]
    labels = [kind != GOOD for kind in records for _ in records[kind]]
    scores = [record.verdict.score for record in ordered if record.verdict]
    r = evaluation.results
    assert (r["n_good"], r["n_defect"], r["not_inspected"]) == (N_GOOD, N_RUSTY + N_FOREIGN, [])
    assert r["image_auroc"]["estimate"] == pytest.approx(roc_auc_score(labels, scores))
    assert r["image_aupr"]["estimate"] == pytest.approx(average_precision_score(labels, scores))
    assert r["image_auroc"]["lower"] <= r["image_auroc"]["estimate"] <= r["image_auroc"]["upper"] <= 1
    assert r["image_auroc"]["estimate"] > 0.9
    for name, value in r["scorer_auroc"].items():
        assert value == pytest.approx(roc_auc_score(labels, [record.scores[name] for record in ordered]))
    assert set(r["scorer_auroc"]) == {"reconstruction", "memory_bank"}


def test_f1_at_the_deployed_threshold_is_that_of_its_verdicts(
    evaluation: Evaluation, records: dict[str, list[ImageRecord]], inspector: Inspector
) -> None:
    labels = [kind != GOOD for kind in records for _ in records[kind]]
    verdicts = [record.verdict for kind in records.values() for record in kind]
    flagged = [v is not None and v.p_value <= inspector.config.alpha for v in verdicts]
    r = evaluation.results
    assert r["image_f1_deployed"]["estimate"] == pytest.approx(f1_score(labels, flagged))
    assert r["image_f1_deployed"]["estimate"] <= r["image_f1_max"]["estimate"] <= 1
    assert r["thresholds"]["image"]["value"] == inspector.card().calibration.score_threshold
    assert r["thresholds"]["n_reference_images"] == len(inspector.fitted["references"])
    assert 0 < r["pixel"]["f1_deployed"]["estimate"] <= r["pixel"]["f1_max"]["estimate"] + 1e-9


def test_a_test_image_that_the_model_knows_is_refused_by_name(
    model: Path, references: Path, inspector: Inspector, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "data", 2)
    known = sorted(references.iterdir())[3]
    shutil.copy(known, root / GOOD / "777.png")
    with pytest.raises(LotError, match=rf"good/777\.png has the same content as {known.name}, .*threshold"):
        evaluate_dataset(root, tmp_path / "out", model=model, config=CONFIG)


def test_source_cost_and_every_metric_are_in_the_results(evaluation: Evaluation) -> None:
    r = evaluation.results
    assert r["source"] == {
        "name": "own data",
        "category": None,
        "page": None,
        "licence": "licence not stated, terms of use not stated",
        "commercial_use": None,
    }
    assert r["cost"]["mean"]["estimate"] > 0 and r["cost"]["median"] <= r["cost"]["p95"]
    assert r["cost"]["peak_mib"] > 50
    pixel = r["pixel"]
    for name in ("auroc", "aupr", "f1_max", "f1_deployed", "pointing"):
        assert 0 <= pixel[name]["lower"] <= pixel[name]["estimate"] <= pixel[name]["upper"] <= 1
    assert pixel["auspro"] == {"0.30": None, "0.05": None}
    shown = evaluation.table()
    for words in ("AUPRO(FPR <= 0.30)", "AUPRO(FPR <= 0.05)", "AUPIMO(FPR 1e-5 to 1e-4)", "licence not stated"):
        assert words in shown


def test_decisions_are_counted_by_type(evaluation: Evaluation, records: dict[str, list[ImageRecord]]) -> None:
    for kind, found in records.items():
        counts = Counter(record.decision for record in found)
        row = evaluation.results["by_type"][kind]
        assert row["n"] == len(found) == row["REJECT"] + row["DEFER"] + row["passed"]
        assert (row["REJECT"], row["DEFER"]) == (counts[Decision.REJECT], counts[Decision.DEFER])
        scores = [r.verdict.score for some in (records[GOOD], found) for r in some if r.verdict]
        expected = None if kind == GOOD else roc_auc_score([False] * N_GOOD + [True] * len(found), scores)
        assert row["auroc"] == (expected if expected is None else pytest.approx(expected))
    rate = evaluation.results["good_reject_rate"]
    assert rate["estimate"] == sum(r.decision is Decision.REJECT for r in records[GOOD]) / N_GOOD
    assert 0 <= rate["lower"] <= rate["estimate"] <= rate["upper"] <= 1


def test_pixels_and_regions_count_only_where_there_are_masks(
    evaluation: Evaluation, dataset: Path, inspector: Inspector, records: dict[str, list[ImageRecord]]
) -> None:
    rust = np.zeros((HEIGHT, WIDTH), dtype=bool)
    rust[RUST] = True
    values, truth, overlaps = [], [], []
    for kind in (GOOD, RUSTY):
        for path in sorted((dataset / kind).iterdir()):
            record, fused_map = inspector.inspect_with_map(read_image(LotFile("x", path.name, path, dataset)))
            values.append(fused_map.ravel())
            truth.append((rust if kind == RUSTY else np.zeros_like(rust)).ravel())
            if kind == RUSTY and record.flagged:
                masks = [finding.region.mask.to_array() for finding in record.findings]
                found = np.any([np.zeros_like(rust), *masks], axis=0)
                overlaps.append((found & rust).sum() / (found | rust).sum())
    r = evaluation.results
    expected = roc_auc_score(np.concatenate(truth), np.concatenate(values))
    assert r["pixel"]["auroc"]["estimate"] == pytest.approx(expected, abs=1e-4)
    assert set(r["pixel"]["aupro"]) == {"0.30", "0.05"}
    assert r["pixel"]["n_regions"] == N_RUSTY
    assert r["unmasked_defects"] == [FOREIGN]
    row = r["by_type"][RUSTY]
    assert row["flagged_with_mask"] == len(overlaps) > 0
    assert row["hits"] == sum(overlap > 0 for overlap in overlaps)
    assert row["mean_iou"] == pytest.approx(np.mean(overlaps))
    assert r["by_type"][FOREIGN]["flagged_with_mask"] == 0 and r["by_type"][FOREIGN]["mean_iou"] is None


def test_results_are_written_as_strict_json_and_as_a_table(dataset: Path, model: Path, tmp_path: Path) -> None:
    done = explainvad("evaluate", dataset, "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    assert (done.code, done.err) == (0, "")

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    results = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"), parse_constant=refuse)
    assert (results["dataset"], results["alpha"], results["n_cal"]) == ("discs", 0.1, 29)
    assert (tmp_path / "out" / "metrics.txt").read_text("utf-8") == done.out
    auroc = results["image_auroc"]
    assert f"image       AUROC {auroc['estimate']:.3f} [{auroc['lower']:.3f}, {auroc['upper']:.3f}]" in done.out
    assert "10 good, 7 defect, 0 not inspected; fitted before (tiny.evad)" in done.out
    assert "no masks    foreign" in done.out


def test_progress_reaches_its_end_although_a_file_cannot_be_inspected(model: Path, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 2)
    torn = root / FOREIGN / "000.png"
    torn.write_bytes(torn.read_bytes()[:-20])
    steps: list[tuple[str, int, int]] = []
    result = evaluate_dataset(root, tmp_path / "out", model=model, config=CONFIG, progress=lambda *s: steps.append(s))
    assert steps == [("evaluating", i, 9) for i in range(1, 10)]
    assert result.results["n_defect"] == N_RUSTY + N_FOREIGN - 1
    (line,) = result.results["not_inspected"]
    assert line.startswith(f"{FOREIGN}/000.png: ")
    assert "2 good, 6 defect, 1 not inspected" in result.table()


def test_nothing_to_measure_is_an_error(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for kind, content in ((GOOD, b"a"), (RUSTY, b"b")):
        (root / kind).mkdir(parents=True)
        (root / kind / "000.png").write_bytes(content)
    with pytest.raises(LotError, match=r"none of the 2 .*good/000\.png: not an image"):
        evaluate_dataset(root, tmp_path / "out", model=model, config=CONFIG)


def test_what_is_fitted_on_is_never_tested_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    root = write_dataset(tmp_path / "data", n_good=30)
    fitted_on: list[Path] = []

    def fit(references: list[Path], **settings: object) -> Inspector:
        fitted_on.extend(references)
        assert settings["config"] == CONFIG and settings["group"] == r"(\d\d)\d"
        return Inspector.load(model, "cpu")

    monkeypatch.setattr(Inspector, "fit", fit)
    result = evaluate_dataset(root, tmp_path / "out", config=CONFIG, group=r"(\d\d)\d").results
    groups = Counter(path.stem[:2] for path in fitted_on)
    assert list(groups.values()) == [10, 10]  # of three parts with ten pictures each, whole ones
    assert {path.parent for path in fitted_on} == {root / GOOD}
    assert result["n_good"] == result["by_type"]["good"]["n"] == 10
    assert result["fitted_on"] == "fitted on 20 good images"


@pytest.mark.thorough
def test_mvtec_layout_is_fitted_on_its_training_images(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", test="test")
    for seed in range(26):
        write_part(root / "train" / "good" / f"{seed:03d}.png", seed)
    steps = CONFIG.detection.model_copy(update={"reconstruction_steps": 5})
    result = evaluate_dataset(root, tmp_path / "out", config=CONFIG.model_copy(update={"detection": steps})).results
    assert (result["n_good"], result["n_defect"]) == (N_GOOD, N_RUSTY + N_FOREIGN)
    assert result["fitted_on"] == "fitted on 26 good images"
    assert result["by_type"][FOREIGN]["passed"] == 0


def test_too_few_good_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TooFewImagesError, match="reference images"):
        evaluate_dataset(write_dataset(tmp_path / "data"), tmp_path / "out", config=CONFIG)
    assert not (tmp_path / "out").exists()


def test_results_that_cannot_be_written_are_a_storage_error(dataset: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(StorageError, match="could not be written"):
        evaluate_dataset(dataset, tmp_path / "out", model=model, config=CONFIG)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, unlimited[1]))
    try:
        with pytest.raises(StorageError, match="could not be written"):
            evaluate_dataset(dataset, tmp_path / "other", model=model, config=CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


def test_saturation_thresholds_of_a_data_set_reach_the_results(model: Path, tmp_path: Path) -> None:
    root, place = tmp_path / "data", tmp_path / "data" / "part"
    kinds = {"logical_anomalies": (FOREIGN, 255), "structural_anomalies": (RUSTY, 254)}
    for i, split in enumerate(("train", "validation", "test")):
        write_part(place / split / GOOD / "000.png", 8000 + i, GOOD)
    for i, (kind, (made, value)) in enumerate(kinds.items()):
        write_part(place / "test" / kind / "000.png", 8100 + i, made)
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        mask[RUST] = value
        (place / "ground_truth" / kind / "000").mkdir(parents=True)
        Image.fromarray(mask).save(place / "ground_truth" / kind / "000" / "000.png")
    saturations = [
        {"defect_name": kind, "pixel_value": value, "saturation_threshold": 0.5, "relative_saturation": True}
        for kind, (_, value) in kinds.items()
    ]
    (place / "defects_config.json").write_text(json.dumps(saturations))
    result = evaluate_dataset(root, tmp_path / "out", layout="mvtec-loco", model=model, config=CONFIG)
    r = result.results
    assert r["source"]["name"] == "own data / part"  # in the layout of MVTec LOCO AD, but none of its categories
    for limit in ("0.30", "0.05"):
        assert 0 <= r["pixel"]["auspro"][limit]["estimate"] <= 1
    assert "AU-sPRO(FPR <= 0.05)" in result.table()
    assert set(r["by_type"]) == {"good", "logical_anomalies", "structural_anomalies"}
