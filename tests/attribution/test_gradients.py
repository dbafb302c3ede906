"""captum on a scorer's number: formulas that a hand can compute, and completeness."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from explainvad.attribution.gradients import ends, integrated_gradients, layer_grad_cam, occlusion
from explainvad.errors import NotExplainableError
from explainvad.types import PixelFunction

SIZE = (16, 24)


def function(value: Any, frame: Tensor | None = None, **more: Any) -> PixelFunction:
    generator = torch.Generator().manual_seed(0)
    frame = torch.rand(3, *SIZE, generator=generator) if frame is None else frame
    baseline = torch.rand(3, *SIZE, generator=generator)
    whole = slice(0, SIZE[0]), slice(0, SIZE[1])
    return PixelFunction("a number", value, frame, baseline, SIZE, whole, more.pop("network", nn.Identity()), **more)


def test_of_a_linear_function_each_pixel_gets_its_weight_times_its_difference() -> None:
    weight = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(1))
    asked = function(lambda frames: (frames * weight).sum((1, 2, 3)) + 5)
    found = integrated_gradients(asked, steps=4)
    torch.testing.assert_close(found.values, (weight * (asked.frame - asked.baseline)).sum(0), atol=1e-5, rtol=1e-4)
    at = ends(asked)
    assert float(found.values.sum()) == pytest.approx(at["value"] - at["baseline_value"], abs=1e-4)
    assert abs(found.facts["convergence_delta"]) < 1e-4


def test_of_a_curved_function_the_sum_is_complete_up_to_the_delta_that_is_kept() -> None:
    def value(frames: Tensor) -> Tensor:
        return (frames.mean(1)[:, 4:8, 4:8] * 9).sin().pow(3).sum((1, 2))

    few, many = (integrated_gradients(function(value), steps) for steps in (2, 64))
    at = ends(function(value))
    gap = at["value"] - at["baseline_value"]
    for found in (few, many):
        assert float(found.values.sum()) - gap == pytest.approx(found.facts["convergence_delta"], abs=1e-4)
    assert abs(many.facts["convergence_delta"]) < 1e-3 < abs(few.facts["convergence_delta"])
    outside = many.values.clone()
    outside[4:8, 4:8] = 0
    assert not outside.any()


def test_occlusion_is_the_fall_where_the_baseline_shows() -> None:
    asked = function(lambda frames: frames[:, 0, 2, 19])  # one pixel of one channel
    found = occlusion(asked, windows=4)
    fall = float(asked.frame[0, 2, 19] - asked.baseline[0, 2, 19])
    expected = torch.zeros(SIZE)
    expected[0:4, 16:20] = fall  # squares of 4 px, without overlap
    torch.testing.assert_close(found.values, expected)
    assert found.facts["square_px"] == 4


def test_grad_cam_weighs_channels_by_their_gradient() -> None:
    layer = nn.Conv2d(3, 2, 1, bias=False).requires_grad_(False)
    layer.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[..., None, None]
    weight = torch.tensor([3.0, -1.0])[:, None, None]
    found = layer_grad_cam(function(lambda frames: (layer(frames) * weight).sum((1, 2, 3)), layer=layer))
    frame = function(lambda frames: frames).frame
    torch.testing.assert_close(found.values, (3 * frame[0] - frame[1]).clamp_min(0))


def test_grad_cam_needs_channels_on_a_grid() -> None:
    tokens = nn.Linear(3, 4)

    def value(frames: Tensor) -> Tensor:
        return tokens(frames.flatten(2).transpose(1, 2)).sum((1, 2))

    for layer in (tokens, nn.Linear(1, 1), None):  # of three dimensions, one that does not run, none
        with pytest.raises(NotExplainableError, match="tokens, no maps of channels"):
            layer_grad_cam(function(value, layer=layer))
