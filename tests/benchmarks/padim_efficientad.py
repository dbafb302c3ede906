"""PaDiM and EfficientAD beside anomalib's: the same random weights, the same frames, the same maps; and their price.

Times are the processor's, on one thread, because other work on the machine does not enter them. Where anomalib departs
from the papers it is followed here for the comparison only: PaDiM's variances get 0.00001 beside the paper's 0.01, and
the border that EfficientAD's networks do not describe is called normal.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from peer import ask_peer, keep_rows
from torch import Tensor, nn

from explainvad.detection import padim
from explainvad.detection.backbones import Backbones
from explainvad.detection.distillation.efficient_ad import EfficientAD, EfficientADOptions, enlarged
from explainvad.detection.distillation.pdn import BORDER, CELL, Networks, described
from explainvad.detection.distillation.pictures import relit
from explainvad.detection.distillation.teacher import channel_moments, standardise_channels
from explainvad.detection.padim import PaDiM, PaDiMOptions
from explainvad.detection.weights import WeightStore
from explainvad.types import InspectionImage

SIDE, NORMAL, TESTED = 256, 24, 6
FOLDER = Path(__file__).parent
Rows = list[dict[str, str]]


def main() -> None:
    """Both methods; rows for the table of peers."""
    torch.set_num_threads(1)
    images = [woven(seed) for seed in range(NORMAL + TESTED)]
    for i, image in enumerate(images[NORMAL:]):
        image.pixels[40 * i : 40 * i + 30, 100:140] = [200, 40, 40]
    with tempfile.TemporaryDirectory() as folder:
        backbones = Backbones(WeightStore(Path(folder)), bf16=False)
        rows = compare_padim(backbones, images)
        for size in ("small", "medium"):
            rows += compare_efficient_ad(backbones, size, images[:3], images[NORMAL : NORMAL + 3])
    keep_rows("padim_efficientad", rows)


def woven(seed: int) -> InspectionImage:
    """A weave of SIDE px, slightly moved, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    grey = 128 + 60 * np.sin(x / 9 + rng.uniform(-0.3, 0.3)) * np.cos(y / 13)
    pixels = np.stack([grey, 0.9 * grey, 0.7 * grey], axis=2) + rng.normal(0, 6, (SIDE, SIDE, 3))
    return InspectionImage("", "", np.clip(pixels, 0, 255).astype(np.uint8), "0" * 64, 1, Path("-"))


