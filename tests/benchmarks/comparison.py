"""Writes what the benchmarks against peers measured into the README: ``make bench-peers``.

Each benchmark leaves its rows below build/bench (``peer.keep_rows``); this script runs none of them. It says which
machine and versions the figures come from, and which benchmark has not been run there.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from peer import PEER, RESULTS, ROOT
from readme_section import write_section

# in the order of the table
BENCHMARKS = (
    "coreset",
    "coreset_stream",
    "patchcore",
    "winclip",
    "padim_efficientad",
    "reconstruction_parity",
    "profiles_standard",
    "profiles_edge",
    "profiles_memory",
    "patch_index",
    "metrics_parity",
)
COLUMNS = {"work": "work", "ours": "explainvad", "peer": "anomalib", "shown": "what it shows"}
OURS = ("torch", "timm", "open_clip_torch", "faiss-cpu")


def main() -> None:
    """Collect the rows and write the section."""
    lines = [" | ".join(["", *COLUMNS.values(), ""]).strip(), "|---" * len(COLUMNS) + "|"]
    missing = [name for name in BENCHMARKS if not (RESULTS / f"{name}.json").exists()]
    for name in BENCHMARKS:
        if name in missing:
            continue
        path = RESULTS / f"{name}.json"
        rows = json.loads(path.read_text("utf-8"))
        lines += ["| " + " | ".join(row[column] for column in COLUMNS) + " |" for row in rows]
    write_section(ROOT / "README.md", "comparison table", "\n".join([*lines, "", _machine(), *_not_run(missing)]))


def _not_run(names: Sequence[str]) -> list[str]:
    """A figure that is not there must not look like one that nobody wanted."""
    return [f"Not measured there yet: {', '.join(names)} (in `tests/benchmarks/`)."] if names else []


def _machine() -> str:
    """One sentence: when, where and with which versions."""
    peer = subprocess.run(
        [PEER, "-c", "from importlib.metadata import version as v; print(v('anomalib'), v('torch'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    ours = ", ".join(f"{name} {version(name)}" for name in OURS)
    amx = "with" if torch.cpu._is_amx_tile_supported() else "without"
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {torch.get_num_threads()} cores {amx} AMX ({platform.machine()}), "
        f"Python {platform.python_version()}, {ours}; the peer is anomalib {peer[0]} on torch {peer[1]}. Both sides "
        "had the same random weights and the same images; times are medians of runs taken in turns."
    )


if __name__ == "__main__":
    main()
