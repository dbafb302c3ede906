"""What must hold for every lot: a verdict depends on the model and on its own image, and the same input gives the
same bytes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import own_process, tree
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiny_parts import CONFIG_TOML, FOREIGN, GOOD, RUSTY, write_part

from explainvad import ImageRecord, Inspector, LotReport
from explainvad.lot import LotFile, read_image, scan
from explainvad.types import InspectionImage

KINDS = [GOOD, RUSTY, GOOD, FOREIGN, GOOD, RUSTY]
NAMES = st.text("abcxyz019", min_size=1, max_size=6)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures from which lots are put together."""
    folder = tmp_path_factory.mktemp("pool")
    return [write_part(folder / f"{i}.png", 3000 + i, kind) for i, kind in enumerate(KINDS)]


@pytest.fixture(scope="module")
def alone(pool: list[Path], inspector: Inspector) -> dict[str | None, dict[str, Any]]:
    """What is found of each picture by itself, by its content."""
    inspected = [inspector.inspect(_read(path)) for path in pool]
    assert len({record.decision for record, _ in inspected}) >= 2
    return {record.sha256: _findings(record, files.values()) for record, files in inspected}


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(
    chosen=st.lists(st.integers(0, len(KINDS) - 1), unique=True, min_size=1),
    names=st.lists(NAMES, unique=True, min_size=len(KINDS), max_size=len(KINDS)),
    n_torn=st.integers(0, 2),
)
def test_a_verdict_is_the_same_in_every_lot_under_every_name(
    chosen: list[int],
    names: list[str],
    n_torn: int,
    pool: list[Path],
    alone: dict[str | None, dict[str, Any]],
    inspector: Inspector,
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        lot = Path(scratch) / "lot"
        lot.mkdir()
        for index, name in zip(chosen, names, strict=False):
            (lot / f"{name}.png").write_bytes(pool[index].read_bytes())
        for number in range(n_torn):
            (lot / f"torn-{number}.png").write_bytes(b"\x89PNG")
        run_dir = Path(scratch) / "run"
        inspected = [record for record in inspector.analyze(lot, run_dir).records if record.verdict is not None]
        assert len(inspected) == len(chosen)
        for record in inspected:
            assert (
                _findings(record, [(run_dir / name).read_bytes() for name in record.artifacts]) == alone[record.sha256]
            )


def test_scores_do_not_depend_on_the_batch(inspector: Inspector, pool: list[Path]) -> None:
    images = [_read(path) for path in pool]
    for scorer in (inspector.ensemble.reconstruction, inspector.ensemble.bank):
        together = scorer.score(images)
        backwards = scorer.score(images[::-1])[::-1]
        for image, one, other in zip(images, together, backwards, strict=True):
            (single,) = scorer.score([image])
            for score in (one, other):
                assert score.value == single.value
                assert np.array_equal(score.anomaly_map, single.anomaly_map)
                assert score.evidence.keys() == single.evidence.keys()
                assert all(np.array_equal(score.evidence[k], single.evidence[k]) for k in single.evidence)
                assert np.array_equal(score.members, single.members)
                assert np.array_equal(score.member_maps, single.member_maps)


def test_a_model_does_not_learn_from_what_it_inspects(inspector: Inspector, lot: Path) -> None:
    first = read_image(scan(lot)[0])
    before, map_before = inspector.inspect_with_map(first)
    for file in scan(lot):
        inspector.inspect(read_image(file))
    after, map_after = inspector.inspect_with_map(first)
    assert asdict(before) == asdict(after)
    assert np.array_equal(map_before, map_after)


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_bytes_in_another_process(
    references: Path, lot: Path, model: Path, report: LotReport, tmp_path: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(CONFIG_TOML)
    fit = ["fit", references, "--out", tmp_path / "again.evad", "--config", tmp_path / "tiny.toml"]
    analyze = ["analyze", lot, "--model", tmp_path / "again.evad", "--out", tmp_path / "run", "--device", "cpu"]
    for arguments in (fit, analyze):
        subprocess.run([sys.executable, "-m", "explainvad.cli", *arguments], check=True, env=own_process())
    assert (tmp_path / "again.evad" / "manifest.json").read_bytes() == (model / "manifest.json").read_bytes()
    ours, theirs = tree(report.run_dir), tree(tmp_path / "run")
    assert {"ledger.jsonl", "report.pdf", "report.html", "report.json", "results.csv"} < set(ours)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.thorough
def test_another_seed_gives_another_model(fitted: Inspector, references: Path) -> None:
    steps = fitted.config.detection.model_copy(update={"reconstruction_steps": 1})
    one, other = (Inspector.fit(references, config=fitted.config, detection=steps, seed=seed) for seed in (0, 1))
    assert one.split.cal != other.split.cal
    assert not np.array_equal(one.calibrator.cell("").fused, other.calibrator.cell("").fused)


def _read(path: Path) -> InspectionImage:
    return read_image(LotFile("img-00001", path.name, path, path.parent))


def _findings(record: ImageRecord, files: Iterable[bytes]) -> dict[str, Any]:
    """All of a record and its files but where the image lay and what the files are called."""
    return asdict(record) | {"image_id": None, "file": None, "artifacts": sorted(files)}
