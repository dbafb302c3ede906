"""Residuals that a hand can compute, and the measure of how far a network copies its input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from explainvad.detection.reconstruction.residuals import absolute, gradient, identity_gap, squared, ssim


def flat(*colour: float, side: int = 9) -> Tensor:
    return torch.tensor(colour)[:, None, None].expand(3, side, side).clone()


def test_squared_and_absolute_are_means_over_the_channels() -> None:
    image, rebuilt = flat(0.5, 0.0, -1.0), flat(0.1, 0.0, 1.0)
    torch.testing.assert_close(squared(image, rebuilt), torch.full((9, 9), (0.16 + 0 + 4) / 3))
    torch.testing.assert_close(absolute(image, rebuilt), torch.full((9, 9), (0.4 + 0 + 2) / 3))


def test_ssim_of_flat_pictures_is_their_luminance_term() -> None:
    # grey levels 0.5 and 1.5 above black, no structure: (2 x y + c1) / (x² + y² + c1), c1 = 0.02²
    expected = (1 - (1.5 + 4e-4) / (2.5 + 4e-4)) / 2
    found = ssim(flat(-0.5, -0.5, -0.5), flat(0.5, 0.5, 0.5))
    torch.testing.assert_close(found, torch.full((9, 9), expected), atol=1e-3, rtol=0)


def test_ssim_is_of_structure() -> None:
    weave = 0.4 * torch.randn(1, 24, 24, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1).clone()
    assert ssim(weave, weave).max() < 1e-4
    brighter, inverted = ssim(weave, weave + 0.1).mean(), ssim(weave, -weave).mean()
    assert brighter < 0.02 and inverted > 0.8
    assert ssim(weave, -weave).min() >= 0 and ssim(weave, -weave).max() <= 1


def test_gradient_sees_edges_whatever_the_brightness() -> None:
    image = flat(0.0, 0.0, 0.0)
    assert gradient(image, flat(0.3, 0.3, 0.3)).abs().max() < 1e-6
    image[:, :, 5:] += 0.6  # a step between the columns 4 and 5: central differences of 0.3 on its sides
    assert gradient(image, image).max() == 0
    expected = torch.zeros(9, 9)
    expected[:, 4:6] = 0.3
    torch.testing.assert_close(gradient(image, flat(0.1, 0.2, 0.3)), expected)
    torch.testing.assert_close(gradient(image.mT, flat(0.1, 0.2, 0.3)), expected.T)


def test_the_identity_gap_by_hand() -> None:
    planted = np.array([[True, False, False, False]])
    before = np.array([[2, 1, 1, 1]], np.float32)  # twice as much as elsewhere
    after = np.array([[12, 2, 2, 2]], np.float32)  # six times
    assert identity_gap(before, after, planted) == pytest.approx(3)
    assert identity_gap(before, before, planted) == 1


def test_the_identity_gap_refuses_deviations() -> None:
    planted = np.array([[True, False]])
    residual, deviation = np.ones((1, 2), np.float32), np.array([[1, -0.5]], np.float32)
    for before, after in ((residual, deviation), (deviation, residual)):
        with pytest.raises(ValueError, match="score with usual=False"):
            identity_gap(before, after, planted)


@pytest.mark.parametrize("covered", [False, True])
def test_the_identity_gap_needs_both_sides(covered: bool) -> None:
    zeros = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=f"a part of the map, got {6 * covered} of 6 px"):
        identity_gap(zeros, zeros, np.full((2, 3), covered))
