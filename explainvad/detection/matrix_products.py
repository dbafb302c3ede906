"""Float32 matrix products by whichever library of torch's is faster here and as exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

EXACT = 1e-5  # largest error of a product, of its largest number, that float32 explains


@contextmanager
def fast_products() -> Iterator[None]:
    """Let oneDNN multiply float32 matrices, where it does so in float32.

    MKL, torch's default, leaves AVX-512 unused on AMD processors and takes up to 2.5 times as long there. torch hands
    products to oneDNN only where bfloat16 is allowed, and whether oneDNN then takes it depends on the processor and
    on its version; so that is measured once, not assumed.
    """
    if not _onednn_is_exact():
        yield
        return
    with _onednn():
        yield


@contextmanager
def _onednn() -> Iterator[None]:
    products = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


@cache
def _onednn_is_exact() -> bool:
    """Whether a product of numbers that bfloat16 would round comes out as float32 has it; milliseconds, once."""
    if torch.cpu._is_amx_tile_supported():  # taken for bfloat16 there, and MKL is as fast
        return False
    x = torch.rand(256, 256, generator=torch.Generator().manual_seed(0))
    with _onednn():
        product = x @ x
    exact = x.double() @ x.double()
    return bool((product - exact).abs().max() < EXACT * exact.max())
