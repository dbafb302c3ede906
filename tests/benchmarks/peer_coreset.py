"""Run by the peer's Python: anomalib's KCenterGreedy on given rows, all of its picks or only the first ``limit``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy


def main(given: str, made: str) -> None:
    """Picks; seconds of wall clock and processor that the projection took, and that a pick took; peak MiB it added."""
    with np.load(given) as inputs:
        rows, limit = torch.from_numpy(inputs["rows"]).float(), int(inputs["limit"])
    torch.manual_seed(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    sampler = KCenterGreedy(rows, sampling_ratio=0.1)
    clocks = [time.perf_counter(), time.process_time()]
    sampler.model.fit(rows)
    sampler.features = sampler.model.transform(rows)
    projected = [time.perf_counter(), time.process_time()]
    # its own loop, over features that are there already and for fewer picks where asked
    sampler.embedding = sampler.features[:, None]
    sampler.coreset_size = min(limit, sampler.coreset_size)
    picked = sampler.select_coreset_idxs()
    done = [time.perf_counter(), time.process_time()]
    np.savez(
        made,
        picked=np.array(picked),
        projection=np.subtract(projected, clocks),
        pick=np.subtract(done, projected) / len(picked),
        dimensions=sampler.features.shape[1],
        memory=resident("VmHWM") - before,
    )


def resident(which: str) -> float:
    """MiB from the kernel's own books."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
