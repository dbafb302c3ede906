"""The ONNX file gives the layers of an edge backbone as the scorers see them, and is refused when it does not."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from patterned import pattern, picture
from torch import Tensor, nn

from explainvad.detection import edge_export
from explainvad.detection.backbone.onnx_file import write_checked
from explainvad.detection.backbones import FINAL, FrozenBackbone
from explainvad.detection.edge_export import export_layers
from explainvad.detection.frames import resized
from explainvad.detection.weights import Weights
from explainvad.errors import IntegrityError, StorageError, UsageError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
TINY_VIT = {"embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}


def weights_of(architecture: str, arguments: dict[str, Any], seed: int = 0) -> Weights:
    config = {"architecture": architecture, "model_args": arguments}
    return Weights(f"tiny-{architecture}", "timm", None, config, 32, MEAN, STD, seed=seed)


class Exported(NamedTuple):
    weights: Weights
    layers: Sequence[int]
    size: tuple[int, int]
    path: Path

    def run(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        return session.run(None, {"images": images})  # type: ignore[no-any-return]


CASES = {
    "TinyViT": (weights_of("tiny_vit_5m_224", TINY_VIT), [2, 0], (64, 96)),
    "MobileViT": (weights_of("mobilevit_xxs", {}), [1, 2], (96, 64)),
    "CNN": (weights_of("resnet10t", {}), [1, FINAL], (64, 96)),
}


@pytest.fixture(scope="module", params=["CNN", "MobileViT", pytest.param("TinyViT", marks=pytest.mark.thorough)])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    weights, layers, size = CASES[request.param]
    path = tmp_path_factory.mktemp("exported") / "edge.onnx"
    return Exported(weights, layers, size, export_layers(weights, layers, path, *size))


def test_the_device_sees_what_the_scorers_see(exported: Exported) -> None:
    """From an image's pixels, by the two paths that share nothing but the resizing."""
    image = picture(pattern(3, 2 * exported.size[0], 2 * exported.size[1]))
    backbone = FrozenBackbone(exported.weights.network(), exported.weights, min(exported.size))
    assert backbone.size(image) == exported.size
    frame = resized(image.pixels, exported.size).numpy()[None].astype(np.float32) / 255
    for expected, got in zip(backbone.levels(image, exported.layers), exported.run(frame), strict=True):
        assert got.shape == (1, *expected.shape)
        np.testing.assert_allclose(got[0], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("batch", [1, 5])
def test_images_of_a_batch_do_not_meet(exported: Exported, batch: int) -> None:
    images = np.random.default_rng(0).random((batch, 3, *exported.size), np.float32)
    together = exported.run(images)
    for i in range(batch):
        for got, alone in zip(together, exported.run(images[i : i + 1]), strict=True):
            np.testing.assert_allclose(got[i], alone[0], rtol=1e-4, atol=1e-5 * np.abs(alone).max())


def test_one_valid_file_says_what_it_is(exported: Exported) -> None:
    assert list(exported.path.parent.iterdir()) == [exported.path]
    model = onnx.load(exported.path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    said = {item.key: item.value for item in model.metadata_props}
    assert said["name"] == exported.weights.name
    assert json.loads(said["layers"]) == list(exported.layers)
    assert said["weights"] == exported.weights.describe()
    assert str(Path(edge_export.__file__).parent).encode() not in exported.path.read_bytes()


def test_inputs_and_outputs_have_names_and_sizes(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(float)", ["batch", 3, *exported.size])
    expected = ["final" if layer == FINAL else f"layer_{layer}" for layer in exported.layers]
    assert [given.name for given in session.get_outputs()] == expected
    assert all(given.shape[0] == "batch" for given in session.get_outputs())


@pytest.mark.parametrize(
    ("layers", "size", "message"),
    [
        ([1], (64, 60), "multiples of 32 px, got 64 x 60"),
        ([1], (0, 64), "multiples of 32 px, got 0 x 64"),
        ([], (64, 64), "one layer or more"),
        ([1, 1], (64, 64), r"each once, got \[1, 1\]"),
        ([1, 9], (64, 64), "has layers 0 to 4.*got 9"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, layers: list[int], size: tuple[int, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export_layers(CASES["CNN"][0], layers, tmp_path / "edge.onnx", *size)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"onnxscript.*pip install explainvad\[onnx\]"):
        export_layers(CASES["CNN"][0], [1], tmp_path / "edge.onnx", 64, 64)


@pytest.mark.parametrize("exported", ["CNN"], indirect=True)
def test_a_file_that_computes_something_else_is_refused(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_export, "_convert", lambda *_: onnx.load(exported.path))
    path = tmp_path / "edge.onnx"
    path.write_bytes(b"the old file")
    other = weights_of("resnet10t", {}, seed=1)
    with pytest.raises(IntegrityError, match=r"at most 0\.001, got"):
        export_layers(other, exported.layers, path, *exported.size)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"the old file"]


@pytest.mark.parametrize("exported", ["CNN"], indirect=True)
@pytest.mark.parametrize("factor", [1.0, 1.01, float("nan")])
def test_every_layer_is_compared(exported: Exported, tmp_path: Path, factor: float) -> None:
    class Spoilt(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            first, second = (torch.from_numpy(layer) for layer in exported.run(images.numpy()))
            return first, second * factor

    images, model = torch.rand(2, 3, *exported.size), onnx.load(exported.path)
    if factor == 1:
        written = write_checked(tmp_path / "edge.onnx", model, Spoilt(), images)
        assert written.read_bytes() == model.SerializeToString()
        return
    with pytest.raises(IntegrityError, match=r"at most 0\.001, got"):
        write_checked(tmp_path / "edge.onnx", model, Spoilt(), images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exported", ["CNN"], indirect=True)
def test_a_path_that_cannot_be_written(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_export, "_convert", lambda *_: onnx.load(exported.path))
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(StorageError, match="could not be written"):
        export_layers(exported.weights, exported.layers, tmp_path / "folder.onnx", *exported.size)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.onnx"]
