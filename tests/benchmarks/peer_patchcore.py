"""Run by the peer's Python, see peer.py: anomalib's PatchCore on given weights, images and bank."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # before anomalib reads it

import numpy as np
import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from safetensors.torch import load_file
from torch import Tensor

LAYERS = ["layer2", "layer3"]
BATCH = 32  # anomalib's own


def main(given: str, made: str) -> None:
    inputs = np.load(given)
    model = PatchcoreModel(LAYERS, backbone="wide_resnet50_2", pre_trained=False).eval()
    # its extractor stops before the last stage and the head
    missing = model.feature_extractor.feature_extractor.load_state_dict(load_file(str(inputs["weights"])), strict=False)
    assert not missing.missing_keys
    frames = torch.from_numpy(inputs["frames"])
    work = fitting if str(inputs["work"]) == "fit" else scoring
    np.savez(made, **work(model, frames, inputs))


def fitting(model: PatchcoreModel, frames: Tensor, inputs: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """Seconds from the first image to the coreset, and the process's largest memory before and after, in MiB."""
    before = peak()
    started, cpu = time.perf_counter(), time.process_time()
    model.train()
    model.feature_extractor.eval()
    for batch in frames.split(BATCH):
        model(batch)
    model.subsample_embedding(float(inputs["share"]))
    seconds = time.perf_counter() - started, time.process_time() - cpu
    assert len(model.memory_bank) == int(len(frames) * 1024 * float(inputs["share"]))
    return {"seconds": np.array(seconds), "memory": np.array([before, peak()])}


def scoring(model: PatchcoreModel, frames: Tensor, inputs: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """What it makes of the frames with our bank; and seconds of the bare extractor and of the whole, in turns."""
    model.memory_bank = torch.from_numpy(inputs["bank"])
    patches, distances, scores, maps, seconds = [], [], [], [], []
    with torch.no_grad():
        for frame in frames.split(1):
            pooled = {name: model.feature_pooler(f) for name, f in model.feature_extractor(frame).items()}
            rows = model.reshape_embedding(model.generate_embedding(pooled))
            patches.append(rows.numpy())
            distances.append(model.nearest_neighbors(rows, 1)[0].numpy())
            found = model(frame)
            scores.append(float(found.pred_score))
            maps.append(found.anomaly_map[0, 0].numpy())
        for frame in frames.split(1) * int(inputs["repeats"]):
            works: list[Callable[[], object]] = [
                lambda frame=frame: model.feature_extractor(frame),
                lambda frame=frame: model(frame),
            ]
            seconds.append([timed(work) for work in works])
    made = {"patches": patches, "distances": distances, "scores": scores, "maps": maps, "seconds": seconds}
    return {name: np.array(values) for name, values in made.items()}


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak() -> float:
    """Largest resident memory of this process since it began, in MiB; getrusage would count its parent's too."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main(*sys.argv[1:])
