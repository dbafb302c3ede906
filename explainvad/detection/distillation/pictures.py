"""What EfficientAD shows its networks besides crops: other light, and pictures of other things."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from explainvad.detection.distillation.pdn import CELL
from explainvad.detection.frames import resized, shorter_side_size, spread_out
from explainvad.errors import LotError, UnreadableImageError
from explainvad.lot import read_image, scan

LIGHT = 0.2  # of brightness, contrast or saturation, what the autoencoder's frames vary by at most
LUMA = (0.299, 0.587, 0.114)
OTHERS, GREY_SHARE = 256, 0.3  # pictures of other things, and the share of them shown in grey
ENLARGED = 2  # they are resized to so many times the resolution, before a crop is taken


def relit(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast or saturation of pixels (1, 3, h, w) on [0, 1], times a factor within 1 -+ LIGHT."""
    factor = 1 + LIGHT * (2 * float(torch.rand((), generator=generator)) - 1)
    grey = grey_of(pixels)
    anchor = (torch.zeros_like(grey), grey.mean().expand_as(grey), grey)[int(torch.randint(3, (), generator=generator))]
    return torch.lerp(anchor.expand_as(pixels), pixels, factor).clamp(0, 1)


def greyed(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """In grey, GREY_SHARE of the times."""
    grey = float(torch.rand((), generator=generator)) < GREY_SHARE
    return grey_of(pixels).expand_as(pixels) if grey else pixels


def grey_of(pixels: Tensor) -> Tensor:
    """Luma (B, 1, h, w) of pixels (B, 3, h, w)."""
    return (pixels * pixels.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def drawn(frames: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """One of them."""
    return frames[int(torch.randint(len(frames), (), generator=generator))]


def other_pictures(folder: Path | None, resolution: int) -> tuple[list[Tensor], str]:
    """Pictures of other things, uint8 (3, h, w), at twice the resolution; and what to say of them.

    Raises LotError for a folder without a readable picture.
    """
    if folder is None:
        return [], "none: no pictures of other things (the paper takes ImageNet) keep the student from knowing too much"
    files = scan(folder)
    pictures = []
    for i in spread_out(len(files), OTHERS):
        try:
            pixels = read_image(files[i]).pixels
        except UnreadableImageError:
            continue
        size = shorter_side_size(pixels.shape[0], pixels.shape[1], ENLARGED * resolution, CELL)
        pictures.append(resized(pixels, size))
    if not pictures:
        raise LotError(f"expected pictures of other things in {folder}, found none that can be read among {len(files)}")
    return pictures, f"{len(pictures)} pictures of other things"
