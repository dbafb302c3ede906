"""What every export to ONNX does alike.

Its packages are there, the file bears no trace of this machine, it computes what torch does before it is kept, and it
is written whole or not at all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from explainvad.errors import IntegrityError, StorageError, UsageError

if TYPE_CHECKING:
    import onnx

OPSET = 20  # the first with Gelu
TOLERANCE = 1e-3  # largest difference from torch, relative to the largest feature; about 1e-6 is usual


def require_packages() -> None:
    """Raise UsageError that names the extra when a package for ONNX is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"exporting to ONNX needs packages that are not installed ({error}): pip install explainvad[onnx]"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's warnings about packages that nothing here uses (torchvision)."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def describe(model: onnx.ModelProto, name: str, properties: Mapping[str, str]) -> None:
    """Name the graph and note ``properties``; drop what the exporter noted of this machine's files."""
    from onnx.helper import set_model_props

    graph = model.graph
    graph.name = name
    del graph.value_info[:]  # sizes in the exporter's names, which every reader can infer
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    set_model_props(model, dict(properties))


def write_checked(path: Path, model: onnx.ModelProto, network: nn.Module, images: Tensor) -> Path:
    """Write the model to ``path``, whole or not at all, once it makes of ``images`` what the network makes of them.

    The network gives a tensor, or a tuple in the order of the model's outputs. Raises IntegrityError when the file does
    not compute what the network does, StorageError when it cannot be written.
    """
    data = model.SerializeToString()
    with torch.inference_mode():
        expected = network(images)
    _check(model, data, images, [expected] if isinstance(expected, Tensor) else expected)
    try:
        return _write_whole(path, data)
    except OSError as error:
        raise StorageError(f"the ONNX file could not be written to {path}: {error.strerror or error}") from error


def _check(model: onnx.ModelProto, data: bytes, images: Tensor, expected: Sequence[Tensor]) -> None:
    """Raise IntegrityError unless onnxruntime makes of the file what was ``expected`` of ``images``."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    answers = map(torch.from_numpy, session.run(None, {"images": images.numpy()}))
    for ours, got in zip(expected, answers, strict=True):
        difference = ((ours - got).abs().max() / ours.abs().max()).item()
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
