"""Which of the masks that Segment Anything offers accounts for the evidence, and whether any does.

For a threshold component T and a mask M, with the excess evidence e = fused map - cluster threshold:

    covered   c = sum of e over M and T / sum of e over T     the share of the region's evidence that M holds
    added     a = area of M outside T / area of T             what M takes of the image without evidence
    agreement J = c / (1 + a)                                 in [0, 1]; 1 only for M = T, as far as e > 0

J is a Jaccard index in which a pixel of T weighs what evidence it holds and one outside weighs as much as a mean pixel
of T. Maps are blurred, so an outline well within T that holds the evidence agrees; one that leaks into nominal
surroundings, or that follows another thing in the box, does not. SAM's own predicted IoU says how sure it is of an
edge, not that the edge is the defect's: it only decides between masks of equal agreement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT = np.ones((3, 3), dtype=np.bool_)  # neighbours of a pixel, as regions are clustered


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The mask, bool (H, W), that agrees best, and its agreement in [0, 1]."""

    mask: NDArray[np.bool_]
    agreement: float


def agreement(mask: NDArray[np.bool_], component: NDArray[np.bool_], excess: NDArray[np.floating]) -> float:
    """J of a mask (H, W) with a component (H, W) of n pixels.

    ``excess`` (n,) is the fused map less the cluster threshold at them, row by row.
    """
    weight = np.maximum(excess.astype(np.float64), 0)
    total = float(weight.sum())
    if total <= 0:  # evidence without excess tells pixels apart no more
        weight, total = np.ones_like(weight), float(weight.size)
    covered = float(weight[mask[component]].sum()) / total
    added = float((mask & ~component).sum()) / float(component.sum())
    return min(1.0, max(0.0, covered / (1 + added)))


def choose(
    offers: Iterable[tuple[NDArray[np.bool_], float]], component: NDArray[np.bool_], excess: NDArray[np.floating]
) -> Choice:
    """Of masks with their qualities the one that agrees best with the component; of equal ones that of larger quality.

    Of ``offers`` at least one is needed; no more than the best one so far is kept.
    """
    best: tuple[float, float, NDArray[np.bool_]] | None = None
    for mask, quality in offers:
        agrees = agreement(mask, component, excess)
        if best is None or (agrees, quality) > best[:2]:
            best = agrees, quality, mask
    if best is None:
        raise ValueError("expected at least one mask, got none")
    return Choice(best[2], best[0])


def own_part(mask: NDArray[np.bool_], component: NDArray[np.bool_], taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of a mask is this region's: pieces that touch the component, without pixels that other regions have."""
    labels, _ = ndimage.label(mask & ~taken, structure=EIGHT)
    own = np.unique(labels[component & mask])
    return np.isin(labels, own[own > 0])
