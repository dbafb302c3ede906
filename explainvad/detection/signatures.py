"""Signatures of failure that the survey arXiv 2507.15905 lists, measured on a fitted scorer and put in words.

Functions of numbers and arrays, without a scorer inside: whoever fits a model calls them with maps of normal images and
of copies with a planted defect, with scores, and with measured times. No labelled defect is needed. None of them
decides anything about a part; they say in the report what is wrong with a fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import betabinom

VISIBLE = 5  # of 255, change of a pixel that belongs to a planted defect
LEAST_PAIRS = 5  # images with a planted defect, below which nothing can be said
# Variance ratio below which defects are rebuilt like anything else. On photographs of tiles, copies with noise, a
# coarser scale of grey or a slight blur give 1.0 to 1.4, and the reconstruction scorer on the shipped backbone 6.2.
COPIED = 2.0
LARGEST = 1e6  # variance ratio that is told from larger ones
TO_DEVIATION = 1.4826  # median absolute deviation -> standard deviation, of a Gaussian
FALSE_ALARMS = 0.05  # share of the scores of FIT images above the threshold that held-out ones are counted at
SIGNIFICANCE = 0.01  # chance of calling a scorer over-fitted that is not
SLOW = 1.0  # times of a search in times of the backbone


@dataclass(frozen=True, slots=True)
class FailureSignature:
    """One check of a fitted scorer: ``failed`` says on which side of ``limit`` the ``value`` lies."""

    name: str
    value: float
    limit: float
    failed: bool
    sentence: str  # for the report


def planted(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a planted defect shows, (H, W), between pixels uint8 (H, W, 3)."""
    return np.asarray((np.abs(after.astype(np.int16) - before) > VISIBLE).any(axis=2))


def identity_mapping(
    normal_maps: Sequence[NDArray[np.float32]],
    defect_maps: Sequence[NDArray[np.float32]],
    defect_masks: Sequence[NDArray[np.bool_]],
) -> FailureSignature:
    """Whether a reconstruction reacts to defects, or copies them as it copies everything else.

    Maps (H, W) of the residual, of images that nothing was fitted to, and of the same images with a defect planted
    where the mask is True. In an image let s be the spread of the normal map (1.4826 median absolute deviations), and D
    the median rise of the residual inside the mask, at least 0. The value is the median over the images of the ratio
    (s^2 + D^2) / s^2, of mean square deviations from the normal level at a defect and without one: 1 where defects are
    rebuilt like anything else, 2 where they stand out by one spread. It does not depend on the maps' unit and
    zero. ValueError for fewer than LEAST_PAIRS images, for other shapes, and for a mask without a defect.
    """
    count = len(normal_maps)
    if not LEAST_PAIRS <= count == len(defect_maps) == len(defect_masks):
        raise ValueError(
            f"expected normal maps of {LEAST_PAIRS} images or more, and as many maps and masks of defects, got "
            f"{count}, {len(defect_maps)} and {len(defect_masks)}"
        )
    pairs = zip(normal_maps, defect_maps, defect_masks, strict=True)
    ratio = float(np.median([_variance_ratio(*pair) for pair in pairs]))
    failed = ratio < COPIED
    verdict = "it may copy defects instead of finding them" if failed else "it does not copy them"
    return FailureSignature(
        "identity mapping",
        ratio,
        COPIED,
        failed,
        f"Defects planted in {count} held-out images multiply the variance of what the scorer cannot rebuild by "
        f"{ratio:.1f} ({COPIED:g} is the least that counts): {verdict}.",
    )


