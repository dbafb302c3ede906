"""A frozen timm network that answers in one way, whatever its family: grids of features over the whole image.

Layers are counted as timm counts them: blocks of a plain transformer, stages of a hierarchical one or a CNN (of a
ResNet 0 is the stem and 1 to 4 are layer1 to layer4); ``FINAL`` is the last one after the final normalisation. Class
and register tokens are left out. Large images stay large (``frames.MAX_REDUCTION``) and are seen through overlapping
windows of equal size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.frames import blend_weight, resized, shorter_side_size, windows
from explainvad.detection.weights import Weights
from explainvad.errors import UsageError, WeightsError
from explainvad.types import InspectionImage

FINAL = -1  # the last layer, after the network's final normalisation where it has one
WINDOW = 2.0  # resolutions; a frame with a longer side is seen through overlapping windows
COMPILED_SIZES = 64  # sizes of frames and batches that `torch.compile` may be asked for


class FrozenBackbone:
    """A timm network as a :class:`FeatureExtractor`; it takes the network over.

    In bfloat16 the weights of its linear and convolutional layers are rounded once, and the rest is autocast's: the
    same numbers as autocast alone gives, without a conversion at every pass. ``compile`` runs it through
    ``torch.compile``: minutes at the first images of each size, and a sixth (MobileViT) or next to nothing (DINOv2)
    saved afterwards on a CPU. In bfloat16 it may round elsewhere, and features move as far as bfloat16 moves them.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: Weights,
        resolution: int,
        device: str = "cpu",
        bf16: bool = False,
        compile: bool = False,
    ) -> None:
        if getattr(getattr(network, "patch_embed", None), "strict_img_size", False):
            raise WeightsError(
                f"{weights.name} takes images of one size only: put dynamic_img_size = true (of a Swin strict_img_size "
                "= false) among the model_args in its config.json"
            )
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.network.requires_grad_(False)
        if bf16:
            for module in network.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    module.to(torch.bfloat16)
        self.name, self.weights, self.multiple = weights.name, weights.describe(), weights.multiple
        self.resolution, self.device, self.bf16 = resolution, device, bf16
        self.depth = len(network.feature_info)  # type: ignore[arg-type]  # layers 0 to depth - 1
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (weights.mean, weights.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._run: Callable[..., Any] = network.forward_intermediates  # type: ignore[assignment]
        if compile:
            self._run = _compiled(self._run, self.name)
        self._requested: set[int] = set()
        self._seen: dict[int, tuple[InspectionImage, dict[int, Tensor]]] = {}  # by id; the image keeps the id alive

    @property
    def facts(self) -> Mapping[str, str]:
        """Resolution and precision."""
        precision = "bfloat16, features about 1 % off those in float32" if self.bf16 else "float32"
        return {"frame": f"{self.resolution} px on the shorter side", "precision": precision}

    def request(self, layers: Sequence[int]) -> None:
        """Layers that every forward pass will deliver. Raises UsageError for one that the network does not have."""
        if wrong := [layer for layer in layers if not FINAL <= layer < self.depth]:
            raise UsageError(
                f"{self.name} has layers 0 to {self.depth - 1}, and {FINAL} for the last one normalised, got "
                f"{', '.join(map(str, wrong))}; ask for some of these"
            )
        if not self._requested.issuperset(layers):
            self._requested.update(layers)
            self._seen.clear()

    def size(self, image: InspectionImage) -> tuple[int, int]:
        """Rows and columns, in px, of the working frame."""
        return shorter_side_size(image.height, image.width, self.resolution, self.multiple)

    def frame(self, image: InspectionImage) -> Tensor:
        """The image as the network sees it, float32 (3, rows, columns), normalised."""
        pixels = resized(image.pixels, self.size(image))
        if self.device.startswith("cuda"):
            pixels = pixels.pin_memory()  # then the copy does not stop the CPU
        return pixels.to(self.device, non_blocking=True).float().mul_(self._scale).add_(self._shift)

    def levels(self, image: InspectionImage, layers: Sequence[int]) -> list[Tensor]:
        """Features (d, rows, cols) of each layer."""
        self.request(layers)
        if id(image) not in self._seen:
            self.see([image])
        return [self._seen[id(image)][1][layer] for layer in layers]

    def see(self, images: Sequence[InspectionImage]) -> None:
        """Forget what was seen, and see these, frames of one size in one batch. UsageError before ``request``."""
        if not self._requested:
            raise UsageError(f"{self.name} was asked to see images before any of its layers: call request first")
        self._seen = {}
        by_size: dict[tuple[int, int], list[InspectionImage]] = {}
        for image in images:
            by_size.setdefault(self.size(image), []).append(image)
        # ordinary tensors even where scorers run in inference mode: another one may be trained on the same features
        with torch.inference_mode(False), torch.no_grad():
            for group in by_size.values():
                found = self._windowed(torch.stack([self.frame(image) for image in group]))
                for i, image in enumerate(group):
                    self._seen[id(image)] = image, {layer: batch[i] for layer, batch in found.items()}

    def _windowed(self, frames: Tensor) -> dict[int, Tensor]:
        """Features (B, d, rows, cols) by layer of frames (B, 3, h, w); of large ones blended over windows."""
        height, width = frames.shape[2:]
        most = self._most()
        if max(height, width) <= most:
            return {layer: features.float().cpu() for layer, features in self.forward(frames).items()}
        total: dict[int, Tensor] = {}
        weight: dict[int, Tensor] = {}
        for y, x in _equal_windows(height, width, most, self.multiple):
            for layer, features in self.forward(frames[:, :, y, x]).items():
                rows, cols = features.shape[2:]
                stride = (y.stop - y.start) // rows
                if layer not in total:
                    grid = height // stride, width // stride
                    total[layer] = torch.zeros(len(frames), features.shape[1], *grid)
                    weight[layer] = torch.zeros(grid)
                top, left = y.start // stride, x.start // stride
                cells = slice(top, top + rows), slice(left, left + cols)
                blend = blend_weight(rows, cols)
                total[layer][:, :, *cells] += blend * features.float().cpu()
                weight[layer][cells] += blend
        return {layer: total[layer] / weight[layer] for layer in total}

    def windows(self, image: InspectionImage) -> list[tuple[slice, slice]]:
        """Rows and columns, in px of the working frame, seen at once; one window unless the image is large."""
        height, width = self.size(image)
        return list(_equal_windows(height, width, self._most(), self.multiple))

    def traced(self, frames: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Features (B, d, rows, cols), float32, of normalised frames (B, 3, h, w), through which gradients flow."""
        levels = self.forward(frames, self.network.forward_intermediates)  # not compiled
        return [levels[layer].float() for layer in layers]

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Side of a patch, px, and tokens before the patches, of a plain transformer; None of other networks."""
        side = getattr(getattr(self.network, "patch_embed", None), "patch_size", None)
        prefix = getattr(self.network, "num_prefix_tokens", None)
        return None if side is None or prefix is None else (int(side[0]), int(prefix))

    def module(self, layer: int) -> nn.Module:
        """The part of the network whose output a layer is."""
        info: Any = self.network.feature_info
        return self.network.get_submodule(info[self.depth - 1 if layer == FINAL else layer]["module"])

    def _most(self) -> int:
        """Longest side, px, of what is seen at once."""
        return max(2, round(WINDOW * self.resolution / self.multiple)) * self.multiple

    def forward(self, frames: Tensor, run: Callable[..., Any] | None = None) -> dict[int, Tensor]:
        """Features (B, d, rows, cols) by requested layer of normalised frames (B, 3, h, w), in one pass."""
        last = self.depth - 1
        indices = sorted({last if layer == FINAL else layer for layer in self._requested})
        with torch.autocast(self.device.partition(":")[0], dtype=torch.bfloat16, enabled=self.bf16):
            maps = (run or self._run)(
                frames.contiguous(memory_format=torch.channels_last),
                indices=indices,
                norm=False,
                stop_early=True,
                intermediates_only=True,
                output_fmt="NCHW",
            )
            found = dict(zip(indices, maps, strict=True))
            for layer, features in found.items():
                self._require_cover(layer, frames, features)
            return {layer: self._normed(found[last]) if layer == FINAL else found[layer] for layer in self._requested}

    def _require_cover(self, layer: int, frames: Tensor, features: Tensor) -> None:
        """Every cell must stand for the same square of pixels, or maps and windows would be shifted."""
        (height, width), (rows, cols) = frames.shape[2:], features.shape[2:]
        if height % rows or width % cols or height // rows != width // cols:
            raise WeightsError(
                f"layer {layer} of {self.name} divides {height} x {width} px into {rows} x {cols} cells: sides must be "
                f"multiples of every layer's stride, and of its multiple of {self.multiple} px they are not; give more"
            )

    def _normed(self, features: Tensor) -> Tensor:
        """The last layer after the final normalisation; as it is where a network has none."""
        norm = getattr(self.network, "norm", None)
        if norm is None or isinstance(norm, nn.Identity):
            return features
        channels_last = features.permute(0, 2, 3, 1)
        if isinstance(norm, nn.LayerNorm):  # among them those that expect channels first
            normed = F.layer_norm(channels_last, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        else:
            normed = norm(channels_last)
        return normed.permute(0, 3, 1, 2)


def _compiled(run: Callable[..., Any], name: str) -> Callable[..., Any]:
    """``run`` compiled; UsageError where that fails, for nothing falls back without a word."""
    from torch._dynamo import config
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    fast = torch.compile(run)

    def guarded(*args: Any, **arguments: Any) -> Any:
        try:
            with config.patch(recompile_limit=COMPILED_SIZES, fail_on_recompile_limit_hit=True):
                return fast(*args, **arguments)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"{name} could not be compiled ({reason}): it needs a C++ compiler and frames of few sizes; set "
                "compile = false under [backbones]"
            ) from error

    return guarded


def _equal_windows(height: int, width: int, most: int, multiple: int) -> Iterator[tuple[slice, slice]]:
    """Overlapping windows over a frame, all of one size, no side above ``most`` px and none larger than it must be."""

    def side(length: int) -> int:
        count = 1 + max(0, -(-(length - most) * 4 // (most * 3)))  # neighbours share a quarter
        return -(-length * 4 // (3 * count + 1) // multiple) * multiple

    for y, _ in windows(height, side(height), side(height), multiple):
        for _, x in windows(side(width), width, side(width), multiple):
            yield y, x


def bf16_forward_pays(device: str) -> bool:
    """Whether a forward pass is faster in bfloat16 than in float32: on GPUs, and on CPUs that multiply it natively.

    See tests/benchmarks/shared_forward.py: on a CPU with AVX-512 BF16 1.4 (TinyViT) to 2.2 times (WideResNet-50-2).
    """
    return device.startswith("cuda") or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
