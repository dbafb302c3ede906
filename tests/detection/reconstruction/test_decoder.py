"""The decoder by hand: linear attention, distances of groups, passes with dropout, and the loose loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.reconstruction.decoder import (
    FeatureDecoder,
    LinearAttention,
    loose_loss,
    mc_dropout,
)
from explainvad.detection.transformer import Block

GROUPS, WIDTH = (6, 4), 16


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def build(dropout: float = 0.3) -> FeatureDecoder:
    torch.manual_seed(0)
    return FeatureDecoder(GROUPS, WIDTH, depth=2, heads=2, dropout=dropout).eval()


# --- Attention


@pytest.mark.parametrize("heads", [1, 2, 4])
@torch.inference_mode()
def test_linear_attention_is_its_quadratic_formula(heads: int) -> None:
    attention, x = LinearAttention(16, heads), 3 * torch.randn(2, 7, 16)
    query, key, value = (
        part.reshape(2, 7, heads, 16 // heads).transpose(1, 2) for part in attention.query_key_value(x).chunk(3, dim=2)
    )
    similarity = (F.elu(query) + 1) @ (F.elu(key) + 1).transpose(2, 3)  # of every token to every other
    weight = similarity / similarity.sum(3, keepdim=True)
    expected = attention.project((weight @ value).transpose(1, 2).reshape(2, 7, 16))
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_linear_attention_does_not_notice_how_often_an_image_is_repeated() -> None:
    attention, x = LinearAttention(16, 2), torch.randn(1, 5, 16)
    many = attention(x.repeat(1, 400, 1))
    torch.testing.assert_close(many[:, :5], attention(x), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_block_adds_to_what_it_was_given() -> None:
    block, x = Block(16, 2, LinearAttention), torch.randn(2, 6, 16)
    middle = x + block.attention(block.norm_attention(x))
    torch.testing.assert_close(block(x), middle + block.mlp(block.norm_mlp(middle)))


# --- The decoder


@torch.inference_mode()
def test_distances_are_those_of_each_group_from_its_reconstruction() -> None:
    decoder, features, position = build(), torch.randn(2, 5, 10), torch.randn(2, 5, WIDTH)
    distance = decoder(features, position)
    assert distance.shape == (2, 5, len(GROUPS))
    x = decoder.bottleneck(features) + position
    for block in decoder.blocks:
        x = block(x)
    predicted = decoder.head(decoder.norm(x))
    for group, part in enumerate((slice(0, 6), slice(6, 10))):
        p, t = predicted[..., part], features[..., part]
        cosine = (p * t).sum(2) / (p.norm(dim=2) * t.norm(dim=2))
        torch.testing.assert_close(distance[..., group], 1 - cosine, atol=1e-5, rtol=0)
    assert distance.min() >= 0 and distance.max() <= 2


@torch.inference_mode()
def test_a_perfect_reconstruction_has_distance_0_and_its_opposite_2() -> None:
    decoder, position = build(), torch.zeros(3, WIDTH)
    decoder.head.weight.zero_()
    decoder.head.bias.copy_(torch.arange(1.0, 11))
    features = torch.arange(1.0, 11).repeat(1, 3, 1)
    features[0, 1] *= 7  # length does not matter
    features[0, 2, 6:] *= -1
    expected = torch.tensor([[[0.0, 0], [0, 0], [0, 2]]])
    torch.testing.assert_close(decoder(features, position), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_place_of_a_token_is_in_its_code_alone() -> None:
    decoder, features, position = build(), torch.randn(1, 9, 10), torch.randn(9, WIDTH)
    order = torch.randperm(9)
    distance = decoder(features, position)
    torch.testing.assert_close(decoder(features[:, order], position[order]), distance[:, order], atol=1e-5, rtol=0)
    assert (decoder(features[:, order], position) - distance[:, order]).abs().max() > 1e-3


@torch.inference_mode()
def test_every_token_hears_of_every_other() -> None:
    decoder, features, position = build(), torch.randn(1, 9, 10), torch.randn(9, WIDTH)
    changed = features.clone()
    changed[0, 0] *= -1
    moved = (decoder(changed, position) - decoder(features, position)).abs().amax((0, 2))
    assert moved.min() > 1e-6


@torch.inference_mode()
def test_noise_is_for_training_alone() -> None:
    decoder, features, position = build(), torch.randn(1, 9, 10), torch.randn(9, WIDTH)
    assert torch.equal(decoder(features, position), decoder(features, position))
    decoder.train()
    assert not torch.equal(decoder(features, position), decoder(features, position))
    silent = build(dropout=0.0).train()
    assert torch.equal(silent(features, position), silent(features, position))


def test_every_parameter_learns() -> None:
    decoder = build()
    decoder(torch.randn(2, 5, 10), torch.randn(5, WIDTH)).sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


# --- Passes with dropout left on


@torch.inference_mode()
def test_passes_with_dropout_are_those_of_torch_uncertainty() -> None:
    methods = pytest.importorskip("torch_uncertainty.methods")

    class Placed(nn.Module):
        """The decoder as a model of features alone."""

        def __init__(self, decoder: FeatureDecoder, position: Tensor) -> None:
            super().__init__()
            self.decoder, self.position = decoder, position

        def forward(self, features: Tensor) -> Tensor:
            return self.decoder(features, self.position)

    features, position = torch.randn(7, 10), torch.randn(7, WIDTH)
    ours = mc_dropout(build(), features, position, members=6, seed=3)
    model = methods.mc_dropout(Placed(build(), position), num_estimators=6).eval()
    torch.manual_seed(3)
    theirs = model(features[None])
    assert ours.shape == (6, 7, len(GROUPS))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert (ours - ours[0]).abs().amax((1, 2))[1:].min() > 1e-3  # every pass has masks of its own


@torch.inference_mode()
def test_passes_vary_about_the_distance_without_dropout() -> None:
    decoder, features, position = build(0.1), torch.randn(7, 10), torch.randn(7, WIDTH)
    passes = mc_dropout(decoder, features, position, members=800)
    exact = decoder(features[None], position)[0]
    # dropout before the last linear layer of the squeeze leaves its mean as it is, and moves what follows but little
    assert (passes.mean(0) - exact).abs().max() < 0.25 * passes.std(0).max()


@torch.inference_mode()
def test_without_dropout_all_passes_agree() -> None:
    decoder, features, position = build(dropout=0.0), torch.randn(7, 10), torch.randn(7, WIDTH)
    passes = mc_dropout(decoder, features, position, members=3)
    torch.testing.assert_close(passes, decoder(features[None], position).expand(3, -1, -1), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_what_was_asked_before_does_not_change_an_answer() -> None:
    decoder, position = build(), torch.randn(7, WIDTH)
    images = torch.randn(3, 7, 10)
    alone = [mc_dropout(decoder, image, position, members=4) for image in images]
    torch.rand(5)
    for i in (2, 0, 1, 1):
        assert torch.equal(mc_dropout(decoder, images[i], position, members=4), alone[i])
    other = mc_dropout(decoder, images[0], position, members=4, seed=1)
    assert not torch.equal(other, alone[0])


@torch.inference_mode()
@pytest.mark.parametrize("raises", [False, True])
def test_the_decoder_is_silent_again_and_random_numbers_are_given_back(
    raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, features, position = build(), torch.randn(7, 10), torch.randn(7, WIDTH)
    seen: list[list[bool]] = []

    def watched(*given: Tensor) -> Tensor:
        seen.append([module.training for module in decoder.modules() if isinstance(module, nn.Dropout)])
        torch.rand(3)
        if raises:
            raise MemoryError
        return torch.zeros(2, 7, 2)

    monkeypatch.setattr(decoder, "forward", watched)
    state = torch.get_rng_state()
    if raises:
        with pytest.raises(MemoryError):
            mc_dropout(decoder, features, position, members=2)
    else:
        mc_dropout(decoder, features, position, members=2)
    assert seen == [[True]]
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in decoder.modules())


@torch.inference_mode()
def test_only_dropout_is_left_on() -> None:
    decoder = build()
    decoder.norm = nn.BatchNorm1d(7).eval()  # in training it would move its averages
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    mc_dropout(decoder, torch.randn(7, 10), torch.randn(7, WIDTH), members=4)
    assert all(torch.equal(before[name], value) for name, value in decoder.state_dict().items())


# --- The loss


def test_the_loose_loss_by_hand() -> None:
    distance = torch.tensor([[0.4, 0.1], [0.2, 0.3]])
    assert loose_loss(distance, 0.0).item() == pytest.approx(0.25)  # all alike
    assert loose_loss(distance, 0.5).item() == pytest.approx((0.4 + 0.3 + 0.1 * (0.1 + 0.2)) / 4)
    assert loose_loss(distance, 0.5, easy_weight=0.0).item() == pytest.approx((0.4 + 0.3) / 4)
    assert loose_loss(distance, 1.0).item() == pytest.approx((0.4 + 0.1 * 0.6) / 4)  # the worst is never easy


def test_the_gradient_of_an_easy_point_is_smaller_but_there() -> None:
    distance = torch.tensor([0.4, 0.1, 0.2, 0.3], requires_grad=True)
    loose_loss(distance, 0.5).backward()
    assert distance.grad is not None
    assert distance.grad.tolist() == pytest.approx([0.25, 0.025, 0.025, 0.25])
