"""What inspecting costs: time by the image, and memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from explainvad.evaluation.metrics.resampling import Measured, Resampling


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by the clock from decoded pixels to the finished record, and the largest memory of the process, MiB.

    The mean has an interval over images; a first image that warms up is in it. Memory is the peak resident set since
    the process began, with the interpreter, its libraries and a fit in the same process; ``gpu_peak_mib`` is what
    torch held on the GPU, None without one.
    """

    mean: Measured
    median: float
    p95: float
    peak_mib: float
    gpu_peak_mib: float | None


def measured_cost(seconds: Sequence[float], resampling: Resampling, gpu_peak_bytes: int | None = None) -> Cost:
    """Cost of n >= 1 images that took ``seconds`` each."""
    taken = np.asarray(seconds, dtype=np.float64)
    weights = resampling.weights(np.zeros(len(taken), dtype=np.bool_))
    means = weights.astype(np.float64) @ taken / len(taken) if resampling.n else None
    return Cost(
        mean=resampling.measured(float(taken.mean()), means),
        median=float(np.median(taken)),
        p95=float(np.quantile(taken, 0.95)),
        peak_mib=peak_mib(),
        gpu_peak_mib=gpu_peak_bytes / 2**20 if gpu_peak_bytes is not None else None,
    )


def peak_mib() -> float:
    """The largest resident set of this process since it began."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux, where getrusage would take in what the parent held when it started this process
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere
