"""Pixel metrics against anomalib's on the same maps: do they agree, and at what cost?

    python tests/benchmarks/metrics_parity.py [--images 24] [--side 512]

anomalib keeps all pixels of all images, so that no more of them can be asked for here. Its AUPRO and ours are the
same where all values are thresholds; its AUPIMO takes 300,000 thresholds at equal distances between the smallest and
the largest normal value, of which few can lie within the bounds of the false positive rate.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from metrics_scale import pictures
from peer import ask_peer, keep_rows

from explainvad.evaluation.metrics.pixels import PixelMetrics, PixelScores
from explainvad.evaluation.metrics.resampling import Measured, Resampling

PEER_SCRIPT = Path(__file__).with_name("peer_metrics.py")


def estimate(value: Measured | None) -> float:
    """Of a metric that is defined."""
    assert value is not None
    return value.estimate


def ours(maps: list[np.ndarray], masks: list[np.ndarray]) -> tuple[PixelScores, float]:
    """All metrics without intervals, and processor seconds."""
    metrics = PixelMetrics()
    started = time.process_time()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        metrics.update(anomaly_map, mask)
    scores = metrics.compute(resampling=Resampling(0))
    return scores, time.process_time() - started


def main() -> None:
    """Measure both and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--side", type=int, default=512)
    asked = parser.parse_args()
    maps, masks = map(list, zip(*pictures(asked.images, asked.side), strict=True))
    scores, seconds = ours(maps, masks)
    peer = ask_peer(PEER_SCRIPT, {"maps": np.stack(maps), "masks": np.stack(masks)}, threads=1)
    work = f"of {asked.images} maps of {asked.side} px"
    rows = []
    for limit, theirs in zip((0.30, 0.05), peer["aupro"], strict=True):
        value = estimate(scores.aupro[limit])
        rows.append((f"AUPRO(FPR <= {limit:.2f}) {work}", value, float(theirs)))
    rows.append((f"AUPIMO {work}", estimate(scores.aupimo), float(np.nanmean(peer["aupimo"]))))
    rows.append((f"Pixel AUROC {work} (scikit-learn)", estimate(scores.auroc), float(peer["auroc"])))
    rows.append((f"Pixel AUPR {work} (scikit-learn)", estimate(scores.aupr), float(peer["aupr"])))
    by_image = [v for v in scores.aupimo_by_image if v is not None]
    apart = np.abs(np.array(by_image) - peer["aupimo"][~np.isnan(peer["aupimo"])]).max()
    print(f"AUPIMO by image: largest difference {apart:.5f}")
    shown = "tests/benchmarks/metrics_parity.py"
    table = [{"work": name, "ours": f"{a:.5f}", "peer": f"{b:.5f}", "shown": shown} for name, a, b in rows]
    costs = f"{peer['seconds'].sum():.1f} s of processor for AUPRO and AUPIMO alone"
    table.append({"work": f"All pixel metrics {work}", "ours": f"{seconds:.1f} s", "peer": costs, "shown": shown})
    keep_rows("metrics_parity", table)


if __name__ == "__main__":
    main()
