"""What attribution needs of a CLIP scorer: its margin as a function of pixels, and a region beside its phrases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from explainvad.detection.clip.encoder import ClipEncoder, Encoding
from explainvad.detection.clip.prompts import Phrase
from explainvad.detection.traced import Place, Spot
from explainvad.types import InspectionImage, PixelFunction, PromptedRegion


def square_function(
    encoder: ClipEncoder,
    words: Tensor,
    image: InspectionImage,
    baseline: InspectionImage,
    square: int,
    at: Place | None,
) -> PixelFunction:
    """Cosine of one square to the anomalous minus that to the normal row of ``words`` (2, d).

    The margin inside WinCLIP's equation 1: it orders images as the score does, and does not saturate. Of several
    squares the one ``at`` a place counts, else number ``square``.
    """
    squares, size = _squares(encoder, image), encoder.size(image)
    chosen = square if at is None else squares.index(Spot.of(size, squares, at).window)
    direction = (words[1] - words[0]).to(encoder.device).clone()  # no inference tensor

    def value(frames: Tensor) -> Tensor:
        return F.normalize(encoder.traced(frames), dim=1) @ direction

    return PixelFunction(
        what="cosine to the mean anomalous prompt minus that to the mean normal one"
        + (f", of square {chosen + 1} of {len(squares)}" if len(squares) > 1 else ""),
        value=value,
        frame=encoder.squares(image)[chosen],
        baseline=encoder.squares(baseline)[chosen],
        size=size,
        window=squares[chosen],
        network=encoder.visual,
        prefix=1,
        grid=(encoder.grid, encoder.grid),
    )


def prompted_region(
    encoder: ClipEncoder,
    encoding: Encoding,
    cover: Mapping[int, Tensor],
    phrases: Sequence[Phrase],
    texts: Tensor,
    image: InspectionImage,
    place: Place,
) -> PromptedRegion:
    """The patch at a place as the mean of the windows of all scales that cover it, beside ``texts`` (P, d)."""
    squares = _squares(encoder, image)
    spot = Spot.of(encoder.size(image), squares, place)
    square, (row, col) = squares.index(spot.window), spot.cell(encoder.grid, encoder.grid)
    covers = torch.cat([cover[k] for k in encoding.windows])  # (windows, patches)
    windows = torch.cat(list(encoding.windows.values()), dim=1)  # (S, windows, d)
    shares = covers / covers.sum(0)
    region = shares[:, row * encoder.grid + col] @ windows[square]
    near = torch.einsum("swd,wn,pd->p", windows, shares, texts) / (len(windows) * shares.shape[1])

    def embed(given: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(encoder.texts(given).numpy(), dtype=np.float32)

    return PromptedRegion(
        phrases=tuple((phrase.text, phrase.anomalous) for phrase in phrases),
        similarity=(texts @ region).numpy(),
        elsewhere=near.numpy(),
        region=region.numpy(),
        embed=embed,
    )


def _squares(encoder: ClipEncoder, image: InspectionImage) -> list[tuple[slice, slice]]:
    """Rows and columns, in px of the working frame, of the squares that cover it."""
    p = encoder.patch
    return [(slice(y.start * p, y.stop * p), slice(x.start * p, x.stop * p)) for y, x in encoder.places(image)]
