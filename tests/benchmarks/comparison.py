"""Writes what the benchmarks against peers measured into the README: ``make bench-peers``.

Each benchmark leaves its rows below build/bench (``peer.keep_rows``); this script runs none of them. What it finds
there replaces what ``comparison.json`` has of the same benchmark on the same kind of machine, with day and versions.
Other kinds stay beside it: one machine multiplies bfloat16, another does not, and what holds on one may not on another.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peer import PEER, RESULTS, ROOT
from readme_section import write_section

from explainvad.detection.frozen import bf16_forward_pays

# in the order of the table
BENCHMARKS = (
    "coreset",
    "coreset_stream",
    "patchcore",
    "winclip",
    "winclip_bf16",
    "padim_efficientad",
    "reconstruction_parity",
    "profiles_standard",
    "profiles_standard_bf16",
    "profiles_edge",
    "profiles_memory",
    "patch_index",
    "metrics_parity",
)
COLUMNS = {"work": "work", "ours": "explainvad", "peer": "anomalib", "shown": "what it shows"}
OURS = ("torch", "timm", "open_clip_torch", "faiss-cpu")
KEPT = Path(__file__).with_suffix(".json")


def main() -> None:
    """Take in new rows, and write the section."""
    kept = json.loads(KEPT.read_text("utf-8"))
    for name in BENCHMARKS:
        path = RESULTS / f"{name}.json"
        if path.exists():
            day = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            measured = f"{day:%Y-%m-%d} on {machine()}, {versions()}"
            kept.setdefault(name, {})[machine()] = {"measured": measured, "rows": json.loads(path.read_text("utf-8"))}
            path.unlink()  # later it would be taken for what later versions measured
    KEPT.write_text(json.dumps({name: kept[name] for name in BENCHMARKS if name in kept}, indent=1) + "\n", "utf-8")
    write_section(ROOT / "README.md", "comparison table", "\n".join(section(kept)))


def section(kept: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the table and what lies below it."""
    results = [result for name in BENCHMARKS for result in kept.get(name, {}).values()]
    runs = sorted({result["measured"] for result in results})
    yield " | ".join(["", *COLUMNS.values(), "run", ""]).strip()
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for result in results:
        for row in result["rows"]:
            cells = [*(row[column] for column in COLUMNS), str(1 + runs.index(result["measured"]))]
            yield "| " + " | ".join(cells) + " |"
    yield ""
    yield "Runs, each with the same random weights and images on both sides, times as medians of turns:"
    yield ""
    yield from (f"{number}. {measured}" for number, measured in enumerate(runs, 1))
    # A figure that is not there must not look like one that nobody wanted
    if missing := [name for name in BENCHMARKS if name not in kept]:
        yield ""
        yield f"Not measured yet: {', '.join(missing)} (in `tests/benchmarks/`)."


def machine() -> str:
    """The kind of machine, as far as it decides what can be measured."""
    bf16 = "with" if bf16_forward_pays("cpu") else "without"
    return f"{torch.get_num_threads()} cores {bf16} bfloat16 ({platform.machine()})"


@cache
def versions() -> str:
    """Of both sides."""
    peer = subprocess.run(
        [PEER, "-c", "from importlib.metadata import version as v; print(v('anomalib'), v('torch'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    ours = ", ".join(f"{name} {version(name)}" for name in OURS)
    return f"Python {platform.python_version()}, {ours}; anomalib {peer[0]} on torch {peer[1]}."


if __name__ == "__main__":
    main()
