"""Dinomaly against anomalib's on the same random weights and tokens, and what both reconstructions of features cost.

    python tests/benchmarks/reconstruction_parity.py

anomalib 2.7 has no UniAD; tests/detection/reconstruction/test_uniad.py holds its layers against torch's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peer import ask_peer, keep_rows
from torch import nn

from explainvad.detection.backbones import Backbones
from explainvad.detection.reconstruction.dinomaly import Dinomaly, DinomalyOptions
from explainvad.detection.reconstruction.dinomaly_network import GroupDecoder, distances, loose_loss
from explainvad.detection.reconstruction.uniad import UniAD, UniADOptions
from explainvad.types import InspectionImage

LAYERS, CHANNELS, GRID = 8, 384, (8, 9)
EASY = 0.45  # half of the way to 0.9, as at step 500 of the peer's schedule
SIDE, ROUNDS, THREADS = 448, 5, 2
TOLERANCE = 1e-4
NAMES = {  # ours -> the peer's
    "bottleneck.1": "bottleneck.0.fc1",
    "bottleneck.4": "bottleneck.0.fc2",
    "norm_attention": "norm1",
    "attention.query_key_value": "attn.qkv",
    "attention.project": "attn.proj",
    "norm_mlp": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
    "blocks": "decoder",
}


def main() -> None:
    """Ask the peer, compare, measure, and keep the rows."""
    torch.set_num_threads(THREADS)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(LAYERS, 2, GRID[0] * GRID[1], CHANNELS, generator=generator)
    decoder = random_decoder()
    weights = {theirs(name): p for name, p in decoder.named_parameters() if has_peer(name)}
    frame = torch.randn(1, 3, SIDE, SIDE, generator=generator)
    answer = ask_peer(
        Path(__file__).with_name("peer_dinomaly.py"),
        {
            "tokens": tokens.numpy(),
            "grid": np.array(GRID),
            "frame": frame.numpy(),
            **{name: p.detach().numpy() for name, p in weights.items()},
        },
        THREADS,
    )
    groups = torch.stack((tokens[:4].mean(0), tokens[4:].mean(0)), dim=1)
    rebuilt = decoder(groups)
    loss = loose_loss(groups, rebuilt, EASY)
    loss.backward()
    maps = distances(groups, rebuilt).detach().numpy().reshape(answer["maps"].shape)
    apart = {
        "maps": np.abs(maps - answer["maps"]).max(),
        "loss": abs(loss.item() - answer["loss"]),
        "gradients": max(relative(p.grad.numpy(), answer[f"gradient/{name}"]) for name, p in weights.items()),
    }
    print(apart)
    if max(apart.values()) > TOLERANCE:
        raise SystemExit(f"Dinomaly is not the peer's: expected differences up to {TOLERANCE}, got {apart}")
    peer = answer["seconds/whole"] / answer["seconds/backbone"]
    price = prices()
    keep_rows(
        "reconstruction_parity",
        [
            {
                "work": "Dinomaly on the same weights and tokens: maps, loss, gradients",
                "ours": ", ".join(f"{name} within {value:.0e}" for name, value in apart.items()),
                "peer": "-",
                "shown": "the same network and the same loose loss",
            },
            {
                "work": f"Dinomaly on ViT-S at {SIDE} px, time over the bare backbone",
                "ours": f"x {price['default']:.2f} (6 members; without x {price['alone']:.2f}; as wide as the peer's "
                f"and without x {price['wide']:.2f})",
                "peer": f"x {peer:.2f} (no members)",
                "shown": "a decoder of half the backbone's width pays for the scorer's own doubt",
            },
            {
                "work": "UniAD on ResNet-18 at 224 px, seconds an image",
                "ours": f"{price['uniad']:.2f} (6 members; without {price['uniad alone']:.2f})",
                "peer": "has none",
                "shown": "its transformer costs more than a small backbone",
            },
        ],
    )


def random_decoder() -> GroupDecoder:
    """As wide as the backbone, with weights of ordinary size; biases only where the peer has them."""
    torch.manual_seed(0)
    decoder = GroupDecoder(CHANNELS, CHANNELS, LAYERS, dropout=0.0)
    for module in decoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-8  # the peer's; ours is torch's 1e-5
    for name, parameter in decoder.named_parameters():
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
        elif has_peer(name):
            nn.init.normal_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.1)
    return decoder


def has_peer(name: str) -> bool:
    """The peer's MLPs have no biases."""
    return not name.endswith("bias") or "norm" in name or "attention" in name


def theirs(name: str) -> str:
    """The peer's name of a weight."""
    for ours, peers in NAMES.items():
        name = name.replace(ours, peers, 1)
    return name


def relative(ours: np.ndarray, peers: np.ndarray) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(ours - peers).max() / np.abs(peers).max())


def prices() -> dict[str, float]:
    """Time of scoring with the backbone's pass, over that pass alone; of UniAD in seconds. Random weights, float32."""
    backbones = Backbones(bf16=False)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    image = InspectionImage("img-1", "a.png", pixels, "0" * 64, 1, Path("a.png"))
    small = "dinov2-small-reg:random"
    scorers = {
        "default": Dinomaly(DinomalyOptions(backbone=small, steps=1), backbones),
        "alone": Dinomaly(DinomalyOptions(backbone=small, steps=1, members=0), backbones),
        "wide": Dinomaly(DinomalyOptions(backbone=small, steps=1, members=0, width=0), backbones),
        "uniad": UniAD(UniADOptions(backbone="resnet-18:random", steps=1), backbones),
        "uniad alone": UniAD(UniADOptions(backbone="resnet-18:random", steps=1, members=0), backbones),
    }
    work: dict[str, Callable[[], object]] = {"backbone": lambda: scorers["default"].extractor.see([image])}
    for name, scorer in scorers.items():
        scorer.fit([image], 0)
        work[name] = lambda scorer=scorer: (scorer.extractor.see([image]), scorer.score([image]))
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS + 1):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    median = {name: float(np.median(s[1:])) for name, s in seconds.items()}
    return {n: s if n.startswith("uniad") else s / median["backbone"] for n, s in median.items()}


if __name__ == "__main__":
    main()
