"""The scorers that reconstruct pixels, measured on the demo's parts, and how far each merely copies its input.

    python tests/benchmarks/pixel_reconstruction.py [scorers | identity] [--steps N] [--only NAME]

``scorers``: every scorer with its defaults. ``identity``: the stress test of the survey (arXiv 2507.15905, section 4),
bottleneck width times masking ratio of ``vit-ae``, and its other remedies. Everything is of seed 101, which nothing
ships with; each defective part is tested beside its normal twin, the same shot without the defect.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peer import keep_rows

from explainvad.demo import make_demo
from explainvad.demo.defects import photograph_defect
from explainvad.demo.photograph import Shot
from explainvad.detection.backbones import Backbones
from explainvad.detection.reconstruction.masked_vit import MaskedViT
from explainvad.detection.reconstruction.mem_ae import MemAE
from explainvad.detection.reconstruction.pixels import USUAL, PixelReconstruction
from explainvad.detection.reconstruction.residuals import identity_gap
from explainvad.detection.reconstruction.unet import UNetAutoencoder
from explainvad.detection.reconstruction.vit_ae import ViTAutoencoder
from explainvad.evaluation.metrics.images import image_auroc
from explainvad.evaluation.metrics.pixels import PixelMetrics
from explainvad.evaluation.metrics.resampling import Resampling
from explainvad.lot import read_image, scan
from explainvad.types import InspectionImage

SEED, EACH = 101, 8
KINDS = ("scratch", "dent", "stain", "missing_feature", "wrong_colour")
SCORERS: tuple[tuple[type[PixelReconstruction[Any]], dict[str, Any]], ...] = (
    (MemAE, {}),
    (MaskedViT, {}),
    (ViTAutoencoder, {}),
    (UNetAutoencoder, {"skips": False}),
    (UNetAutoencoder, {}),
)
BOTTLENECKS, RATIOS = (2, 16, 96), (0.0, 0.25, 0.5, 0.75)
REMEDIES: tuple[dict[str, Any], ...] = ({"query": True}, {"memory": 500})


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Reference images, and of each defective part its normal twin, its picture and its mask (H, W)."""

    reference: list[InspectionImage]
    twins: list[InspectionImage]
    pictures: list[InspectionImage]
    masks: list[NDArray[np.bool_]]

    @classmethod
    def photographed(cls) -> Parts:
        """EACH parts of every kind."""
        with tempfile.TemporaryDirectory() as folder:
            demo = make_demo(Path(folder) / "demo", seed=SEED)
            reference = [read_image(file) for file in scan(demo.reference)]
        drawn = [
            photograph_defect(
                kind,
                number,
                Shot.draw(np.random.default_rng([SEED, 2, k, number])),
                np.random.default_rng([SEED, 3, k, number]),
            )
            for k, kind in enumerate(KINDS)
            for number in range(EACH)
        ]
        twins, pictures = (
            [_image(p) for p in pixels] for pixels in zip(*((d.normal_twin, d.picture) for d in drawn), strict=True)
        )
        return cls(reference, twins, pictures, [d.mask for d in drawn])


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one scorer; ``gap`` is the median over parts of ``identity_gap``."""

    image_auroc: float
    pixel_auroc: float
    aupro: float
    gap: float
    fit_seconds: float  # of the processor
    image_seconds: float

    def __str__(self) -> str:
        return (
            f"image AUROC {self.image_auroc:.3f}, pixel AUROC {self.pixel_auroc:.3f}, AUPRO(0.3) {self.aupro:.3f}, "
            f"identity gap {self.gap:.2f}; fit {self.fit_seconds:.0f} s, {self.image_seconds * 1e3:.0f} ms an image"
        )


def _image(pixels: NDArray[np.uint8]) -> InspectionImage:
    return InspectionImage("part", "part.png", pixels, "0" * 64, 1, Path("part.png"))


def measure(of: type[PixelReconstruction[Any]], options: dict[str, Any], parts: Parts) -> Measured:
    """Fit one scorer to the reference and score every twin and every defective part."""
    scorer = of(of.options_type(**options), Backbones())
    started = time.process_time()
    scorer.fit(parts.reference, seed=0)
    fitted = time.process_time()
    normal, defective = scorer.score(parts.twins), scorer.score(parts.pictures)
    scored = time.process_time()
    pixels = PixelMetrics()
    for before, after, mask in zip(normal, defective, parts.masks, strict=True):
        pixels.update(before.anomaly_map, np.zeros_like(mask))
        pixels.update(after.anomaly_map, mask)

    # The gap is of raw residuals
    scorer.arrays[USUAL] = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    raw = zip(scorer.score(parts.twins), scorer.score(parts.pictures), parts.masks, strict=True)
    gaps = [identity_gap(before.anomaly_map, after.anomaly_map, mask) for before, after, mask in raw]
    figures = pixels.compute((0.3,), Resampling(0))
    auroc = image_auroc([False] * len(normal) + [True] * len(defective), [s.value for s in (*normal, *defective)])
    aupro = figures.aupro[0.3]
    assert auroc is not None and figures.auroc is not None and aupro is not None
    each = (scored - fitted) / (2 * len(normal))
    return Measured(auroc, figures.auroc.estimate, aupro.estimate, float(np.median(gaps)), fitted - started, each)


def scorers(parts: Parts, fewer: dict[str, Any], only: str) -> Iterator[dict[str, str]]:
    """Every scorer with its defaults, or the one called ``only``."""
    for of, options in (s for s in SCORERS if only in ("", s[0].name)):
        named = ", ".join(f"{key} {value}" for key, value in options.items())
        yield row(f"{of.name} {named}".strip(), str(measure(of, options | fewer, parts)))


def identity(parts: Parts, fewer: dict[str, Any], only: str) -> Iterator[dict[str, str]]:
    """``vit-ae`` by bottleneck and masking ratio, then with each remedy at the widest bottleneck; raw residuals."""
    grid = [{"bottleneck": b, "mask_ratio": r} for b in BOTTLENECKS for r in RATIOS]
    vit = (*grid, *({"bottleneck": BOTTLENECKS[-1], **remedy} for remedy in REMEDIES))
    for options in vit if only in ("", ViTAutoencoder.name) else ():
        named = ", ".join(f"{key} {value}" for key, value in options.items())
        yield row(f"vit-ae {named}", str(measure(ViTAutoencoder, {**options, "usual": False} | fewer, parts)))
    for skips in (False, True) if only in ("", UNetAutoencoder.name) else ():
        measured = measure(UNetAutoencoder, {"skips": skips, "usual": False} | fewer, parts)
        yield row(f"unet skips {skips}", str(measured))


def row(work: str, ours: str) -> dict[str, str]:
    """A row of the table; no peer has these scorers."""
    print(f"{work}: {ours}", flush=True)
    return {"work": work, "ours": ours, "peer": "", "shown": ""}


def main() -> None:
    """Measure and keep the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", default="scorers", choices=("scorers", "identity"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    fewer = {"steps": arguments.steps} if arguments.steps else {}
    made = {"scorers": scorers, "identity": identity}[arguments.what]
    keep_rows(f"pixel_reconstruction_{arguments.what}", list(made(Parts.photographed(), fewer, arguments.only)))


if __name__ == "__main__":
    main()
