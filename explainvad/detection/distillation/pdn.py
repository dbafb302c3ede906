"""The networks of EfficientAD: patch description networks as teacher and student, and the autoencoder.

Batzner, Heckler & König, "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies" (WACV 2024),
appendix A. They take pixels on [0, 1] and give descriptions on one grid. Convolutions of a patch description network
(PDN) are not padded, so that an output describes 33 x 33 px of the frame and nothing else: of a frame of h x w px there
are (h / 4 - 8) x (w / 4 - 8), 4 px apart.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.reconstruction.decoder import dropout_on

CELL = 4  # px between descriptions; frames are multiples of it
BORDER = 4  # cells along each side of a frame that have no description
# kernel and channels of each convolution, None being those of the output; a pooling follows the first two
LAYERS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "small": ((4, 128), (4, 256), (3, 256), (4, None)),
    "medium": ((4, 256), (4, 512), (1, 512), (3, 512), (4, None), (1, None)),
}
SIDE = 256  # px of the square that the autoencoder sees
ENCODER = (32, 32, 64, 64, 64)  # channels; each convolution halves the square
LATENT = 64  # numbers that are left of an image
STAGES = (3, 8, 15, 32, 63, 127)  # cells a side, to which the decoder enlarges before each of its convolutions
DROPOUT = 0.2
HARD = 0.999  # quantile of the student's squared errors, below which it does not learn from them
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

Place = tuple[slice, slice]  # rows and columns


def standardised(pixels: Tensor) -> Tensor:
    """Pixels (B, 3, h, w) on [0, 1] -> mean 0, deviation 1 over ImageNet."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels - mean) / std


class PatchDescription(nn.Sequential):
    """Pixels (B, 3, h, w) -> descriptions (B, channels, h / 4 - 8, w / 4 - 8).

    The parameters are called conv1, conv2, …, as in the teachers that anomalib publishes.
    """

    def __init__(self, size: str, channels: int) -> None:
        super().__init__()
        width, last = 3, len(LAYERS[size])
        for number, (kernel, found) in enumerate(LAYERS[size], start=1):
            wider = found or channels
            self.add_module(f"conv{number}", nn.Conv2d(width, wider, kernel))
            if number < last:
                self.add_module(f"relu{number}", nn.ReLU(inplace=True))
            if number <= 2:
                self.add_module(f"pool{number}", nn.AvgPool2d(2))
            width = wider

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(standardised(pixels))  # type: ignore[no-untyped-call]


class AutoEncoder(nn.Module):
    """Pixels -> descriptions through LATENT numbers an image: what an image as a whole lets one expect of its parts.

    The paper's frames are squares. Here a frame of any size is seen as a square of SIDE px, and the last enlargement
    is to the grid (rows, cols) of that frame's descriptions, 56 x 56 of 256 x 256 px.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (3, *ENCODER)
        halving = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(widths, ENCODER, strict=False)]
        self.encoder = nn.ModuleList([*halving, nn.Conv2d(ENCODER[-1], LATENT, SIDE >> len(ENCODER))])
        self.decoder = nn.ModuleList([nn.Conv2d(LATENT, LATENT, 4, padding=2) for _ in STAGES])
        self.dropout = nn.Dropout(DROPOUT)
        self.refine = nn.Conv2d(LATENT, LATENT, 3, padding=1)
        self.describe = nn.Conv2d(LATENT, channels, 3, padding=1)

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) on [0, 1] -> (B, LATENT, 1, 1)."""
        if pixels.shape[2:] != (SIDE, SIDE):
            pixels = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        *halving, last = self.encoder
        x = standardised(pixels)
        for layer in halving:
            x = F.relu(layer(x))
        return last(x)

    def decode(self, latent: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, LATENT, 1, 1) -> descriptions (B, channels, rows, cols)."""
        x = latent
        for side, layer in zip(STAGES, self.decoder, strict=True):
            x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
            x = self.dropout(F.relu(layer(x)))
        x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
        return self.describe(F.relu(self.refine(x)))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.decode(self.encode(pixels), described(pixels.shape[2], pixels.shape[3]))


class Networks(nn.Module):
    """Teacher T, student (S, S') with twice its channels, and autoencoder A."""

    def __init__(self, size: str, channels: int) -> None:
        super().__init__()
        self.teacher = PatchDescription(size, channels).requires_grad_(False)
        self.student = PatchDescription(size, 2 * channels)
        self.autoencoder = AutoEncoder(channels)

    def loss(self, frame: Tensor, relit: Tensor, pixels: Place, cells: Place, other: Tensor | None = None) -> Tensor:
        """L_ST + L_AE + L_STAE of a crop of ``frame`` (1, 3, h, w), and of the same crop in other light.

        Only the largest errors of S count, so that it does not learn to follow T beyond what is normal. For the same
        purpose the first channels of the student shall be 0 for ``other`` (1, 3, h', w'), which is nothing of the kind.
        """
        crops = torch.cat((frame[..., *pixels], relit[..., *pixels]))
        with torch.no_grad():
            taught = self.teacher(crops).float()
        student, also = self.student(crops).float().chunk(2, dim=1)
        errors = (taught[:1] - student[:1]).square().flatten()
        # as many as are not below the quantile, interpolated between ranks
        hardest = errors.topk(len(errors) - math.ceil(HARD * (len(errors) - 1))).values
        expected = self.autoencoder(relit).float()[..., *cells]
        loss = hardest.mean() + F.mse_loss(expected, taught[1:]) + F.mse_loss(also[1:], expected)
        if other is not None:
            loss = loss + self.student(other).float().chunk(2, dim=1)[0].square().mean()
        return loss

    def disagreement(self, frame: Tensor, passes: int = 0) -> tuple[Tensor, Tensor]:
        """Mean squares over the channels of T - S and A - S' for a frame (1, 3, h, w): (2, rows, cols).

        And those of A - S', (passes, rows, cols), in ``passes`` with A's dropout left on.
        """
        student, also = self.student(frame).float().chunk(2, dim=1)
        latent, grid = self.autoencoder.encode(frame), (student.shape[2], student.shape[3])
        both = [
            (said.float() - learnt).square().mean(1)
            for said, learnt in ((self.teacher(frame), student), (self.autoencoder.decode(latent, grid), also))
        ]
        with dropout_on(self.autoencoder, device=frame.device):
            sampled = self.autoencoder.decode(latent.expand(passes, -1, -1, -1), grid) if passes else also[:0]
        return torch.cat(both), (sampled.float() - also).square().mean(1)


def described(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the descriptions of a frame, in px."""
    return height // CELL - 2 * BORDER, width // CELL - 2 * BORDER
