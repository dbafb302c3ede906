"""The teacher of EfficientAD: a small network that describes patches as a large frozen one does.

The paper's teacher learns the features of a WideResNet-101 on ImageNet. Where such weights are not at hand, one is
distilled from a frozen backbone on the FIT images. It describes what these show, and other things less well.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.backbones import FeatureExtractor
from explainvad.detection.distillation.pdn import BORDER, CELL, PatchDescription, Place, described
from explainvad.detection.frames import spread_out
from explainvad.detection.training import train
from explainvad.types import InspectionImage, Progress

BATCH = 4  # crops in a step of the distillation
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-5
MEASURED = 200  # frames, at most, from which the channels' means and deviations are taken


def random_crop(frame: Tensor, side: int, generator: torch.Generator) -> tuple[Place, Place]:
    """A square of ``side`` px or less in a frame (…, h, w), and where its descriptions are among the frame's own."""
    height, width = frame.shape[-2:]
    side = min(side, height, width) // CELL * CELL
    # on a cell, so that its descriptions are the frame's own
    top, left = (int(torch.randint((whole - side) // CELL + 1, (), generator=generator)) for whole in (height, width))
    y, x = (slice(CELL * start, CELL * start + side) for start in (top, left))
    rows, cols = described(side, side)
    return (y, x), (slice(top, top + rows), slice(left, left + cols))


def pixels_of(frame: Tensor, device: str) -> Tensor:
    """uint8 (3, h, w) -> (1, 3, h, w) on [0, 1]."""
    return frame[None].to(device, memory_format=torch.channels_last).float() / 255


def backbone_description(
    extractor: FeatureExtractor, layers: Sequence[int], image: InspectionImage, channels: int, frame: tuple[int, int]
) -> Tensor:
    """What a frozen backbone says of the places that a PDN describes in a frame of that size: half (channels, …).

    The layers are brought to the finest one's grid, and their channels, one after the other, to ``channels`` means
    of neighbours, as PatchCore does.
    """
    levels = extractor.levels(image, layers)
    grid = max((level.shape[1:] for level in levels), key=torch.Size.numel)
    together = torch.cat([_resized(level, grid) for level in levels])
    means = F.adaptive_avg_pool1d(together.flatten(1).T, channels).T.unflatten(1, grid)
    whole = _resized(means, torch.Size(side // CELL for side in frame))
    return whole[:, BORDER:-BORDER, BORDER:-BORDER].half()


def distil(
    teacher: PatchDescription,
    described_frames: Sequence[tuple[Tensor, Tensor]],
    *,
    side: int,
    steps: int,
    device: str,
    generator: torch.Generator,
    progress: Progress | None,
) -> float:
    """Train ``teacher`` on crops of frames, uint8 (3, h, w), to say their descriptions; returns the mean square error.

    A channel's deviation over all of them is the unit. The teacher is left in evaluation mode and without gradients.
    """
    mean, std = channel_moments([description for _, description in described_frames])
    teacher.requires_grad_(True)

    def loss_of(step: int) -> Tensor:
        total = torch.zeros((), device=device)
        for i in torch.randint(len(described_frames), (BATCH,), generator=generator).tolist():
            frame, description = described_frames[i]
            pixels, cells = random_crop(frame, side, generator)
            expected = (description[:, *cells].float() - mean) / std
            answer = teacher(pixels_of(frame[:, *pixels], device))[0].float()
            total = total + F.mse_loss(answer, expected.to(device))
        return total / BATCH

    return train(
        teacher,
        loss_of,
        steps,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        what="distilling the teacher",
        progress=progress,
    )


@torch.no_grad()
def standardise_channels(teacher: PatchDescription, frames: Sequence[Tensor], device: str) -> None:
    """Change the last convolution so that each channel has mean 0 and deviation 1 over frames, uint8 (3, h, w)."""
    chosen = [frames[i] for i in spread_out(len(frames), MEASURED)]
    mean, std = (m.flatten().to(device) for m in channel_moments([teacher(pixels_of(f, device))[0] for f in chosen]))
    last = teacher[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    last.weight /= std[:, None, None, None]
    last.bias.sub_(mean).div_(std)


def channel_moments(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Means and deviations (channels, 1, 1) over maps (channels, rows, cols); 1 where a channel never changes."""
    flat = [m.flatten(1).double().cpu() for m in maps]
    count = sum(m.shape[1] for m in flat)
    mean = sum((m.sum(1) for m in flat), torch.zeros(())) / count
    variance = sum(((m - mean[:, None]).square().sum(1) for m in flat), torch.zeros(())) / count
    std = torch.where(variance > 0, variance, 1.0).sqrt()
    return mean.float()[:, None, None], std.float()[:, None, None]


def _resized(maps: Tensor, grid: torch.Size) -> Tensor:
    return F.interpolate(maps[None], size=grid, mode="bilinear", align_corners=False)[0]
