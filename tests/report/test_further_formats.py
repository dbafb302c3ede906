"""Exports that are written only where they are asked for: which files, whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import tree

from explainvad.cli import ALL_FORMATS, FORMATS
from explainvad.errors import IntegrityError, StorageError
from explainvad.report.render import DEFAULT_FORMATS, FILES, ReportRenderer
from explainvad.types import LotReport

FURTHER = ("parquet", "coco", "maps")


def test_the_command_line_names_the_formats_of_the_renderer() -> None:
    assert ALL_FORMATS.split(",") == list(FILES) == [*DEFAULT_FORMATS, *FURTHER]
    assert FORMATS.split(",") == list(DEFAULT_FORMATS)


def test_files_are_returned_in_the_order_of_the_formats(lot_report: LotReport, tmp_path: Path) -> None:
    paths = ReportRenderer().render(lot_report, tmp_path, ["maps", "coco", "parquet"])
    flagged = [record.image_id for record in lot_report.records if record.flagged]
    names = ["results.parquet", "regions.coco.json", *(f"maps_tiff/{image_id}.tiff" for image_id in flagged)]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == names
    assert sorted(tree(tmp_path)) == sorted(names)
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in paths)
    before = tree(tmp_path)
    ReportRenderer().render(lot_report, tmp_path, FURTHER)
    assert tree(tmp_path) == before


def test_an_altered_map_leaves_no_half_report(lot_report: LotReport, tmp_path: Path) -> None:
    run_dir = shutil.copytree(lot_report.run_dir, tmp_path / "run")
    path = sorted((run_dir / "maps").iterdir())[-1]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(IntegrityError):
        ReportRenderer().render(replace(lot_report, run_dir=run_dir), tmp_path / "out", ["json", *FURTHER])
    assert not (tmp_path / "out").exists()


def test_maps_are_not_written_through_a_link(lot_report: LotReport, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "maps_tiff").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="maps_tiff is a link"):
        ReportRenderer().render(lot_report, tmp_path / "out", ["maps"])
    assert not any((tmp_path / "elsewhere").iterdir())
