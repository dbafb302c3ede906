"""What all pixel metrics cost: images fed one at a time, with bootstrap intervals, in time and memory.

    python tests/benchmarks/metrics_scale.py [--images 1000] [--side 1024] [--resamples 1000]

Half of the images have defects: three rectangles each, which cover some 3 % of the image and of whose pixels some
stand out. Making the images is not counted. Memory is the peak resident set of the whole process, with the
interpreter and its libraries; what it was before the first image is printed beside it.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
import psutil
from numpy.typing import NDArray
from peer import keep_rows
from scipy import ndimage

from explainvad.evaluation.metrics.pixels import PixelMetrics
from explainvad.evaluation.metrics.resampling import Resampling

_TEXTURES = 4


def pictures(n: int, side: int, seed: int = 0) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Maps float32 (side, side) with smooth and rough noise, and masks; every other one has a defect."""
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.standard_normal((side, side)), 4) * 20 for _ in range(_TEXTURES)]
    for i in range(n):
        noise = 0.1 * rng.standard_normal((side, side), dtype=np.float32)
        anomaly_map = np.roll(smooth[i % _TEXTURES].astype(np.float32), rng.integers(side, size=2), (0, 1)) + noise
        mask = np.zeros((side, side), dtype=np.bool_)
        if i % 2:
            for y, x, height, width in rng.integers(
                (0, 0, side // 20, side // 20), (side, side, side // 6, side // 6), (3, 4)
            ):
                mask[y : y + height, x : x + width] = True
            anomaly_map[mask] += rng.gamma(2.0, 1.5, np.count_nonzero(mask)).astype(np.float32)
        yield anomaly_map, mask


def main() -> None:
    """Measure once and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--resamples", type=int, default=1000)
    asked = parser.parse_args()
    before = psutil.Process().memory_info().rss / 2**20
    metrics, clock, processor, n_defect = PixelMetrics(), 0.0, 0.0, 0
    for anomaly_map, mask in pictures(asked.images, asked.side):
        started = time.perf_counter(), time.process_time()
        metrics.update(anomaly_map, mask)
        clock += time.perf_counter() - started[0]
        processor += time.process_time() - started[1]
        n_defect += int(mask.sum())
    fed = clock
    started = time.perf_counter(), time.process_time()
    scores = metrics.compute(resampling=Resampling(asked.resamples))
    clock += time.perf_counter() - started[0]
    processor += time.process_time() - started[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{asked.images} images of {asked.side} x {asked.side} px, {asked.resamples} resamples")
    print(f"  {clock:.1f} s by the clock ({fed:.1f} s to feed them), {processor:.1f} s of processor")
    print(f"  peak {peak:.0f} MiB, {before:.0f} MiB before the first image")
    named = {"AUROC": scores.auroc, "AUPR": scores.aupr, "F1max": scores.f1_max, "AUPIMO": scores.aupimo}
    named |= {f"AUPRO({limit:.2f})": value for limit, value in scores.aupro.items()}
    for name, value in named.items():
        if value is not None:
            print(
                f"  {name:<12} {value.estimate:.5f} [{value.lower:.5f}, {value.upper:.5f}] +- {value.binning_error:.1e}"
            )
    keep_rows(
        "metrics_scale",
        [
            {
                "work": f"All pixel metrics of {asked.images:,} maps of {asked.side} px, {asked.resamples:,} resamples",
                "ours": f"{clock:.0f} s, {peak:.0f} MiB",
                "peer": "-",
                "shown": "tests/benchmarks/metrics_scale.py",
            }
        ],
    )


if __name__ == "__main__":
    main()
