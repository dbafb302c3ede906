"""Outlines by Segment Anything against those of the threshold, both held against ground truth.

    python tests/benchmarks/sam_refinement.py DATASET --model MODEL.evad [--sam NAME|PATH]... [--images N]

DATASET is labelled (good/, <defect>/, ground_truth/<defect>/). Without --model one is fitted to its good images with
default settings; only defects are looked at, so no image is in both. Of each flagged image the regions together are
compared with the mask: mean IoU by the threshold, and as refined. ``--sam`` takes what ``[regions] sam`` takes; the
default is an untrained vit_b, whose masks mean nothing: its outlines must then be dropped, and the mean IoU must not
fall by more than 0.01. ``--tiny N`` takes N untrained networks of 64 px instead, much faster and no less arbitrary.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from explainvad import Inspector
from explainvad.config import InspectionConfig, RegionsConfig
from explainvad.evaluation.datasets.items import LabelledItem
from explainvad.evaluation.datasets.load import load_dataset
from explainvad.evaluation.datasets.masks import read_truth
from explainvad.evaluation.metrics.regions import iou
from explainvad.lot import LotFile, read_image
from explainvad.types import InspectionImage, Region

UNTRAINED = "sam-vit-b:random"
ALLOWED = 0.01  # of mean IoU


def sample(items: list[LabelledItem], n: int, seed: int = 0) -> list[LabelledItem]:
    """At most ``n`` of the items, at random, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(items))[:n]
    return [items[i] for i in sorted(chosen)]


def overlap(regions: list[Region], truth: np.ndarray) -> float:
    """IoU of the regions together with the true mask."""
    found = np.zeros_like(truth)
    for region in regions:
        found |= region.mask.to_array()
    return iou(found, truth) or 0.0


def found_regions(inspector: Inspector, image: InspectionImage, regions: RegionsConfig) -> list[Region]:
    """The regions of one image with outlines as set."""
    record, _ = inspector.inspect(image, inspector.config.model_copy(update={"regions": regions}))
    return [finding.region for finding in record.findings]


def compare(inspector: Inspector, items: list[LabelledItem], root: Path, sam: str, agreement: float) -> float:
    """Print what one set of weights makes of the outlines; returns by how much the mean IoU changed."""
    threshold, refined, agreements, seconds, kept, n_regions = [], [], [], [], 0, 0
    with_sam = RegionsConfig(refine="sam", sam=sam, agreement=agreement)
    for item in items:
        image = read_image(LotFile("img", item.file, item.path, root))
        if not (plain := found_regions(inspector, image, RegionsConfig())):
            continue
        truth = read_truth(item, (image.height, image.width))
        assert truth is not None
        started = time.perf_counter()
        outlined = found_regions(inspector, image, with_sam)
        seconds.append(time.perf_counter() - started)
        threshold.append(overlap(plain, truth))
        refined.append(overlap(outlined, truth))
        n_regions += len(outlined)
        kept += sum(region.refined_by == "sam" for region in outlined)
        agreements += [region.refinement.agreement for region in outlined if region.refinement]
    if not threshold:
        print(f"{sam}: none of {len(items)} images has a region")
        return 0.0
    change = float(np.mean(refined) - np.mean(threshold))
    print(
        f"{sam}: {len(threshold)} images with regions, {kept} of {n_regions} outlines by SAM "
        f"(agreement median {np.median(agreements):.2f}, largest {max(agreements):.2f}); mean IoU threshold "
        f"{np.mean(threshold):.4f}, refined {np.mean(refined):.4f}, change {change:+.4f}; "
        f"{np.median(seconds):.2f} s an image",
        flush=True,
    )
    return change


def main() -> None:
    """Every set of weights on one data set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--sam", action="append")
    parser.add_argument("--tiny", type=int, default=0)
    parser.add_argument("--images", type=int, default=10**6)
    parser.add_argument("--good", type=int, default=10**6, help="images to fit on, without --model")
    parser.add_argument("--agreement", type=float, default=RegionsConfig().agreement)
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.dataset)
    items = sample([i for i in dataset.test if i.defect and i.mask_paths], arguments.images)
    if arguments.model:
        inspector = Inspector.load(arguments.model)
    else:
        good = dataset.train or tuple(i.path for i in dataset.test if i.defect is None)
        chosen = np.random.default_rng(0).permutation(len(good))[: arguments.good]
        inspector = Inspector.fit([good[i] for i in sorted(chosen)], config=InspectionConfig())
    print(f"{len(items)} defect images of {arguments.dataset.name}")
    changes = [
        compare(inspector, items, arguments.dataset, sam, arguments.agreement)
        for sam in arguments.sam or ([] if arguments.tiny else [UNTRAINED])
    ]
    sys.path.append(str(Path(__file__).parents[1]))
    from tiny_sam import write_sam

    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.tiny):
            tiny = write_sam(Path(folder) / f"tiny-{seed}.safetensors", seed)
            changes.append(compare(inspector, items, arguments.dataset, str(tiny), arguments.agreement))
    untrained = arguments.sam is None
    if untrained and min(changes) < -ALLOWED:
        raise SystemExit(f"an untrained network cost {-min(changes):.4f} of mean IoU, at most {ALLOWED} is allowed")


if __name__ == "__main__":
    main()
