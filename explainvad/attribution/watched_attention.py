"""Attention of a network, watched where it runs: each layer's weights with the number's gradient to them, once.

Nothing of a layer is kept but query, key and value. On the way back its weights are computed again, a few tokens at a
time, beside their gradient; both go to whoever watches and are dropped, as in the backward pass of FlashAttention (Dao
et al., NeurIPS 2022). All weights of a ViT-S and their gradients on 32 x 43 patches would be 1 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from explainvad.errors import NotExplainableError

BLOCK = 1 << 18  # weights computed at a time, of one head: 1 MB, which a core's cache holds
SHARED = 8  # times as many where several threads share a block: smaller products do not occupy them


class Watcher(Protocol):
    """Is told of each layer's attention, the last layer first."""

    @property
    def asked(self) -> Tensor:
        """Mask (N,) of the tokens whose rows count in the next layer."""
        ...

    def see(self, tokens: Tensor, weights: Tensor, product: Tensor) -> None:
        """Rows (n, N) of ``tokens`` (n,) of one head: attention, and gradient times attention. They are not its own."""
        ...

    def passed(self, heads: int) -> None:
        """All rows of a layer that matter were seen."""
        ...


class Watched:
    """What a pass forward has shown: the shape (B, heads, N, N) of each layer's attention, the first one first."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.shapes: list[tuple[int, ...]] = []
        self.inside = False  # whether an attention of the network is running
        self.anchor = torch.zeros((), requires_grad=True)  # makes every layer a part of the graph, and nothing else

    def back(self, number: Tensor) -> None:
        """Go back from a number, through the layers that it reads and no further."""
        if number.requires_grad:
            torch.autograd.grad(number, self.anchor, allow_unused=True)


@contextmanager
def watched(network: nn.Module, watcher: Watcher) -> Iterator[Watched]:
    """While the block lasts, the attention of ``network`` is shown to ``watcher`` by ``Watched.back``.

    timm's modules call torch's ``scaled_dot_product_attention``, which is watched as it is called; those that compute
    their weights openly pass them through ``attn_drop``, and so do the blocks of this package. torch's
    ``MultiheadAttention``, which open_clip has, gets a forward that calls the same function. Afterwards the network is
    as it was.
    """
    found = Watched(watcher)
    hooks: list[Any] = []
    replaced: list[Any] = []

    def enter(_module: nn.Module, _inputs: Any) -> None:
        found.inside = True

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        found.inside = False

    def show(_module: nn.Module, _inputs: Any, weights: Tensor) -> Tensor:
        found.shapes.append(tuple(weights.shape))
        shown: Tensor = _Shown.apply(weights, found.anchor, watcher)
        return shown

    try:
        for module in network.modules():
            if isinstance(module, nn.MultiheadAttention):
                replaced.append(module)
                module.forward = _openly(module)  # type: ignore[method-assign]
            elif isinstance(drop := getattr(module, "attn_drop", None), nn.Module):
                hooks.append(drop.register_forward_hook(show))
            else:
                continue
            hooks.append(module.register_forward_pre_hook(enter))
            hooks.append(module.register_forward_hook(leave))
        with _Calls(found):
            yield found
    finally:
        for hook in hooks:
            hook.remove()
        for module in replaced:
            del module.forward  # the class has its own


def open_heads(network: nn.Module) -> int:
    """Heads of all layers that compute their weights openly."""
    return sum(
        int(getattr(module, "num_heads", getattr(module, "heads", 1)))
        for module in network.modules()
        if isinstance(getattr(module, "attn_drop", None), nn.Module) and not getattr(module, "fused_attn", False)
    )


class _Calls(TorchFunctionMode):
    """Takes the calls of torch's attention that the network makes."""

    def __init__(self, found: Watched) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is not F.scaled_dot_product_attention or not self.found.inside:
            return function(*args, **kwargs)
        return self._attention(*args, **kwargs)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        if is_causal or dropout_p or enable_gqa or query.ndim != 4:
            raise NotExplainableError(
                "its attention is of a kind whose weights are not read: causal, dropped or shared"
            )
        self.found.shapes.append((*query.shape[:-1], key.shape[-2]))
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return _Attention.apply(query, key, value, self.found.anchor, self.found.watcher, attn_mask, scale)


