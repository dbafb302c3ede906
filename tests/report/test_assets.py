"""Templates are found, and artefacts are read only with their recorded hash."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from explainvad.errors import IntegrityError, RenderError
from explainvad.report import assets
from explainvad.types import ImageRecord, LotReport


def _record(report: LotReport, name: str, data: bytes) -> ImageRecord:
    return replace(report.records[4], artifacts={name: hashlib.sha256(data).hexdigest()})


def test_reads_an_unchanged_artefact(lot_report: LotReport, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.png").write_bytes(b"map")
    assert assets.read_artifact(tmp_path, _record(lot_report, "maps/a.png", b"map"), "maps/a.png") == b"map"


@pytest.mark.parametrize("name", ["../outside.png", "maps/../../outside.png", "/etc/passwd"])
def test_refuses_paths_out_of_the_run_folder(lot_report: LotReport, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.png").write_bytes(b"x")
    (tmp_path / "run" / "maps").mkdir(parents=True)
    with pytest.raises(IntegrityError, match="points out of the run folder"):
        assets.read_artifact(tmp_path / "run", _record(lot_report, name, b"x"), name)


def test_missing_unlisted_and_altered_artefacts_are_named(lot_report: LotReport, tmp_path: Path) -> None:
    record = _record(lot_report, "a.png", b"right")
    with pytest.raises(IntegrityError, match=r"a\.png is recorded but cannot be read"):
        assets.read_artifact(tmp_path, record, "a.png")
    with pytest.raises(IntegrityError, match=r"lists no b\.png"):
        assets.read_artifact(tmp_path, record, "b.png")
    (tmp_path / "a.png").write_bytes(b"wrong")
    with pytest.raises(IntegrityError, match=r"a\.png was altered"):
        assets.read_artifact(tmp_path, record, "a.png")


def test_templates_come_from_the_package_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "explainvad")
    with pytest.raises(RenderError, match="reinstall"):
        assets.templates_folder()
    beside = tmp_path / "templates"
    inside = tmp_path / "explainvad" / "templates"
    for folder in (beside, inside):
        folder.mkdir(parents=True)
        (folder / "print.html").write_text("")
        assert assets.templates_folder() == folder


def test_templates_escape_and_refuse_unknown_names() -> None:
    environment = assets.template_environment()
    assert environment.from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"
    with pytest.raises(UndefinedError):
        environment.from_string("{{ nothing }}").render()