def _variance_ratio(normal: NDArray[np.float32], defect: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    if not normal.shape == defect.shape == mask.shape or not mask.any():
        raise ValueError(
            f"expected two maps and a mask of one shape, True at a defect, got {normal.shape}, {defect.shape} and "
            f"{mask.shape} with {mask.sum()} px of it"
        )
    rise = max(0.0, float(np.median(defect[mask].astype(np.float64) - normal[mask])))
    spread = TO_DEVIATION * float(np.median(np.abs(normal - np.median(normal))))
    if spread == 0:  # of a map that is even: any rise at all stands out
        return LARGEST if rise > 0 else 1.0
    return min(LARGEST, 1 + (rise / spread) ** 2)


def overfitting(fitted: ArrayLike, held_out: ArrayLike) -> FailureSignature:
    """Whether normal images that nothing was fitted to look anomalous to the scorer.

    ``fitted`` are scores of the images of the fit (of a memory bank with their own patches left aside), ``held_out`` of
    others. The value is the share of the latter above the r-th smallest of the n former, r = ceil(0.95 (n + 1)). If
    both are alike, the number of them follows a beta-binomial law with parameters n + 1 - r and r, whatever the scores'
    distribution; the limit is the smallest share whose chance, or that of a larger one, is below SIGNIFICANCE. With few
    images it may lie above 1, and nothing is called over-fitted. ValueError for no scores or infinite ones.
    """
    seen, others = np.sort(np.asarray(fitted, dtype=np.float64)), np.asarray(held_out, dtype=np.float64)
    for name, scores in (("fitted", seen), ("held-out", others)):
        if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
            raise ValueError(f"expected finite {name} scores of shape (n,) with n >= 1, got {scores}")
    n, m = len(seen), len(others)
    rank = min(n, math.ceil((1 - FALSE_ALARMS) * (n + 1)))
    alarms = int((others > seen[rank - 1]).sum())
    chance = betabinom.pmf(np.arange(m + 1), m, n + 1 - rank, rank)[::-1].cumsum()[::-1]  # of 0 or more, 1 or more, …
    called = int((chance >= SIGNIFICANCE).sum())
    failed = alarms >= called
    verdict = "it knows the images of the fit too well" if failed else "no sign of over-fitting"
    if called > m:
        verdict = "too few images to tell"  # not even all of them would be beyond chance
    return FailureSignature(
        "over-fitting to normals",
        alarms / m,
        called / m,
        failed,
        f"{alarms} of {m} held-out normal images score higher than about {FALSE_ALARMS:.0%} of the {n} images of the "
        f"fit do, where {called} or more would be beyond chance: {verdict}.",
    )


def domain_gap(separation: float, limit: float, images: int) -> FailureSignature:
    """Whether prompts tell normal from anomalous on the images at hand.

    ``separation`` in [0, 1] over so many ``images``, as :mod:`explainvad.detection.clip.prompt_separation` measures it:
    0 where the similarities to both kinds of prompt are shuffled, and below ``limit`` nearly so.
    """
    if not 0 <= separation <= 1:
        raise ValueError(f"expected a separation in [0, 1], got {separation}")
    failed = separation < limit
    verdict = "the words do not tell these images apart" if failed else "the words mean something on these images"
    return FailureSignature(
        "domain gap",
        separation,
        limit,
        failed,
        f"On {images} images, normal and anomalous prompts are separated by {separation:.2f} (0 is not at all, "
        f"{limit:g} the least that counts): {verdict}.",
    )


def bank_latency(search: ArrayLike, forward: ArrayLike, rows: int) -> FailureSignature:
    """Whether the search through a memory bank takes longer than the backbone's forward pass.

    ``search`` and ``forward`` are seconds an image, of some images each; their medians count. ``rows`` is the bank's
    size.
    """
    times = [np.asarray(seconds, dtype=np.float64) for seconds in (search, forward)]
    for name, seconds in zip(("search", "forward"), times, strict=True):
        if seconds.ndim != 1 or not len(seconds) or not (seconds > 0).all():
            raise ValueError(f"expected {name} times above 0 of shape (n,) with n >= 1, got {seconds}")
    search_time, forward_time = (float(np.median(seconds)) for seconds in times)
    ratio = search_time / forward_time
    failed = ratio > SLOW
    verdict = "fewer rows, or a quantised bank, would be faster" if failed else "the bank is not the slow part"
    return FailureSignature(
        "bank latency",
        ratio,
        SLOW,
        failed,
        f"The search through {rows:,} rows takes {1e3 * search_time:.1f} ms an image, {ratio:.2f} times the backbone's "
        f"{1e3 * forward_time:.1f} ms: {verdict}.",
    )
