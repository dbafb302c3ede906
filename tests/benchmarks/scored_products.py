"""Images of two products, scored once by an ensemble that saw none of them: what the calibration benchmarks split anew.

    python tests/benchmarks/scored_products.py OUT [--tiles DIR]

``OUT/demo.npz``: demo flanges, 120 to fit the scorers, 300 good and 150 with a defect. ``OUT/tiles.npz``, where the
magnetic tiles are at hand: scorers fitted to 100 of the good tiles, the others and all defects are scored; groups are
runs of near frame numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tiles import runs, split_good

from explainvad.attribution.references import ReferenceGallery
from explainvad.config import InspectionConfig
from explainvad.demo import DEMO_CONFIG
from explainvad.demo.defects import DEFECTS, photograph_defect
from explainvad.demo.parts import flange
from explainvad.demo.photograph import Shot, photograph
from explainvad.detection.ensemble import EmbeddedEnsemble
from explainvad.evaluation.scored import GOOD, LabelledImage, ScoredImages
from explainvad.lot import LotFile, read_image
from explainvad.types import InspectionImage

SEED = 0
N_FIT, N_GOOD, N_DEFECTIVE = 120, 300, 150  # demo
N_FIT_TILES = 100
TILE_DEFECTS = ("blowhole", "break", "fray")


def score_all(fit: list[InspectionImage], config: InspectionConfig, images: Iterable[LabelledImage]) -> ScoredImages:
    """Fit the scorers to ``fit`` and score every image."""
    ensemble = EmbeddedEnsemble.fit(fit, SEED, **config.detection.model_dump(), device="cpu")
    return ScoredImages.score(images, ensemble, ReferenceGallery.fit(fit))


def demo_product() -> ScoredImages:
    """Flanges of seeds that no demo lot has."""

    def image(pixels: NDArray[np.uint8], name: str) -> InspectionImage:
        return InspectionImage(name, name, pixels, name, pixels.size, Path(name))

    def shot(role: int, index: int) -> Shot:
        return Shot.draw(np.random.default_rng([SEED, 99, role, index]))

    def items() -> Iterator[LabelledImage]:
        for i in range(N_GOOD):
            yield image(photograph(flange(), shot(1, i)), f"good-{i}"), f"good-{i}", GOOD, 0.0
        kinds = [kind for kind in DEFECTS if kind != "foreign_part"]
        for i in range(N_DEFECTIVE):
            kind = kinds[i % len(kinds)]
            part = photograph_defect(kind, i // len(kinds), shot(2, i), np.random.default_rng([SEED, 99, 3, i]))
            yield image(part.picture, f"{kind}-{i}"), f"defect-{i}", kind, float(np.sqrt(part.mask.sum()))

    return score_all([image(photograph(flange(), shot(0, i)), f"fit-{i}") for i in range(N_FIT)], DEMO_CONFIG, items())


def tiles_product(root: Path) -> ScoredImages:
    """Magnetic tiles; good ones by runs, defects by runs within their kind."""

    def image(path: Path) -> InspectionImage:
        return read_image(LotFile(path.stem, path.name, path, path.parent))

    fit, rest = split_good(sorted((root / "good").iterdir()), SEED, N_FIT_TILES)

    def items() -> Iterator[LabelledImage]:
        folders = {"good": rest, **{kind: sorted((root / kind).iterdir()) for kind in TILE_DEFECTS}}
        for kind, paths in folders.items():
            for number, group in enumerate(runs(paths)):
                for path in group:
                    size = 0.0
                    if kind != "good":
                        mask = Image.open(root / "ground_truth" / kind / f"{path.stem}.png").convert("L")
                        size = float(np.sqrt((np.asarray(mask) > 127).sum()))
                    yield image(path), f"{kind}-{number}", kind, size

    return score_all([image(path) for path in fit], InspectionConfig(), items())


def main() -> None:
    """Score what is not there yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiles", type=Path)
    arguments = parser.parse_args()
    if not (arguments.out / "demo.npz").exists():
        demo_product().save(arguments.out / "demo.npz")
    if arguments.tiles and not (arguments.out / "tiles.npz").exists():
        tiles_product(arguments.tiles).save(arguments.out / "tiles.npz")


if __name__ == "__main__":
    main()
