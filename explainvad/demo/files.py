"""Files of generated data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainvad.encoding import encoded


def write(path: Path, content: bytes) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encode uint8 (H, W, 3) as JPEG, near to lossless."""
    return encoded(Image.fromarray(picture), "JPEG", quality=95, subsampling=0)


def png(mask: NDArray[np.bool_]) -> bytes:
    """Encode a mask bool (H, W) as PNG, white where True."""
    return encoded(Image.fromarray(mask.astype(np.uint8) * np.uint8(255)), "PNG", optimize=True)
