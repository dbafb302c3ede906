"""Run by the peer's Python: anomalib's Dinomaly on given tokens and weights, and its price over its bare backbone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from anomalib.models.image.dinomaly import torch_model
from torch import nn

ENCODER = "vit_small_patch14_reg4_dinov2"
LAYERS = range(2, 10)
STEP = 500  # of the loss, whose schedule ends at 1,000
ROUNDS = 5


class GivenTokens(nn.Module):
    """In place of the backbone: the tokens (layers, B, N, C) that came, behind a class token that is dropped again."""

    patch_size, num_register_tokens = 1, 0

    def __init__(self, tokens: torch.Tensor) -> None:
        super().__init__()
        self.tokens = nn.functional.pad(tokens, (0, 0, 1, 0))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {f"blocks.{layer}": self.tokens[i] for i, layer in enumerate(LAYERS)}


def main(given: str, made: str) -> None:
    """Maps by group, the loss and gradients of the given network; then times of a network of one's own."""
    with np.load(given) as arrays:
        inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
    untrained = torch_model.TimmFeatureExtractor
    torch_model.TimmFeatureExtractor = lambda **options: untrained(**{**options, "pre_trained": False})
    model = torch_model.DinomalyModel(ENCODER, bottleneck_dropout=0.0, remove_class_token=True)
    encoder, model.encoder = model.encoder, GivenTokens(inputs.pop("tokens"))
    images, frame = torch.zeros(2, 3, *inputs.pop("grid").tolist()), inputs.pop("frame")
    missing, left = model.load_state_dict(inputs, strict=False)
    assert not left and missing == ["gaussian_blur.kernel"], (missing, left)
    model.train()
    encoded, decoded = model.get_encoder_decoder_outputs(images)
    loss = model.loss_fn(encoded, decoded, global_step=STEP)
    loss.backward()
    _, maps = model.calculate_anomaly_maps(encoded, decoded, out_size=tuple(images.shape[2:]))
    outputs = {
        "maps": torch.cat(maps, dim=1).detach().numpy(),
        "loss": loss.detach().numpy(),
        **{f"gradient/{name}": model.get_parameter(name).grad.numpy() for name in inputs},
    }
    model.encoder = encoder
    model.eval()
    with torch.inference_mode():
        times = in_turns({"backbone": lambda: encoder(frame), "whole": lambda: model(frame)})
    np.savez(made, **outputs, **{f"seconds/{name}": seconds for name, seconds in times.items()})


def in_turns(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, over runs taken in turns after one that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS + 1):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(s[1:])) for name, s in seconds.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
