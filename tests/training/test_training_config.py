"""Settings of a training run: defaults, a TOML file, and faults that are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_training

from explainvad.detection.backbone.network import Architecture
from explainvad.detection.synthesis.items import FAMILIES
from explainvad.errors import ConfigError
from explainvad.training.config import ArchitectureConfig, TrainingConfig, load_training_config


def write(folder: Path, text: str) -> Path:
    path = folder / "train.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_training_config(write(tmp_path, "")) == TrainingConfig()
    assert TrainingConfig().families == tuple(FAMILIES)


def test_the_default_architecture_is_that_of_the_network() -> None:
    assert ArchitectureConfig().build() == Architecture()


def test_a_file_sets_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufefffamilies = ["strata"]\nsteps = 5\n[architecture]\nattention_blocks = 0')
    config = load_training_config(path)
    assert config.families == ("strata",)
    assert config.architecture.build() == Architecture(attention_blocks=0)
    changed = {"families": ("strata",), "steps": 5, "architecture": ArchitectureConfig(attention_blocks=0)}
    assert config == TrainingConfig().model_copy(update=changed)
    assert load_training_config(write(tmp_path, tiny_training.TOML)) == tiny_training.CONFIG


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[architecture]\nheads = 5", "heads must divide context, got 5 heads for 192 channels"),
        ("[architecture]\nwidth = 100", "architecture.width = 100: Input should be a multiple of 8"),
        ("[architecture]\ndetail = 12", "architecture.detail = 12: Input should be a multiple of 8"),
        ("stepps = 5", "train.toml: stepps = 5: Extra inputs are not permitted"),
        ("[architecture]\nhaeds = 2", "train.toml: architecture.haeds = 2: Extra inputs"),
        ('families = ["lattice", "marbel"]', "expected some of coloured_noise, lattice, "),
        ('families = ["lattice", "marbel"]', "got marbel"),
        ("families = []", "got none"),
        ("steps = 0", "train.toml: steps = 0: Input should be greater than or equal to 1"),
        ("side = 40", "train.toml: side = 40: Input should be a multiple of 16"),
        ("side = 16", "side = 16: "),
        ("seed = -1", "seed = -1: "),
        ("learning_rate = 0.0", "learning_rate = 0.0: "),
        ('precision = "fp8"', "precision = 'fp8': "),
        ('device = "gpu"', "device = 'gpu': "),
        ("workers = -1", "workers = -1: "),
        ("steps = ", "train.toml: expected a readable TOML file, got: "),
    ],
)
def test_a_fault_names_the_file_the_key_and_the_value(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_training_config(write(tmp_path, text))
    assert message in str(refused.value)


def test_every_fault_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_training_config(write(tmp_path, "steps = 0\nitems = 0\nstepps = 1"))
    lines = str(refused.value).splitlines()
    assert [line.split(" = ")[0] for line in lines] == ["train.toml: steps", "train.toml: items", "train.toml: stepps"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"a = " + b"[" * 5000])
def test_what_cannot_be_read_is_said(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"train\.toml: expected a readable TOML file, got: "):
        load_training_config(path)
