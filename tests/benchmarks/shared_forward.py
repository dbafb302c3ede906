"""What an extractor adds to the bare forward pass, what bfloat16 gains and costs, and whether memory stays flat.

Networks of the real sizes with random weights, pictures of 900 x 900 px, one thread, milliseconds of processor time.
The bare pass is timm's own on a frame that lies ready in the same memory format; the extractor also resizes,
normalises and keeps. Each round runs all variants, so that what else the machine does meets all of them. Printed,
never asserted.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from peer import keep_rows
from torch import Tensor

from explainvad.detection.backbones import FINAL, FrozenBackbone
from explainvad.detection.frames import resized
from explainvad.detection.weights import Weights
from explainvad.types import InspectionImage

WARM_UP, ROUNDS = 2, 15
SIDE = 900  # px, of the pictures
MANY = 300  # images, for memory


class Case(NamedTuple):
    """A network as its scorer uses it."""

    architecture: str
    arguments: dict[str, Any]
    multiple: int
    resolution: int
    layers: Sequence[int]


CASES = {
    "WideResNet-50-2, layers 2 and 3": Case("wide_resnet50_2", {}, 32, 256, [2, 3]),
    "DINOv2-small, last layer": Case("vit_small_patch14_reg4_dinov2", {"dynamic_img_size": True}, 14, 448, [FINAL]),
    "MobileViT-S, stages 1 to 3": Case("mobilevit_s", {}, 32, 256, [1, 2, 3]),
    "TinyViT-5M, stages 1 and 2": Case("tiny_vit_5m_224", {}, 32, 256, [1, 2]),
}


def main() -> None:
    """Memory, then all cases."""
    torch.set_num_threads(1)
    bf16 = "with" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "without"
    print(f"torch {torch.__version__}, timm {timm.__version__}, {bf16} native bfloat16")
    rows = [memory(CASES["MobileViT-S, stages 1 to 3"])]  # first: a peak is never lowered
    rows += [row for name, case in CASES.items() for row in speed(name, case)]
    keep_rows("shared_forward", rows)


def extractor(case: Case, bf16: bool) -> FrozenBackbone:
    config = {"architecture": case.architecture, "model_args": case.arguments}
    weights = Weights(case.architecture, "timm", None, config, case.multiple, (0.5,) * 3, (0.25,) * 3)
    backbone = FrozenBackbone(weights.network(), weights, case.resolution, bf16=bf16)
    backbone.request(case.layers)
    return backbone


def picture(seed: int = 0) -> InspectionImage:
    """Colour that changes over 60 px, with some noise."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(30, 220, (SIDE // 60, SIDE // 60, 3)), np.ones((60, 60, 1)))
    pixels = np.clip(coarse + rng.normal(0, 8, coarse.shape), 0, 255).astype(np.uint8)
    return InspectionImage(f"img-{seed}", "a.png", pixels, "0" * 64, 1, Path("a.png"))


def speed(name: str, case: Case) -> list[dict[str, str]]:
    """Bare pass and extractor in both precisions; how far the features of the two are apart."""
    exact, rounded = extractor(case, False), extractor(case, True)
    image = picture()
    ready = exact.frame(image)[None].contiguous(memory_format=torch.channels_last)
    last = exact.depth - 1
    indices = sorted(last if layer == FINAL else layer for layer in case.layers)

    def bare() -> Any:
        with torch.no_grad():
            return exact.network.forward_intermediates(  # type: ignore[operator]
                ready, indices=indices, stop_early=True, intermediates_only=True
            )

    def seen(backbone: FrozenBackbone) -> list[Tensor]:
        return backbone.levels(replace(image), case.layers)  # another object: nothing is remembered

    works = {
        "bare": bare,
        "fp32": lambda: seen(exact),
        "bf16": lambda: seen(rounded),
        "resize": lambda: resized(image.pixels, exact.size(image)),
    }
    took = median_ms(works)
    apart = [float((a - b).norm() / b.norm()) for a, b in zip(seen(rounded), seen(exact), strict=True)]
    cosine = min(
        float(torch.cosine_similarity(a, b, dim=0).mean()) for a, b in zip(seen(rounded), seen(exact), strict=True)
    )
    rows, cols = exact.size(image)
    work = f"{name}, {rows} x {cols} px"
    return [
        {
            "work": f"extractor against the bare forward pass: {work}",
            "ours": f"{took['fp32']:.1f} ms",
            "peer": f"{took['bare']:.1f} ms",
            "shown": f"{took['fp32'] / took['bare']:.3f} times; resizing alone takes {took['resize']:.1f} ms",
        },
        {
            "work": f"bfloat16 against float32: {work}",
            "ours": f"{took['bf16']:.1f} ms",
            "peer": f"{took['fp32']:.1f} ms",
            "shown": f"{took['fp32'] / took['bf16']:.2f} times as fast; features apart by "
            f"{', '.join(f'{a:.2%}' for a in apart)} of their norm, cosine {cosine:.5f}",
        },
    ]


def median_ms(works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(WARM_UP + ROUNDS):
        for name, work in works.items():
            started = time.process_time()
            work()
            seconds[name].append(time.process_time() - started)
    return {name: 1e3 * statistics.median(times[WARM_UP:]) for name, times in seconds.items()}


def memory(case: Case) -> dict[str, str]:
    """Peak resident size after 20 images, and after all."""
    backbone, peak = extractor(case, False), 0.0
    for seed in range(MANY):
        backbone.levels(picture(seed), case.layers)
        if seed == 19:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "work": f"peak memory after {MANY} images, and after 20",
        "ours": f"{after:.0f} MB",
        "peer": f"{peak:.0f} MB",
        "shown": f"{after - peak:+.0f} MB",
    }


if __name__ == "__main__":
    main()
