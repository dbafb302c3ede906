"""Scored images made from random numbers: two dependent scorers with smooth maps and members, acquisition features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from explainvad.types import ImageScore

SIDE = 12
MEMBERS = 5
STRIDES = {"patches": 2, "pixels": 3}  # pixels to a cell of the member maps
Scored = tuple[list[ImageScore], dict[str, float]]


def image_scores(values: dict[str, float], fields: dict[str, NDArray[np.float64]] | None = None) -> list[ImageScore]:
    """Scores with the given values and without members; maps are single zeros unless given."""
    zero = np.zeros((1, 1))
    return [ImageScore(n, float(v), (fields or {}).get(n, zero).astype(np.float32)) for n, v in values.items()]


def with_members(rng: np.random.Generator, score: ImageScore, stride: int) -> ImageScore:
    """The score with MEMBERS members that differ from it by a factor each, on average too small."""
    factors = 0.9 * np.exp(0.2 * rng.standard_normal(MEMBERS))
    coarse = score.anomaly_map[::stride, ::stride]
    return replace(
        score,
        members=(factors * score.value).astype(np.float32),
        member_maps=(factors[:, None, None] * coarse).astype(np.float32),
    )


def scored_image(rng: np.random.Generator, shift: float = 0.0) -> Scored:
    """One image: a common cause makes the scorers dependent; their units differ a hundredfold.

    ``shift`` moves the common cause, as a defect does.
    """
    cause = rng.standard_normal() + shift
    values, fields = {}, {}
    for name, unit in (("patches", 1.0), ("pixels", 100.0)):
        values[name] = unit * np.exp(0.9 * cause + 0.45 * rng.standard_normal())
        noise = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 1.0)
        fields[name] = unit * np.exp(2 * noise + 0.5 * cause)
    features = {
        "sharpness": 2.0 + 0.1 * rng.standard_normal(),
        "exposure": 120.0 + 4.0 * rng.standard_normal(),
        "contrast": 30.0 + 2.0 * rng.standard_normal(),
        "likeness": float(rng.gamma(4.0, 0.1)),
    }
    own = rng.spawn(1)[0]  # members leave the values above as they would be without them
    return [with_members(own, s, STRIDES[s.scorer]) for s in image_scores(values, fields)], features
