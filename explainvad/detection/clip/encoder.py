"""The frozen CLIP: texts, whole images and the windows of WinCLIP in one embedding space.

Jeong et al., "WinCLIP", CVPR 2023, section 4.2: a window of k x k patches is what the image transformer says of these
patches and the class token alone, taken after the positional embedding. Each window is a short sequence of its own;
here all of them and the whole image pass through the transformer together, one matrix product a layer for all tokens.
Three shortcuts change nothing but the time: the first layer's projections are those of the whole image's tokens, the
last layer answers for the class token alone where nothing else is asked for, and texts end at the longest of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.backbones import Backbones
from explainvad.detection.clip.window_maps import window_index
from explainvad.detection.frames import resized, windows
from explainvad.detection.loading import Clip
from explainvad.errors import ConfigError, WeightsError
from explainvad.types import InspectionImage

SQUARES = 4  # that pass through the transformer together
PHRASES = 64


class Encoding(NamedTuple):
    """What CLIP says of S squares with g x g patches each; rows of unit length, float32 on the CPU."""

    image: Tensor  # (S, d)
    tokens: Tensor  # (S, g * g, width): patches after the last normalisation, not in the space of texts
    windows: dict[int, Tensor]  # by k: (S, (g - k + 1)^2, d), window (i, j) covers rows i to i + k - 1

    @property
    def whole(self) -> Tensor:
        """One embedding (d,) of unit length: the mean of the squares, where an image is long."""
        return F.normalize(self.image.mean(0), dim=0)


class ClipEncoder:
    """The two encoders of a CLIP with open_clip's plain towers, without gradients."""

    def __init__(self, clip: Clip, name: str, weights: str, device: str = "cpu", bf16: bool = False) -> None:
        network: Any = clip.network.to(device).eval().requires_grad_(False)  # open_clip has no types
        visual = network.visual
        if visual.pool_type != "tok" or visual.attn_pool is not None or visual.final_ln_after_pool:
            raise WeightsError(f"{name}: expected a vision transformer that answers with its class token")
        self.name, self.weights, self.device = name, weights, device
        self.network, self.visual, self.tokenizer = network, visual, clip.tokenizer
        self.patch: int = visual.patch_size[0]
        self.grid: int = visual.grid_size[0]  # patches a side
        self.side = self.patch * self.grid  # px
        self.mean, self.std = (torch.tensor(v, device=device)[:, None, None] for v in (clip.mean, clip.std))
        dtype = torch.bfloat16 if bf16 else torch.float32
        self._image_blocks = [_Block(block, dtype) for block in visual.transformer.resblocks]
        self._text_blocks = [_Block(block, dtype) for block in network.transformer.resblocks]
        self._last: tuple[InspectionImage, tuple[int, ...], Encoding] | None = None

    @classmethod
    def of(cls, backbones: Backbones, name: str) -> ClipEncoder:
        """The one encoder of that name in the pool. Raises WeightsError where its weights are missing."""

        def make() -> ClipEncoder:
            weights = backbones.weights(name)
            return cls(weights.clip(), name, weights.describe(), backbones.device, backbones.bf16)

        return backbones.shared(("clip", name), make)

    @torch.inference_mode()
    def texts(self, phrases: Sequence[str]) -> Tensor:
        """Embeddings (P, d) of unit length. Raises ConfigError for a phrase that is longer than CLIP reads."""
        most = self.network.positional_embedding.shape[0]
        for phrase in phrases:
            if (length := len(self.tokenizer.encode(phrase)) + 2) > most:  # with start and end
                raise ConfigError(f"a prompt may have {most} tokens, got {length}: shorten {phrase!r}")
        parts = [self._texts(phrases[i : i + PHRASES]) for i in range(0, len(phrases), PHRASES)]
        return F.normalize(torch.cat(parts), dim=1)

    def _texts(self, phrases: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(list(phrases)).to(self.device)
        # the end token has the largest number; attention is causal, so that what follows it is never read
        end = tokens.argmax(1)
        length = int(end.max()) + 1
        network = self.network
        x = network.token_embedding(tokens[:, :length]) + network.positional_embedding[:length]
        for block in self._text_blocks:
            x = block.mixed(x, _attention(block.projections(x), causal=True))
        x = network.ln_final(x[torch.arange(len(x)), end])
        projection = network.text_projection
        return (projection(x) if isinstance(projection, nn.Module) else x @ projection).float().cpu()

    def size(self, image: InspectionImage) -> tuple[int, int]:
        """Rows and columns, in px, of the working frame: the shorter side fits CLIP, the other is whole patches."""
        scale = self.side / min(image.height, image.width) / self.patch
        rows, cols = (max(self.grid, round(side * scale)) * self.patch for side in (image.height, image.width))
        return rows, cols

    def places(self, image: InspectionImage) -> list[tuple[slice, slice]]:
        """Rows and columns, in patches of the working frame, of the overlapping squares that cover it."""
        rows, cols = (side // self.patch for side in self.size(image))
        return list(windows(rows, cols, self.grid, 1))

    def squares(self, image: InspectionImage) -> Tensor:
        """The squares as the network sees them, float32 (S, 3, side, side), normalised; one for a square image."""
        pixels = resized(image.pixels, self.size(image)).to(self.device)
        frame = (pixels.float() / 255 - self.mean) / self.std
        p = self.patch
        return torch.stack(
            [frame[:, y.start * p : y.stop * p, x.start * p : x.stop * p] for y, x in self.places(image)]
        )

    def see(self, image: InspectionImage, scales: tuple[int, ...] = ()) -> Encoding:
        """The encoding of an image's squares; that of the last image is kept for the next scorer."""
        if self._last is None or self._last[0] is not image or self._last[1] != scales:
            self._last = image, scales, self.encode(self.squares(image), scales)
        return self._last[2]

    def traced(self, squares: Tensor) -> Tensor:
        """Embeddings (S, d) of normalised squares by open_clip's own pass, through which gradients flow; float32."""
        pooled: Tensor = self.visual(squares)
        return pooled

    @torch.inference_mode()
    def encode(self, squares: Tensor, scales: Sequence[int] = ()) -> Encoding:
        """Encode normalised squares (S, 3, side, side) with their windows of each scale."""
        parts = [self._encode(part, scales) for part in squares.split(SQUARES)]
        return Encoding(
            torch.cat([part.image for part in parts]),
            torch.cat([part.tokens for part in parts]),
            {k: torch.cat([part.windows[k] for part in parts]) for k in scales},
        )

    def _encode(self, squares: Tensor, scales: Sequence[int]) -> Encoding:
        whole = torch.arange(self.grid**2 + 1, device=self.device)[None]
        class_token = whole.new_zeros(1)
        sets = [whole]
        for k in scales:
            index = window_index(self.grid, k).to(self.device)
            sets.append(torch.cat((class_token.expand(len(index), 1), 1 + index), dim=1))
        image, *short = self._sequences(self._embedded(squares), sets)
        pooled = [self._projected(x).unflatten(0, (len(squares), -1)) for x in (image[:, :1], *short)]
        tokens = self.visual.ln_post(image[:, 1:])
        return Encoding(
            pooled[0][:, 0], F.normalize(tokens.float().cpu(), dim=2), dict(zip(scales, pooled[1:], strict=True))
        )

    def _embedded(self, squares: Tensor) -> Tensor:
        """Class token and patches (S, 1 + g * g, width) with their places, as the first layer takes them."""
        v = self.visual
        patches = v.conv1(squares).flatten(2).transpose(1, 2)
        x = torch.cat((v.class_embedding.expand(len(squares), 1, -1), patches), dim=1)
        return v.ln_pre(x + v.positional_embedding)

    def _sequences(self, x: Tensor, sets: Sequence[Tensor]) -> list[Tensor]:
        """Pass sets of tokens (n, L) of x (S, N, width), each row alone, through all layers.

        Answers (S * n, L, width) for the first set, and of the others the first token (S * n, 1, width) alone.
        """
        projections = self._image_blocks[0].projections(x)
        shapes = [(len(x) * len(index), index.shape[1]) for index in sets]
        qkv = [projections[:, index].flatten(0, 1) for index in sets]
        rows = torch.cat([x[:, index].flatten(0, 2) for index in sets])
        for block, following in zip(self._image_blocks, [*self._image_blocks[1:], None], strict=True):
            if following is None:
                rows, asked = _first_tokens(rows, shapes)
                shapes = [(n, length) for (n, _), length in zip(shapes, asked, strict=True)]
            else:
                asked = [length for _, length in shapes]
            mixed = [_attention(part, length).flatten(0, 1) for part, length in zip(qkv, asked, strict=True)]
            rows = block.mixed(rows, torch.cat(mixed))
            if following is not None:
                qkv = [part.unflatten(0, shape) for part, shape in _parts(following.projections(rows), shapes)]
        return [part.unflatten(0, shape) for part, shape in _parts(rows, shapes)]

    def _projected(self, x: Tensor) -> Tensor:
        """Class tokens (n, 1, width) in the space of texts: (n, d) of unit length."""
        return F.normalize((self.visual.ln_post(x[:, 0]) @ self.visual.proj).float().cpu(), dim=1)


class _Block:
    """A pre-norm transformer block in two halves; matrices in ``dtype``, sums and normalisations in float32."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        attention, mlp = block.attn, block.mlp
        self.heads = attention.num_heads
        self.norms = block.ln_1, block.ln_2
        self.scales = block.ls_1, block.ls_2
        self.activation = mlp.gelu
        pairs = (
            (attention.in_proj_weight, attention.in_proj_bias),
            (attention.out_proj.weight, attention.out_proj.bias),
            (mlp.c_fc.weight, mlp.c_fc.bias),
            (mlp.c_proj.weight, mlp.c_proj.bias),
        )
        self.dtype = dtype
        self.qkv, self.out, self.widen, self.narrow = ([t.detach().to(dtype) for t in pair] for pair in pairs)

    def projections(self, x: Tensor) -> Tensor:
        """Queries, keys and values (..., 3, heads, width / heads) of tokens (..., width)."""
        return F.linear(self.norms[0](x).to(self.dtype), *self.qkv).unflatten(-1, (3, self.heads, -1))

    def mixed(self, x: Tensor, attended: Tensor) -> Tensor:
        """Tokens (..., width) after attention (..., width) and the perceptron."""
        x = x + self.scales[0](F.linear(attended, *self.out))
        hidden = self.activation(F.linear(self.norms[1](x).to(self.dtype), *self.widen))
        return x + self.scales[1](F.linear(hidden, *self.narrow))


def _attention(qkv: Tensor, asked: int | None = None, causal: bool = False) -> Tensor:
    """Attention (n, asked, width) within each of n sequences (n, L, 3, heads, d), for their first ``asked`` tokens."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query[:, :, :asked], key, value, is_causal=causal).transpose(1, 2).flatten(2)


def _parts(rows: Tensor, shapes: Sequence[tuple[int, int]]) -> Iterable[tuple[Tensor, tuple[int, int]]]:
    return zip(rows.split([n * length for n, length in shapes]), shapes, strict=True)


def _first_tokens(rows: Tensor, shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, list[int]]:
    """All rows of the first set and the first of every sequence of the others, and how many these are a sequence."""
    whole, *short = (part.unflatten(0, shape) for part, shape in _parts(rows, shapes))
    kept = [whole, *(part[:, :1] for part in short)]
    return torch.cat([part.flatten(0, 1) for part in kept]), [part.shape[1] for part in kept]
