"""The backbone that ships: its weights, its features on windows of any image, and what a bundle keeps of it."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest
import safetensors.numpy
import torch
import torch.nn.functional as F  # noqa: N812
from patterned import normal_pictures, pattern, picture, random_backbone
from torch import Tensor, nn

from explainvad.detection.backbone import embedded
from explainvad.detection.backbone.embedded import EmbeddedBackbone, describe_shipped, load_shipped, network_from
from explainvad.detection.backbone.network import STRIDE, Architecture, HybridBackbone
from explainvad.errors import IntegrityError

FOLDER = files("explainvad.detection.backbone")


def shipped_bytes() -> bytes:
    return FOLDER.joinpath(f"{embedded.NAME}.safetensors").read_bytes()


class Local(nn.Module):
    """Stands in for the network: detail is a cell's mean colour, features are its direction."""

    architecture = Architecture(width=3, dimension=3)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def levels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(tuple(images.shape))
        cells = F.avg_pool2d(images, STRIDE)
        return cells, F.normalize(cells, dim=1)


# --- What ships


def test_shipped_weights_are_those_of_their_manifest() -> None:
    network, manifest = load_shipped()
    assert network.architecture == Architecture(**manifest["architecture"])
    assert not network.training
    state = safetensors.numpy.load(shipped_bytes())
    assert state.keys() == network.state_dict().keys()
    for name, array in state.items():
        assert array.dtype == np.float16, name
        assert np.isfinite(array).all(), name
        assert np.array_equal(network.state_dict()[name].numpy(), array.astype(np.float32)), name


def test_shipped_weights_are_small_and_what_is_said_of_them_names_their_training() -> None:
    assert len(shipped_bytes()) < 8_000_000
    manifest = json.loads(FOLDER.joinpath(f"{embedded.NAME}.json").read_text("utf-8"))
    said = describe_shipped(manifest | {"training": {"steps": 12345, "seed": 6}})
    assert "12,345 steps, seed 6" in said and "generated images only" in said
    assert manifest["sha256"][:16] in said
    assert EmbeddedBackbone.shipped(64).weights == describe_shipped(manifest)


def test_trained_features_tell_places_apart(shipped: EmbeddedBackbone) -> None:
    features = shipped.features(normal_pictures(1)[0]).flatten(1).T
    assert torch.pdist(features).max() > 0.1


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_altered_weights_are_refused_with_the_remedy(place: int) -> None:
    manifest = json.loads(FOLDER.joinpath(f"{embedded.NAME}.json").read_text("utf-8"))
    altered = bytearray(shipped_bytes())
    altered[place] ^= 1
    with pytest.raises(IntegrityError, match=rf"{manifest['sha256'][:16]}.*install the package again"):
        network_from(bytes(altered), manifest)
    with pytest.raises(IntegrityError, match="got e3b0c44298fc1c14"):  # sha256 of nothing
        network_from(b"", manifest)


# --- Features


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [
        (64, 64, (8, 8)),
        (40, 64, (4, 8)),  # 40 lies between 32 and 48, and goes to the even number of patches
        (100, 70, (8, 6)),  # reduced to 64 x 45
        (16, 16, (4, 4)),  # enlarged to two patches of 16 px
        (16, 64, (2, 8)),
        (400, 300, (12, 10)),  # reduced fourfold, no further
    ],
)
def test_a_feature_is_a_unit_vector_for_every_8_pixels_of_the_working_frame(
    height: int, width: int, grid: tuple[int, int]
) -> None:
    backbone, image = random_backbone(), picture(pattern(0, height, width))
    detail, features = backbone.levels(image)
    assert backbone.working_frame(image).shape == (3, grid[0] * STRIDE, grid[1] * STRIDE)
    assert features.shape == (24, *grid) and detail.shape == (16, *grid)
    assert features.dtype == detail.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=0), torch.ones(grid))


