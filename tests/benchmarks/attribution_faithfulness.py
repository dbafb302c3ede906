"""How faithful each kind of map is, on the demo's labelled images, and what attention maps cost. Printed, not asserted.

``explainvad demo --out DEMO``, then ``attribution_faithfulness.py DEMO [--model MODEL] [--images N] [--steps N]``.

Maps are those of ``Inspector.explain``. What is pasted is the nearest reference picture, and the score that must fall
is the scorer's own image score, not the number that a map explains. Two controls stand beside the maps, the picture's
edges and noise: a map that does no better says nothing. "sensitivity" is the correlation, over random tenths of the
picture, of what a map says of them with what the score falls by when they are made normal. "like random weights" is the
rank correlation with the same map of the same scorer on an untrained backbone (Adebayo et al. 2018): near 1, the map
shows the picture and not the network. The cost of attention is the ratio to the bare forward pass of a ViT-S/14 with
random weights, in one run; ``--cost`` measures it alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from explainvad import Inspector
from explainvad.attribution.attention import attention_maps
from explainvad.attribution.references import brought_to, decoded
from explainvad.detection.backbone.embedded import EmbeddedBackbone
from explainvad.detection.backbone.network import HybridBackbone
from explainvad.detection.backbones import Backbones
from explainvad.detection.banks.anomaly_dino import AnomalyDINO, AnomalyDINOOptions
from explainvad.evaluation.datasets.items import LabelledItem
from explainvad.evaluation.datasets.load import load_dataset
from explainvad.evaluation.datasets.masks import read_truth
from explainvad.evaluation.faithfulness import (
    deletion_insertion,
    erase_test,
    pointing_game,
    rank_correlation,
    sensitivity,
    top_iou,
)
from explainvad.explaining import METHODS, explain
from explainvad.lot import collect_references, read_image
from explainvad.types import InspectionImage, Scorer

Rows = dict[tuple[str, str], dict[str, list[float]]]
COLUMNS = ("points to it", "IoU", "deletion", "insertion", "sensitivity", "like random weights")
TIMES = 9
KINDS = [kind for kind in METHODS if kind != "prompts"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("demo", type=Path, nargs="?", default=Path("demo"))
    parser.add_argument("--model", type=Path, help="in place of the demo's, such as one of a lower resolution")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--cost", action="store_true", help="of attention, and nothing else")
    given = parser.parse_args()
    if given.cost:
        return attention_cost()
    torch.set_num_threads(1)
    inspector = Inspector.load(given.model or next(given.demo.glob("*.evad")), "cpu")
    items = spread([item for item in load_dataset(given.demo / "labelled").test if item.mask_paths], given.images)
    rows: Rows = defaultdict(lambda: defaultdict(list))
    erased: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for done, item in enumerate(items, start=1):
        measure(inspector, item, given.steps, rows, erased)
        # all so far, after every image: the last table stands, and a run that is cut short has one as well
        print(f"\n{done} images, the last {item.file}, {given.steps} steps; medians, of points and IoU means\n")
        table(rows, erased)
    attention_cost()


def spread(items: Sequence[LabelledItem], most: int) -> list[LabelledItem]:
    """Items of as many defect types as possible."""
    by_type: dict[str | None, list[LabelledItem]] = defaultdict(list)
    for item in items:
        by_type[item.defect].append(item)
    turns = max(map(len, by_type.values()))
    return [group[turn] for turn in range(turns) for group in by_type.values() if turn < len(group)][:most]


def measure(
    inspector: Inspector,
    item: LabelledItem,
    steps: int,
    rows: Rows,
    erased: dict[str, list[tuple[float, float]]],
) -> None:
    """Every figure of one image."""
    image = read_image(collect_references([item.path])[0])
    mask = read_truth(item, (image.height, image.width))
    assert mask is not None
    reference = brought_to(decoded(inspector.gallery.nearest(image)[1]), image.width, image.height)
    trained = maps_of(inspector, inspector.ensemble.scorers, image)
    untrained = maps_of(inspector, [with_random_weights(s) for s in inspector.ensemble.scorers], image)
    for scorer in inspector.ensemble.scorers:
        name = scorer.card().name

        @cache  # the random subsets are the same for every map
        def known(content: bytes, by: Scorer = scorer) -> float:
            pixels = np.frombuffer(content, np.uint8).reshape(image.pixels.shape)
            return by.score([replace(image, pixels=pixels)])[0].value

        def score(pixels: NDArray[np.uint8], of: Callable[[bytes], float] = known) -> float:
            return of(pixels.tobytes())

        found = erase_test(score, image.pixels, reference, mask)
        gap = found.before - score(reference)
        if gap > 0 and found.fall_elsewhere is not None:
            erased[name].append((found.fall / gap, found.fall_elsewhere / gap))
        own = {kind: values for (by, kind), values in trained.items() if by == name}
        for kind, values in (own | controls(image)).items():
            row = rows[name, kind]
            row["points to it"].append(float(pointing_game(values, mask, tolerance=4)))
            row["IoU"].append(top_iou(values, mask))
            if curves := deletion_insertion(score, image.pixels, reference, values, steps):
                row["deletion"].append(curves.deletion_area)
                row["insertion"].append(curves.insertion_area)
            if (follows := sensitivity(score, image.pixels, reference, values)) is not None:
                row["sensitivity"].append(follows)
            if (name, kind) in untrained and (like := rank_correlation(values, untrained[name, kind])) is not None:
                row["like random weights"].append(like)


def maps_of(
    inspector: Inspector, scorers: Sequence[Scorer], image: InspectionImage
) -> dict[tuple[str, str], NDArray[np.float32]]:
    found = explain(image, scorers, inspector.gallery, lambda _: ("", ""), methods=KINDS)
    return {(shown.scorer, shown.name): shown.values for shown in found.maps}


def controls(image: InspectionImage) -> dict[str, NDArray[np.float64]]:
    grey = image.pixels.mean(2)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=grey.shape), 8)
    return {"(edges)": ndimage.gaussian_gradient_magnitude(grey, 2), "(noise)": noise}


def with_random_weights(scorer: Any) -> Any:
    """The same scorer on an untrained backbone."""
    trained: EmbeddedBackbone = scorer.backbone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = HybridBackbone(trained.network.architecture)
    other = copy(scorer)
    other.backbone = EmbeddedBackbone(network, trained.resolution, "random", device=trained.device)
    return other


def table(rows: Rows, erased: dict[str, list[tuple[float, float]]]) -> None:
    print(f"{'scorer':<16}{'map':<30}" + "".join(f"{column:>14}" for column in COLUMNS[:-1]) + f"{COLUMNS[-1]:>22}")
    for (scorer, kind), row in rows.items():
        cells = []
        for column in COLUMNS:
            values = row.get(column, [])
            middle = statistics.mean if column in ("points to it", "IoU") else statistics.median
            cells.append(f"{middle(values):.2f}" if values else "-")
        print(f"{scorer:<16}{kind:<30}" + "".join(f"{cell:>14}" for cell in cells[:-1]) + f"{cells[-1]:>22}")
    print("\nfall of the score with the true mask made normal, and with its shape elsewhere")
    print("in shares of what the image scores more than the reference picture")
    for scorer, pairs in erased.items():
        inside, elsewhere = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"{scorer:<16}{inside:8.2f}{elsewhere:8.2f}", flush=True)


def attention_cost() -> None:
    """Both attention maps beside the bare forward pass, alternating, in one process; medians of TIMES ratios."""
    print("\nattention rollout and gradient-weighted attention, in forward passes of a ViT-S/14")
    pool = Backbones(bf16=False)
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    image = InspectionImage("img-1", "a.png", pixels, "0" * 64, 1, Path("a.png"))
    for resolution in (224, 448):
        options = AnomalyDINOOptions(backbone="dinov2-small:random", resolution=resolution, max_rows=512)
        bank = AnomalyDINO(options, pool)
        bank.fit([image, image], seed=0)
        (score,) = bank.score([image])
        function = bank.pixel_function(image, score, image)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            ratios = []
            for _ in range(1 + TIMES):
                started = time.perf_counter()
                with torch.inference_mode():
                    function.value(function.frame[None])
                forward = time.perf_counter() - started
                started = time.perf_counter()
                attention_maps(function)
                ratios.append((time.perf_counter() - started) / forward)
            rows, cols = function.grid or (0, 0)
            print(f"{rows} x {cols} patches, {threads} threads: {statistics.median(ratios[1:]):.2f}", flush=True)


if __name__ == "__main__":
    main()
