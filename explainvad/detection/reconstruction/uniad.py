"""UniAD: features are rebuilt from learned queries that cannot see the place they rebuild.

You et al., "A Unified Model for Multi-class Anomaly Detection" (NeurIPS 2022): three remedies against identity
mapping, a query of its own in every decoder layer, attention that hides the neighbourhood of each place (in the encoder
and in both attentions of the decoder), and jitter of the features in training. The paper reads EfficientNet-b4 at
strides 2 to 16; layers 1 to 3 of ResNet-18 are the default here, those that the authors' code names for ResNets.
Training is short, under a warm cosine (the paper: 1,000 epochs at a rate of 1e-4).

Queries belong to places, so the grid is fixed when the scorer is fitted: ``side`` cells along the shorter side of the
first image, as many along the other as its aspect asks for. The backbone sees every image in its own aspect; its
feature maps are then resized to the grid, averaging over what a cell covers.

Members are passes with the transformer's dropout left on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from explainvad.detection.frames import to_frame
from explainvad.detection.reconstruction.decoder import dropout_on
from explainvad.detection.reconstruction.frozen_features import FeatureOptions, FrozenFeatureReconstruction
from explainvad.detection.reconstruction.uniad_network import HEADS, QueryTransformer, jittered, neighbour_mask
from explainvad.errors import ConfigError
from explainvad.types import ImageScore, InspectionImage


class UniADOptions(FeatureOptions):
    """Options of ``uniad``."""

    backbone: str = Field("resnet-18", description="any backbone by name, CNNs above all")
    resolution: int = Field(224, ge=32, le=2048, description="px, of the working frame's shorter side")
    layers: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="of the backbone, that are rebuilt")
    side: int = Field(14, ge=2, le=64, description="cells along the shorter side of the grid that is rebuilt")
    width: int = Field(256, ge=HEADS, le=2048, multiple_of=HEADS, description="channels of the transformer")
    depth: int = Field(4, ge=1, le=16, description="layers of the encoder, and of the decoder")
    dropout: float = Field(0.1, ge=0, le=0.6, description="of the transformer")
    jitter: float = Field(20.0, ge=0, le=100, description="noise on features in training, of the mean channel; 0: none")
    query: bool = Field(True, description="whether decoder layers have queries of their own; without, for comparison")
    neighbour_mask: bool = Field(True, description="whether attention hides neighbours; without, for comparison")
    neighbours: int = Field(7, ge=1, le=31, description="cells, side of the hidden neighbourhood (odd)")
    learning_rate: float = Field(4e-4, gt=0, le=0.1, description="of AdamW, at its highest")


class UniAD(FrozenFeatureReconstruction[UniADOptions, QueryTransformer]):
    """Its unit is that of the backbone's features: the length of the residual at a place.

    ``evidence``: residual float32 (rows, cols), that length on the grid.
    """

    name = "uniad"
    summary = "Rebuilds features from learned queries that cannot see the place they rebuild; scores the residual"
    source = "You et al., A Unified Model for Multi-class Anomaly Detection, NeurIPS 2022"
    options_type = UniADOptions
    _grid: tuple[int, int] | None = None  # rows and columns that the queries are for

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Train the transformer on the grid that suits the first image."""
        self._grid = None
        super().fit(images, seed)

    def load(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> None:
        """Restore the transformer and its grid."""
        super().load(arrays, facts)
        self._grid = self.network.rows, self.network.cols

    def build(self, shape: Sequence[int]) -> QueryTransformer:
        """The untrained transformer for features (channels, rows, cols). ConfigError for too large a neighbourhood."""
        o = self.options
        channels, rows, cols = shape
        neighbours = o.neighbours if o.neighbour_mask else 0
        try:
            neighbour_mask(rows, cols, neighbours)
        except ValueError as error:
            raise ConfigError(f"{self.label}: {error}") from error
        return QueryTransformer(
            channels,
            rows,
            cols,
            width=o.width,
            depth=o.depth,
            dropout=o.dropout,
            neighbours=neighbours,
            query=o.query,
        )

    def features(self, image: InspectionImage) -> Tensor:
        """The layers' features (channels, rows, cols), resized to the grid."""
        if self._grid is None:
            shorter = min(image.height, image.width)
            rows, cols = (round(self.options.side * length / shorter) for length in (image.height, image.width))
            self._grid = rows, cols
        levels = self.extractor.levels(image, self.layers)
        resized = [
            F.interpolate(level[None], size=self._grid, mode="bilinear", antialias=True, align_corners=False)[0]
            for level in levels
        ]
        return torch.cat(resized)

    def loss(
        self, network: QueryTransformer, features: Sequence[Tensor], progress: float, generator: torch.Generator
    ) -> Tensor:
        """Mean squared residual of features rebuilt from their jittered selves."""
        tokens = self._tokens(torch.stack(list(features)).float())
        with self.backbones.precision():
            rebuilt = network(jittered(tokens, self.options.jitter, generator))
        return F.mse_loss(rebuilt.float(), tokens)

    def score_one(self, image: InspectionImage) -> ImageScore:
        """Score one image; its map is the length of the residual, and its score the most that a cell's area has."""
        features = self.features(image)
        size = self.extractor.size(image)
        residual = self._residuals(features, 1)
        with dropout_on(self.network, device=self.extractor.device):
            members = self._residuals(features, self.options.members)
        maps = F.interpolate(torch.cat((residual, members))[:, None], size=size, mode="bilinear", align_corners=False)
        cell = size[0] // features.shape[1], size[1] // features.shape[2]  # 16 x 16 px in the paper
        pooled = F.avg_pool2d(F.avg_pool2d(maps, (cell[0], 1), stride=1), (1, cell[1]), stride=1)
        values = pooled.amax((1, 2, 3)).tolist()
        return ImageScore(
            scorer=self.label,
            value=values[0],
            anomaly_map=to_frame(maps[0, 0], image.height, image.width),
            evidence={"residual": residual[0].numpy()},
            members=np.array(values[1:], dtype=np.float32),
            member_maps=members.numpy(),
        )

    def _tokens(self, features: Tensor) -> Tensor:
        """(B, channels, rows, cols) -> (B, rows * cols, channels), where the network is."""
        return features.flatten(2).transpose(1, 2).to(self.extractor.device)

    def _residuals(self, features: Tensor, passes: int) -> Tensor:
        """Lengths (passes, rows, cols) of the residual of features (channels, rows, cols)."""
        tokens = self._tokens(features[None])
        with self.backbones.precision():
            rebuilt = self.network(tokens.expand(passes, -1, -1))
        return (rebuilt.float() - tokens).norm(dim=2).unflatten(1, features.shape[1:]).cpu()
