"""Frozen backbones by name: one forward pass an image and resolution, shared by all scorers that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from explainvad.detection.backbone.embedded import (
    EmbeddedBackbone,
    describe_shipped,
    describe_untrained,
    load_shipped,
)
from explainvad.detection.backbone.network import MULTIPLE, HybridBackbone
from explainvad.detection.frames import working_size
from explainvad.detection.frozen import FINAL, FrozenBackbone, bf16_forward_pays
from explainvad.detection.weights import RANDOM, Weights, WeightStore
from explainvad.errors import WeightsError
from explainvad.types import InspectionImage

__all__ = [
    "EMBEDDED",
    "FINAL",
    "Backbones",
    "EmbeddedFeatures",
    "FeatureExtractor",
    "FrozenBackbone",
    "bf16_forward_pays",
]

EMBEDDED = "embedded"  # the backbone that ships with the package; layer 0 is its detail, 1 (and FINAL) its features

Made = TypeVar("Made")


class FeatureExtractor(Protocol):
    """Frozen features of images on grids of patches. Scorers depend on this alone."""

    name: str
    weights: str  # where the weights come from, for the report
    device: str
    resolution: int  # px, of the working frame's shorter side

    @property
    def facts(self) -> Mapping[str, str]:
        """What the model card says of the features besides their weights."""
        ...

    def request(self, layers: Sequence[int]) -> None:
        """Say once which layers will be asked for, so that one forward pass serves every scorer."""

    def size(self, image: InspectionImage) -> tuple[int, int]:
        """Rows and columns, in px, of the working frame in which the image is seen."""
        ...

    def levels(self, image: InspectionImage, layers: Sequence[int]) -> list[Tensor]:
        """Features (d, rows, cols), float32 on the CPU, of each layer; the grids differ where strides do.

        They are shared with other scorers and must not be changed; networks may be trained on them.
        """
        ...

    def see(self, images: Sequence[InspectionImage]) -> None:
        """Compute the features of several images in as few passes as their sizes allow, and keep them for `levels`."""


class EmbeddedFeatures:
    """The backbone that ships with the package, as a :class:`FeatureExtractor`; always in float32."""

    depth = 2

    def __init__(self, backbone: EmbeddedBackbone, name: str = EMBEDDED) -> None:
        self.backbone, self.name = backbone, name
        self.weights, self.device, self.resolution = backbone.weights, backbone.device, backbone.resolution

    @property
    def facts(self) -> Mapping[str, str]:
        """Resolution and precision."""
        return {"frame": f"{self.resolution} px on the longer side", "precision": "float32"}

    def request(self, layers: Sequence[int]) -> None:
        """Both layers are always there."""

    def size(self, image: InspectionImage) -> tuple[int, int]:
        """Rows and columns, in px, of the working frame."""
        return working_size(image.height, image.width, self.resolution, MULTIPLE)

    def levels(self, image: InspectionImage, layers: Sequence[int]) -> list[Tensor]:
        """Detail (layer 0) and features (layer 1, FINAL)."""
        both = self.backbone.levels(image)
        with torch.inference_mode(False):  # ordinary tensors, that networks can be trained on
            return [both[layer].clone() for layer in layers]

    def see(self, images: Sequence[InspectionImage]) -> None:
        """It sees images one by one."""

    @property
    def network(self) -> HybridBackbone:
        """Both levels come from it."""
        return self.backbone.network

    @property
    def tokens(self) -> tuple[int, int]:
        """Side of what attends, px, and no tokens before it."""
        return self.backbone.tokens

    def frame(self, image: InspectionImage) -> Tensor:
        """The image as the network sees it."""
        return self.backbone.frame(image)

    def windows(self, image: InspectionImage) -> list[tuple[slice, slice]]:
        """Rows and columns of the working frame that are seen at once."""
        return self.backbone.windows(image)

    def traced(self, frames: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Both levels of frames, through which gradients flow."""
        return self.backbone.traced(frames, layers)

    def module(self, layer: int) -> nn.Module:
        """The last convolutions before the context."""
        return self.backbone.module(layer)


class Backbones:
    """Extractors and encoders, made at first use and then shared; ``bf16`` and ``compile`` hold for all of them.

    ``bf16``: None takes it where it is faster. Scores depend on it, so a model is loaded with what it was fitted with.
    """

    def __init__(
        self,
        store: WeightStore | None = None,
        device: str = "cpu",
        bf16: bool | None = None,
        compile: bool = False,
    ) -> None:
        self.store, self.device, self.compile = store or WeightStore(), device, compile
        self.bf16 = bf16_forward_pays(device) if bf16 is None else bf16
        self._made: dict[Hashable, Any] = {}
        self._used: dict[str, str] = {}

    def shared(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` made when the pool was first asked for ``key``; start the key with a word of your own."""
        if key not in self._made:
            with torch.inference_mode(False):  # wherever it is first asked for: weights are ordinary tensors
                self._made[key] = make()
        made: Made = self._made[key]
        return made

    def extractor(self, name: str, resolution: int) -> FeatureExtractor:
        """The one extractor of that name and resolution. Raises WeightsError where its weights are missing."""
        return self.shared(("extractor", name, resolution), lambda: self._extractor(name, resolution))

    def _extractor(self, name: str, resolution: int) -> FeatureExtractor:
        random = RANDOM.fullmatch(name)
        if name == EMBEDDED or (random and random["name"] == EMBEDDED):
            embedded = (
                EmbeddedBackbone.untrained(resolution, int(random["seed"] or 0), self.device)
                if random
                else EmbeddedBackbone.shipped(resolution, self.device)
            )
            self._used[name] = embedded.weights
            return EmbeddedFeatures(embedded, name)
        weights = self.weights(name)
        network = self.shared(("network", name), weights.network)
        return FrozenBackbone(network, weights, resolution, self.device, self.bf16, self.compile)

    def weights(self, name: str) -> Weights:
        """Weights from the store, noted as used. Raises WeightsError where they are missing."""
        weights = self.store.weights(name)
        self._used[name] = _identity(weights)
        return weights

    def precision(self) -> AbstractContextManager[Any]:
        """For networks beside the backbones: bf16 where those run in it."""
        return torch.autocast(self.device.partition(":")[0], dtype=torch.bfloat16, enabled=self.bf16)

    def see(self, images: Sequence[InspectionImage]) -> None:
        """Let every extractor that was handed out see images together, before they are scored one by one."""
        for made in self._made.values():
            if isinstance(made, FrozenBackbone):
                made.see(images)

    def used(self) -> dict[str, str]:
        """What the weights in use are, by name: hashes where they have one."""
        return dict(sorted(self._used.items()))

    def require(self, used: Mapping[str, str]) -> None:
        """Raise WeightsError unless the weights here are those that :meth:`used` named."""
        for name, expected in used.items():
            random = RANDOM.fullmatch(name)
            if name == EMBEDDED:
                got = describe_shipped(load_shipped()[1])
            elif random and random["name"] == EMBEDDED:
                got = describe_untrained(int(random["seed"] or 0))
            else:
                got = _identity(self.store.weights(name))
            if got != expected:
                raise WeightsError(
                    f"the model was fitted with other weights {name}: expected {expected}, got {got}; bring the former "
                    "back, or fit the model again"
                )


def _identity(weights: Weights) -> str:
    """The hash of the tensors; of random ones, their seed."""
    return f"sha256 {weights.locked.sha256}" if weights.locked else weights.describe()
