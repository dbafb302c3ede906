"""Greedy k-centre: time a pick, radius and memory, beside a plain matrix-vector product and anomalib's sampler.

    python tests/benchmarks/coreset.py [ROWS ...] [--threads N] [--stream IMAGES]

A tenth of the rows is picked. Rows are 1,536-dimensional, clustered, with a spectrum that falls as features' do, and
read in half precision. Radii are taken in all 1,536 dimensions, whatever the search saw. Times of a busy machine are
worth little, so the processor's time over all threads stands beside the clock's, and anomalib runs in the same minute.
``--stream``: instead, 1,024 such rows of each image pass by one after the other, beside a WideResNet-50-2 in memory.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from peer import PEER, ask_peer, keep_rows
from torch import Tensor

from explainvad.detection.coreset import greedy_k_centre
from explainvad.detection.streaming_coreset import StreamingCoreset

DIMENSIONS, DIRECTIONS, CLUSTERS = 1536, 256, 64
FEW = 60  # picks that tell what a pick costs, where all would take too long
COMPLETE = 41_000  # rows up to which the others make all their picks


def clustered(count: int, seed: int = 1) -> Tensor:
    """Rows float16 (count, DIMENSIONS), in the same clusters whatever the seed."""
    same, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    spread = torch.randn(DIRECTIONS, DIMENSIONS, generator=same) * torch.arange(1, DIRECTIONS + 1)[:, None] ** -0.7
    centres = torch.randn(CLUSTERS, DIRECTIONS, generator=same)
    rows = torch.empty(count, DIMENSIONS, dtype=torch.float16)
    for part in rows.split(8192):
        n = len(part)
        inner = 0.5 * torch.randn(n, DIRECTIONS, generator=generator) * torch.rand(n, 1, generator=generator)
        place = centres[torch.randint(CLUSTERS, (n,), generator=generator)] + inner
        part.copy_(place @ spread + 0.02 * torch.randn(n, DIMENSIONS, generator=generator))
    return rows


def plainly(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """One matrix-vector product a pick, over rows that are projected already."""
    norm = x.square().sum(1)
    picked = torch.randint(len(x), (1,), generator=generator).expand(count).clone()
    nearest = torch.full((len(x),), torch.inf)
    for i in range(count):
        if i:
            picked[i] = nearest.argmax()
        torch.minimum(nearest, norm + norm[picked[i]] - 2 * (x @ x[picked[i]]), out=nearest)
        nearest[picked[i]] = -torch.inf
    return picked


def radius(rows: Tensor, kept: Tensor) -> float:
    """Distance of the worst row from the nearest of ``kept`` (K, DIMENSIONS), in all dimensions."""
    mean = rows[::16].float().mean(0)
    centres = kept.float() - mean
    norm = centres.square().sum(1)
    worst = 0.0
    for part in rows.split(1024):
        x = part.float() - mean
        worst = max(worst, float((torch.addmm(norm, x, centres.T, alpha=-2).amin(1) + x.square().sum(1)).max()))
    return worst**0.5


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds a pick by the clock and by the processor (all threads), the projection included; MiB at the peak."""

    picked: Tensor
    clock: float
    processor: float
    memory: float

    def __str__(self) -> str:
        return f"{self.clock:.2f} ms ({self.processor:.2f} ms of processor)"


def resident(which: str) -> float:
    """MiB from the kernel's own books."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def measured(pick: Callable[[], Tensor]) -> Measured:
    """Run once, by two clocks, with the peak begun anew."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    clock, processor = time.perf_counter(), time.process_time()
    picked = pick()
    each = 1000 / len(picked)
    clock, processor = (time.perf_counter() - clock) * each, (time.process_time() - processor) * each
    return Measured(picked, clock, processor, resident("VmHWM") - before)


