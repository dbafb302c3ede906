"""The backbone as one ONNX file, for onnxruntime on a device without torch.

The file takes ``images`` float32 (B, 3, H, W), RGB on [0, 1], and gives ``features`` float32 (B, dimension, H/8, W/8),
unit vectors. B, H and W are free; H and W must be multiples of 16, and of at most 512 px or attention gets slow.
"""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim

from explainvad.detection.backbone.network import MULTIPLE, STRIDE, HybridBackbone
from explainvad.errors import IntegrityError, StorageError, UsageError

if TYPE_CHECKING:
    import onnx

NAME = "explainvad hybrid CNN-Transformer backbone"
OPSET = 20  # the first with Gelu
TOLERANCE = 1e-3  # largest difference from torch, relative to the largest feature; about 1e-6 is usual
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
    _require_packages()
    # Work on a copy: neither the device nor the mode of the caller's network may change
    twin = copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)
    model = _convert(twin)
    _describe(model, twin, weights_sha256)
    data = model.SerializeToString()
    _check(model, data, twin, height, width)
    try:
        return _write_whole(path, data)
    except OSError as error:
        raise StorageError(f"the ONNX file could not be written to {path}: {error.strerror or error}") from error


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"exporting to ONNX needs packages that are not installed ({error}): pip install explainvad[onnx]"
        ) from error


def _convert(network: HybridBackbone) -> onnx.ModelProto:
    """The graph with free batch, height and width. Fails, rather than fix an axis in silence, if one cannot be free."""
    axes = {0: Dim("batch"), 2: MULTIPLE * Dim("token_rows"), 3: MULTIPLE * Dim("token_cols")}
    with torch.no_grad(), _quiet():
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings about packages that nothing here uses (torchvision)."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _describe(model: onnx.ModelProto, network: HybridBackbone, weights_sha256: str | None) -> None:
    """Name the graph, its axes and its origin; drop what the exporter noted of this machine's files."""
    from onnx.helper import set_model_props

    graph = model.graph
    graph.name = "hybrid_backbone"
    for value, (rows, cols) in (
        (graph.input[0], ("height", "width")),
        (graph.output[0], (f"height/{STRIDE}", f"width/{STRIDE}")),
    ):
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_param, dims[2].dim_param, dims[3].dim_param = "batch", rows, cols
    del graph.value_info[:]  # sizes in the old names, which every reader can infer
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    properties = {
        "name": NAME,
        "architecture": json.dumps(network.architecture.as_dict(), sort_keys=True),
        "input": f"RGB on [0, 1], sides multiples of {MULTIPLE} px",
        "stride": str(STRIDE),
    }
    set_model_props(model, properties | ({"weights_sha256": weights_sha256} if weights_sha256 else {}))


def _check(model: onnx.ModelProto, data: bytes, network: HybridBackbone, height: int, width: int) -> None:
    """Raise IntegrityError unless onnxruntime makes of the file what torch makes of the network."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images)
    got = torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])
    difference = ((expected - got).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE:  # also when it is not a number
        raise IntegrityError(
            f"the ONNX file does not compute what the network does: expected a relative difference of at most "
            f"{TOLERANCE:g}, got {difference:.2g}; nothing was written, try other versions of onnx, onnxscript and "
            f"onnxruntime"
        )


def _write_whole(path: Path, data: bytes) -> Path:
    """Write beside the target, sync, and rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path
