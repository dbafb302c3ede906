"""Frames keep the aspect, windows cover everything, and nothing moves or changes a constant."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from explainvad.detection.frames import (
    MAX_REDUCTION,
    blend_weight,
    gaussian_blur,
    smooth_map,
    to_frame,
    to_working,
    top_mean,
    windows,
    working_size,
)

sides = st.integers(1, 6000)
patches = st.sampled_from([4, 8, 14, 16])


@given(sides, sides, st.integers(64, 1024), patches)
def test_working_sides_are_multiples_of_the_patch_with_the_aspect_to_half_a_patch(
    height: int, width: int, resolution: int, patch: int
) -> None:
    rows, cols = working_size(height, width, resolution, patch)
    assert rows % patch == cols % patch == 0
    assert rows >= patch and cols >= patch and max(rows, cols) >= 2 * patch
    scale = min(1.0, max(resolution / max(height, width), 1 / MAX_REDUCTION))
    for side, working in ((height, rows), (width, cols)):
        assert abs(working - side * scale) <= patch / 2 + 1e-9 or working in (patch, 2 * patch)
        assert working <= max(side + patch / 2, 2 * patch)  # never enlarged, but by rounding and to two patches
        assert working + patch / 2 >= side / MAX_REDUCTION


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (300, 400, (192, 256)),  # the longer side is the resolution
        (100, 120, (96, 120)),  # small images stay as they are
        (16, 16, (16, 16)),
        (3, 3, (16, 16)),
        (3000, 4000, (752, 1000)),  # never reduced more than fourfold
        (5, 2000, (8, 496)),
    ],
)
def test_working_size_by_hand(height: int, width: int, size: tuple[int, int]) -> None:
    assert working_size(height, width, resolution=256, patch=8) == size


def test_to_working_keeps_colours_order_and_constants() -> None:
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = 200, 7
    small = to_working(pixels, (16, 24))
    assert small.shape == (3, 16, 24) and small.dtype == torch.uint8
    assert small.flatten(1).unique(dim=1).tolist() == [[200], [7], [0]]
    same = to_working(pixels, (40, 60))
    assert np.array_equal(same.permute(1, 2, 0).numpy(), pixels)
    same.zero_()
    assert pixels.any()  # the image's own pixels are not handed out


def test_to_working_averages_what_it_reduces() -> None:
    lines = np.zeros((64, 64, 3), dtype=np.uint8)
    lines[:, ::4] = 240  # bilinear interpolation alone looks between them and sees nothing
    inner = to_working(lines, (16, 16))[:, 2:-2, 2:-2].float()
    assert abs(inner - 60).max() <= 8


@given(st.integers(1, 160), st.integers(1, 160), st.integers(4, 48), patches)
def test_windows_cover_everything_on_patch_borders(rows: int, cols: int, side: int, patch: int) -> None:
    seen = np.zeros((rows, cols), dtype=int)
    shapes = set()
    for y, x in windows(rows * patch, cols * patch, side * patch, patch):
        assert all(edge % patch == 0 for edge in (y.start, y.stop, x.start, x.stop))
        assert 0 <= y.start < y.stop <= rows * patch and 0 <= x.start < x.stop <= cols * patch
        seen[y.start // patch : y.stop // patch, x.start // patch : x.stop // patch] += 1
        shapes.add((y.stop - y.start, x.stop - x.start))
    assert seen.min() >= 1
    assert shapes == {(min(rows, side) * patch, min(cols, side) * patch)}


@given(st.integers(1, 400), st.integers(8, 48))
def test_windows_overlap_by_a_quarter_to_the_patch(length: int, side: int) -> None:
    starts = [x.start // 8 for _, x in windows(8, length * 8, side * 8, 8)]
    assert all(b - a <= 0.75 * side + 1 for a, b in pairwise(starts))
    assert len(starts) <= 1 + np.ceil(max(0, length - side) / (0.75 * side))


def test_blend_weights_fall_towards_the_border_and_stay_positive() -> None:
    weight = blend_weight(40, 80)
    assert weight.shape == (40, 80)
    assert weight.min() > 0 and weight.max() == 1
    torch.testing.assert_close(weight, weight.flip(0))
    torch.testing.assert_close(weight, weight.flip(1))
    assert weight[20, 40] == 1 and weight[0, 40] < weight[5, 40] < 1
    assert 0 < blend_weight(1, 1).item() <= 1


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 6), st.floats(-100, 100))
def test_blur_keeps_a_constant(rows: int, cols: int, sigma: float, value: float) -> None:
    blurred = gaussian_blur(torch.full((rows, cols), value), sigma)
    assert blurred.shape == (rows, cols)
    torch.testing.assert_close(blurred, torch.full((rows, cols), value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0, 4.3])
def test_blur_is_the_gaussian_and_its_kernel_sums_to_1(sigma: float) -> None:
    impulse = torch.zeros(61, 61)
    impulse[30, 30] = 1
    assert gaussian_blur(impulse, sigma).sum().item() == pytest.approx(1, abs=1e-5)
    image = np.random.default_rng(0).standard_normal((61, 47)).astype(np.float32)
    expected = gaussian_filter(image, sigma, mode="mirror", radius=int(3 * sigma + 0.5))
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(image), sigma).numpy(), expected, atol=1e-5)


def test_no_blur_changes_nothing() -> None:
    image = torch.rand(5, 6)
    assert torch.equal(gaussian_blur(image, 0.0), image)
    assert torch.equal(gaussian_blur(image[:1], 2.0), image[:1])


def test_to_frame_puts_values_where_they_belong() -> None:
    grid = torch.zeros(4, 6)
    grid[1, 4] = 1.0
    full = to_frame(grid, 80, 120)
    assert full.shape == (80, 120) and full.dtype == np.float32 and full.flags.c_contiguous
    y, x = np.indices(full.shape)
    assert (full * y).sum() / full.sum() == pytest.approx(1.5 * 20 - 0.5)  # centre of the cell, in px
    assert (full * x).sum() / full.sum() == pytest.approx(4.5 * 20 - 0.5)
    np.testing.assert_allclose(to_frame(torch.full((3, 5), 2.5), 31, 17), 2.5, rtol=1e-6)
    np.testing.assert_allclose(to_frame(grid, 4, 6), grid)


def test_top_mean_by_hand() -> None:
    values = torch.arange(100.0).reshape(10, 10)
    assert top_mean(values, 0.03) == 98.0
    assert top_mean(values, 1.0) == 49.5
    assert top_mean(values, 1e-9) == 99.0  # at least one
    assert top_mean(torch.tensor([[4.0]])) == 4.0


@pytest.mark.parametrize(("grid", "size"), [((32, 24), (256, 192)), ((5, 9), (40, 70))])
def test_a_smoothed_map_is_the_enlarged_grid_blurred(grid: tuple[int, int], size: tuple[int, int]) -> None:
    values = torch.rand(grid, generator=torch.Generator().manual_seed(0))
    enlarged = F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    expected = gaussian_filter(enlarged.numpy(), 3.0, mode="mirror", truncate=4.0)
    np.testing.assert_allclose(smooth_map(values, size, 3.0).numpy(), expected, atol=1e-6)


def test_a_map_is_smoothed_however_narrow_it_is() -> None:
    assert smooth_map(torch.ones(1, 3), (2, 90), 4.0).numpy() == pytest.approx(np.ones((2, 90)))
    assert torch.equal(smooth_map(torch.eye(4), (4, 4), 0.0), torch.eye(4))


def test_maps_are_blurred_together_as_each_would_be() -> None:
    maps = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    together = gaussian_blur(maps, 2.0)
    assert together.shape == maps.shape
    torch.testing.assert_close(together[1, 2], gaussian_blur(maps[1, 2], 2.0))
