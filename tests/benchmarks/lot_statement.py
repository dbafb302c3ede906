"""How long p-values and a lot statement take.

    python tests/benchmarks/lot_statement.py

One call for a million p-values, and the statement on a lot of 100,000 images, of which 5,000 are defective.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from explainvad.uncertainty.conformal import p_values
from explainvad.uncertainty.lot_bounds import defective_at_least, rogan_gladen
from explainvad.uncertainty.lot_statistics import benjamini_hochberg, clopper_pearson

N_CAL, N_IMAGES, N_DEFECTIVE = 10_000, 100_000, 5_000


def seconds(work: Callable[[], object]) -> float:
    """Best of three."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    """Print both times."""
    rng = np.random.default_rng(0)
    calibration, scores = rng.standard_normal(1000), rng.standard_normal(1_000_000)
    print(f"1,000,000 p-values among 1,000 calibration scores: {seconds(lambda: p_values(calibration, scores)):.3f} s")

    lot = np.concatenate([rng.standard_normal(N_IMAGES - N_DEFECTIVE), rng.normal(5, 1, N_DEFECTIVE)])
    p = p_values(rng.standard_normal(N_CAL), lot)

    def statement() -> str:
        listed = int(benjamini_hochberg(p, 0.10).sum())
        least, share = defective_at_least(p), rogan_gladen(int((p <= 0.05).sum()), N_IMAGES, 195, 200, N_CAL, 0.05)
        rate = clopper_pearson(listed, N_IMAGES)
        return (
            f"{listed:,} listed, {least:,} defective at least, share {share.estimate:.4f}, listed {rate.estimate:.4f}"
        )

    print(f"lot of {N_IMAGES:,} images: {seconds(statement):.3f} s ({statement()})")


if __name__ == "__main__":
    main()
