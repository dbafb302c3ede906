"""Layers of a pretrained backbone as one ONNX file, for onnxruntime on a device without torch.

The file takes ``images`` float32 (B, 3, H, W), RGB on [0, 1], and gives for each layer that was asked for
``layer_<i>`` (or ``final``) float32 (B, d, rows, cols), as :class:`~explainvad.detection.frozen.FrozenBackbone` does.
B is free. H and W are fixed: a device sees frames of one size, and window attention divides each size in another way.
Feed it the working frame, resized as ``frames.resized`` does; colours are normalised inside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import Dim

from explainvad.detection.backbone.onnx_file import OPSET, describe, quiet, require_packages, write_checked
from explainvad.detection.frozen import FINAL, FrozenBackbone
from explainvad.detection.weights import Weights
from explainvad.errors import UsageError

if TYPE_CHECKING:
    import onnx


class _Layers(nn.Module):
    """From images on [0, 1] to the layers that were asked for, in that order."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: FrozenBackbone, weights: Weights, layers: Sequence[int]) -> None:
        super().__init__()
        self.network = backbone.network  # so that its tensors are found
        self.backbone, self.layers = backbone, tuple(layers)
        for name, values in (("mean", weights.mean), ("std", weights.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.backbone.forward((images - self.mean) / self.std)
        return tuple(found[layer] for layer in self.layers)


def export_layers(weights: Weights, layers: Sequence[int], path: Path, height: int, width: int) -> Path:
    """Write ``layers`` of the backbone to ``path`` as one ONNX file for frames of ``height`` x ``width`` px.

    Before the file is put in place it is run in onnxruntime and compared with torch. Raises UsageError for a bad size,
    a layer that is not there, or missing packages of the extra ``onnx``, IntegrityError when the file does not compute
    what the network does, StorageError when it cannot be written, and WeightsError.
    """
    multiple = weights.multiple
    if min(height, width) < multiple or height % multiple or width % multiple:
        raise UsageError(
            f"height and width must be positive multiples of {multiple} px, got {height} x {width}; give the nearest"
        )
    if not layers or len(set(layers)) < len(layers):
        raise UsageError(f"expected one layer or more, each once, got {list(layers)}; name some")
    require_packages()
    backbone = FrozenBackbone(weights.network(), weights, min(height, width))
    backbone.request(layers)
    network = _Layers(backbone, weights, layers).eval()
    names = ["final" if layer == FINAL else f"layer_{layer}" for layer in layers]
    model = _convert(network, names, height, width)
    properties = {
        "name": weights.name,
        "architecture": str(weights.config["architecture"]),
        "layers": json.dumps(list(layers)),
        "input": f"RGB on [0, 1], {height} x {width} px",
        "weights": weights.describe(),
    }
    describe(model, "backbone_layers", properties)
    images = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    return write_checked(path, model, network, images)


def _convert(network: nn.Module, names: Sequence[str], height: int, width: int) -> onnx.ModelProto:
    """The graph with a free batch."""
    images = torch.zeros(2, 3, height, width)
    with torch.no_grad(), quiet():
        network(images)  # some networks keep what follows from the size; it must not be made of traces
        program = torch.onnx.export(
            network,
            (images,),
            input_names=["images"],
            output_names=list(names),
            opset_version=OPSET,
            dynamic_shapes={"images": {0: Dim("batch")}},
            verbose=False,
        )
    assert program is not None  # the exporter of torch.export always returns one
    return program.model_proto
