"""The networks of EfficientAD: what an output describes, and their disagreement and loss by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from small_networks import make_small
from torch import nn

from explainvad.detection.distillation import pdn
from explainvad.detection.distillation.pdn import AutoEncoder, Networks, PatchDescription, described, standardised


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make_small(monkeypatch)
    torch.manual_seed(0)
    yield


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_networks_are_as_large_as_the_papers() -> None:
    with torch.device("meta"):
        small, medium = PatchDescription("small", 384), PatchDescription("medium", 384)
        students = PatchDescription("small", 768), PatchDescription("medium", 768)
        autoencoder = AutoEncoder(384)
    assert parameters(small) == 6_272 + 524_544 + 590_080 + 1_573_248
    assert parameters(medium) == 12_544 + 2_097_664 + 262_656 + 2_359_808 + 3_146_112 + 147_840
    assert parameters(students[0]) - parameters(small) == 256 * 384 * 16 + 384
    assert parameters(students[1]) - parameters(medium) == 512 * 384 * 16 + 384 + 768 * 769 - 384 * 385
    encoder = 3 * 32 * 16 + 32 * 32 * 16 + 32 * 64 * 16 + 2 * 64 * 64 * 16 + 64 * 64 * 64 + 2 * 32 + 4 * 64
    assert parameters(autoencoder) == encoder + 6 * (64 * 64 * 16 + 64) + 64 * 64 * 9 + 64 + 64 * 384 * 9 + 384
    assert [name for name, _ in small.named_parameters()] == [
        f"conv{i}.{kind}" for i in (1, 2, 3, 4) for kind in ("weight", "bias")
    ]
    assert sum(name.startswith("relu") for name, _ in medium.named_children()) == 5
    assert not list(medium.children())[-1].__class__.__name__.startswith("ReLU")


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize(("row", "col"), [(0, 0), (2, 5), (5, 9)])
def test_an_output_describes_33_pixels_and_no_others(size: str, row: int, col: int) -> None:
    network = PatchDescription(size, 6)
    for p in network.parameters():  # so that no path is cut off by chance
        nn.init.uniform_(p, 0.1, 1)
    pixels = torch.rand(1, 3, 56, 72, requires_grad=True)
    answer = network(pixels + 1)
    assert answer.shape == (1, 6, *described(56, 72)) == (1, 6, 6, 10)
    answer[0, :, row, col].sum().backward()
    assert pixels.grad is not None
    seen = torch.nonzero(pixels.grad[0].abs().sum(0))
    assert seen.amin(0).tolist() == [4 * row, 4 * col] and seen.amax(0).tolist() == [4 * row + 32, 4 * col + 32]
    assert len(seen) == 33 * 33


def test_pixels_are_standardised_over_imagenet() -> None:
    pixels = torch.tensor([0.485, 0.456 + 0.224, 0.0])[None, :, None, None]
    assert standardised(pixels).flatten().tolist() == pytest.approx([0, 1, -0.406 / 0.225], abs=1e-6)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(("height", "width"), [(256, 256), (64, 64), (64, 100), (300, 260)])
def test_the_autoencoder_describes_a_frame_of_any_size_through_few_numbers(height: int, width: int) -> None:
    network, frame = AutoEncoder(6).eval(), torch.rand(2, 3, height, width)
    latent = network.encode(frame)
    assert latent.shape == (2, pdn.LATENT, 1, 1)
    answer = network(frame)
    assert answer.shape == (2, 6, *described(height, width))
    torch.testing.assert_close(answer, network.decode(latent, described(height, width)))
    square = F.interpolate(frame, size=(256, 256), mode="bilinear", antialias=True)
    torch.testing.assert_close(latent, network.encode(square), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(latent[0], latent[1])


# --- Together


def by_hand(networks: Networks, frame: torch.Tensor, relit: torch.Tensor) -> dict[str, torch.Tensor]:
    """Squared errors of each kind on a whole frame."""
    teacher, student = networks.teacher(frame), networks.student(frame)
    taught, also = networks.teacher(relit), networks.student(relit)[:, 6:]
    expected = networks.autoencoder(relit)
    return {
        "student": (teacher - student[:, :6]) ** 2,
        "autoencoder": (taught - expected) ** 2,
        "both": (expected - also) ** 2,
    }


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("with_other", [False, True])
def test_the_loss_is_that_of_the_paper(with_other: bool) -> None:
    networks = Networks("small", 6).eval()
    frame, relit, other = torch.rand(1, 3, 64, 80), torch.rand(1, 3, 64, 80), torch.rand(1, 3, 40, 40)
    whole = (slice(0, 64), slice(0, 80)), (slice(0, 8), slice(0, 12))
    found = networks.loss(frame, relit, *whole, other if with_other else None)
    errors = by_hand(networks, frame, relit)
    hard = errors["student"][errors["student"] >= torch.quantile(errors["student"], 0.999)]
    assert len(hard) == 1  # of 576
    expected = hard.mean() + errors["autoencoder"].mean() + errors["both"].mean()
    if with_other:
        expected = expected + networks.student(other)[:, :6].square().mean()
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("_small")
def test_only_the_hardest_thousandth_of_the_errors_counts() -> None:
    networks = Networks("small", 6).eval()
    frame = torch.rand(1, 3, 160, 160)  # 32 x 32 x 6 errors
    whole = (slice(0, 160), slice(0, 160)), (slice(0, 32), slice(0, 32))
    errors = by_hand(networks, frame, frame)
    hard = errors["student"][errors["student"] >= torch.quantile(errors["student"], 0.999)]
    assert len(hard) == 7
    rest = errors["autoencoder"].mean() + errors["both"].mean()
    torch.testing.assert_close(networks.loss(frame, frame, *whole), hard.mean() + rest)


@pytest.mark.usefixtures("_small")
def test_the_loss_of_a_crop_is_about_its_own_descriptions() -> None:
    networks = Networks("small", 6).eval()
    frame, relit = torch.rand(2, 1, 3, 64, 80)
    crop = (slice(8, 56), slice(20, 68)), (slice(2, 6), slice(5, 9))
    errors = {kind: error[..., 2:6, 5:9] for kind, error in by_hand(networks, frame, relit).items()}
    expected = errors["student"].max() + errors["autoencoder"].mean() + errors["both"].mean()
    torch.testing.assert_close(networks.loss(frame, relit, *crop), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_small")
def test_the_teacher_does_not_learn() -> None:
    networks = Networks("small", 6)
    frame = torch.rand(1, 3, 64, 64)
    networks.loss(frame, frame, (slice(0, 64), slice(0, 64)), (slice(0, 8), slice(0, 8))).backward()
    learning = {name.partition(".")[0] for name, p in networks.named_parameters() if p.grad is not None}
    assert learning == {"student", "autoencoder"}


@pytest.mark.usefixtures("_small")
@torch.no_grad()
def test_disagreement_is_the_mean_square_over_channels() -> None:
    networks, frame = Networks("medium", 6).eval(), torch.rand(1, 3, 64, 80)
    maps, sampled = networks.disagreement(frame)
    errors = by_hand(networks, frame, frame)
    assert maps.shape == (2, 8, 12) and sampled.shape == (0, 8, 12)
    torch.testing.assert_close(maps, torch.cat([errors["student"].mean(1), errors["both"].mean(1)]))


@pytest.mark.usefixtures("_small")
@torch.no_grad()
def test_passes_leave_dropout_on_for_themselves_alone() -> None:
    networks, frame = Networks("small", 6).eval(), torch.rand(1, 3, 64, 64)
    before, plain = torch.get_rng_state(), networks.disagreement(frame)[0]
    maps, sampled = networks.disagreement(frame, passes=3)
    assert torch.equal(maps, plain) and torch.equal(torch.get_rng_state(), before)
    assert sampled.shape == (3, 8, 8) and len({float(m.sum()) for m in sampled}) == 3
    assert torch.equal(networks.disagreement(frame, passes=3)[1], sampled)
    assert not networks.autoencoder.dropout.training
    assert not torch.allclose(sampled[0], maps[1])
