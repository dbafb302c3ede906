"""Asks a peer package, in an environment of its own, for the same work on the same numbers.

A peer script is run by the peer's Python as ``script inputs.npz outputs.npz``; it may not import explainvad. Results
of a benchmark are rows of a table, kept as JSON below ``build/bench`` until ``comparison.py`` takes them in.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
PEER = ROOT / "build/peer/bin/python"  # made by `make peer`
RESULTS = ROOT / "build/bench"


def ask_peer(script: Path, inputs: Mapping[str, NDArray[Any]], threads: int = 2) -> dict[str, NDArray[Any]]:
    """The arrays that ``script`` makes of ``inputs`` with the peer's packages. CalledProcessError when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(given, **inputs)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        subprocess.run([PEER, script, given, made], check=True, env=environment)
        with np.load(made) as outputs:
            return dict(outputs)


def keep_rows(name: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Keep a benchmark's rows (columns ``work``, ``ours``, ``peer``, ``shown``) and print them."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(list(rows), indent=1, ensure_ascii=False))
    for row in rows:
        print(" | ".join(row.values()))
