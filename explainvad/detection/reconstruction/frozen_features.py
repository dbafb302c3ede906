"""Reconstruction of frozen features: what Dinomaly and UniAD have in common.

A network learns to rebuild the features that a frozen backbone gives of normal images; what it rebuilds badly is not
normal. Features of the FIT images are computed once and held in half precision, FEATURE_BYTES of them at most. The
members for the epistemic part of the doubt are passes with the network's dropout left on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from explainvad.detection.backbones import Backbones
from explainvad.detection.frames import spread_out
from explainvad.detection.scorer import FrozenScorer, ScorerOptions
from explainvad.detection.training import arrays_of, reproducible, restored, train
from explainvad.types import InspectionImage, Progress

FEATURE_BYTES = 1 << 29  # of features held for training
CLIP = 0.1  # largest norm of a gradient, as both methods have it
SHAPE = "shape"  # among the arrays: of the features that the network was built for


class FeatureOptions(ScorerOptions):
    """What scorers that rebuild frozen features may be told."""

    backbone: str = Field(description="the frozen network whose features are rebuilt")
    resolution: int = Field(ge=32, le=2048, description="px, of the working frame's shorter side")
    layers: tuple[int, ...] = Field((), description="of the backbone, that are rebuilt")
    dropout: float = Field(ge=0, le=0.6, description="share of activations that noise silences")
    steps: int = Field(600, ge=1, le=1_000_000, description="training steps")
    batch: int = Field(8, ge=1, le=1024, description="images a step")
    learning_rate: float = Field(gt=0, le=0.1, description="of AdamW, at its highest")
    members: int = Field(6, ge=0, le=64, description="passes with dropout that measure the scorer's own doubt")


Options = TypeVar("Options", bound=FeatureOptions)
Network = TypeVar("Network", bound=nn.Module)


class FrozenFeatureReconstruction(FrozenScorer[Options], Generic[Options, Network]):
    """A network trained from scratch to rebuild what a frozen backbone sees."""

    family = "reconstruction"

    def __init__(self, options: Options, backbones: Backbones, progress: Progress | None = None) -> None:
        super().__init__(options, backbones, progress)
        self.extractor = backbones.extractor(options.backbone, options.resolution)
        self.layers = self.chosen_layers()
        self.extractor.request(self.layers)

    @property
    def weights(self) -> str:
        """For the report."""
        return f"network trained from scratch on the reference images; backbone {self.extractor.weights}"

    def chosen_layers(self) -> tuple[int, ...]:
        """The backbone's layers that are rebuilt."""
        return self.options.layers

    @abstractmethod
    def features(self, image: InspectionImage) -> Tensor:
        """What is rebuilt of an image, float32 on the CPU."""

    @abstractmethod
    def build(self, shape: Sequence[int]) -> Network:
        """The untrained network for features of a shape."""

    @abstractmethod
    def loss(self, network: Network, features: Sequence[Tensor], progress: float, generator: torch.Generator) -> Tensor:
        """Loss of a step on the held features of some images, at ``progress`` in [0, 1) of the training."""

    def least(self, features: Tensor) -> int:
        """How many numbers of an image's features must be held."""
        return features.numel()

    def thinned(self, features: Tensor, most: int, generator: torch.Generator) -> Tensor:
        """About ``most`` numbers of an image's features, or as many as must be."""
        return features

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Train the network. The same images, seed and steps give the same weights on one machine."""
        o = self.options
        held = self._held(images, torch.Generator().manual_seed(seed))
        with reproducible(seed, self.extractor.device) as generator:
            network = self.build(held[0].shape).to(self.extractor.device)

            def loss_of(step: int) -> Tensor:
                chosen = torch.randint(len(held), (o.batch,), generator=generator).tolist()
                return self.loss(network, [held[i] for i in chosen], step / o.steps, generator)

            loss = train(
                network,
                loss_of,
                o.steps,
                learning_rate=o.learning_rate,
                clip=CLIP,
                what=f"training {self.label}",
                progress=self.progress,
            )
        arrays = arrays_of(network)
        facts = {
            "features": f"layers {', '.join(map(str, self.layers))} of {self.extractor.name}",
            "training": f"{o.steps} steps of {o.batch} images, from {len(held)}",
            "loss when trained": f"{loss:.5f}",
        }
        self.load({**arrays, SHAPE: torch.tensor(held[0].shape).numpy()}, facts)

    def _held(self, images: Sequence[InspectionImage], generator: torch.Generator) -> list[Tensor]:
        """Features for the training. Where memory is short, less of each image is held, then fewer images."""
        first = self.features(images[0])
        chosen = spread_out(len(images), FEATURE_BYTES // (2 * self.least(first)))
        held = []
        for done, i in enumerate(chosen, start=1):
            features = self.features(images[i]) if i else first
            held.append(self.thinned(features, FEATURE_BYTES // (2 * len(chosen)), generator).half())
            if self.progress:
                self.progress(f"features for {self.label}", done, len(chosen))
        return held

    def load(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> None:
        """Restore the network; every weight must be there, none may be left over (RuntimeError)."""
        super().load(arrays, facts)
        weights = {name: array for name, array in self.arrays.items() if name != SHAPE}
        network = restored(lambda: self.build(self.arrays[SHAPE].tolist()), weights)
        self._network = network.to(self.extractor.device)

    @property
    def network(self) -> Network:
        """The trained network. Raises NotFittedError before ``fit`` and ``load``."""
        self.fitted()
        return self._network
