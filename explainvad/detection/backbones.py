"""Frozen feature extractors for the scorers that compare features."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.frames import blend_weight, windows
from explainvad.detection.reconstruction.masked import WINDOW, MaskedReconstruction, standardise
from explainvad.detection.reconstruction.network import patchify, position_code
from explainvad.types import InspectionImage

LAYERS = (1, 3)  # of the encoder: texture and context


class AutoencoderTokens:
    """The masked autoencoder's own encoder, shown every patch: a backbone that needs no foreign weights.

    Its features know only what the reference images taught; they are weaker than those of a network that was
    pretrained on millions of images, and the report says which were used.
    """

    name = "encoder tokens of the reconstruction scorer"
    weights = "trained from scratch on the reference images"

    def __init__(self, reconstruction: MaskedReconstruction) -> None:
        self.reconstruction = reconstruction

    @torch.inference_mode()
    def features(self, image: InspectionImage) -> Tensor:
        """Tokens (2 * width, rows, cols) of two layers, each of unit length."""
        network, architecture = self.reconstruction.fitted(), self.reconstruction.architecture
        patch, device = architecture.patch, self.reconstruction.device
        frame = self.reconstruction.working_frame(image)
        grid = (frame.shape[1] // patch, frame.shape[2] // patch)
        total = torch.zeros(len(LAYERS) * architecture.width, *grid)
        weight = torch.zeros(grid)
        for y, x in windows(frame.shape[1], frame.shape[2], WINDOW, patch):
            cells = slice(y.start // patch, y.stop // patch), slice(x.start // patch, x.stop // patch)
            shape = cells[0].stop - cells[0].start, cells[1].stop - cells[1].start
            position = position_code(*shape, grid, (cells[0].start, cells[1].start), architecture.width)
            patches = patchify(standardise(frame[None, :, y, x]), patch)
            layers = network.encode(patches.to(device), position.to(device))
            tokens = torch.cat([F.normalize(layers[i][0], dim=1) for i in LAYERS], dim=1).cpu()
            w = blend_weight(*shape)
            total[:, *cells] += w * tokens.T.unflatten(1, shape)
            weight[cells] += w
        return total / weight