def by_anomalib(rows: Tensor, threads: int) -> tuple[Measured, int]:
    """What its sampler picks and takes, and the dimensions it projects to; the projection is spread over all picks."""
    limit = len(rows) if len(rows) <= COMPLETE else FEW
    made = ask_peer(
        Path(__file__).with_name("peer_coreset.py"), {"rows": rows.numpy(), "limit": np.array(limit)}, threads
    )
    clock, processor = 1000 * (made["pick"] + made["projection"] / (len(rows) // 10))
    taken = Measured(torch.from_numpy(made["picked"]), float(clock), float(processor), float(made["memory"]))
    return taken, int(made["dimensions"])


def compare(count: int, threads: int) -> dict[str, str]:
    """One row of the table."""
    rows = clustered(count)
    picks = count // 10

    def lazily(projection: int) -> Measured:
        return measured(lambda: greedy_k_centre(rows, picks, torch.Generator().manual_seed(0), projection))

    exact, projected = lazily(DIMENSIONS), lazily(128)
    few = picks if count <= COMPLETE else FEW
    generator = torch.Generator().manual_seed(0)
    short = rows.float() @ torch.randn(DIMENSIONS, 128, generator=generator)
    short -= short.mean(0)
    vector = measured(lambda: plainly(short, few, generator))
    same = float((vector.picked == projected.picked[:few]).float().mean())
    print(f"{count:,} rows, load {os.getloadavg()[0]:.1f}")
    reached = radius(rows, rows[exact.picked]), radius(rows, rows[projected.picked])
    print(f"  in all dimensions: {exact}, {exact.memory:.0f} MiB, radius {reached[0]:.2f}")
    print(f"  in 128 dimensions: {projected}, {projected.memory:.0f} MiB, radius {reached[1]:.2f}")
    print(f"  matrix-vector, 128, without the projection: {vector}, {100 * same:.1f} % of {few:,} picks the same")
    peer = "-"
    if PEER.exists():
        other, dimensions = by_anomalib(rows, threads)
        peer = f"{other.clock:.1f} ms a pick"
        if len(other.picked) == picks:
            peer += f", radius {radius(rows, rows[other.picked]):.2f}"
        print(f"  anomalib, {dimensions}: {other}, {other.memory:.0f} MiB; {peer}")
    return {
        "work": f"Coreset, 10 % of {count:,} x {DIMENSIONS:,} rows, no projection",
        "ours": f"{exact.clock:.2f} ms a pick, radius {reached[0]:.2f}",
        "peer": peer,
        "shown": "exact greedy; under 8 ms at 163,840 rows",
    }


def stream(images: int) -> None:
    """Peak memory of the whole process, time, and the radius over every 50th image."""
    network = timm.create_model("wide_resnet50_2", features_only=True, out_indices=(2, 3)).eval()
    with torch.inference_mode():
        network(torch.randn(1, 3, 256, 256))
    coreset = StreamingCoreset(0.1, torch.Generator().manual_seed(0))
    cells = torch.arange(1024)
    spent = 0.0
    for image in range(images):
        rows, owner = clustered(1024, seed=image), torch.stack((torch.full_like(cells, image), cells), dim=1)
        start = time.process_time()
        coreset.add(rows, owner)
        spent += time.process_time() - start
    start = time.process_time()
    rows, origin = coreset.result()
    spent += time.process_time() - start
    peak = resident("VmHWM")
    print(f"{images:,} images: {len(rows):,} of {coreset.seen:,} rows; peak of the process {peak:,.0f} MiB")
    print(
        f"  {1000 * spent / images:.0f} ms of processor an image, {len(origin[:, 0].unique()):,} images in the coreset"
    )
    looked_at = torch.cat([clustered(1024, seed=image) for image in range(0, images, 50)])
    print(f"  radius {radius(looked_at, rows):.2f}, load {os.getloadavg()[0]:.1f}")
    keep_rows(
        "coreset_stream",
        [
            {
                "work": f"Patches of {images:,} images, 1,024 x {DIMENSIONS:,} each, a WideResNet-50-2 beside",
                "ours": f"{peak:,.0f} MiB resident at most",
                "peer": "-",
                "shown": "under 2,000 MiB",
            }
        ],
    )


def main() -> None:
    """Measure the sizes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="*", default=[40_960, 102_400, 163_840])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stream", type=int, metavar="IMAGES")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.stream:
        stream(asked.stream)
        return
    keep_rows("coreset", [compare(count, asked.threads) for count in asked.rows])


if __name__ == "__main__":
    main()
