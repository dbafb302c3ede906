"""Pictures into bytes: the one place where maps become grey PNG files, and what their grey values stand for."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIXTEEN_BITS = 65535


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file of a kind that Pillow knows, such as "PNG"."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def grey_levels(values: NDArray[np.floating[Any]], low: float, high: float, top: int) -> NDArray[np.uint16]:
    """Grey values, uint16 (H, W), of finite ``values``: g stands for low + g / ``top`` * (high - low).

    What lies below ``low`` or above ``high`` is brought to it; where both are equal, every g is 0.
    """
    if high <= low:
        return np.zeros(values.shape, np.uint16)
    # in double precision, for the range of two large values can be more than single precision holds; in place, for
    # maps can be of 50 MP
    shares: NDArray[np.float64] = np.subtract(values, low, dtype=np.float64)
    shares /= high - low
    np.clip(shares, 0, 1, out=shares)
    shares *= top
    return np.round(shares, out=shares).astype(np.uint16)


def sixteen_bit_png(values: NDArray[np.floating[Any]], low: float = 0.0, high: float = 1.0) -> bytes:
    """A map (H, W) as grey PNG of 16 bits, 0 standing for ``low`` and 65535 for ``high``."""
    return encoded(Image.fromarray(grey_levels(values, low, high, _SIXTEEN_BITS)), "PNG")
