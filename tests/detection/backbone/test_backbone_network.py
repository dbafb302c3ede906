"""The hybrid backbone: form and length of its features, what reaches them, and its size."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from explainvad.detection.backbone import network as module
from explainvad.detection.backbone.network import STRIDE, Architecture, HybridBackbone, contrasts, count_macs

TINY = {"stem": 8, "detail": 8, "width": 16, "context": 16, "conv_blocks": 1, "attention_blocks": 1, "heads": 2}
KINDS = {
    "hybrid": Architecture(**TINY, dimension=24),
    "attention only": Architecture(**TINY | {"conv_blocks": 0}, dimension=24),
    "convolution only": Architecture(**TINY | {"attention_blocks": 0}, dimension=24),
    "neither": Architecture(**TINY | {"conv_blocks": 0, "attention_blocks": 0}, dimension=24),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def build(kind: str, seed: int = 0) -> HybridBackbone:
    torch.manual_seed(seed)
    return HybridBackbone(KINDS[kind]).eval()


def parameters(network: HybridBackbone) -> int:
    return sum(p.numel() for p in network.parameters())


def documented(pattern: str) -> float:
    (number,) = re.findall(rf"([\d.]+) {pattern}", str(module.__doc__))
    return float(number)


# --- Form


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(16, 16), (32, 64), (80, 48)])
@torch.inference_mode()
def test_features_are_unit_vectors_for_every_8_pixels(kind: str, size: tuple[int, int]) -> None:
    features = build(kind)(torch.rand(2, 3, *size))
    assert features.shape == (2, 24, size[0] // STRIDE, size[1] // STRIDE)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2, size[0] // STRIDE, size[1] // STRIDE))


@torch.inference_mode()
def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    network, images = build("hybrid"), torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_pictures_of_one_colour_give_finite_features() -> None:
    for level in (0.0, 0.5, 1.0):
        assert build("hybrid")(torch.full((1, 3, 32, 32), level)).isfinite().all()


def test_every_parameter_learns() -> None:
    for kind in KINDS:
        network = build(kind)
        features = network(torch.rand(2, 3, 32, 32))
        (features * torch.randn(features.shape)).sum().backward()
        idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        # softmax does not notice what it adds to all keys alike
        assert [name for name in idle if "key_value.bias" not in name] == [], kind


# --- What reaches a feature


def on_plain(*objects: tuple[int, Tensor], width: int = 512) -> Tensor:
    """A grey picture (1, 3, 32, width) with objects (3, 32, w) at columns."""
    picture = torch.full((1, 3, 32, width), 0.5)
    for column, thing in objects:
        picture[0, :, :, column : column + thing.shape[2]] = thing
    return picture


@torch.inference_mode()
def test_without_attention_nothing_tells_where_something_far_away_lies() -> None:
    # Normalisation takes statistics over the whole image, which do not notice that an object moves
    near, far = torch.rand(3, 32, 32), torch.rand(3, 32, 32)
    here, there = (on_plain((0, near), (column, far)) for column in (208, 352))
    nothing = on_plain((0, near))
    for kind in ("convolution only", "neither"):
        of_here, of_there, of_nothing = (build(kind)(image)[..., :8] for image in (here, there, nothing))
        torch.testing.assert_close(of_here, of_there, atol=1e-5, rtol=0)  # 144 px away and more
        assert (of_here - of_nothing).abs().max() > 1e-3  # that it is there does reach the statistics


@torch.inference_mode()
def test_a_change_far_away_reaches_the_context_through_attention_alone() -> None:
    detail = torch.randn(1, 16, 4, 50)
    changed = detail.clone()
    changed[..., -2:] *= -1
    for kind in KINDS:
        moved = (build(kind)._context(changed) - build(kind)._context(detail)).abs().amax((0, 1, 2))
        attends = KINDS[kind].attention_blocks > 0
        assert moved[:40].min() > 1e-5 if attends else moved[:40].max() == 0, kind
        assert moved[-2:].max() > 0.05, kind


@torch.inference_mode()
def test_features_far_from_a_change_feel_no_more_of_it_than_its_statistics() -> None:
    for kind in KINDS:
        image = torch.rand(1, 3, 32, 400)
        changed = image.clone()
        changed[..., -16:] = 1 - changed[..., -16:]
        difference = (build(kind)(changed) - build(kind)(image)).abs().amax((0, 1, 2))
        assert difference[:20].max() < 0.2 * difference[-2:].max(), kind


@torch.inference_mode()
def test_detail_without_normalisation_is_local() -> None:
    image = torch.rand(1, 3, 32, 400)
    changed = image.clone()
    changed[..., -16:] = 1 - changed[..., -16:]
    (before, _), (after, _) = (build("attention only").levels(picture) for picture in (image, changed))
    assert torch.equal(before[..., :40], after[..., :40])  # 64 px away and more
    assert (before - after)[..., -2:].abs().max() > 0.05


@torch.inference_mode()
def test_convolutional_features_move_with_the_picture() -> None:
    thing = torch.rand(3, 32, 64)
    features, moved = (build("convolution only")(on_plain((column, thing))) for column in (208, 224))
    inner = slice(14, -14)  # cells that do not see the border
    torch.testing.assert_close(moved.roll(-2, dims=3)[..., inner], features[..., inner], atol=1e-5, rtol=0)
    assert (moved - features)[..., 26:34].abs().max() > 0.05


@torch.inference_mode()
def test_features_come_from_the_detail_that_is_given_beside_them() -> None:
    images = torch.rand(2, 3, 32, 48)
    for kind in KINDS:
        detail, features = build(kind).levels(images)
        assert detail.shape == (2, 16, 4, 6), kind
        torch.testing.assert_close(features, build(kind)(images), atol=1e-6, rtol=0)


# --- What the network reads


def test_the_image_is_read_on_minus_1_to_1() -> None:
    images = torch.rand(2, 3, 32, 48)
    read = contrasts(images)
    assert read.shape == (2, 6, 32, 48)
    torch.testing.assert_close(read[:, :3], 2 * images - 1)


def test_deviation_does_not_notice_an_offset() -> None:
    images = 0.3 + 0.2 * torch.rand(1, 3, 48, 48)
    brighter = contrasts(images + 0.4)[:, 3:]
    torch.testing.assert_close(brighter, contrasts(images)[:, 3:], atol=2e-3, rtol=0)
    assert brighter.abs().max() > 1
    assert (contrasts(images + 0.4)[:, :3] - contrasts(images)[:, :3]).min() > 0.7


def test_deviation_hardly_notices_gain_where_contrast_is_strong_and_ignores_faint_noise() -> None:
    images = 0.8 * torch.rand(1, 3, 48, 48)
    strong, half = contrasts(images)[:, 3:], contrasts(images / 2)[:, 3:]
    torch.testing.assert_close(half, strong, atol=0, rtol=0.05)
    faint = contrasts(0.5 + 0.001 * torch.rand(1, 3, 48, 48))[:, 3:]
    assert faint.abs().max() < 0.06  # 0.001 / CONTRAST_FLOOR
    assert contrasts(torch.full((1, 3, 32, 32), 0.25))[:, 3:].abs().max() < 1e-5


def test_deviation_by_hand() -> None:
    # Stripes of 0.2 and 0.6: mean 0.4, deviation 0.2
    images = torch.full((1, 3, 32, 32), 0.2)
    images[..., ::2] = 0.6
    expected = torch.where(images > 0.4, 1.0, -1.0) * 0.2 / (0.2**2 + 0.02**2) ** 0.5
    torch.testing.assert_close(contrasts(images)[:, 3:], expected, atol=1e-4, rtol=0)


# --- Size


def test_the_default_network_is_as_large_as_its_docstring_says() -> None:
    network = HybridBackbone(Architecture())
    assert round(parameters(network) / 1e6, 1) == documented("million parameters")
    gmac = count_macs(network, 256, 256) / 1e9
    assert round(gmac, 1) == documented("GMAC")
    assert 2 * gmac == pytest.approx(documented("GFLOP"), abs=0.1)


def test_operations_by_hand() -> None:
    # 16 x 16 px: 8 x 8, 4 x 4, 2 x 2 and 1 x 1 places after the four convolutions
    convolutions = 64 * 8 * 6 * 25 + 16 * 8 * 8 * 9 + 4 * 16 * 8 * 9 + 1 * 16 * 16 * 9
    linear = 1 * 16 * 16 + 4 * 16 * 24
    assert count_macs(build("neither"), 16, 16) == convolutions + linear
    blocks = 2 * 16 * 8 * 8 * 9 + 2 * 2 * 4 * 16 * 16 * 9  # one at 1/4, and at 1/8 one before and one after the context
    assert count_macs(build("convolution only"), 16, 16) == convolutions + linear + blocks


def test_an_architecture_travels_as_numbers() -> None:
    architecture = KINDS["hybrid"]
    assert Architecture(**architecture.as_dict()) == architecture
    assert all(isinstance(size, int) for size in architecture.as_dict().values())
