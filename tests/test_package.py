"""The wheel stands alone: built, installed away from the checkout, and used from another directory."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pikepdf
import pytest
from tiny_parts import RUSTY, write_lot

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel in it; third-party packages are borrowed, the checkout is not."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, symlinks=True)
    install = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--python", folder, wheel]
    subprocess.run(install, check=True, capture_output=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # Paths from a .pth file do not have their own .pth files read: an editable install stays out of sight
    (site_packages / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder


def run(environment: Path, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of the fresh environment from the root directory, without a word of the checkout."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [environment / "bin" / program, *arguments]
    return subprocess.run(command, cwd="/", env=clean | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


def test_the_wheel_holds_the_package_its_templates_and_its_licence(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "explainvad").rglob("*.py")}
    templates = {f"explainvad/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "templates").rglob("*") if p.is_file()}
    assert "explainvad/templates/print.html" in templates
    assert names >= sources | templates | {"explainvad/report/report.schema.json", "explainvad/py.typed"}
    backbone = {"embedded.safetensors", "embedded.json", "MODEL_CARD.md"}
    assert names >= {f"explainvad/detection/backbone/{name}" for name in backbone}
    info = f"explainvad-{PROJECT['version']}.dist-info"
    assert f"{info}/licenses/LICENSE" in names
    assert {name.split("/")[0] for name in names} == {"explainvad", info}  # no tests, no notebooks


def test_it_is_used_where_it_was_installed(environment: Path) -> None:
    code = (
        "import explainvad, importlib.metadata as m\nfrom explainvad.report.assets import templates_folder\n"
        "from explainvad.report.schema import SCHEMA_FILE\n"
        "print(explainvad.__file__, templates_folder(), SCHEMA_FILE, m.version('explainvad'), sep='\\n')"
    )
    done = run(environment, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    *paths, version = done.stdout.splitlines()
    assert len(paths) == 3 and all(Path(path).is_relative_to(environment) for path in paths)
    assert version == PROJECT["version"]


def test_a_lot_is_inspected_and_its_report_printed_from_another_directory(
    environment: Path, model: Path, tmp_path: Path
) -> None:
    lot = write_lot(tmp_path / "lot", [RUSTY], first=1020)
    done = run(environment, "explainvad", "analyze", lot, "--model", model, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    with pikepdf.open(tmp_path / "run" / "report.pdf") as pdf:
        assert len(pdf.pages) >= 5
    done = run(environment, "explainvad", "verify", tmp_path / "run")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "The record is whole.")


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    imported = set()
    for path in (ROOT / "explainvad").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"explainvad"}
    owners = packages_distributions()
    needed = {_normal(owners[name][0]) for name in third_party}
    requirements = [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
    declared = {_normal(re.split(r"[<>=!~\[; ]", requirement)[0]) for requirement in requirements}
    assert needed == declared


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
