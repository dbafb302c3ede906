"""Settings from TOML: what is written is what is meant, or the fault is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from explainvad.config import (
    FILE_NAME,
    AttributionConfig,
    BackboneConfig,
    DescriberConfig,
    DetectionConfig,
    InspectionConfig,
    RegionsConfig,
    ScorerConfig,
    load_config,
    parse_config,
)
from explainvad.errors import ConfigError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / FILE_NAME
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def to_toml(values: dict[str, Any]) -> str:
    """Flat TOML, then one table for each mapping, and one for each in a list; JSON scalars and texts are TOML's."""
    tabular = {k for k, v in values.items() if isinstance(v, dict) or (isinstance(v, list) and isinstance(v[0], dict))}
    flat = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in tabular]
    tables = [f"[{key}]\n{to_toml(value)}" for key, value in values.items() if isinstance(value, dict)]
    lists = [
        f"[[{key}]]\n{to_toml(v)}"
        for key, value in values.items()
        if key in tabular and isinstance(value, list)
        for v in value
    ]
    return "\n".join([*flat, *tables, *lists])


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == InspectionConfig()


def test_every_setting_survives_toml(tmp_path: Path) -> None:
    config = InspectionConfig(
        model=tmp_path / "any.evad",
        alpha=0.01,
        beta=0.2,
        gamma=1 / 30,
        q=0.3,
        prior=0.001,
        confidence=0.9,
        group_by=r"cam(\d)",
        pages="all",
        scheme="leave-one-out",
        synthetic_defects=12,
        seed=2**32 - 1,
        device="cuda:1",
        detection=DetectionConfig(
            resolution=333, adaptation_steps=7, adaptation_minutes=0.1, reconstruction_steps=3, bank_rows=99
        ),
        profile="custom",
        backbones=BackboneConfig(precision="bf16", compile=True),
        describer=DescriberConfig(
            use="endpoint",
            model="tiny",
            revision="main",
            base_url="http://127.0.0.1:8000/v1",
            key_variable="EXPLAINVAD_LINE_KEY",
            arm="blind",
            quantization="4bit",
            picture_px=99,
            max_new_tokens=300,
            temperature=0.5,
            minutes=1.5,
            timeout=7,
            retries=1,
            at_once=3,
        ),
        regions=RegionsConfig(refine="sam", sam="sam-vit-b", agreement=0.7),
        attribution=AttributionConfig(maps=("evidence", "prompts")),
        prompts={"object": "tile"},
        scorer=(ScorerConfig(use="unet"), ScorerConfig(use="patchcore", resolution=128, label="small")),
    )
    default = InspectionConfig().model_dump()
    tables = ("detection", "backbones", "regions", "describer", "attribution")
    nested = tuple((getattr(config, name), name) for name in tables)
    for given, usual in ((config.model_dump(), default), *((c.model_dump(), default[name]) for c, name in nested)):
        assert not {key for key, value in given.items() if value == usual[key]}  # every setting is tried
    assert load_config(write(tmp_path, to_toml(config.model_dump(mode="json")))) == config


def test_the_model_is_found_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "line").mkdir()
    path = write(tmp_path / "line", 'model = "../models/any.evad"')
    assert load_config(path).model == tmp_path / "models" / "any.evad"
    monkeypatch.chdir(tmp_path / "line")
    assert load_config(Path(FILE_NAME)).model == tmp_path / "models" / "any.evad"
    write(tmp_path / "line", f'model = "{tmp_path}/absolute.evad"')
    assert load_config(path).model == tmp_path / "absolute.evad"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alhpa = 0.1", "unknown key alhpa; the nearest known one is alpha (known here: model, profile, alpha, "),
        ("sed = 1", "unknown key sed; the nearest known one is seed"),
        (
            "[detection]\nbank_row = 5",
            "unknown key detection.bank_row; the nearest known one is bank_rows (known here: resolution, ",
        ),
        ("steps = 5", "unknown key steps; the nearest known one is "),
        (
            "[backbones]\nprecison = 5",
            "unknown key backbones.precison; the nearest known one is precision (known here: ",
        ),
        ("[detect]\nsteps = 5", "unknown key detect; the nearest known one is detection"),
        ("zzz = 1", "unknown key zzz; the nearest known one is "),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    assert str(caught.value).startswith(f"{FILE_NAME}: {message}")


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{name} = {value}"
            for name in ("alpha", "beta", "gamma", "q", "prior")
            for value in ("0", "1", "-1", "nan")
        ),
        "alpha = inf",
        'alpha = "five"',
        "seed = -1",
        f"seed = {2**32}",
        "seed = 0.5",
        'profile = "strandard"',
        'backbones.precision = "half"',
        "backbones.compile = 3",
        "prompts = 3",
        "scorer = 3",
        'device = "cude"',
        'device = "cuda:"',
        "model = 7",
        "detection = 5",
        "[detection]\nresolution = 32",
        "[detection]\nresolution = 4096",
        "[detection]\nreconstruction_steps = 0",
        "[detection]\nadaptation_steps = -1",
        "[detection]\nadaptation_minutes = 0",
        "[detection]\nbank_rows = 1",
        "[detection]\nadaptation_steps = 1.5",
    ],
)
def test_a_value_out_of_range_is_named_with_its_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    key = text.splitlines()[-1].split(" = ")[0]
    section = "detection." if text.startswith("[detection]") else ""
    assert str(caught.value).startswith(f"{FILE_NAME}: {section}{key} = ")
    assert ": " in str(caught.value).removeprefix(f"{FILE_NAME}: ")


def test_every_fault_has_a_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "alpha = 2\nbeat = 0.1\n[detection]\nreconstruction_steps = 0\nbatches = 4"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"{FILE_NAME}: ") for line in lines)
    assert "alpha = 2: Input should be less than 1" in lines[0]


@pytest.mark.parametrize("text", ["alpha = ", "alpha 0.1", b"device = '\xff'", "x = " + "[" * 5000, "alpha=1\nalpha=2"])
def test_what_is_no_toml_is_a_configuration_error(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(ConfigError, match=r"^explainvad\.toml: expected a readable TOML file, got: "):
        load_config(write(tmp_path, text))


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^explainvad\.toml: expected a readable TOML file"):
        load_config(tmp_path / FILE_NAME)
    with pytest.raises(ConfigError):
        load_config(tmp_path)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, b"\xef\xbb\xbfalpha = 0.2\r\n")).alpha == 0.2


def test_settings_do_not_change_afterwards() -> None:
    config = parse_config({"alpha": 0.2}, "here")
    assert config.alpha == 0.2
    with pytest.raises(ValidationError):
        config.alpha = 0.5  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"^here: alpha = 3"):
        parse_config({"alpha": 3}, "here")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices_are_named_as_torch_names_them(device: str) -> None:
    assert parse_config({"device": device}, "here").device == device
