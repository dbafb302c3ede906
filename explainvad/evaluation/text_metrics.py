"""What words are worth: every measure of a text that the evaluation of text takes, one region at a time.

A measure that a region cannot define is None. Intervals are bootstrapped over images, as regions of one image are not
independent of one another.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainvad.explanation.colour import NO_BASELINE
from explainvad.explanation.describers.answer import SAME, UNDETERMINED
from explainvad.explanation.place import PLACES
from explainvad.explanation.reading import DEFECT_NOUN, clauses, negated, plain, supposed
from explainvad.types import XYXY, ClaimStatus, RegionFacts, Sentence

CONFIDENCE, N_RESAMPLES = 0.95, 1000
NO_DEFECT = ("none visible", UNDETERMINED)  # the words of a defect type that name none

_DEFECT = re.compile(rf"\b{DEFECT_NOUN}(?:s|es|ed|ing)?\b")
_OF_REFERENCE = re.compile(
    r"\W*(?:(?:in|on) )?(?:the )?(?:reference|(?:normal|nominal) (?:part|picture)|picture [ad])\b"
)
_FACT_OF = {  # kind of a claim -> the fact that it speaks of
    **dict.fromkeys(("place", "clock", "radial zone"), "place"),
    **dict.fromkeys(("size", "area", "area share"), "size"),
    **{kind: kind for kind in ("shape", "brightness", "colour", "orientation", "holes")},
    "edge contact": "edge",
}
CHECKABLE = (ClaimStatus.SUPPORTED, ClaimStatus.PARTLY, ClaimStatus.CONTRADICTED)


def place_ratios(mass: NDArray[np.floating[Any]], frame: XYXY) -> dict[str, float] | None:
    """For each place word, the share of ``mass`` that lies in its area over the area's share of the ``frame``.

    ``mass`` is finite and >= 0 with shape (H, W); ``frame`` (px, half-open) is what the 3 x 3 grid is laid over, and
    what lies outside of it is left out. A ratio of 1 is chance: the nine words' mean, weighted by area, is 1 whatever
    the mass, and "undetermined" stands for the whole frame. None where no mass lies in the frame, or it is so small
    that a cell has no pixel.
    """
    x0, y0, x1, y1 = frame
    inside = mass[y0:y1, x0:x1].astype(np.float64)
    if inside.sum() <= 0 or min(inside.shape) < 3:
        return None
    # A pixel belongs to the cell of its centre, as in place.locate
    row, column = (np.floor(3 * (np.arange(n) + 0.5) / n).astype(np.intp) for n in inside.shape)
    cell = (3 * row[:, None] + column[None, :]).ravel()
    shares = np.bincount(cell, inside.ravel(), 9) / inside.sum()
    areas = np.bincount(cell, minlength=9) / cell.size
    return {**dict(zip(PLACES, (shares / areas).tolist(), strict=True)), UNDETERMINED: 1.0}


def names_defect(words: Mapping[str, str], sentences: Sequence[Sentence]) -> bool:
    """Whether a defect is asserted: by the chosen defect type, or by a word such as "scratch".

    Not by one that is denied, merely supposed, or said of the reference.
    """
    if words.get("defect_type", UNDETERMINED) not in NO_DEFECT:
        return True
    for sentence in sentences:
        reading = plain(sentence.text)
        for clause in clauses(reading):
            said = reading[clause.start : clause.stop]
            if supposed(said) or _OF_REFERENCE.match(said):
                continue
            if any(negated(said, match.start()) is False for match in _DEFECT.finditer(said)):
                return True
    return False


def reports_difference(words: Mapping[str, str], sentences: Sequence[Sentence]) -> bool:
    """Whether the region is said to be darker, brighter or of another colour than what is around it.

    By the chosen word, or by a claim of any sentence that is not a denial: whether it is true does not matter here.
    """
    claimed = (
        claim.kind in ("brightness", "colour") and claim.stated != SAME and not claim.stated.startswith("denied:")
        for sentence in sentences
        for claim in sentence.claims
    )
    return words.get("brightness") in ("darker", "brighter") or any(claimed)


def coverage(sentences: Sequence[Sentence], facts: RegionFacts) -> float:
    """Share of the region's facts, in [0, 1], that a supported claim speaks of.

    They are place, size and shape, and where the measurements have them brightness, colour, orientation, holes and
    contact with the image's edge.
    """
    there = {"place": True, "size": True, "shape": True, "brightness": facts.baseline != NO_BASELINE}
    there |= {"colour": facts.colour is not None, "orientation": facts.orientation_deg is not None}
    there |= {"holes": facts.holes > 0, "edge": facts.touches_edge}
    wanted = {fact for fact, is_there in there.items() if is_there}
    told = {_FACT_OF.get(c.kind) for s in sentences for c in s.claims if c.status is ClaimStatus.SUPPORTED}
    return len(wanted & told) / len(wanted)


def claim_counts(sentences: Sequence[Sentence]) -> dict[str, Counter[ClaimStatus]]:
    """How many claims of each kind have each status."""
    counts: dict[str, Counter[ClaimStatus]] = {}
    for sentence in sentences:
        for claim in sentence.claims:
            counts.setdefault(claim.kind, Counter())[claim.status] += 1
    return counts


def votes(words: Sequence[str]) -> tuple[float, float]:
    """Of the words that samples chose for one field: the share of the commonest, and their entropy in bits.

    Both say how much the model agrees with itself, and nothing of whether it is right. ValueError without words.
    """
    if not words:
        raise ValueError("votes need at least one word, got none")
    shares = np.array(list(Counter(words).values())) / len(words)
    return float(shares.max()), float(max(0.0, -(shares * np.log2(shares)).sum()))


def ratio_interval(
    values: Sequence[tuple[int, float, float]], seed: int, *, n_resamples: int = N_RESAMPLES
) -> dict[str, Any] | None:
    """Sum of numerators over sum of denominators, with its percentile bootstrap interval over images.

    ``values`` holds (image, numerator, denominator) of each region; images are resampled whole, with a fixed seed.
    None where the denominators sum to 0. ``lower`` and ``upper`` are None with fewer than two images. Resamples
    without a denominator are left out (Efron and Tibshirani 1993, chapter 13).
    """
    return _bootstrapped(values, lambda sums: _ratio(sums[:, 0], sums[:, 1]), seed, n_resamples)


def difference_interval(
    first: Sequence[tuple[int, float, float]], second: Sequence[tuple[int, float, float]], seed: int
) -> dict[str, Any] | None:
    """The ratio of ``first`` minus that of ``second``, resampled together; otherwise as :func:`ratio_interval`."""
    values = [(image, n, d, 0.0, 0.0) for image, n, d in first] + [(image, 0.0, 0.0, n, d) for image, n, d in second]

    def difference(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return _ratio(sums[:, 0], sums[:, 1]) - _ratio(sums[:, 2], sums[:, 3])

    return _bootstrapped(values, difference, seed, N_RESAMPLES)


def _ratio(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where a denominator is 0."""
    there = denominators > 0
    return np.where(there, numerators / np.where(there, denominators, 1), np.nan)


def _bootstrapped(
    values: Sequence[tuple[Any, ...]],
    figure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int,
    n_resamples: int,
) -> dict[str, Any] | None:
    """A ``figure`` of sums over regions with its interval; ``values`` hold the image and what is summed.

    ``figure`` takes sums with shape (n, k) and gives n numbers, NaN where they are not defined.
    """
    if not values:
        return None
    images = sorted({image for image, *_ in values})
    place = {image: i for i, image in enumerate(images)}
    sums = np.zeros((len(images), len(values[0]) - 1))
    for image, *parts in values:
        sums[place[image]] += parts
    (estimate,) = figure(sums.sum(axis=0, keepdims=True)).tolist()
    if np.isnan(estimate):
        return None
    lower = upper = None
    if len(images) > 1:
        times = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), n_resamples)
        drawn = figure(times @ sums)
        tail = (1 - CONFIDENCE) / 2
        lower, upper = np.quantile(drawn[~np.isnan(drawn)], [tail, 1 - tail]).tolist()
    return {"estimate": estimate, "lower": lower, "upper": upper, "n_images": len(images), "n": len(values)}
