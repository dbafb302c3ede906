"""Run by the peer's Python, see peer.py, with open_clip_torch: anomalib's WinCLIP on given weights and images."""

from __future__ import annotations

import sys
import time

import numpy as np
import open_clip
import torch
from anomalib.models.image.winclip import prompting, torch_model
from safetensors.torch import load_file
from torch import Tensor


def main(given: str, made: str) -> None:
    torch.set_grad_enabled(False)
    inputs = np.load(given)
    frames, references = (torch.from_numpy(inputs[name]) for name in ("frames", "references"))
    prompting.TEMPLATES[:] = inputs["templates"].tolist()
    model = winclip(str(inputs["weights"]), str(inputs["object"]))
    own_text = model.text_embeddings.clone()
    outputs: dict[str, np.ndarray] = {"text": own_text.numpy()}
    _, windows, _ = model.encode_image(frames)
    outputs |= {f"windows-{k}": part.numpy() for k, part in zip((2, 3), windows, strict=True)}
    for name, text in (("own", own_text), ("given", torch.from_numpy(inputs["text"]))):
        model._text_embeddings = text
        outputs |= scores(model, frames, f"{name}-zero-shot")
    seconds = [timed(model, frame[None]) for frame in frames for _ in range(int(inputs["repeats"]))]
    model.setup(reference_images=references)
    model._text_embeddings = torch.from_numpy(inputs["text"])  # it has collected its own again
    outputs |= scores(model, frames, "given-few-shot")
    few = [timed(model, frame[None]) for frame in frames for _ in range(int(inputs["repeats"]))]
    np.savez(made, **outputs, **{"seconds-zero-shot": np.array(seconds), "seconds-few-shot": np.array(few)})


def winclip(weights: str, name: str) -> torch_model.WinClipModel:
    """Its model, on our weights instead of those that it would download."""
    create = open_clip.create_model_and_transforms
    torch_model.open_clip.create_model_and_transforms = lambda backbone, pretrained: create(backbone, pretrained=None)
    model = torch_model.WinClipModel().eval()
    model.clip.load_state_dict(load_file(weights))
    model.setup(name)
    return model


def scores(model: torch_model.WinClipModel, frames: Tensor, name: str) -> dict[str, np.ndarray]:
    found = model(frames)
    return {f"{name}-value": found.pred_score.numpy(), f"{name}-map": found.anomaly_map.numpy()}


def timed(model: torch_model.WinClipModel, frame: Tensor) -> tuple[float, float]:
    """Seconds of the bare image encoder, and right after it of the whole model."""
    started = time.perf_counter()
    model.clip.encode_image(frame)
    between = time.perf_counter()
    model(frame)
    return between - started, time.perf_counter() - between


if __name__ == "__main__":
    main(*sys.argv[1:])
