"""The ONNX file computes what the network computes, at every size, is one file, and is refused when it does not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from explainvad.detection.backbone import onnx_export
from explainvad.detection.backbone.network import Architecture, HybridBackbone
from explainvad.detection.backbone.onnx_export import export_onnx
from explainvad.errors import IntegrityError, StorageError, UsageError

SMALL = Architecture(stem=8, detail=8, width=16, context=24, conv_blocks=1, attention_blocks=1, heads=3, dimension=12)
SHA256 = "ab" * 32
SIZES = [(1, 256, 256), (2, 256, 192), (3, 64, 80), (1, 16, 16), (5, 16, 48), (1, 320, 512)]


def random_network(architecture: Architecture, seed: int = 0) -> HybridBackbone:
    torch.manual_seed(seed)
    return HybridBackbone(architecture)


@pytest.fixture(
    scope="module", params=[SMALL, pytest.param(Architecture(), marks=pytest.mark.thorough)], ids=["small", "default"]
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[HybridBackbone, Path]:
    network = random_network(request.param).to(memory_format=torch.channels_last)
    folder = tmp_path_factory.mktemp("exported")
    return network, export_onnx(network, folder / "backbone.onnx", 32, 48, weights_sha256=SHA256)


@pytest.fixture
def run(exported: tuple[HybridBackbone, Path]) -> Callable[[Tensor], Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(exported[1], options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])


def relative_difference(network: HybridBackbone, run: Callable[[Tensor], Tensor], images: Tensor) -> float:
    with torch.inference_mode():
        expected = network(images)
    got = run(images)
    assert got.shape == expected.shape
    return float((expected - got).abs().max() / expected.abs().max())


def test_features_are_those_of_torch_at_any_size(
    exported: tuple[HybridBackbone, Path], run: Callable[[Tensor], Tensor]
) -> None:
    for size in SIZES:
        batch, height, width = size
        images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
        assert relative_difference(exported[0], run, images) <= 1e-3, size


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_features_are_those_of_torch_without_contrast(
    exported: tuple[HybridBackbone, Path], run: Callable[[Tensor], Tensor], level: float
) -> None:
    """An even picture with one faint step: the spread that the image is divided by is next to nothing."""
    images = torch.full((1, 3, 64, 64), level)
    images[:, :, 20:30, 20:30] += 0.004
    assert relative_difference(exported[0], run, images.clamp(0, 1)) <= 1e-3


def test_one_valid_file_says_what_it_is(exported: tuple[HybridBackbone, Path]) -> None:
    network, path = exported
    assert list(path.parent.iterdir()) == [path]
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    said = {item.key: item.value for item in model.metadata_props}
    assert said["name"] == onnx_export.NAME
    assert said["weights_sha256"] == SHA256
    assert Architecture(**json.loads(said["architecture"])) == network.architecture


def test_axes_are_named_and_free(exported: tuple[HybridBackbone, Path]) -> None:
    session = onnxruntime.InferenceSession(exported[1], providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(float)", ["batch", 3, "height", "width"])
    dimension = exported[0].architecture.dimension
    assert (given.name, given.type) == ("features", "tensor(float)")
    assert given.shape == ["batch", dimension, "height/8", "width/8"]


def test_nothing_of_this_machine_is_in_the_file(exported: tuple[HybridBackbone, Path]) -> None:
    assert str(Path(onnx_export.__file__).parent).encode() not in exported[1].read_bytes()


def test_the_network_is_left_as_it_was(exported: tuple[HybridBackbone, Path]) -> None:
    network, _ = exported
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    same = random_network(network.architecture)
    assert all(torch.equal(p, same.state_dict()[name]) for name, p in network.state_dict().items())


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=rf"\b{missing}\b.*pip install explainvad\[onnx\]"):
        export_onnx(random_network(SMALL), tmp_path / "backbone.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("height", "width"), [(0, 256), (256, 250), (-16, 16)])
def test_a_size_off_the_grid_is_refused(tmp_path: Path, height: int, width: int) -> None:
    with pytest.raises(UsageError, match=rf"multiples of 16 px, got {height} x {width}"):
        export_onnx(random_network(SMALL), tmp_path / "backbone.onnx", height, width)


@pytest.mark.parametrize("exported", [SMALL], ids=["small"], indirect=True)
def test_a_file_that_computes_something_else_is_refused(
    exported: tuple[HybridBackbone, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_convert", lambda network: onnx.load(exported[1]))
    path = tmp_path / "backbone.onnx"
    path.write_bytes(b"the old file")
    with pytest.raises(IntegrityError, match=r"at most 0\.001, got"):
        export_onnx(random_network(SMALL, seed=1), path, 32, 32)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"the old file"]


@pytest.mark.parametrize("exported", [SMALL], ids=["small"], indirect=True)
def test_a_path_that_cannot_be_written(
    exported: tuple[HybridBackbone, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_convert", lambda network: onnx.load(exported[1]))
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(StorageError, match="could not be written"):
        export_onnx(exported[0], tmp_path / "folder.onnx", 32, 32)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.onnx"]
