"""The backbone that ships with the package: its weights, checked by their hash, and the features of an image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Self

import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from explainvad.detection.backbone.network import MULTIPLE, STRIDE, Architecture, HybridBackbone
from explainvad.detection.frames import blend_weight, to_working, windows, working_size
from explainvad.detection.training import reproducible
from explainvad.errors import IntegrityError
from explainvad.types import InspectionImage

WINDOW = 512  # px of the working frame seen at once; attention costs grow with its fourth power
NAME = "embedded"


class EmbeddedBackbone:
    """Frozen features of images: unit vectors of ``dimension`` for every 8 x 8 px of the working frame."""

    name = "embedded hybrid CNN-Transformer"
    stride = STRIDE

    def __init__(
        self,
        network: HybridBackbone,
        resolution: int,
        weights: str,
        facts: Mapping[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        # shipped in half precision, and so is what adaptation makes of it: a bundle holds the very same numbers
        network.half().float()
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.network.requires_grad_(False)
        self.resolution, self.weights, self.device = resolution, weights, device
        self.facts: Mapping[str, str] = dict(facts or {})  # what adaptation did, for the model card
        self._last: tuple[InspectionImage, tuple[Tensor, Tensor]] | None = None

    @classmethod
    def shipped(cls, resolution: int, device: str = "cpu") -> Self:
        """With the weights of the package. Raises IntegrityError when they are not what was shipped."""
        network, manifest = load_shipped()
        return cls(network, resolution, describe_shipped(manifest), device=device)

    @classmethod
    def untrained(cls, resolution: int, seed: int, device: str = "cpu") -> Self:
        """The same network at its random initialisation, for experiments only."""
        with reproducible(seed):
            network = HybridBackbone(load_shipped()[0].architecture)
        return cls(network, resolution, describe_untrained(seed), device=device)

    def working_frame(self, image: InspectionImage) -> Tensor:
        """The image as the network sees it, uint8 (3, h, w), both multiples of 16."""
        return to_working(image.pixels, self.size(image))

    def features(self, image: InspectionImage) -> Tensor:
        """Features (dimension, h / 8, w / 8), float32 on the CPU."""
        return self.levels(image)[1]

    @torch.inference_mode()
    def levels(self, image: InspectionImage) -> tuple[Tensor, Tensor]:
        """Detail (width, h / 8, w / 8) and features (dimension, h / 8, w / 8), float32 on the CPU.

        A large frame is seen through overlapping windows. The last image's answer is kept, so that scorers that
        share a backbone share its forward pass.
        """
        if self._last is None or self._last[0] is not image:
            self._last = image, self._levels(self.working_frame(image))
        return self._last[1]

    @property
    def tokens(self) -> tuple[int, int]:
        """Side of what attends, px, and no tokens before it."""
        return 2 * STRIDE, 0

    def size(self, image: InspectionImage) -> tuple[int, int]:
        """Rows and columns, in px, of the working frame."""
        return working_size(image.height, image.width, self.resolution, MULTIPLE)

    def frame(self, image: InspectionImage) -> Tensor:
        """The working frame on [0, 1], float32 (3, h, w), where the network is."""
        return self.working_frame(image).to(self.device).float() / 255

    def windows(self, image: InspectionImage) -> list[tuple[slice, slice]]:
        """Rows and columns, in px of the working frame, seen at once; one window unless the image is large."""
        return list(windows(*self.size(image), WINDOW, MULTIPLE))

    def traced(self, frames: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Detail (layer 0) and features (layer 1) of frames (B, 3, h, w) on [0, 1], through which gradients flow."""
        both = self.network.levels(frames)
        return [both[layer] for layer in layers]

    def module(self, layer: int) -> nn.Module:
        """The last convolutions that features rest on before the context is added: (B, width, h / 8, w / 8)."""
        return self.network.blocks[-1] if len(self.network.blocks) else self.network.to_width

    def _levels(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        rows, cols = frame.shape[1] // STRIDE, frame.shape[2] // STRIDE
        architecture = self.network.architecture
        detail, features = (torch.zeros(d, rows, cols) for d in (architecture.width, architecture.dimension))
        weight = torch.zeros(rows, cols)
        for y, x in windows(frame.shape[1], frame.shape[2], WINDOW, MULTIPLE):
            seen = frame[None, :, y, x].to(self.device).float() / 255
            cells = slice(y.start // STRIDE, y.stop // STRIDE), slice(x.start // STRIDE, x.stop // STRIDE)
            w = blend_weight(cells[0].stop - cells[0].start, cells[1].stop - cells[1].start)
            for total, part in zip((detail, features), self.network.levels(seen), strict=True):
                total[:, *cells] += w * part[0].cpu()
            weight[cells] += w
        return detail / weight, torch.nn.functional.normalize(features, dim=0)

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays (float16, which holds the weights exactly) and settings for :meth:`restore`."""
        arrays = {name: tensor.cpu().half().contiguous().numpy() for name, tensor in self.network.state_dict().items()}
        settings = {
            "resolution": self.resolution,
            "weights": self.weights,
            "facts": dict(self.facts),
            "architecture": self.network.architecture.as_dict(),
        }
        return arrays, settings

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any], device: str) -> Self:
        """The inverse of :meth:`state`; every weight must be there, none may be left over."""
        network = HybridBackbone(Architecture(**settings["architecture"]))
        network.load_state_dict({k: torch.from_numpy(v).float() for k, v in arrays.items()}, strict=True)
        return cls(network, settings["resolution"], settings["weights"], settings["facts"], device)


def load_shipped() -> tuple[HybridBackbone, dict[str, Any]]:
    """The shipped network, in evaluation mode on the CPU, and the manifest of its training."""
    folder = files("explainvad.detection.backbone")
    manifest = json.loads(folder.joinpath(f"{NAME}.json").read_text("utf-8"))
    return network_from(folder.joinpath(f"{NAME}.safetensors").read_bytes(), manifest), manifest


def network_from(weights: bytes, manifest: Mapping[str, Any]) -> HybridBackbone:
    """Build the network of a manifest from the bytes of its safetensors. Raises IntegrityError when they differ."""
    got = hashlib.sha256(weights).hexdigest()
    if got != manifest["sha256"]:
        raise IntegrityError(
            f"the weights of the embedded backbone were altered: expected sha256 {manifest['sha256'][:16]}…, got "
            f"{got[:16]}…; install the package again"
        )
    network = HybridBackbone(Architecture(**manifest["architecture"]))
    network.load_state_dict({name: tensor.float() for name, tensor in load(weights).items()}, strict=True)
    return network.eval()


def describe_shipped(manifest: Mapping[str, Any]) -> str:
    """Where the weights come from, for the report."""
    training = manifest["training"]
    return (
        f"shipped with the package, trained by this project on generated images only "
        f"({training['steps']:,} steps, seed {training['seed']}), sha256 {manifest['sha256'][:16]}…"
    )


def describe_untrained(seed: int) -> str:
    """What the report says of a network that nobody trained."""
    return f"{NAME}: random initialisation, for experiments only (seed {seed})"
