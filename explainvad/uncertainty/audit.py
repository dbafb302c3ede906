"""The draw of an audit: a random sample that nobody chooses and that anyone can draw again."""

from __future__ import annotations

import hashlib

import numpy as np


def draw_sample(head: str, draw: int, population: int, size: int) -> tuple[int, ...]:
    """Draw ``size`` of the indices 0 ... ``population`` - 1 without replacement; they come back ascending.

    The seed is the SHA-256 of "head:draw", ``head`` being the hash of a finished record and ``draw`` counting its
    samples from 1, so the sample is fixed by what was recorded before it. Each index gets a 64-bit key of the PCG64
    stream and the smallest keys are taken: the raw stream is the same in every release of numpy, which
    ``Generator.choice`` does not promise.

    Over heads, every subset is equally likely, as far as SHA-256 and PCG64 pass for random. For one record it is
    as good as drawn at random if the record was not made to suit the sample: whoever repeats the inspection
    gets another head, and with it another sample.

    Raises ValueError unless 1 <= size <= population.
    """
    if not 1 <= size <= population:
        raise ValueError(f"size must lie in [1, {population}], got {size}")
    seed = int.from_bytes(hashlib.sha256(f"{head}:{draw}".encode()).digest())
    keys = np.random.PCG64(seed).random_raw(population)
    return tuple(sorted(np.argsort(keys, kind="stable")[:size].tolist()))
