"""What every scorer that rebuilds pixels must do, whatever its network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from patterned import SQUARE, defective_picture, normal_pictures

from explainvad.detection.reconstruction.pixels import PixelReconstruction


def finds_the_square_and_comes_back(make: Callable[[], PixelReconstruction[Any]], factor: float) -> None:
    """A planted square scores ``factor`` times the highest normal picture, at its place; the state is all of it."""
    one, other = make(), make()
    one.fit(normal_pictures(8), 0)
    other.load(*one.state())
    assert all(array.flags.c_contiguous for array in one.state()[0].values())  # safetensors takes no other
    bad = defective_picture(60)
    (score,), (same,) = one.score([bad]), other.score([bad])
    assert score.value > factor * max(s.value for s in one.score(normal_pictures(4, first=50)))
    y, x = np.unravel_index(score.anomaly_map.argmax(), score.anomaly_map.shape)
    assert SQUARE[0].start - 2 <= y < SQUARE[0].stop + 2 and SQUARE[1].start - 2 <= x < SQUARE[1].stop + 2
    assert same.value == score.value and np.array_equal(same.anomaly_map, score.anomaly_map)
    assert np.array_equal(same.member_maps, score.member_maps)


def depends_on_the_seed_alone(make: Callable[[], PixelReconstruction[Any]], name: str) -> None:
    """The same seed gives the same arrays, and another one another array ``name``."""
    states = []
    for seed in (3, 3, 4):
        one = make()
        one.fit(normal_pictures(2), seed)
        states.append(one.state()[0])
    assert states[0].keys() == states[1].keys()
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])
    assert not np.array_equal(states[0][name], states[2][name])
