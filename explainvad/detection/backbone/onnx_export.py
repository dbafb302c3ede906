"""The backbone as one ONNX file, for onnxruntime on a device without torch.

The file takes ``images`` float32 (B, 3, H, W), RGB on [0, 1], and gives ``features`` float32 (B, dimension, H/8, W/8),
unit vectors. B, H and W are free; H and W must be multiples of 16, and of at most 512 px or attention gets slow.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim

from explainvad.detection.backbone.network import MULTIPLE, STRIDE, HybridBackbone
from explainvad.detection.backbone.onnx_file import OPSET, describe, quiet, require_packages, write_checked
from explainvad.errors import UsageError

if TYPE_CHECKING:
    import onnx

NAME = "explainvad hybrid CNN-Transformer backbone"
TRACED = (2, 3, 96, 64)  # any size will do that is not square and has no side of one token


def export_onnx(
    network: HybridBackbone, path: Path, height: int = 256, width: int = 256, weights_sha256: str | None = None
) -> Path:
    """Write the network to ``path`` as one ONNX file, whole or not at all; the network itself is left as it is.

    Before the file is put in place it is run in onnxruntime on an image of ``height`` x ``width`` px, multiples of 16,
    and compared with torch. The file takes any other size, too. ``weights_sha256``, the manifest's, goes into its
    metadata. Raises UsageError for a bad size or when the packages of the extra ``onnx`` are missing, IntegrityError
    when the file does not compute what the network does, StorageError when it cannot be written.
    """
    if min(height, width) < MULTIPLE or height % MULTIPLE or width % MULTIPLE:
        raise UsageError(
            f"height and width must be positive multiples of {MULTIPLE} px, got {height} x {width}; give the nearest"
        )
    require_packages()
    # Work on a copy: neither the device nor the mode of the caller's network may change
    twin = copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)
    model = _convert(twin)
    _describe(model, twin, weights_sha256)
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    return write_checked(path, model, twin, images)


def _convert(network: HybridBackbone) -> onnx.ModelProto:
    """The graph with free batch, height and width. Fails, rather than fix an axis in silence, if one cannot be free."""
    axes = {0: Dim("batch"), 2: MULTIPLE * Dim("token_rows"), 3: MULTIPLE * Dim("token_cols")}
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            network,
            (torch.zeros(TRACED),),
            input_names=["images"],
            output_names=["features"],
            opset_version=OPSET,
            dynamic_shapes={"images": axes},
            custom_translation_table=_translations(),
            verbose=False,
        )
    assert program is not None  # the exporter of torch.export always returns one
    return program.model_proto


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What the attention's distances need and torch 2.15 cannot translate when the grid's size is free."""
    from onnxscript import opset20 as op

    def remainder(x: Any, divisor: Any) -> Any:
        return op.Mod(x, op.CastLike(divisor, x))  # of integers only

    def hypot(x: Any, y: Any) -> Any:
        return op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y)))

    return {torch.ops.aten.remainder.Scalar: remainder, torch.ops.aten.hypot.default: hypot}


def _describe(model: onnx.ModelProto, network: HybridBackbone, weights_sha256: str | None) -> None:
    """Name the graph, its axes and its origin."""
    properties = {
        "name": NAME,
        "architecture": json.dumps(network.architecture.as_dict(), sort_keys=True),
        "input": f"RGB on [0, 1], sides multiples of {MULTIPLE} px",
        "stride": str(STRIDE),
    }
    describe(model, "hybrid_backbone", properties | ({"weights_sha256": weights_sha256} if weights_sha256 else {}))
    for value, (rows, cols) in (
        (model.graph.input[0], ("height", "width")),
        (model.graph.output[0], (f"height/{STRIDE}", f"width/{STRIDE}")),
    ):
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_param, dims[2].dim_param, dims[3].dim_param = "batch", rows, cols
