from __future__ import annotations

import os
from pathlib import Path

import pytest
from run_factories import finished_run


@pytest.fixture(autouse=True)
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1750000000")


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was synced, in order; nothing waits for the disk, so that tests take seconds."""
    names: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
    )
    return names


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a finished and rendered run of four files."""
    return finished_run(tmp_path / "run")
