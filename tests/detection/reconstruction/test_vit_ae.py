"""The transformer autoencoder: what each remedy against copying cuts off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from patterned import normal_pictures, pattern, picture
from pixel_checks import depends_on_the_seed_alone, finds_the_square_and_comes_back
from torch import nn

from explainvad.detection.backbones import Backbones
from explainvad.detection.reconstruction.mem_ae import entropy
from explainvad.detection.reconstruction.pixels import Crops
from explainvad.detection.reconstruction.vit_ae import BottleneckViT, QueryBlock, ViTAEOptions, ViTAutoencoder
from explainvad.detection.transformer import position_code

TINY = {
    "resolution": 64,
    "side": 64,
    "steps": 4,
    "batch": 4,
    "patch": 8,
    "width": 32,
    "depth": 1,
    "decoder_depth": 1,
    "bottleneck": 8,
    "learning_rate": 5e-3,
}
CODE = position_code(4, 4, (4, 4), (0, 0), 32)[None]
UNMASKED = torch.zeros(1, 16, dtype=torch.bool)


def scorer(backbones: Backbones, **options: Any) -> ViTAutoencoder:
    return ViTAutoencoder(ViTAEOptions(**TINY | options), backbones)


def network(**options: Any) -> BottleneckViT:
    torch.manual_seed(0)
    return BottleneckViT(ViTAEOptions(**TINY | options)).eval().requires_grad_(False)


def depends_on_pixels(made: BottleneckViT) -> bool:
    one, other = (made(torch.rand(1, 3, 32, 32), UNMASKED, CODE)[0] for _ in range(2))
    return not torch.allclose(one, other, atol=1e-6)


def test_everything_passes_through_the_bottleneck() -> None:
    made = network(bottleneck=3)
    widths: list[int] = []
    made.squeeze.register_forward_hook(lambda m, x, z: widths.append(z.shape[2]))
    assert depends_on_pixels(made) and widths == [3, 3]
    made.squeeze.register_forward_hook(lambda m, x, z: torch.zeros_like(z))
    assert not depends_on_pixels(made)


def test_a_masked_patch_is_not_seen() -> None:
    made, pixels = network(), torch.rand(1, 3, 32, 32)
    mask = UNMASKED.clone()
    mask[0, 5] = True
    before = made(pixels, mask, CODE)[0]
    pixels[:, :, 8:16, 8:16] = 0
    assert torch.equal(made(pixels, mask, CODE)[0], before)
    assert not torch.allclose(made(pixels, UNMASKED, CODE)[0], before)
    pixels[:, :, 0:8, 8:16] = 0
    assert not torch.allclose(made(pixels, mask, CODE)[0], before)


def test_a_query_asks_the_tokens_and_nothing_passes_by_itself() -> None:
    made = network(query=True)
    assert depends_on_pixels(made)
    block = made.decoder[0]
    assert isinstance(block, QueryBlock)
    for attention in (block.ask_bottleneck, block.ask_before):
        nn.init.zeros_(attention.out_proj.weight)
        assert depends_on_pixels(made) == (attention is block.ask_bottleneck)


def test_the_second_layer_asks_the_first_one_too() -> None:
    made = network(query=True, decoder_depth=2)
    pixels = torch.rand(1, 3, 32, 32)
    before = made(pixels, UNMASKED, CODE)[0]
    made.decoder[0].register_forward_hook(lambda m, x, out: torch.zeros_like(out))
    assert not torch.allclose(made(pixels, UNMASKED, CODE)[0], before, atol=1e-5)


def test_queries_are_of_their_places() -> None:
    made = network(query=True)
    rebuilt = made(torch.zeros(1, 3, 32, 32), UNMASKED, CODE)[0]
    assert (rebuilt[0, :, :8, :8] - rebuilt[0, :, 24:, 24:]).abs().max() > 1e-3


def test_the_memory_is_all_that_the_decoder_hears_of() -> None:
    made = network(memory=10)
    assert made.memory is not None and depends_on_pixels(made)
    pixels = torch.rand(1, 3, 32, 32)
    weights: list[torch.Tensor] = []
    made.memory.register_forward_hook(lambda m, x, read: weights.append(read[1]))
    penalty = made(pixels, UNMASKED, CODE)[1]
    assert float(penalty) == pytest.approx(2e-4 * float(entropy(weights[0]))) and penalty > 0
    assert weights[0].shape == (1, 16, 10)
    made.memory.items.data[:] = 0.3
    assert not depends_on_pixels(made)
    assert network().memory is None and float(network()(pixels, UNMASKED, CODE)[1]) == 0


def test_without_masks_all_patches_count_and_one_pass_is_enough(backbones: Backbones) -> None:
    one = scorer(backbones, usual=False, sigma=0)
    one.fit(normal_pictures(2), 0)
    pixels = torch.rand(2, 3, 32, 32)
    crops = Crops(pixels, [(0, 0)] * 2, [(32, 32)] * 2)
    rebuilt = one.network(pixels, UNMASKED.expand(2, -1), CODE.expand(2, -1, -1))[0]
    torch.testing.assert_close(
        one.loss(one.network, crops, torch.Generator()), (rebuilt - pixels).square().mean(), rtol=1e-4, atol=1e-6
    )
    (score,) = one.score(normal_pictures(1))
    assert not score.members.size and score.member_maps.shape[0] == 0
    frame = one._pixels(normal_pictures(1)[0]).float() / 127.5 - 1
    seen = one.network(
        frame[None], torch.zeros(1, 64, dtype=torch.bool), position_code(8, 8, (8, 8), (0, 0), 32)[None]
    )[0]
    np.testing.assert_allclose(score.anomaly_map, (seen[0] - frame).square().mean(0), atol=1e-5)


def test_with_masks_a_patch_does_not_vouch_for_itself(backbones: Backbones) -> None:
    one = scorer(backbones, mask_ratio=0.5, rounds=2)
    one.fit(normal_pictures(2), 0)
    frame = one._pixels(normal_pictures(1)[0]).float() / 127.5 - 1
    changed = frame.clone()
    changed[:, 24:32, 40:48] = -frame[:, 24:32, 40:48]
    before, after = (one.rebuild(f)[0] for f in (frame, changed))
    assert before.shape[0] == 2
    assert (after - before)[:, :, 24:32, 40:48].abs().max() == 0
    assert (after - before)[:, :, :24].abs().max() > 0


@pytest.mark.parametrize("options", [{}, {"query": True}, {"memory": 20}, {"mask_ratio": 0.5}])
def test_a_planted_square_stands_out_and_the_state_is_all(options: dict[str, Any], backbones: Backbones) -> None:
    finds_the_square_and_comes_back(lambda: scorer(backbones, steps=60, bottleneck=4, **options), 1.5)


def test_the_same_seed_gives_the_same_network(backbones: Backbones) -> None:
    depends_on_the_seed_alone(lambda: scorer(backbones, query=True, memory=5, mask_ratio=0.25), "embed.weight")


@pytest.mark.parametrize(("height", "width"), [(64, 50), (9, 23), (131, 70)])
def test_any_size_is_scored_in_its_own_frame(height: int, width: int, backbones: Backbones) -> None:
    one = scorer(backbones, side=40, steps=2)
    one.fit([picture(pattern(0, height, width))], 0)
    (score,) = one.score([picture(pattern(1, height, width))])
    assert score.anomaly_map.shape == (height, width)


def test_half_precision_scores_alike(backbones: Backbones) -> None:
    options = {"query": True, "memory": 20}
    one, half = scorer(backbones, **options), scorer(Backbones(backbones.store, bf16=True), **options)
    one.fit(normal_pictures(2), 0)
    half.fit(normal_pictures(2), 0)
    half.load(*one.state())
    (exact,), (rough,) = one.score(normal_pictures(1)), half.score(normal_pictures(1))
    assert rough.value == pytest.approx(exact.value, rel=0.1) and rough.value != exact.value
