"""Local descriptors: multi-scale colour and oriented gradients, a backbone that needs neither weights nor training.

At each of three scales a pixel is described by its smoothed luminance and two opponent colours, and by the
rectified derivatives of the luminance in eight directions (the first stage of SIFT, HOG and DAISY; Lowe, IJCV 2004;
Tola et al., PAMI 2010). Averaged over small cells they see scratches, dents, stains, colours and missing features; they
know nothing of what the texture means, which is what a pretrained backbone adds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.frames import to_working, working_size
from explainvad.types import InspectionImage

CELL = 4  # px of the working frame to a cell
SCALES = (1.0, 2.0, 4.0)  # px, deviations of the Gaussians
CHANNELS = len(SCALES) * (3 + 8)


class LocalDescriptors:
    """Colours and oriented gradients on a grid of cells. The features are float32 and need no fitting."""

    name = "multi-scale colour and oriented gradients"
    weights = "none: fixed filters, no training"

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution

    @torch.inference_mode()
    def features(self, image: InspectionImage) -> Tensor:
        """Features (CHANNELS, rows, cols) of cells of CELL px in the working frame."""
        size = working_size(image.height, image.width, self.resolution, CELL)
        red, green, blue = to_working(image.pixels, size).float() / 255.0
        opponent = torch.stack(((red + green + blue) / 3, red - green, green - blue))
        return F.avg_pool2d(torch.cat([self._at_scale(opponent, s) for s in SCALES])[None], CELL)[0]

    @staticmethod
    def _at_scale(opponent: Tensor, sigma: float) -> Tensor:
        """Smoothed colours (3) and rectified luminance derivatives (8), each (rows, cols)."""
        radius = int(3 * sigma)
        offsets = torch.arange(-radius, radius + 1)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        kernel = (kernel / kernel.sum()).expand(3, 1, -1)
        padded = F.pad(opponent[None], (radius + 1,) * 4, mode="replicate")
        smooth = F.conv2d(F.conv2d(padded, kernel[..., None], groups=3), kernel[:, :, None], groups=3)[0]
        luminance = smooth[0]
        dx = sigma * (luminance[1:-1, 2:] - luminance[1:-1, :-2])
        dy = sigma * (luminance[2:, 1:-1] - luminance[:-2, 1:-1])
        diagonal, other = (dx + dy) / 2**0.5, (dx - dy) / 2**0.5
        gradients = [side.clamp_min(0) for d in (dx, dy, diagonal, other) for side in (d, -d)]
        return torch.cat((smooth[:, 1:-1, 1:-1], torch.stack(gradients)))
