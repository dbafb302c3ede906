"""The masked autoencoder's parts by hand: patches, places, masks and the loss."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from explainvad.detection.reconstruction.network import (
    Architecture,
    MaskedAutoencoder,
    likelihood_loss,
    mask_groups,
    patchify,
    position_code,
)

# --- Patches


@pytest.mark.parametrize(("rows", "cols", "patch"), [(1, 1, 4), (3, 5, 2), (2, 2, 8)])
def test_pixel_shuffle_undoes_patchify(rows: int, cols: int, patch: int) -> None:
    images = torch.rand(2, 3, rows * patch, cols * patch)
    patches = patchify(images, patch)
    assert patches.shape == (2, rows * cols, 3 * patch**2)
    assert torch.equal(F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (rows, cols)), patch), images)


def test_patches_run_row_by_row_with_whole_channels_inside() -> None:
    image = torch.arange(3 * 4 * 6.0).reshape(1, 3, 4, 6)
    patches = patchify(image, 2)[0]
    assert torch.equal(patches[4], image[0, :, 2:4, 2:4].flatten())
    assert torch.equal(patches.unflatten(1, (3, 4))[4, 1], image[0, 1, 2:4, 2:4].flatten())


# --- Places


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_the_code_of_a_window_is_the_slice_of_the_whole_frames(rows: int, cols: int, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    h, w = data.draw(st.integers(1, rows - top)), data.draw(st.integers(1, cols - left))
    whole = position_code(rows, cols, (rows, cols), (0, 0), 32).reshape(rows, cols, 32)
    part = position_code(h, w, (rows, cols), (top, left), 32)
    assert part.shape == (h * w, 32)
    assert torch.equal(part, whole[top : top + h, left : left + w].reshape(h * w, 32))


def test_places_differ_and_frames_of_other_sizes_share_their_middle() -> None:
    code = position_code(30, 40, (30, 40), (0, 0), 64)
    assert torch.cdist(code, code).fill_diagonal_(9).min() > 0.1
    odd, other = (position_code(n, n, (n, n), (0, 0), 64)[n * n // 2] for n in (5, 11))
    torch.testing.assert_close(odd, other)
    assert code.abs().max() <= 1


# --- Masks


@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 5), st.integers(2, 5), st.integers(0, 99))
def test_mask_groups_divide_the_grid_into_nearly_equal_sets_of_square_blocks(
    rows: int, cols: int, block: int, groups: int, seed: int
) -> None:
    group = mask_groups(rows, cols, block, groups, torch.Generator().manual_seed(seed))
    assert group.shape == (rows * cols,) and group.dtype == torch.int64
    assert group.min() >= 0 and group.max() < groups
    assert (group == 0).any()  # training shows group 0
    if rows * cols > 1:
        assert len(group.unique()) >= 2  # so that every patch is hidden by some other group's turn
    # Borders between blocks lie a whole number of blocks apart
    side = max(1, min(block, min(rows, cols) // 2))
    grid = group.reshape(rows, cols)
    for changed in ((grid[1:] != grid[:-1]).any(1), (grid[:, 1:] != grid[:, :-1]).any(0)):
        borders = changed.nonzero()[:, 0]
        assert len({int(b) % side for b in borders}) <= 1


def test_mask_groups_are_balanced_and_follow_the_generator() -> None:
    one = mask_groups(12, 16, 1, 4, torch.Generator().manual_seed(1))
    assert one.bincount().tolist() == [48] * 4
    assert torch.equal(one, mask_groups(12, 16, 1, 4, torch.Generator().manual_seed(1)))
    assert not torch.equal(one, mask_groups(12, 16, 1, 4, torch.Generator().manual_seed(2)))


# --- The loss


def test_the_loss_by_hand() -> None:
    # One patch of one pixel in three channels: errors 1, 2, 2 make a mean square of 3; variance e^0.5 of ln 2
    target, mean = torch.tensor([[[1.0, 2.0, 2.0]]]), torch.zeros(1, 1, 3)
    log_variance = torch.full((1, 1, 1), math.log(2.0))
    plain = 0.5 * (3 / 2 + math.log(2))
    assert likelihood_loss(target, mean, log_variance, beta=0.0).item() == pytest.approx(plain)
    assert likelihood_loss(target, mean, log_variance, beta=0.5).item() == pytest.approx(plain * math.sqrt(2))


def test_the_weight_carries_no_gradient_and_the_best_variance_is_the_squared_error() -> None:
    target, mean = torch.full((1, 1, 3), 0.3), torch.zeros(1, 1, 3)
    for beta in (0.0, 0.5, 1.0):
        log_variance = torch.full((1, 1, 1), math.log(0.09), requires_grad=True)
        likelihood_loss(target, mean, log_variance, beta).backward()
        assert log_variance.grad is not None
        assert log_variance.grad.abs().item() < 1e-6


def test_each_pixel_has_its_own_variance() -> None:
    target, mean = torch.zeros(1, 1, 12), torch.zeros(1, 1, 12)
    target[0, 0, [1, 5, 9]] = 3.0  # pixel 1 of 4, in every channel
    log_variance = torch.zeros(1, 1, 4, requires_grad=True)
    likelihood_loss(target, mean, log_variance).backward()
    assert log_variance.grad is not None
    assert (log_variance.grad.flatten() < 0).tolist() == [False, True, False, False]


# --- The network


def test_hidden_patches_do_not_reach_the_prediction() -> None:
    torch.manual_seed(0)
    network = MaskedAutoencoder(Architecture(patch=2, width=16, heads=2, encoder_depth=2, decoder_depth=2)).eval()
    patches, position = torch.rand(1, 12, 12), position_code(3, 4, (3, 4), (0, 0), 16)
    visible, hidden = torch.tensor([0, 3, 5, 6, 10]), torch.tensor([1, 2, 4, 7, 8, 9, 11])
    extra = {"cols": 4} if "cols" in inspect.signature(network.forward).parameters else {}

    def predict(p: torch.Tensor) -> torch.Tensor:
        mean, log_variance = network(p, position, visible=visible, hidden=hidden, **extra)
        assert mean.shape == (1, 7, 12) and log_variance.shape == (1, 7, 4)
        return torch.cat((mean, log_variance), dim=2)

    changed = patches.clone()
    changed[:, hidden] = torch.rand(1, len(hidden), 12) * 100
    assert torch.equal(predict(changed), predict(patches))
    changed = patches.clone()
    changed[:, visible[2]] += 1
    assert not torch.equal(predict(changed), predict(patches))


def test_an_architecture_travels_as_numbers() -> None:
    architecture = Architecture(patch=4, width=32)
    assert Architecture(**architecture.as_dict()) == architecture
