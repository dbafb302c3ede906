"""Windows of patches and the harmonic mean, against numbers that a hand can compute."""

from __future__ import annotations

import torch

from explainvad.detection.clip.window_maps import blended, over_scales, to_patches, window_cover, window_index


def test_windows_of_two_patches_a_side() -> None:
    assert window_index(3, 2).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]


def test_windows_on_the_grid_of_the_paper() -> None:
    assert [len(window_index(15, k)) for k in (2, 3)] == [196, 169]
    small, large = (window_cover(15, k).sum(0).reshape(15, 15) for k in (2, 3))
    assert small[0, 0] == 1 and small[0, 7] == 2 and (small[1:-1, 1:-1] == 4).all()
    assert large[0, 0] == 1 and large[0, 1] == 2 and large[1, 1] == 4 and (large[2:-2, 2:-2] == 9).all()


def test_a_patch_has_the_harmonic_mean_of_its_windows() -> None:
    patches = to_patches(torch.tensor([1, 1 / 2, 1 / 4, 1 / 5]), window_cover(3, 2))
    # corners have one window; the middle of the top row 2 / (1 + 2); the centre 4 / (1 + 2 + 4 + 5)
    expected = [1, 2 / 3, 1 / 2, 2 / 5, 1 / 3, 2 / 7, 1 / 4, 2 / 9, 1 / 5]
    torch.testing.assert_close(patches, torch.tensor(expected))


def test_batches_are_brought_to_patches_alike() -> None:
    scores = torch.rand(2, 3, 169, generator=torch.Generator().manual_seed(0)) + 0.1
    cover = window_cover(15, 3)
    torch.testing.assert_close(to_patches(scores, cover)[1, 2], to_patches(scores[1, 2], cover))


def test_scales_are_combined_by_the_harmonic_mean() -> None:
    scales = [torch.tensor([0.5, 0.2]), torch.tensor([0.25, 0.2]), torch.tensor([1.0, 0.2])]
    torch.testing.assert_close(over_scales(scales), torch.tensor([3 / 7, 0.2]))


def test_one_square_stays_as_it_is() -> None:
    maps = torch.rand(2, 1, 9)
    assert torch.equal(blended(maps, [(slice(0, 3), slice(0, 3))]), maps[:, 0].unflatten(1, (3, 3)))


def test_overlapping_squares_are_blended() -> None:
    places = [(slice(0, 4), slice(0, 4)), (slice(0, 4), slice(2, 6))]
    constant = blended(torch.full((1, 2, 16), 0.7), places)
    torch.testing.assert_close(constant, torch.full((1, 4, 6), 0.7))
    zero_one = torch.stack((torch.zeros(16), torch.ones(16)))[None]
    row = blended(zero_one, places)[0, 1]
    assert row[:2].tolist() == [0, 0] and row[4:].tolist() == [1, 1]
    # the third column is next to the border of the second square, the fourth next to that of the first
    assert 0 < row[2] < 0.5 < row[3] < 1
