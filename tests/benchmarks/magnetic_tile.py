"""The memory bank on the embedded backbone, measured on the public magnetic tiles.

    python tests/benchmarks/magnetic_tile.py TILES [--steps N] [--minutes M]

400 of the good tiles to fit on, the other 200 and all defects to test, dealt by runs of near frame numbers, never
by file. Nothing is chosen by these figures: parameters come from generated hold-outs and held-out normal images.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tiles import split_good

from explainvad.detection.backbone.adaptation import adapt
from explainvad.detection.backbone.embedded import EmbeddedBackbone
from explainvad.detection.memory_bank import MemoryBank
from explainvad.evaluation.datasets.masks import read_mask
from explainvad.evaluation.metrics.images import image_auroc, image_metrics
from explainvad.evaluation.metrics.pixels import PixelMetrics
from explainvad.evaluation.metrics.resampling import Measured, Resampling
from explainvad.lot import LotFile, read_image
from explainvad.types import InspectionImage

DEFECTS = ("blowhole", "break", "fray")
SEED, RESOLUTION, ROWS = 0, 448, 8000


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """``fit`` and ``test`` images; ``masks`` paths by test image, None for a good one."""

    fit: list[InspectionImage]
    test: list[InspectionImage]
    masks: list[Path | None]
    kinds: list[str]

    @classmethod
    def read(cls, root: Path) -> Tiles:
        fit, rest = split_good(sorted((root / "good").iterdir()), SEED)
        pairs: list[tuple[Path, Path | None, str]] = [(path, None, "good") for path in rest]
        for kind in DEFECTS:
            masks = root / "ground_truth" / kind
            pairs += [(path, masks / f"{path.stem}.png", kind) for path in sorted((root / kind).iterdir())]
        return cls(
            [_read(p) for p in fit], [_read(p) for p, _, _ in pairs], [m for _, m, _ in pairs], [k for *_, k in pairs]
        )


@dataclass(frozen=True, slots=True, eq=False)
class BankResult:
    """Image AUROC with its bootstrap interval, by defect type, and AUPRO at 0.3."""

    auroc: Measured
    by_kind: dict[str, float]
    aupro: float
    fit_seconds: float
    images_per_second: float


def _read(path: Path) -> InspectionImage:
    return read_image(LotFile(path.stem, path.name, path, path.parent))


def measure_bank(backbone: EmbeddedBackbone, tiles: Tiles) -> BankResult:
    """Fill a bank with the fit images, and score the test images with it."""
    bank = MemoryBank(backbone, ROWS)
    started = time.perf_counter()
    bank.fit(tiles.fit, SEED)
    fitted = time.perf_counter()
    pixels, values = PixelMetrics(), []
    for image, mask_path in zip(tiles.test, tiles.masks, strict=True):
        score = bank.score([image])[0]
        shape = (image.height, image.width)
        mask = read_mask(mask_path, shape) if mask_path else np.zeros(shape, dtype=np.bool_)
        pixels.update(score.anomaly_map, mask)
        values.append(score.value)
    scored = time.perf_counter()
    kinds, scores = np.array(tiles.kinds), np.array(values)
    auroc = image_metrics(kinds != "good", scores, resampling=Resampling(seed=SEED)).auroc
    by_kind = {}
    for kind in DEFECTS:
        chosen = (kinds == "good") | (kinds == kind)
        by_kind[kind] = image_auroc(kinds[chosen] == kind, scores[chosen]) or 0.0
    aupro = pixels.compute((0.3,), Resampling(0)).aupro[0.3]
    assert auroc is not None and aupro is not None
    return BankResult(auroc, by_kind, aupro.estimate, fitted - started, len(values) / (scored - fitted))


def main() -> None:
    """Shipped weights, and adapted ones."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tiles", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=2.5)
    arguments = parser.parse_args()
    tiles = Tiles.read(arguments.tiles)
    n_good = tiles.kinds.count("good")
    print(f"{len(tiles.fit)} good to fit, {n_good} good and {len(tiles.kinds) - n_good} defects to test")
    backbone = EmbeddedBackbone.shipped(RESOLUTION)
    started = time.perf_counter()
    adapted = adapt(backbone, tiles.fit, steps=arguments.steps, minutes=arguments.minutes, seed=SEED)
    seconds = time.perf_counter() - started
    for name, used in (("shipped", backbone), ("adapted", adapted)):
        r = measure_bank(used, tiles)
        print(f"{name}: image AUROC {r.auroc.estimate:.3f} [{r.auroc.lower:.3f}, {r.auroc.upper:.3f}]")
        print(f"  AUPRO(0.3) {r.aupro:.3f}; " + ", ".join(f"{k} {v:.3f}" for k, v in r.by_kind.items()))
        print(f"  bank filled in {r.fit_seconds:.0f} s, {r.images_per_second:.1f} images/s")
    print(f"adaptation took {seconds:.0f} s: {dict(adapted.facts)}")


if __name__ == "__main__":
    main()
