"""The U-Net as autoencoder: with skips it has a way around its bottleneck, without them it has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from patterned import pattern, picture
from pixel_checks import depends_on_the_seed_alone, finds_the_square_and_comes_back

from explainvad.detection.backbones import Backbones
from explainvad.detection.reconstruction.unet import UNet, UNetAutoencoder, UNetOptions


def scorer(backbones: Backbones, **options: Any) -> UNetAutoencoder:
    tiny = {"resolution": 64, "side": 64, "steps": 6, "batch": 4, "channels": 4, "depth": 3, "learning_rate": 5e-3}
    return UNetAutoencoder(UNetOptions(**tiny | options), backbones)


@pytest.mark.parametrize("skips", [True, False])
def test_detail_passes_around_the_bottleneck_by_skips_alone(skips: bool) -> None:
    torch.manual_seed(0)
    network = UNet(4, 3, skips).eval()
    silent = torch.zeros(1, 32, 4, 6)
    network.bottleneck.register_forward_hook(lambda module, seen, made: silent)
    with torch.inference_mode():
        one, other = (network(torch.rand(1, 3, 32, 48)) for _ in range(2))
    assert one.shape == (1, 3, 32, 48)
    assert torch.equal(one, other) != skips


def test_every_halving_doubles_the_channels() -> None:
    network = UNet(4, 2, True)
    seen = {}
    for name, part in (("fine", network.down[0]), ("coarse", network.down[1]), ("deep", network.bottleneck)):
        part.register_forward_hook(lambda m, x, made, name=name: seen.update({name: tuple(made.shape)}))
    network.eval()(torch.zeros(1, 3, 8, 12))
    assert seen == {"fine": (1, 4, 8, 12), "coarse": (1, 8, 4, 6), "deep": (1, 16, 2, 3)}


def test_it_learns_a_constant_picture(backbones: Backbones) -> None:
    image = picture(np.full((32, 32, 3), (60, 120, 200), np.uint8))
    untrained, one = (scorer(backbones, resolution=32, side=32, depth=2, steps=n, usual=False) for n in (1, 60))
    before, after = [], []
    for each, values in ((untrained, before), (one, after)):
        each.fit([image], 0)
        (score,) = each.score([image])
        values += [score.anomaly_map.mean(), np.abs(score.evidence["rebuilt"].astype(int) - (60, 120, 200)).mean()]
    assert after[0] < 0.15 * before[0] and after[1] < 0.4 * before[1]


@pytest.mark.parametrize(("height", "width", "depth"), [(40, 90, 3), (9, 23, 2), (131, 70, 4), (64, 64, 1)])
def test_any_size_is_scored_in_its_own_frame(height: int, width: int, depth: int, backbones: Backbones) -> None:
    one = scorer(backbones, depth=depth, steps=2)
    one.fit([picture(pattern(0, height, width))], 0)
    (score,) = one.score([picture(pattern(1, height, width))])
    assert one.stride == 2**depth
    assert not any(side % one.stride for side in score.evidence["rebuilt"].shape[:2])
    assert score.anomaly_map.shape == (height, width) and not score.members.size


def test_without_skips_a_planted_square_stands_out_and_the_state_is_all(backbones: Backbones) -> None:
    finds_the_square_and_comes_back(lambda: scorer(backbones, steps=40, skips=False), 2)


def test_the_same_seed_gives_the_same_network(backbones: Backbones) -> None:
    depends_on_the_seed_alone(lambda: scorer(backbones, steps=3), "head.weight")
