"""``explainvad train-backbone`` and ``export-backbone``: what they say, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_training
from command_line import explainvad, tree

from explainvad.detection.backbone.embedded import load_shipped
from explainvad.errors import UsageError
from explainvad.training import loop
from explainvad.training.config import TrainingConfig
from explainvad.types import Progress


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of settings for a tiny run."""
    monkeypatch.setattr(loop, "HOLDOUT_ITEMS", 4)
    (tmp_path / "tiny.toml").write_text(tiny_training.TOML)
    return tmp_path / "tiny.toml"


def test_it_says_where_weights_log_and_plot_are(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = explainvad("train-backbone", "--config", config, "--out", out)
    assert (done.code, done.err) == (0, "")
    names = {"weights": "embedded.safetensors", "log": "log.csv", "plot": "training.png"}
    assert done.out == "".join(f"{what:<7} {out / name}\n" for what, name in names.items())
    assert tree(out).keys() >= set(names.values())


def test_on_a_terminal_it_shows_progress(config: Path, tmp_path: Path) -> None:
    done = explainvad("train-backbone", "--config", config, "--out", tmp_path / "run", terminal=True)
    assert done.code == 0
    assert "training the backbone" in done.err and "4/4" in done.err


def test_without_a_file_it_takes_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(settings: TrainingConfig, out: Path, progress: Progress) -> Path:
        assert settings == TrainingConfig()
        raise UsageError(f"{out.name} was asked for")

    monkeypatch.setattr(loop, "train_backbone", refuse)
    done = explainvad("train-backbone", "--out", tmp_path / "run")
    assert (done.code, done.err) == (2, "explainvad: run was asked for\n")


def test_another_run_in_the_folder_is_left_as_it_is(config: Path, tmp_path: Path) -> None:
    command = ("train-backbone", "--config", config, "--out", tmp_path / "run")
    assert explainvad(*command).code == 0
    before = tree(tmp_path / "run")
    config.write_text(f"seed = 1\n{tiny_training.TOML}")
    done = explainvad(*command)
    assert done.code == 2
    assert "holds a training run with other settings" in done.err
    assert tree(tmp_path / "run") == before


def test_stopping_by_hand_says_how_to_go_on(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "training_step", stopped)
    done = explainvad("train-backbone", "--config", config, "--out", tmp_path / "run")
    assert done.code == 130
    assert "the same command resumes an unfinished analyze or training" in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps = 5", "tiny.toml: stepps = 5"),
        ('families = ["marbel"]', "got marbel"),
        (None, "tiny.toml: expected a readable TOML file"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    text: str | None, message: str, config: Path, tmp_path: Path
) -> None:
    config.unlink() if text is None else config.write_text(text)
    done = explainvad("train-backbone", "--config", config, "--out", tmp_path / "run")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_the_shipped_backbone_and_a_models_own_are_exported(model: Path, tmp_path: Path) -> None:
    shipped, adapted = tmp_path / "shipped.onnx", tmp_path / "adapted.onnx"
    done = explainvad("export-backbone", "--out", shipped)
    assert (done.code, done.out) == (0, f"onnx    {shipped}\n"), done.err
    done = explainvad("export-backbone", "--out", adapted, "--model", model)
    assert (done.code, done.out) == (0, f"onnx    {adapted}\n"), done.err
    assert load_shipped()[1]["sha256"].encode() in shipped.read_bytes()
    assert shipped.read_bytes() != adapted.read_bytes()
