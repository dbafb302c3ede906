"""Adaptation to a product: the training loss on the reference images, before they fill the memory bank.

The shipped weights know generated surfaces. A few minutes of the same task on the product itself teach them its normal
variation: normal crops come from some reference images, test crops with blended defects from others. The last part
of the reference images is kept out of it and decides, on defects of their own, whether the adapted weights are used.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.metrics import roc_auc_score
from torch import Tensor

from explainvad.detection.backbone.embedded import EmbeddedBackbone
from explainvad.detection.backbone.network import STRIDE, HybridBackbone
from explainvad.detection.backbone.objective import NearestNeighbourLoss, cell_labels
from explainvad.detection.backbone.optimisation import (
    bf16_pays,
    make_optimiser,
    set_learning_rate,
    training_step,
    vectors,
    warm_cosine,
)
from explainvad.detection.frames import FRAME_BYTES, spread_out
from explainvad.detection.neighbors import nearest
from explainvad.detection.synthesis.defects import blend_defects
from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.nuisances import relight
from explainvad.types import InspectionImage, Progress

SIDE = 128  # px, of a crop
TEST, NORMAL = 10, 16  # crops in a step
SAME_PLACE = 0.5  # share of the normal crops that lie where a test crop does, in another image
SHIFT = 12  # px that those are off, at most
LIGHT = 0.3  # strength of added nuisances, at most; the pictures bring their own
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 4e-4, 0.02, 0.05
HELD_OUT = 0.2  # share of the reference images that judge the result
CHECKS = 32  # of held-out crops, half of them with defects
BANK = 16_000  # feature vectors that they meet
TIMED = 8  # steps that are timed before the budget is dealt out
_TRAIN, _CHECK = 0, 1  # roles, part of the seeds


def adapt(
    backbone: EmbeddedBackbone,
    images: Sequence[InspectionImage],
    *,
    steps: int,
    minutes: float,
    seed: int,
    progress: Progress | None = None,
) -> EmbeddedBackbone:
    """Adapt ``backbone`` to normal images: a new backbone, with what was done in its ``facts``.

    It has the old weights where those do better on held-out images. The number of steps is ``steps``, or what
    the first ones' speed lets ``minutes`` hold. Without such a cut the same images and seed give the same
    weights on one machine, so training runs on one CPU thread.
    """
    first = backbone.working_frame(images[0])
    frames = [backbone.working_frame(images[i]) for i in spread_out(len(images), FRAME_BYTES // first.numel())]
    side = min(SIDE, max(min(frame.shape[1:]) for frame in frames))
    frames = [_at_least(frame, side) for frame in frames]
    held_out = max(2, round(HELD_OUT * len(frames)))
    # the last ones in order, not random ones: pictures of one part mostly lie side by side
    train, check = frames[:-held_out], frames[-held_out:]
    precision = "bf16" if bf16_pays(backbone.device) else "fp32"
    network = deepcopy(backbone.network).requires_grad_(True).train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.monotonic()
    try:
        before = _held_out_auroc(backbone, train, check, side, seed)
        done = _train(network, train, side, steps, minutes * 60, seed, precision, backbone.device, progress)
        adapted = EmbeddedBackbone(network, backbone.resolution, f"{backbone.weights}; adapted", device=backbone.device)
        after = _held_out_auroc(adapted, train, check, side, seed)
    finally:
        torch.set_num_threads(threads)
    kept = after >= before
    cut = f" of {steps}, cut by the time budget" if done < steps else ""
    # under SOURCE_DATE_EPOCH the same input must give the same bytes, so no stopwatch
    took = "" if "SOURCE_DATE_EPOCH" in os.environ else f", in {time.monotonic() - started:.0f} s"
    facts = {
        "adaptation": f"{done} steps{cut} on {len(train)} reference images, {precision}{took}",
        "blended defects on held-out normals": f"cell AUROC {before:.3f} before, {after:.3f} after adaptation, "
        f"{len(check)} images; {'adapted' if kept else 'shipped'} weights in use",
    }
    chosen = adapted if kept else backbone
    return EmbeddedBackbone(chosen.network, chosen.resolution, chosen.weights, facts, backbone.device)


def _train(
    network: HybridBackbone,
    frames: Sequence[Tensor],
    side: int,
    steps: int,
    seconds: float,
    seed: int,
    precision: str,
    device: str,
    progress: Progress | None,
) -> int:
    """Train in place; returns the number of steps taken."""
    objective = NearestNeighbourLoss().to(device)
    optimiser = make_optimiser(network, objective, LEARNING_RATE, WEIGHT_DECAY)
    readings: list[float] = []
    step = 0
    while step < steps:
        if step <= TIMED:
            readings.append(time.perf_counter())
        if step == TIMED:  # the median, because the first steps of a process are slow
            each = statistics.median(after - before for before, after in pairwise(readings))
            steps = min(steps, max(TIMED + 1, round(seconds / each)))
        set_learning_rate(optimiser, LEARNING_RATE * warm_cosine(step / steps, WARM_UP))
        normal, test, mask = (t.to(device) for t in _batch(Dice(seed, _TRAIN, step), frames, side))
        training_step(network, objective, optimiser, normal[None], test[None], mask[None], precision)
        step += 1
        if progress:
            progress("adapting the backbone", step, steps)
    return step


def _batch(dice: Dice, frames: Sequence[Tensor], side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of a step: normal (NORMAL, 3, s, s) of some images, and test (TEST, ...) of others with their masks."""
    order = torch.randperm(len(frames), generator=dice.generator).tolist()
    cut = max(1, len(order) // 3)
    tested, normals = order[:cut], order[cut:]
    places = [_anywhere(dice) for _ in range(TEST)]
    test = [_crop(frames[dice.choice(tested)], side, place) for place in places]
    normal = []
    for i in range(NORMAL):
        place, shift = _anywhere(dice), (0.0, 0.0)
        if i < SAME_PLACE * NORMAL:
            place, shift = places[i % TEST], (dice.uniform(-SHIFT, SHIFT), dice.uniform(-SHIFT, SHIFT))
        crop = _crop(frames[dice.choice(normals)], side, place, shift)
        normal.append(relight(dice, crop, LIGHT * dice.uniform(0, 1)).clamp(0, 1))
    altered, masks = [], []
    for i, crop in enumerate(test):
        donor = test[(i + 1) % TEST]
        picture, mask = blend_defects(dice, relight(dice, crop, LIGHT * dice.uniform(0, 1)).clamp(0, 1), donor)
        altered.append(picture)
        masks.append(mask)
    batch = torch.stack(normal), torch.stack(altered), torch.stack(masks)
    if dice.coin():
        batch = batch[0].flip(3), batch[1].flip(3), batch[2].flip(2)
    return batch


def _at_least(frame: Tensor, side: int) -> Tensor:
    """The frame, its last row and column repeated until a crop of ``side`` px fits."""
    rows, cols = (max(0, side - length) for length in frame.shape[1:])
    return F.pad(frame[None].float(), (0, cols, 0, rows), mode="replicate")[0].byte() if rows or cols else frame


Place = tuple[float, float]  # of a crop's corner, in shares of the room that the frame leaves it


def _anywhere(dice: Dice) -> Place:
    return dice.uniform(0, 1), dice.uniform(0, 1)


def _crop(frame: Tensor, side: int, place: Place, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """The crop (3, side, side) on [0, 1] at a place, moved by ``shift`` px as far as the frame allows."""
    room = frame.shape[1] - side, frame.shape[2] - side
    top, left = (min(max(round(p * r + s), 0), r) for p, r, s in zip(place, room, shift, strict=True))
    return frame[:, top : top + side, left : left + side].float() / 255


@torch.inference_mode()
def _held_out_auroc(
    backbone: EmbeddedBackbone, train: Sequence[Tensor], check: Sequence[Tensor], side: int, seed: int
) -> float:
    """AUROC of the cells of held-out crops, half of them with blended defects, by distance to training crops."""
    dice = Dice(seed, _CHECK)

    def features(crops: Sequence[Tensor]) -> Tensor:
        batches = torch.stack(list(crops)).to(backbone.device).split(16)
        return torch.cat([vectors(backbone.network(batch)).cpu() for batch in batches])

    bank = features([_crop(dice.choice(train), side, _anywhere(dice)) for _ in range(BANK // (side // STRIDE) ** 2)])
    crops, masks = [], []
    for i in range(CHECKS):
        crop = _crop(dice.choice(check), side, _anywhere(dice))
        mask = torch.zeros(side, side, dtype=torch.bool)
        if i % 2:
            crop, mask = blend_defects(dice, crop, _crop(dice.choice(check), side, _anywhere(dice)))
        crops.append(crop)
        masks.append(mask)
    label, weight = cell_labels(torch.stack(masks))
    distance, _ = nearest(features(crops).flatten(0, 1), bank.flatten(0, 1))
    kept = weight.flatten() > 0
    truth = label.flatten()[kept].numpy()
    return float(roc_auc_score(truth, distance[kept].numpy())) if 0 < truth.sum() < len(truth) else 0.5
