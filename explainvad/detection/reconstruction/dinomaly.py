"""Dinomaly: a decoder that cannot help rebuilding what is normal, on the middle layers of a frozen DINOv2.

Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection" (CVPR 2025): dropout
in the bottleneck, linear attention without masks, layers compared in two loose groups, and a loss that does not press
what is rebuilt well already. The paper's own setting is ``backbone = "dinov2-base-reg"``, ``width = 0``,
``batch = 16``, ``steps = 5000``. Unlike it,

- the default is the small backbone with a decoder of half its width, so that a CPU can train it and scoring costs a
  quarter more than the backbone's pass;
- a step sees ``tokens`` random patches of each image instead of all: attention without places takes means over the
  image, which a part of it estimates well; images of different sizes so fit into one batch;
- the optimiser is AdamW and not StableAdamW with AMSGrad, and class and register tokens are left out;
- the whole image is seen (not the centre 392 of 448 px), and the map is blurred in full, by sigma 4 px of that frame
  (the published code cuts the kernel at 5 px of a map of 256 px).

Members are passes with the dropout left on, over every third row and column.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from explainvad.detection.backbones import FrozenBackbone
from explainvad.detection.frames import smooth_map, to_frame, top_mean
from explainvad.detection.reconstruction.decoder import dropout_on
from explainvad.detection.reconstruction.dinomaly_network import GroupDecoder, distances, loose_loss
from explainvad.detection.reconstruction.frozen_features import FeatureOptions, FrozenFeatureReconstruction
from explainvad.detection.traced import Place, Spot, most_anomalous, require_traceable, traced_function
from explainvad.errors import ConfigError
from explainvad.types import ImageScore, InspectionImage, PixelFunction

MIDDLE, OF_BLOCKS = range(2, 10), 12  # the layers that are rebuilt, of a transformer of 12 blocks
EASY, RISE = 0.9, 0.2  # share of points that end up as easy, and part of the training over which it rises
SIGMA = 4.0  # px of the working frame, blur of the map
TOP = 0.01  # share of pixels whose mean distance is the image's score
STRIDE = 3  # rows and columns from cell to cell of the members' grid


class DinomalyOptions(FeatureOptions):
    """Options of ``dinomaly``."""

    backbone: str = Field("dinov2-small-reg", description="a plain transformer, by name")
    resolution: int = Field(448, ge=32, le=2048, description="px, of the working frame's shorter side")
    layers: tuple[int, ...] = Field((), description="blocks that are rebuilt; empty for the middle ones, 2 to 9 of 12")
    width: int = Field(192, ge=0, le=2048, description="channels of the decoder; 0 for as many as the backbone has")
    dropout: float = Field(0.2, ge=0, le=0.6, description="noise of the bottleneck; up to 0.4 for varied parts")
    tokens: int = Field(256, ge=1, le=1 << 16, description="patches of an image that a training step sees")
    learning_rate: float = Field(2e-3, gt=0, le=0.1, description="of AdamW, at its highest")


class Dinomaly(FrozenFeatureReconstruction[DinomalyOptions, GroupDecoder]):
    """Its unit is cosine distance, 0 to 2. ``evidence``: distance float32 (2, rows, cols), a group of layers each."""

    name = "dinomaly"
    summary = (
        "Rebuilds the middle layers of a frozen transformer through a noisy bottleneck; scores what is rebuilt badly"
    )
    source = (
        "Guo et al., Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection, CVPR 2025"
    )
    options_type = DinomalyOptions

    def chosen_layers(self) -> tuple[int, ...]:
        """Those of the options, or the middle ones. ConfigError where they are fewer than two groups need."""
        layers = self.options.layers or self._middle()
        if len(layers) < 2:
            raise ConfigError(f"{self.name} compares two groups of layers and needs 2 or more, got {len(layers)}")
        return layers

    def _middle(self) -> tuple[int, ...]:
        if not isinstance(self.extractor, FrozenBackbone):
            raise ConfigError(
                f"{self.name} needs a plain transformer, got {self.extractor.name}: choose another backbone"
            )
        depth = self.extractor.depth
        return tuple(dict.fromkeys(i * depth // OF_BLOCKS for i in MIDDLE))

    def build(self, shape: Sequence[int]) -> GroupDecoder:
        """The untrained decoder for features (2, tokens, channels)."""
        channels = shape[-1]
        return GroupDecoder(channels, self.options.width or channels, len(self.layers), self.options.dropout)

    def groups(self, image: InspectionImage) -> Tensor:
        """Mean features (2, rows, cols, channels) of the first and of the second half of the layers."""
        return self.grouped(self.extractor.levels(image, self.layers))

    def grouped(self, levels: list[Tensor]) -> Tensor:
        """The same of the layers' features (d, rows, cols)."""
        if len({level.shape for level in levels}) > 1:
            shapes = ", ".join(str(tuple(level.shape)) for level in levels)
            raise ConfigError(f"{self.name} needs layers of one shape, as plain transformers have them, got {shapes}")
        first = len(levels) // 2
        means = [torch.stack(part).mean(0) for part in (levels[:first], levels[first:])]
        return torch.stack(means).permute(0, 2, 3, 1)

    def features(self, image: InspectionImage) -> Tensor:
        """The groups as tokens (2, rows * cols, channels)."""
        return self.groups(image).flatten(1, 2)

    def least(self, features: Tensor) -> int:
        """As many tokens as a step sees."""
        return features[:, : self.options.tokens].numel()

    def thinned(self, features: Tensor, most: int, generator: torch.Generator) -> Tensor:
        """Random tokens, ``most`` numbers together, but as many as a step sees."""
        kept = max(self.options.tokens, most // features[:, 0].numel())
        return features[:, torch.randperm(features.shape[1], generator=generator)[:kept]]

    def loss(
        self, network: GroupDecoder, features: Sequence[Tensor], progress: float, generator: torch.Generator
    ) -> Tensor:
        """The loose loss on random tokens, as many of each image."""
        count = min(self.options.tokens, *(tokens.shape[1] for tokens in features))
        drawn = [f[:, torch.randperm(f.shape[1], generator=generator)[:count]].float() for f in features]
        groups = torch.stack(drawn).to(self.extractor.device)
        with self.backbones.precision():
            rebuilt = network(groups)
        return loose_loss(groups, rebuilt, EASY * min(1.0, progress / RISE))

    def score_one(self, image: InspectionImage) -> ImageScore:
        """Score one image; its map is the mean distance of both groups."""
        groups = self.groups(image).to(self.extractor.device)
        by_group = self._distances(groups, 1)[0]
        smooth = smooth_map(by_group.mean(0), self.extractor.size(image), SIGMA)
        maps = self._members(groups)
        return ImageScore(
            scorer=self.label,
            value=top_mean(smooth, TOP),
            anomaly_map=to_frame(smooth, image.height, image.width),
            evidence={"distance": by_group.numpy()},
            members=np.array([top_mean(m, TOP) for m in maps], dtype=np.float32),
            member_maps=maps.numpy(),
        )

    def pixel_function(
        self, image: InspectionImage, score: ImageScore, baseline: InspectionImage, at: Place | None = None
    ) -> PixelFunction:
        """The cosine distance of the place that is rebuilt worst, or ``at`` another, the mean of both groups."""
        backbone = require_traceable(self.extractor, self.label)
        place = at or most_anomalous(score.evidence["distance"].mean(0))
        spot = Spot.of(backbone.size(image), backbone.windows(image), place)

        def reading(levels: Sequence[Tensor]) -> Tensor:
            tokens = self.grouped(list(levels))
            row, col = spot.cell(*tokens.shape[1:3])
            flat = tokens.flatten(1, 2)[None]
            return distances(flat, self.network(flat))[0, :, row * tokens.shape[2] + col].mean()

        what = f"cosine distance of the features at y {place[0]:.1%}, x {place[1]:.1%} from their reconstruction"
        return traced_function(backbone, self.layers, image, baseline, spot, what, reading)

    def _members(self, groups: Tensor) -> Tensor:
        """Mean distances (members, rows / 3, cols / 3) of passes with dropout, over the middle of every 3 x 3 cells."""
        if not self.options.members:
            return torch.empty(0, 1, 1)
        rows, cols = (slice(min(STRIDE // 2, side - 1), None, STRIDE) for side in groups.shape[1:3])
        with dropout_on(self.network, device=groups.device):
            return self._distances(groups[:, rows, cols], self.options.members).mean(1)

    def _distances(self, groups: Tensor, passes: int) -> Tensor:
        """Distances (passes, 2, rows, cols) of groups (2, rows, cols, channels)."""
        tokens = groups.flatten(1, 2).expand(passes, -1, -1, -1)
        with self.backbones.precision():
            rebuilt = self.network(tokens)
        return distances(tokens, rebuilt).unflatten(2, groups.shape[1:3]).cpu()
