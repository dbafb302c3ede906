"""Run by the peer's Python: anomalib's PaDiM on given frames, weights of the backbone and channels."""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from anomalib.models.image.padim.torch_model import PadimModel

PREFIX = "weights/"


def main(given: str, made: str) -> None:
    """Embeddings and means of the fit, maps of the tested frames, and processor seconds of the fit and of an image."""
    torch.set_num_threads(1)
    with np.load(given) as inputs:
        weights = {k.removeprefix(PREFIX): torch.from_numpy(inputs[k]) for k in inputs if k.startswith(PREFIX)}
        normal, tested, channels = (torch.from_numpy(inputs[k]) for k in ("normal", "tested", "channels"))
    model = PadimModel("resnet18", pre_trained=False, n_features=len(channels))
    network = model.feature_extractor.feature_extractor
    network.load_state_dict({k: weights[k] for k in network.state_dict()}, strict=True)
    model.idx = channels
    model.train()
    started = time.process_time()
    embeddings = torch.cat([model(frame[None]) for frame in normal])
    model.fit()
    fitted = time.process_time() - started
    model.eval()
    maps, seconds = [], []
    with torch.inference_mode():
        for frame in (*tested[:1], *tested):
            started = time.process_time()
            maps.append(model(frame[None]).anomaly_map[0, 0].numpy())
            seconds.append(time.process_time() - started)
    np.savez(
        made,
        embedding=embeddings[0].numpy(),
        mean=model.gaussian.mean.numpy(),
        maps=np.stack(maps[1:]),
        fit=fitted,
        image=np.median(seconds[1:]),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