def test_a_frame_within_a_window_goes_through_the_network_as_it_is() -> None:
    backbone, image = random_backbone(), picture(pattern(0, 48, 64))
    with torch.inference_mode():
        detail, features = backbone.network.levels(backbone.working_frame(image)[None].float() / 255)
    ours = backbone.levels(image)
    torch.testing.assert_close(ours[0], detail[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[1], features[0], atol=1e-6, rtol=0)
    assert torch.equal(backbone.features(image), ours[1])


def test_the_backbone_is_frozen() -> None:
    backbone = random_backbone()
    assert not any(p.requires_grad for p in backbone.network.parameters())
    assert not backbone.network.training
    assert not backbone.features(normal_pictures(1)[0]).requires_grad


def test_levels_are_computed_once_for_an_image() -> None:
    network = Local()
    backbone = EmbeddedBackbone(network, 64, "none")  # type: ignore[arg-type]
    one, other = normal_pictures(2)
    first = backbone.levels(one)
    assert backbone.levels(one) is first and torch.equal(backbone.features(one), first[1])
    assert network.seen == [(1, 3, 64, 64)]
    assert not torch.equal(backbone.features(other), first[1])
    assert torch.equal(backbone.features(one), first[1])
    assert len(network.seen) == 3  # the last image's answer alone is kept
    backbone.features(normal_pictures(1)[0])  # the same pixels, but another image
    assert len(network.seen) == 4


# --- Windows


def test_blended_windows_give_back_what_each_of_them_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "WINDOW", 48)
    network = Local()
    backbone = EmbeddedBackbone(network, 160, "none")  # type: ignore[arg-type]
    image = picture(pattern(0, 112, 160))
    detail, features = backbone.levels(image)
    assert len(network.seen) > 4 and set(network.seen) == {(1, 3, 48, 48)}
    colours = F.avg_pool2d(backbone.working_frame(image).float() / 255, STRIDE)
    torch.testing.assert_close(detail, colours, atol=1e-5, rtol=0)
    torch.testing.assert_close(features, F.normalize(colours, dim=0), atol=1e-5, rtol=0)


def test_a_large_frame_has_about_the_features_of_an_unwindowed_one(
    shipped: EmbeddedBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = EmbeddedBackbone(shipped.network, 256, "shipped")
    pixels = pattern(0, 128, 256)
    whole = backbone.features(picture(pixels))
    monkeypatch.setattr(embedded, "WINDOW", 128)
    windowed = backbone.features(picture(pixels))
    assert windowed.shape == whole.shape == (shipped.network.architecture.dimension, 16, 32)
    torch.testing.assert_close(windowed.norm(dim=0), torch.ones(16, 32))
    assert not torch.equal(windowed, whole)  # each window has statistics and attention of its own
    middle = slice(4, -4)
    similarity = (windowed * whole).sum(0)[middle, middle]
    elsewhere = (whole * whole.roll(5, dims=2)).sum(0)[middle, middle]
    assert similarity.min() > 0.9
    assert similarity.mean() > elsewhere.mean()


# --- At rest


def through_bytes(backbone: EmbeddedBackbone) -> EmbeddedBackbone:
    """As a bundle keeps it."""
    arrays, settings = backbone.state()
    loaded = safetensors.numpy.load(safetensors.numpy.save(arrays))
    return EmbeddedBackbone.restore(loaded, json.loads(json.dumps(settings)), "cpu")


def test_a_restored_backbone_gives_identical_features() -> None:
    backbone = EmbeddedBackbone(random_backbone(3).network, 80, "random", {"adaptation": "none"})
    restored = through_bytes(backbone)
    for image in (normal_pictures(1)[0], picture(pattern(1, 90, 100))):
        for ours, theirs in zip(backbone.levels(image), restored.levels(image), strict=True):
            assert torch.equal(ours, theirs)
    assert (restored.resolution, restored.weights, restored.facts) == (80, "random", {"adaptation": "none"})
    assert restored.network.architecture == backbone.network.architecture


def test_weights_are_held_in_half_precision_and_lose_nothing_by_it() -> None:
    torch.manual_seed(0)
    network = HybridBackbone(random_backbone().network.architecture)
    exact = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    backbone = EmbeddedBackbone(network, 64, "random")
    restored = through_bytes(backbone).network.state_dict()
    arrays, _ = backbone.state()
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
    for name, tensor in backbone.network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, exact[name].half().float()), name
        assert torch.equal(tensor, restored[name]), name


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_weights_that_do_not_fit_are_refused(change: str) -> None:
    arrays, settings = random_backbone().state()
    if change == "missing":
        arrays.pop("head.weight")
    else:
        arrays["another.weight"] = np.zeros(3, dtype=np.float16)
    with pytest.raises(RuntimeError, match=r"Missing key|Unexpected key"):
        EmbeddedBackbone.restore(arrays, settings, "cpu")
