"""What words cost: the facts of an image, laying a reference over it, and a hundred regions described by measurement.

    python tests/benchmarks/explanation_speed.py [--images 24]

Pictures and masks are those of the demonstration's defects, at its size and enlarged to 1,600 px. Figures are
medians of CPU time in one thread, ms; the hundred regions are the mean one's time, a hundred times.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.measure import label

from explainvad.demo.defects import DEFECTS, photograph_defect
from explainvad.demo.parts import flange
from explainvad.demo.photograph import Shot, photograph
from explainvad.explanation.alignment import align
from explainvad.explanation.claims import check_sentence
from explainvad.explanation.facts import measure
from explainvad.explanation.part import part_mask
from explainvad.explanation.sentences import MeasuredDescriber
from explainvad.types import InspectionImage, Mask, Region, RegionFacts

WIDTHS = (None, 1600)


def region(mask: np.ndarray, number: int) -> Region:
    y, x = np.nonzero(mask)
    box = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
    return Region(
        f"R{number}", Mask.from_array(mask), box, (int(x[0]), int(y[0])), 1.0, 1.0, int(mask.sum()), None, 0.01,
        "threshold", {"drawn": 1.0},
    )  # fmt: skip


def pictures(n: int, width: int | None) -> tuple[list[tuple[InspectionImage, list[Region]]], bytes]:
    """Defective parts with their regions, and a normal one as JPEG."""

    def sized(pixels: np.ndarray) -> Image.Image:
        picture = Image.fromarray(pixels)
        return picture if width is None else picture.resize((width, width * picture.height // picture.width))

    items = []
    for k in range(n):
        shot = Shot.draw(np.random.default_rng([7, k]))
        part = photograph_defect(sorted(DEFECTS)[k % len(DEFECTS)], k, shot, np.random.default_rng([8, k]))
        pixels, mask = np.asarray(sized(part.picture)), np.asarray(sized(part.mask.astype(np.uint8) * 255)) > 127
        numbered = label(mask)
        regions = [region(numbered == i, i) for i in range(1, numbered.max() + 1)]
        items.append((InspectionImage(f"{k}", f"{k}.png", pixels, "", 1, Path(f"{k}.png")), regions))
    stream = io.BytesIO()
    normal = sized(photograph(flange(), Shot.draw(np.random.default_rng([9]))))
    normal.thumbnail((1024, 1024))
    normal.save(stream, "JPEG", quality=92)
    return items, stream.getvalue()


def milliseconds(work: Callable[..., object], *given: Any, **options: Any) -> float:
    began = time.process_time()
    work(*given, **options)
    return 1000 * (time.process_time() - began)


def facts_of(image: InspectionImage, regions: list[Region], **normal: Any) -> list[RegionFacts]:
    return [measure(image, region, **normal) for region in regions]


def words_of(image: InspectionImage, region: Region, **normal: Any) -> None:
    """All that the report's sentences on one region take."""
    (known,) = facts_of(image, [region], **normal)
    describer = MeasuredDescriber()
    for text in describer.describe(image, region, known):
        check_sentence(text, describer.author, known)


def main() -> None:
    """Print one row a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24)
    options = parser.parse_args()
    print("size           facts of an image   part   registration   registered   100 regions described")
    for width in WIDTHS:
        items, reference = pictures(options.images, width)
        facts, parts, laid, words, registered = [], [], [], [], 0
        for image, regions in items:
            anomalous = np.logical_or.reduce([r.mask.to_array() for r in regions])
            part = part_mask(image)
            aligned = align(image, reference, anomalous, part)
            registered += aligned is not None
            normal = {"reference": aligned, "part_mask": part, "exclude": anomalous}
            parts.append(milliseconds(part_mask, image))
            laid.append(milliseconds(align, image, reference, anomalous, part))
            facts.append(milliseconds(facts_of, image, regions, **normal))
            words += [milliseconds(words_of, image, region, **normal) for region in regions]
        height, across = items[0][0].pixels.shape[:2]
        print(
            f"{across} x {height:<8} {np.median(facts):>14.1f} {np.median(parts):>9.1f} {np.median(laid):>14.1f}"
            f" {registered:>9}/{len(items)} {100 * np.mean(words):>18,.0f}"
        )


if __name__ == "__main__":
    main()
