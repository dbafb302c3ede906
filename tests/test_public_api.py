"""What others build on: names, signatures, errors and exit codes. A change here is a change of the interface."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

import explainvad
from explainvad import errors, types
from explainvad.config import DetectionConfig, InspectionConfig, load_config
from explainvad.pipeline import Inspector
from explainvad.record.verify import verify_run
from explainvad.record.verify_pdf import verify_pdf
from explainvad.signing import sign
from explainvad.types import Decision, LotReport

NAMES = [
    "Decision",
    "ExplainVADError",
    "ImageRecord",
    "InspectionConfig",
    "Inspector",
    "LotReport",
    "load_config",
    "verify_run",
]

SIGNATURES = {
    Inspector.fit: "(references: 'str | Path | Sequence[str | Path]', *, config: 'InspectionConfig | None' = None, "
    "defects: 'str | Path | None' = None, group: 'str | None' = None, progress: 'Progress | None' = None, "
    "**settings: 'Any') -> 'Inspector'",
    Inspector.save: "(self, path: 'str | Path') -> 'Path'",
    Inspector.load: "(path: 'str | Path', device: 'str' = 'auto') -> 'Inspector'",
    Inspector.analyze: "(self, lot: 'str | Path', out: 'str | Path | None' = None, *, "
    "progress: 'Progress | None' = None, **levels: 'Any') -> 'LotReport'",
    Inspector.explain: "(self, image: 'InspectionImage | str | Path', *, methods: 'Iterable[str]' = ('evidence', "
    "'attention', 'gradients', 'prompts'), at: 'tuple[int, int] | None' = None, "
    "progress: 'Progress | None' = None) -> 'Explanation'",
    Inspector.inspect: "(self, image: 'InspectionImage', config: 'InspectionConfig | None' = None, "
    "cell: 'str' = '') -> 'tuple[ImageRecord, dict[str, bytes]]'",
    LotReport.render: "(self, out: 'str | Path | None' = None, "
    "formats: 'Sequence[str]' = ('pdf', 'html', 'csv', 'json'), *, pages: 'Pages | None' = None, "
    "templates: 'str | Path | None' = None) -> 'list[Path]'",
    load_config: "(path: 'Path') -> 'InspectionConfig'",
    verify_run: "(run_dir: 'str | Path', *, expected_head: 'str | None' = None, "
    "trust: 'Sequence[str | Path]' = ()) -> 'Verification'",
    verify_pdf: "(path: 'str | Path', *, expected_head: 'str | None' = None, "
    "trust: 'Sequence[str | Path]' = ()) -> 'Verification'",
    sign: "(target: 'str | Path', key: 'KeyFile | KeyToken', *, name: 'str', meaning: 'str', "
    "reason: 'str | None' = None, timestamp_url: 'str | None' = None) -> 'Signed'",
}

EXIT_CODES = {
    "ExplainVADError": 2,
    "UsageError": 2,
    "ConfigError": 2,
    "ModelNotFoundError": 2,
    "LotError": 2,
    "WeightsError": 2,
    "TooFewImagesError": 2,
    "RunConflictError": 2,
    "UnreadableImageError": 2,
    "NotFittedError": 2,
    "NotExplainableError": 2,
    "StorageError": 2,
    "SigningError": 2,
    "RenderError": 2,
    "IntegrityError": 4,
}


def test_the_public_names_are_these_and_all_there() -> None:
    assert explainvad.__all__ == NAMES
    for name in NAMES:
        assert getattr(explainvad, name).__name__ == name
        assert getattr(explainvad, name).__doc__
    with pytest.raises(AttributeError, match="module 'explainvad' has no attribute 'Inspecter'"):
        _ = explainvad.Inspecter  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__qualname__)
def test_signatures_stay_as_they_are(function: object) -> None:
    assert str(inspect.signature(function)) == SIGNATURES[function]  # type: ignore[arg-type, index]


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, explainvad\n"
        "heavy = {'torch', 'weasyprint', 'scipy', 'sklearn', 'skimage', 'matplotlib', 'numpy', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "explainvad.Decision, explainvad.ExplainVADError, explainvad.verify_run, explainvad.load_config\n"
        "print(sorted({'torch', 'weasyprint', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_the_error_tree_is_drawn_as_it_is_and_exit_codes_are_fixed() -> None:
    classes = {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, Exception)}
    assert {name: c.exit_code for name, c in classes.items()} == EXIT_CODES
    drawn = {}
    parents: list[str] = []
    for prefix, name in re.findall(r"^    ([│├└─ ]*)(\w+Error)\b", str(errors.__doc__), re.MULTILINE):
        depth = len(prefix) // 4
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1] if depth else "Exception"
    assert drawn == {name: c.__mro__[1].__name__ for name, c in classes.items()}


def test_settings_and_their_defaults_are_fixed() -> None:
    config = InspectionConfig().model_dump()
    assert config.pop("detection").keys() == DetectionConfig.model_fields.keys()
    assert config.pop("backbones") == {"precision": "auto", "compile": False}
    assert config.pop("describer") == {
        "use": "measured",
        "model": None,
        "revision": None,
        "base_url": None,
        "key_variable": "EXPLAINVAD_ENDPOINT_KEY",
        "arm": "informed",
        "quantization": "none",
        "picture_px": 512,
        "max_new_tokens": 1024,
        "temperature": 0.0,
        "minutes": 30.0,
        "timeout": 120.0,
        "retries": 2,
        "at_once": 2,
    }
    assert config.pop("regions") == {"refine": "threshold", "sam": "", "agreement": 0.5}
    assert config.pop("attribution") == {"maps": ()}
    assert (config.pop("prompts"), config.pop("scorer")) == (None, ())
    assert config == {
        "model": None,
        "profile": "embedded",
        "alpha": 0.05,
        "beta": 0.10,
        "gamma": 0.02,
        "q": 0.10,
        "prior": 0.05,
        "confidence": 0.95,
        "group_by": None,
        "pages": "flagged",
        "scheme": "auto",
        "synthetic_defects": 0,
        "seed": 0,
        "device": "auto",
    }
    assert set(DetectionConfig.model_fields) == {
        "resolution",
        "adaptation_steps",
        "adaptation_minutes",
        "reconstruction_steps",
        "bank_rows",
    }


def test_the_decisions_are_these() -> None:
    assert [d.value for d in Decision] == ["REJECT", "DEFER", "ACCEPT", "NOT_FLAGGED", "NOT_INSPECTED"]
    assert all(d.value == d.name for d in Decision)


def test_every_value_is_frozen_slotted_and_compared_by_identity() -> None:
    values = [c for c in vars(types).values() if is_dataclass(c) and isinstance(c, type)]
    assert len(values) >= 15
    for value in values:
        assert value.__dataclass_params__.frozen and not value.__dataclass_params__.eq, value  # type: ignore[attr-defined]
        assert value.__slots__ == tuple(f.name for f in fields(value)), value
        assert value.__doc__ and not value.__doc__.startswith(f"{value.__name__}("), value


def test_the_package_says_its_version_and_that_it_is_typed() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", version("explainvad"))
    assert (Path(explainvad.__file__).parent / "py.typed").is_file()
