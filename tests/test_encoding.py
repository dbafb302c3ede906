"""Grey values of maps: what they stand for, at the ends of the scale and beyond them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from explainvad.encoding import grey_levels, sixteen_bit_png


def test_grey_values_stand_for_the_map_and_what_is_beyond_its_scale_is_brought_to_it() -> None:
    values = np.array([[-1.0, 0.0, 0.5, 2.0, 3.0]], np.float32)
    assert grey_levels(values, 0.0, 2.0, 100).tolist() == [[0, 0, 25, 100, 100]]
    with Image.open(io.BytesIO(sixteen_bit_png(values, -1.0, 3.0))) as stored:
        assert np.asarray(stored).tolist() == [[0, 16384, 24576, 49151, 65535]]


@pytest.mark.parametrize("value", [0.0, -7.5])
def test_a_map_of_one_value_is_not_divided_by_its_range(value: float) -> None:
    with np.errstate(all="raise"):
        assert not grey_levels(np.full((2, 3), value, np.float32), value, value, 255).any()


def test_the_range_of_large_and_of_tiny_values_is_no_overflow() -> None:
    for size in (3e38, 1e-40):
        values = np.array([[-size, 0.0, size]], np.float32)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            found = grey_levels(values, float(values.min()), float(values.max()), 254)
        assert found.tolist() == [[0, 127, 254]]
