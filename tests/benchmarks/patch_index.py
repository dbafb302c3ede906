"""Search of a bank: latency over five orders of rows, what is missed, and what it adds to a network's forward pass.

    python tests/benchmarks/patch_index.py [--rows N ...] [--threads N] [--forward]

1,024 queries at a time, as many as an image of 256 px has patches. Rows of 64 dimensions (10^7 of them take 1.2 GiB in
half precision) lie in clusters whose spectrum falls; recall is measured against exact search of queries that
neither the index nor its tuning saw. ``--forward``: beside the forward pass of a WideResNet-50-2 at 256 px, 16,384
rows of 1,536 dimensions. Processor time over all threads stands beside the clock's, which a busy machine delays.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import timm
import torch
from coreset import clustered
from peer import keep_rows
from torch import Tensor

from explainvad.detection.banks.searches import make_search, prepare_search
from explainvad.detection.neighbors import nearest
from explainvad.detection.patch_index import PatchIndex

QUERIES, DIMENSIONS, CLUSTERS = 1024, 64, 1000
ROUNDS = 9


def features(count: int, seed: int) -> Tensor:
    """Rows float16 (count, DIMENSIONS), in the same clusters whatever the seed."""
    spectrum = torch.arange(1, DIMENSIONS + 1) ** -0.5
    centres = torch.randn(CLUSTERS, DIMENSIONS, generator=torch.Generator().manual_seed(0)) * spectrum
    generator = torch.Generator().manual_seed(seed)
    rows = torch.empty(count, DIMENSIONS, dtype=torch.float16)
    for part in rows.split(1 << 16):
        inner = 0.4 * spectrum * torch.randn(len(part), DIMENSIONS, generator=generator)
        part.copy_(centres[torch.randint(CLUSTERS, (len(part),), generator=generator)] + inner)
    return rows


def in_turns(work: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Median milliseconds of each, by the clock and by the processor, over runs in turns after one that warms up."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(ROUNDS + 1):
        for name, run in work.items():
            clock, processor = time.perf_counter(), time.process_time()
            run()
            taken[name].append((1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - processor)))
    return {
        name: (float(median[0]), float(median[1]))
        for name, runs in taken.items()
        for median in [torch.tensor(runs[1:]).median(0).values]
    }


def by_size(counts: list[int]) -> list[dict[str, str]]:
    """Latency, recall and cost of an index over each number of rows."""
    table = []
    queries = features(QUERIES, seed=2).float()
    for count in counts:
        bank = features(count, seed=1)
        start = time.process_time()
        index = PatchIndex(bank, quantised=True)
        built = time.process_time() - start
        clock, processor = in_turns({"": lambda index=index: index.search(queries)})[""]
        some = queries[:256]
        exact = PatchIndex.restore({"bank": bank.numpy()}, {}).search(some)[0]
        recall = float((index.search(some)[0] <= exact * (1 + 1e-5)).float().mean())
        codes = sum(array.nbytes for name, array in index.state()[0].items() if name != "bank") / count
        print(f"{count:>10,} rows: {clock:.0f} ms ({processor:.0f} ms of processor) for {QUERIES:,} queries, ", end="")
        print(f"recall {recall:.4f}, built in {built:.0f} s of processor, {codes:.0f} bytes a row beside it")
        print(f"{'':>16} {index.facts}, load {os.getloadavg()[0]:.1f}", flush=True)
        table.append(
            {
                "work": f"Search of {count:,} x {DIMENSIONS} rows, {QUERIES:,} queries",
                "ours": f"{processor:.0f} ms of processor, recall {recall:.3f}",
                "peer": "-",
                "shown": "time flat within a factor of 2",
            }
        )
    return table


def beside_forward() -> list[dict[str, str]]:
    """What a search of 16,384 x 1,536 rows adds to the forward pass."""
    network = timm.create_model("wide_resnet50_2", features_only=True, out_indices=(2, 3)).eval()
    network = network.to(memory_format=torch.channels_last)
    frame = torch.randn(1, 3, 256, 256).to(memory_format=torch.channels_last)
    rows = clustered(16_384 + QUERIES)
    bank, queries = rows[QUERIES:].contiguous(), rows[:QUERIES].float()
    wide, index = bank.float(), PatchIndex(bank, quantised=True)
    exact = make_search(*prepare_search(bank, exact=True, quantised=False, seed=0), [0, len(bank)])
    with torch.inference_mode():
        taken = in_turns(
            {
                "forward pass": lambda: network(frame),
                "exact, all in full": lambda: nearest(queries, wide),
                "exact, by components": lambda: exact(queries),
                "quantised": lambda: index.search(queries),
            }
        )
    base = taken["forward pass"]
    for name, (clock, processor) in taken.items():
        shares = (
            f"{100 * clock / base[0]:.0f} % of the forward pass ({100 * processor / base[1]:.0f} % of its processor)"
        )
        print(f"{name:>22}: {clock:.0f} ms ({processor:.0f} ms of processor), {shares}")
    print(index.facts, f"load {os.getloadavg()[0]:.1f}")
    return [
        {
            "work": "Search of 16,384 x 1,536 rows beside a WideResNet-50-2 forward pass, 256 px",
            "ours": f"+{100 * taken[name][1] / base[1]:.0f} % ({name})",
            "peer": "-",
            "shown": "the same rows found" if name.startswith("exact") else "recall in the model card",
        }
        for name in ("exact, by components", "quantised")
    ]


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--forward", action="store_true", help="only beside the forward pass")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.forward:
        beside_forward()
    else:
        keep_rows("patch_index", beside_forward() + by_size(asked.rows))


if __name__ == "__main__":
    main()
