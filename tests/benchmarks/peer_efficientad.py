"""Run by the peer's Python: anomalib's EfficientAD with given weights, its maps, its loss and its price an image."""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel, EfficientAdModelSize

PREFIX = "weights/"


def main(given: str, made: str) -> None:
    """Maps of both branches, bare and padded; normalised maps; the three losses; median processor seconds an image."""
    torch.set_num_threads(1)
    with np.load(given) as inputs:
        arrays = {k: torch.from_numpy(inputs[k]) for k in inputs}
    size = EfficientAdModelSize.M if arrays["medium"] else EfficientAdModelSize.S
    model = EfficientAdModel(model_size=size).eval()
    for name in ("teacher", "student", "ae"):
        network = getattr(model, name)
        found = [arrays[k] for k in arrays if k.startswith(f"{PREFIX}{name}/")]  # in the order of the layers
        network.load_state_dict(dict(zip(network.state_dict(), found, strict=True)), strict=True)
    model.mean_std["mean"].data = arrays["mean"][None]
    model.mean_std["std"].data = arrays["std"][None]
    frames, relit, other = arrays["frames"], arrays["relit"], arrays["other"]
    with torch.inference_mode():
        padded = torch.cat(model.get_maps(frames), dim=1)
        model.pad_maps = False
        bare = torch.cat(model.get_maps(frames), dim=1)
        model.pad_maps = True
        for name, value in zip(("qa_st", "qb_st", "qa_ae", "qb_ae"), arrays["quantiles"].flatten(), strict=True):
            model.quantiles[name].data = value
        normalised = model(frames).anomaly_map
        seconds = []
        for frame in (*frames[:1], *frames):
            started = time.process_time()
            model(frame[None])
            seconds.append(time.process_time() - started)
        model.choose_random_aug_image = lambda image: relit
        losses = model.compute_losses(frames[:1], other, model.compute_student_teacher_distance(frames[:1])[1])
    np.savez(
        made,
        padded=padded.numpy(),
        bare=bare.numpy(),
        normalised=normalised.numpy(),
        losses=np.array([float(loss) for loss in losses]),
        image=np.median(seconds[1:]),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
