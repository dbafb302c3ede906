"""Run by the peer's Python: anomalib's AUPRO, AUPIMO, AUROC, AUPR and F1 of given maps and masks."""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np
import torch
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.pimo.pimo import _AUPIMO
from sklearn.metrics import average_precision_score, roc_auc_score

LIMITS = (0.30, 0.05)


def main(given: str, made: str) -> None:
    """AUPRO at each limit, AUPIMO by image (NaN for good ones), AUROC, AUPR, and processor seconds of the first two."""
    torch.set_num_threads(1)
    with np.load(given) as inputs:
        maps, masks = torch.from_numpy(inputs["maps"]), torch.from_numpy(inputs["masks"]).int()
    warnings.simplefilter("ignore")
    started = time.process_time()
    aupro = []
    for limit in LIMITS:
        metric = _AUPRO(fpr_limit=limit)
        metric.update(maps, masks)
        aupro.append(float(metric.compute()))
    overlap = time.process_time() - started
    started = time.process_time()
    metric = _AUPIMO(return_average=False)
    metric.update(maps, masks)
    aupimo = metric.compute()[1].aupimos.numpy()
    seconds = overlap, time.process_time() - started
    y, scores = masks.numpy().ravel(), maps.numpy().ravel()
    np.savez(
        made,
        aupro=aupro,
        aupimo=aupimo,
        auroc=roc_auc_score(y, scores),
        aupr=average_precision_score(y, scores),
        seconds=seconds,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
