"""Codes of places, distances between tokens, and attention as torch has it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from explainvad.detection.transformer import Attention, Block, distance_bias, position_code

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


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


def test_a_code_by_hand() -> None:
    # Rows at 1/4 and 3/4 of the frame, one column at 1/2; a single frequency, pi
    code = position_code(2, 1, (2, 1), (0, 0), 4)
    half = math.sqrt(0.5)
    torch.testing.assert_close(code, torch.tensor([[half, half, 1, 0], [half, -half, 1, 0]]), atol=1e-6, rtol=0)


# --- Distances


def test_bias_by_hand() -> None:
    bias = distance_bias(2, 3, 3, CPU)
    assert bias.shape == (3, 6, 6)
    one, two, across = 1.0, 2.0, math.sqrt(2)
    from_corner = torch.tensor([0, one, two, one, across, math.sqrt(5)])
    torch.testing.assert_close(bias[0, 0], -from_corner)
    torch.testing.assert_close(bias[1, 0], -from_corner / 2)
    assert not bias[2].any()  # the last head looks everywhere
    torch.testing.assert_close(bias, bias.transpose(1, 2))
    assert not distance_bias(2, 3, 1, CPU).any()


def test_slopes_halve_from_head_to_head() -> None:
    bias = distance_bias(1, 2, 6, CPU)[:, 0, 1]
    assert bias.tolist() == [-1, -0.5, -0.25, -0.125, -0.0625, 0]


# --- Attention


@pytest.mark.parametrize("heads", [1, 2, 4])
@torch.inference_mode()
def test_attention_is_that_of_torch_with_the_same_bias(heads: int) -> None:
    attention, x, bias = Attention(16, heads), torch.randn(2, 15, 16), distance_bias(3, 5, heads, CPU)
    key, value = attention.key_value(x).chunk(2, dim=2)
    query, key, value = (t.reshape(2, 15, heads, -1).transpose(1, 2) for t in (attention.query(x), key, value))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
    expected = attention.project(mixed.transpose(1, 2).reshape(2, 15, 16))
    torch.testing.assert_close(attention(x, bias), expected, atol=1e-5, rtol=0)
    assert (attention(x, bias) - attention(x, torch.zeros_like(bias))).abs().max() > 1e-4 or heads == 1


@torch.inference_mode()
def test_attention_in_half_precision_stays_there() -> None:
    attention, x, bias = Attention(16, 2), torch.randn(1, 6, 16), distance_bias(2, 3, 2, CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = attention(x, bias)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), attention(x, bias), atol=0.02, rtol=0)


@torch.inference_mode()
def test_a_block_adds_to_what_it_was_given() -> None:
    block, x, bias = Block(16, 2), torch.randn(2, 6, 16), distance_bias(2, 3, 2, CPU)
    middle = x + block.attention(block.norm_attention(x), bias)
    torch.testing.assert_close(block(x, bias), middle + block.mlp(block.norm_mlp(middle)))
    for layer in (block.attention.project, block.mlp[2]):
        layer.weight.zero_()
        layer.bias.zero_()
    assert torch.equal(block(x, bias), x)
