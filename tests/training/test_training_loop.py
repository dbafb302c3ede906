"""A tiny training run: the same again, cut short and resumed, and what it leaves behind."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import CONFIG

from explainvad.detection.backbone.network import Architecture, HybridBackbone
from explainvad.errors import RunConflictError, StorageError, UsageError
from explainvad.training import loop
from explainvad.training.config import TrainingConfig
from explainvad.training.loop import LOG, MANIFEST, PLOT, WEIGHTS, train_backbone


class StoppedError(Exception):
    """The power went."""


@pytest.fixture(autouse=True)
def _few_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HOLDOUT_ITEMS", 4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken run. Tests must not change it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "HOLDOUT_ITEMS", 4)
        train_backbone(CONFIG, out)
    return out


def varied(**changes: object) -> TrainingConfig:
    return TrainingConfig.model_validate(CONFIG.model_dump() | changes)


def weights(out: Path) -> bytes:
    return (out / WEIGHTS).read_bytes()


def log(out: Path) -> list[dict[str, str]]:
    with (out / LOG).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def stop_at(step: int) -> object:
    def progress(what: str, done: int, of: int) -> None:
        if done == step:
            raise StoppedError

    return progress


# --- Reproducible


def test_the_same_settings_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(12345)  # of no consequence
    assert train_backbone(CONFIG, tmp_path / "again") == tmp_path / "again" / WEIGHTS
    assert weights(tmp_path / "again") == weights(whole)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"families": ("strata",)}, {"learning_rate": 2e-3}, {"normal": 2}])
def test_other_settings_give_other_weights(changes: dict[str, object], whole: Path, tmp_path: Path) -> None:
    train_backbone(varied(**changes, steps=1, report_every=4), tmp_path / "other")
    train_backbone(varied(steps=1, report_every=4), tmp_path / "one")
    assert weights(tmp_path / "other") != weights(tmp_path / "one")


def test_a_process_of_its_own_for_the_images_changes_nothing(whole: Path, tmp_path: Path) -> None:
    train_backbone(varied(workers=1), tmp_path / "run")
    assert weights(tmp_path / "run") == weights(whole)


# --- Cut short


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_run_that_was_cut_short_ends_as_an_unbroken_one(step: int, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train_backbone(CONFIG, tmp_path / "run", stop_at(step))
    assert not (tmp_path / "run" / WEIGHTS).exists()
    done: list[int] = []
    train_backbone(CONFIG, tmp_path / "run", lambda _, step, of: done.append(step))
    # progress of step 2 is told before its checkpoint is written
    assert done == ([1, 2, 3, 4] if step <= 2 else [3, 4])
    assert weights(tmp_path / "run") == weights(whole)
    assert [(line["step"], line["pooled"]) for line in log(tmp_path / "run")] == [
        (line["step"], line["pooled"]) for line in log(whole)
    ]


def test_a_line_without_its_checkpoint_is_written_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(out: Path, step: int, *parts: object) -> None:
        if step == 4:
            raise OSError(28, "No space left on device")
        keep(out, step, *parts)  # type: ignore[arg-type]

    keep = loop._checkpoint
    monkeypatch.setattr(loop, "_checkpoint", full)
    with pytest.raises(StorageError, match="No space left on device"):
        train_backbone(CONFIG, tmp_path / "run")
    assert [line["step"] for line in log(tmp_path / "run")] == ["2", "4"]
    monkeypatch.setattr(loop, "_checkpoint", keep)
    train_backbone(CONFIG, tmp_path / "run")
    assert [line["step"] for line in log(tmp_path / "run")] == ["2", "4"]
    assert weights(tmp_path / "run") == weights(whole)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    first = train_backbone(CONFIG, tmp_path / "run").read_bytes()
    lines = log(tmp_path / "run")
    (tmp_path / "run" / WEIGHTS).unlink()
    assert train_backbone(CONFIG, tmp_path / "run", stop_at(1)).read_bytes() == first
    assert log(tmp_path / "run") == lines


def test_the_log_of_a_run_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOG).write_text("step,loss\n1,0.5\n")
    train_backbone(CONFIG, tmp_path / "run")
    assert [line["step"] for line in log(tmp_path / "run")] == ["2", "4"]


# --- What is refused


def test_another_run_in_the_folder_is_a_conflict(whole: Path) -> None:
    before = weights(whole)
    with pytest.raises(RunConflictError, match="holds a training run with other settings: name another --out"):
        train_backbone(varied(seed=1), whole)
    assert weights(whole) == before


def test_the_number_of_workers_makes_no_other_run(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(StoppedError):
        train_backbone(CONFIG, tmp_path / "run", stop_at(3))
    train_backbone(varied(workers=1), tmp_path / "run")
    assert weights(tmp_path / "run") == weights(whole)


def test_a_gpu_that_is_not_there_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match='device cuda:0 was asked for, but no GPU is here: set device = "cpu"'):
        train_backbone(varied(device="cuda:0"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"could not be written to .*file: File exists"):
        train_backbone(CONFIG, tmp_path / "file")


# --- What is left behind


def test_a_run_leaves_its_files_and_no_scratch(whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "embedded.json",
        "embedded.safetensors",
        "log.csv",
        "training.png",
    ]
    assert (whole / PLOT).read_bytes().startswith(b"\x89PNG")
    assert json.loads((whole / "config.json").read_text()) == CONFIG.model_dump(mode="json", exclude={"workers"})


def test_the_manifest_names_the_weights_and_how_they_came_about(whole: Path) -> None:
    manifest = json.loads((whole / MANIFEST).read_text("utf-8"))
    assert manifest["sha256"] == hashlib.sha256(weights(whole)).hexdigest()
    assert manifest["training"]["steps"] == 4 and manifest["training"]["seed"] == 0
    assert manifest["versions"].keys() == {"explainvad", "torch"}
    state = load_file(whole / WEIGHTS)
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    network = HybridBackbone(Architecture(**manifest["architecture"]))
    network.load_state_dict(state)  # strict: every parameter and no other
    checkpoint = torch.load(whole / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 4
    assert all(torch.equal(state[name], tensor.half()) for name, tensor in checkpoint["network"].items())


def test_the_log_has_a_line_for_every_report(whole: Path) -> None:
    lines = log(whole)
    assert [line["step"] for line in lines] == ["2", "4"]
    assert list(lines[0]) == [
        *("step", "loss", "seconds_per_step", "pooled", "within", "crop", "pooled_lattice", "pooled_printed"),
    ]
    for line in lines:
        assert 0 < float(line["loss"]) < 5
        families = (float(line["pooled_lattice"]) + float(line["pooled_printed"])) / 2
        assert float(line["pooled"]) == pytest.approx(families, abs=1e-4)
        assert all(0 <= float(line[name]) <= 1 for name in ("pooled", "within", "crop"))


def test_the_last_step_is_reported_whenever_it_comes(tmp_path: Path) -> None:
    train_backbone(varied(steps=3), tmp_path / "run")
    assert [line["step"] for line in log(tmp_path / "run")] == ["2", "3"]


def test_progress_counts_the_steps_and_threads_are_given_back(tmp_path: Path) -> None:
    def progress(what: str, done: int, of: int) -> None:
        seen.append((what, done, of, torch.get_num_threads()))

    seen: list[tuple[str, int, int, int]] = []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        train_backbone(varied(steps=2, threads=1), tmp_path / "run", progress)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [("training the backbone", done, 2, 1) for done in (1, 2)]
