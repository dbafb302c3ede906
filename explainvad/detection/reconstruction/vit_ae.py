"""A plain transformer as autoencoder, with the knobs that decide whether it copies: bottleneck, masks, queries, memory.

Patches of an image are squeezed one by one to a bottleneck and rebuilt from it. With a wide one the network learns the
identity and rebuilds defects too, the trap of the survey (arXiv 2507.15905, section 4). The remedies to be compared: a
narrow bottleneck; masked patches (as in ``masked-vit``, each rebuilt while it is hidden); a decoder
that starts from learned queries instead of the patches (after UniAD, You et al., NeurIPS 2022); a memory of normal
patterns in the bottleneck (after MemAE, Gong et al., ICCV 2019).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from explainvad.detection.reconstruction.masked_vit import HEAD, PatchOptions, PatchReconstruction, unpatched
from explainvad.detection.reconstruction.mem_ae import ENTROPY, Memory, entropy
from explainvad.detection.transformer import Block


class ViTAEOptions(PatchOptions):
    """Defaults give the plain autoencoder, without a remedy but the bottleneck."""

    mask_ratio: float = Field(0.0, ge=0, lt=1, description="share of patches that are masked; 0: all are seen")
    bottleneck: int = Field(32, ge=1, le=1024, description="numbers that are kept of a patch")
    decoder_depth: int = Field(2, ge=1, le=24, description="blocks of the decoder")
    query: bool = Field(False, description="whether the decoder starts from learned queries")
    memory: int = Field(0, ge=0, le=20_000, description="items of a memory in the bottleneck; 0: none")
    shrink: float = Field(1.0, ge=0, le=3, description="lambda of the memory, in units of 1 / items")


class QueryBlock(nn.Module):
    """A learned query of each place asks the bottleneck's tokens, then the layer before, and no token passes by itself.

    UniAD learns a table of queries by place. Frames differ in size, so a query is a learned function of the place here.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.ask_bottleneck = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ask_before = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, before: Tensor, tokens: Tensor, code: Tensor) -> Tensor:
        x = self.query(code)
        x = x + self.ask_bottleneck(self.norms[0](x), tokens, tokens)[0]
        x = x + self.ask_before(self.norms[1](x), before, before)[0]
        return x + self.mlp(self.norms[2](x))


class BottleneckViT(nn.Module):
    """Encoder, bottleneck and decoder over all patches; masked ones enter as a learned token."""

    def __init__(self, options: ViTAEOptions) -> None:
        super().__init__()
        o, heads = options, options.width // HEAD
        self.patch = o.patch
        self.embed = nn.Linear(3 * o.patch**2, o.width)
        self.mask_token = nn.Parameter(torch.randn(o.width) * 0.02)
        self.encoder = nn.ModuleList(Block(o.width, heads) for _ in range(o.depth))
        self.squeeze = nn.Sequential(nn.LayerNorm(o.width), nn.Linear(o.width, o.bottleneck))
        self.memory = Memory(o.memory, o.bottleneck, o.shrink) if o.memory else None
        self.expand = nn.Linear(o.bottleneck, o.width)
        self.query = o.query
        block = QueryBlock if o.query else Block
        self.decoder = nn.ModuleList(block(o.width, heads) for _ in range(o.decoder_depth))
        self.head = nn.Sequential(nn.LayerNorm(o.width), nn.Linear(o.width, 3 * o.patch**2))

    def forward(self, pixels: Tensor, mask: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (B, 3, rows, cols), and alpha times the entropy of the memory's weights (0 without one)."""
        patches = self.embed(F.pixel_unshuffle(pixels, self.patch).flatten(2).transpose(1, 2))
        x = torch.where(mask[..., None], self.mask_token.to(patches.dtype), patches) + code
        no_bias, penalty = x.new_zeros(()), x.new_zeros(())
        for block in self.encoder:
            x = block(x, no_bias)
        x = self.squeeze(x)
        if self.memory is not None:
            x, weight = self.memory(x)
            penalty = ENTROPY * entropy(weight)
        x = tokens = self.expand(x) + code
        for block in self.decoder:
            x = block(x, tokens, code) if self.query else block(x, no_bias)
        return unpatched(self.head(x), pixels, self.patch), penalty


class ViTAutoencoder(PatchReconstruction[ViTAEOptions]):
    """``evidence``: rebuilt; residual float32 (rows / patch, cols / patch), each patch's mean squared residual."""

    name = "vit-ae"
    summary = "Rebuilds patches through a narrow bottleneck; scores what comes out differently"
    source = "after You et al., UniAD, NeurIPS 2022, and He et al., Masked Autoencoders, CVPR 2022"
    options_type = ViTAEOptions

    def build(self) -> BottleneckViT:
        """The untrained network."""
        return BottleneckViT(self.options)