def shuffle_norms(network: nn.Module) -> None:
    """Random gains and shifts: an untrained residual network has gains of 0, so that its branches say nothing."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, 0, 0.1)


def off(ours: NDArray[Any], peer: NDArray[Any]) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(ours - peer).max() / np.abs(peer).max())


# --- PaDiM


def compare_padim(backbones: Backbones, images: list[InspectionImage]) -> Rows:
    """Fit statistics, maps and times."""
    scorer = PaDiM(PaDiMOptions(backbone="resnet-18:random", resolution=SIDE), backbones)
    extractor: Any = scorer.extractor
    shuffle_norms(extractor.network)
    papers, padim.EPSILON = padim.EPSILON, padim.EPSILON + 1e-5
    started = time.process_time()
    scorer.fit(images[:NORMAL], seed=0)
    fit_seconds = time.process_time() - started
    padim.EPSILON = papers
    frames = torch.stack([extractor.frame(image) for image in images]).numpy()
    peer = ask_peer(
        FOLDER / "peer_padim.py",
        {
            "normal": frames[:NORMAL],
            "tested": frames[NORMAL:],
            "channels": scorer.arrays["channels"].numpy(),
            **{f"weights/{k}": v.numpy() for k, v in extractor.network.state_dict().items()},
        },
        threads=1,
    )
    maps, seconds = [], []
    for image in (images[NORMAL], *images[NORMAL:]):
        extractor.see([images[0]])  # it forgets the image
        started = time.process_time()
        maps.append(scorer.score([image])[0].anomaly_map)
        seconds.append(time.process_time() - started)
    embedding = scorer._embedding(images[0], scorer.arrays["channels"]).numpy()
    mean = scorer.arrays["mean"].flatten(0, 1).T.numpy()
    size, full = (sum(a.nbytes for a in scorer.arrays.values()), mean.shape[1] * 100 * (100 + 1) * 4)
    return [
        {
            "work": f"PaDiM, ResNet-18, {SIDE} px: maps of {TESTED} images after a fit to {NORMAL}",
            "ours": f"largest difference {off(np.stack(maps[1:]), peer['maps']):.1e} of the maximum",
            "peer": "reference",
            "shown": f"same weights and channels; embeddings {off(embedding, peer['embedding']):.0e} apart, means "
            f"{off(mean, peer['mean']):.0e}",
        },
        {
            "work": "PaDiM: fit",
            "ours": f"{fit_seconds:.1f} s, state {size / 1e6:.0f} MB",
            "peer": f"{float(peer['fit']):.1f} s, state {full / 1e6:.0f} MB",
            "shown": "moments are summed batch by batch; the factors are triangular and in half precision",
        },
        {
            "work": "PaDiM: an image",
            "ours": per_second(float(np.median(seconds[1:]))),
            "peer": per_second(float(peer["image"])),
            "shown": "one thread, processor time; ours with the doubt's members",
        },
    ]


def per_second(seconds: float) -> str:
    """1 / s, and ms."""
    return f"{1 / seconds:.1f} images/s ({1e3 * seconds:.0f} ms)"


# --- EfficientAD


@torch.no_grad()
def compare_efficient_ad(
    backbones: Backbones, size: str, normal: list[InspectionImage], tested: list[InspectionImage]
) -> Rows:
    """Maps, loss and times of one size of networks, of random weights."""
    torch.manual_seed(2)
    networks = Networks(size, 384).eval().requires_grad_(False)
    weights = {
        **{f"weights/teacher/{k}": v.clone() for k, v in networks.teacher.state_dict().items()},
        **{f"weights/student/{k}": v for k, v in networks.student.state_dict().items()},
        **{f"weights/ae/{k}": v for k, v in networks.autoencoder.state_dict().items()},
    }
    frames = [torch.from_numpy(image.pixels).permute(2, 0, 1) for image in (*normal, *tested)]
    pixels = torch.stack(frames).float() / 255
    mean, std = channel_moments([networks.teacher(p[None])[0] for p in pixels])
    standardise_channels(networks.teacher, frames, "cpu")
    other = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    light = relit(pixels[:1], torch.Generator().manual_seed(4))
    scorer = EfficientAD(EfficientADOptions(size=size, members=0), backbones)
    quantiles = quantiles_of(networks, pixels[: len(normal)])
    scorer.load({**{k: v.numpy() for k, v in networks.state_dict().items()}, "quantiles": quantiles}, {})
    peer = ask_peer(
        FOLDER / "peer_efficientad.py",
        {
            "medium": np.array(size == "medium"), "mean": mean.numpy(), "std": std.numpy(), "frames": pixels.numpy(),
            "relit": light.numpy(), "other": other.numpy(), "quantiles": quantiles,
            **{k: v.numpy() for k, v in weights.items()},
        },
        threads=1,
    )  # fmt: skip
    grids = torch.stack([networks.disagreement(p[None])[0] for p in pixels])
    bare, padded = (
        F.interpolate(F.pad(grids, (edge,) * 4), size=(SIDE, SIDE), mode="bilinear") for edge in (0, BORDER)
    )
    whole = (slice(0, SIDE), slice(0, SIDE)), tuple(slice(0, n) for n in described(SIDE, SIDE))
    loss = float(networks.loss(pixels[:1], light, whole[0], (whole[1][0], whole[1][1]), other))
    scores, seconds = timed(scorer, [*normal, *tested])
    inner = (..., *(slice(CELL * (BORDER + 1), -CELL * (BORDER + 1)),) * 2)
    maps = max(off(bare.numpy(), peer["bare"]), off(padded.numpy(), peer["padded"]))
    inside = off(scores[inner], peer["normalised"][:, 0][inner])
    with_doubt = EfficientAD(EfficientADOptions(size=size), backbones)
    with_doubt.load(*scorer.state())
    return [
        {
            "work": f"EfficientAD, {size}, {SIDE} px: maps of {len(pixels)} images",
            "ours": f"largest difference {maps:.1e} of the maximum, normalised {inside:.1e}",
            "peer": "reference",
            "shown": f"same weights; training loss {loss:.5f} to {peer['losses'].sum():.5f}; normalised without the "
            "border, which the peer calls normal",
        },
        {
            "work": f"EfficientAD, {size}: an image",
            "ours": f"{per_second(seconds)}; with the doubt's members {per_second(timed(with_doubt, tested)[1])}",
            "peer": per_second(float(peer["image"])),
            "shown": "one thread, processor time",
        },
    ]


def quantiles_of(networks: Networks, pixels: Tensor) -> NDArray[np.float32]:
    """q_a and q_b of each branch, (2, 2)."""
    maps = torch.stack([enlarged(networks.disagreement(p[None])[0], (SIDE, SIDE)) for p in pixels], dim=1)
    return np.ascontiguousarray(np.quantile(maps.flatten(1).numpy(), (0.9, 0.995), axis=1).T, dtype=np.float32)


def timed(scorer: EfficientAD, images: list[InspectionImage]) -> tuple[NDArray[np.float32], float]:
    """Maps (n, h, w), and median processor seconds an image after the first."""
    maps, seconds = [], []
    for image in (images[0], *images):
        started = time.process_time()
        maps.append(scorer.score([image])[0].anomaly_map)
        seconds.append(time.process_time() - started)
    return np.stack(maps[1:]), float(np.median(seconds[1:]))


if __name__ == "__main__":
    main()