def _openly(module: nn.MultiheadAttention) -> Callable[..., Any]:
    """Self-attention with the module's weights, as its own forward computes it in evaluation mode."""

    def forward(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, None]:
        if key is not query or value is not query or module.in_proj_weight is None:
            raise NotExplainableError("its attention is not of a sequence to itself")
        x = query if module.batch_first else query.transpose(0, 1)
        qkv = F.linear(x, module.in_proj_weight, module.in_proj_bias).unflatten(-1, (3, module.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mask = options.get("attn_mask")
        if mask is not None and mask.dtype == torch.bool:
            mask = ~mask  # there True shuts out, here it lets in
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        out = F.linear(mixed, module.out_proj.weight, module.out_proj.bias)
        return (out if module.batch_first else out.transpose(0, 1)), None

    return forward


def _precise(values: Tensor) -> Tensor:
    """At least in single precision."""
    return values.float() if values.element_size() < 4 else values


class _Shown(torch.autograd.Function):
    """Weights (1, heads, N, N) as they are; shown with their gradient on the way back."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, anchor: Tensor, watcher: Watcher) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.watcher = watcher
        return weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weights,), (gradient,) = ctx.saved_tensors, gradients
        tokens = torch.arange(weights.shape[-1], device=weights.device)
        for head, by in zip(_precise(weights[0]), _precise(gradient[0]), strict=True):
            ctx.watcher.see(tokens, head, head * by)
        ctx.watcher.passed(weights.shape[1])
        return gradient if ctx.needs_input_grad[0] else None, None, None


class _Attention(torch.autograd.Function):
    """softmax(scale Q K' + mask) V of one frame; its weights are shown, block by block, on the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        anchor: Tensor,
        watcher: Watcher,
        mask: Tensor | None,
        scale: float,
    ) -> Tensor:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        ctx.save_for_backward(query, key, value, out)
        ctx.watcher, ctx.mask, ctx.scale = watcher, mask, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """P = dO V', dS = A (P - rowsum(dO O)), dQ = scale dS K, dK = scale dS' Q, dV = A' dO, in float32."""
        query, key, value, out = (_precise(saved[0]) for saved in ctx.saved_tensors)
        gradient = _precise(gradients[0][0])
        heads, count, _ = key.shape
        tokens = (ctx.watcher.asked | gradient.ne(0).any(2).any(0)).nonzero()[:, 0]
        if len(tokens) < count:  # as in the last layer, of which a number of one patch reads one row
            query, out, gradient = query[:, tokens], out[:, tokens], gradient[:, tokens]
        query, gradient = query.contiguous() * ctx.scale, gradient.contiguous()
        key, value = key.contiguous(), value.contiguous()
        mask = None if ctx.mask is None else ctx.mask.expand(1, heads, count, count)[0]
        sums = (gradient * out).sum(2, keepdim=True)
        further = any(ctx.needs_input_grad[:3])  # the first layer has nothing before it
        by_query, by_key, by_value = (torch.zeros_like(part) for part in (query, key, value))
        block = BLOCK if torch.get_num_threads() == 1 else SHARED * BLOCK
        size = max(1, block // count)
        room = torch.empty(2, min(size, len(tokens)), count, dtype=key.dtype, device=key.device)
        for head, (q, k, v, g) in enumerate(zip(query, key, value, gradient, strict=True)):
            for start in range(0, len(tokens), size):
                rows = slice(start, min(start + size, len(tokens)))
                similarity, product = room[:, : rows.stop - start]
                torch.mm(q[rows], k.T, out=similarity)
                if mask is not None:
                    similarity = _masked(similarity, mask[head, tokens[rows]])
                weights = similarity.softmax(1)
                torch.mm(g[rows], v.T, out=product).mul_(weights)
                ctx.watcher.see(tokens[rows], weights, product)
                if further:
                    by_value[head].addmm_(weights.T, g[rows])
                    product.addcmul_(weights, sums[head, rows], value=-1)  # dS
                    by_query[head, rows] = product @ k
                    by_key[head].addmm_(product.T, q[rows])
        ctx.watcher.passed(heads)
        if not further:
            return (None,) * 7
        by_query = torch.zeros_like(key).index_copy_(1, tokens, by_query * ctx.scale)
        saved = ctx.saved_tensors[:3]
        by = (part[None].to(of.dtype) for part, of in zip((by_query, by_key, by_value), saved, strict=True))
        return *by, None, None, None, None


def _masked(similarity: Tensor, mask: Tensor) -> Tensor:
    """As torch's attention does it: True lets in, numbers are added."""
    return similarity.where(mask, -torch.inf) if mask.dtype == torch.bool else similarity + mask
