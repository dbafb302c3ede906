"""Where a transformer looked: attention rollout and gradient-weighted attention, of any network that shows its weights.

Rollout (Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020): the attention of each layer, heads
fused, half of it the residual connection, multiplied over the layers. Gradient-weighted attention (Chefer, Gur & Wolf,
"Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV 2021):
R <- R + A' R with A' = mean over heads of max(gradient * A, 0), where the gradient is that of the number explained.

Only the rows of R that were asked for are computed, from the last layer to the first: vectors times matrices in
place of products of matrices, and each layer's matrices are there once only, on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from explainvad.attribution.watched_attention import open_heads, watched
from explainvad.errors import NotExplainableError
from explainvad.types import PixelFunction

RESIDUAL = 0.5  # share of the residual connection in a layer of the rollout
LARGEST_BYTES = 4 << 30  # of attention held at a time


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMaps:
    """Both maps on the grid of patches (rows, cols), float32 on the CPU, and the number that was explained."""

    rollout: Tensor  # shares of a token's attention, in [0, 1]
    gradient_weighted: Tensor  # >= 0, in the number's own unit
    layers: int
    value: float


class Rows:
    """Rows of both R for the tokens ``of`` (N,) of the last layer, a :class:`Watcher` from the last layer to the first.

    ``rollout`` (N,) is the share that each token of the input has in those, ``residual`` that of the residual
    connection in a layer. ``relevance`` (N,) >= 0 is the row of the other R, without the identity that R begins with.
    """

    def __init__(self, of: Tensor, residual: float = RESIDUAL) -> None:
        self._of, self.residual, self.layers = of, residual, 0
        self.rollout, self.relevance = of, torch.zeros_like(of)
        self._mixed, self._raised = torch.zeros_like(of), torch.zeros_like(of)

    @property
    def asked(self) -> Tensor:
        """Tokens whose rows of the next layer count."""
        return (self.rollout != 0) | (self._of != 0) | (self.relevance != 0)

    def see(self, tokens: Tensor, weights: Tensor, product: Tensor) -> None:
        """Add rows (n, N) of one head: attention, which sum to 1, and gradient times attention."""
        self._mixed.addmv_(weights.T, self.rollout[tokens])
        self._raised.addmv_(product.clamp_min(0).T, self._of[tokens] + self.relevance[tokens])

    def passed(self, heads: int) -> None:
        """Go on to the layer before; heads are averaged."""
        self.rollout = self.residual * self.rollout + (1 - self.residual) / heads * self._mixed
        self.relevance = self.relevance + self._raised / heads
        self._mixed, self._raised = torch.zeros_like(self._mixed), torch.zeros_like(self._raised)
        self.layers += 1


def attention_maps(function: PixelFunction) -> AttentionMaps:
    """Both maps from one pass forward and one back.

    They are rows of the token that the number is about; of the class token where it is about that, and of all patches
    alike where there is none. The token's own share, the identity that R begins with, is left out of the
    gradient-weighted map. Raises NotExplainableError where the network has no attention over all patches, or where it
    would not fit into LARGEST_BYTES.
    """
    if function.grid is None:
        raise NotExplainableError("its network has no tokens that attend to one another over the whole frame")
    height, width = function.grid
    count = function.prefix + height * width
    _require_room(function.network, count)
    asked = _asked(function, count).to(function.frame)
    rows = Rows(asked)
    with torch.enable_grad(), watched(function.network, rows) as layers:
        value = function.value(function.frame[None])
    if not layers.shapes:
        raise NotExplainableError("its network does not show its attention")
    if wrong := [shape for shape in layers.shapes if shape[0] != 1 or shape[-2:] != (count, count)]:
        raise NotExplainableError(
            f"its attention is not over all {count} tokens of a frame, but of shape {wrong[0]}, as in windows"
        )
    layers.back(value.sum())
    if not rows.layers:
        raise NotExplainableError("its number does not rest on the attention of its network")

    def on_grid(row: Tensor) -> Tensor:
        return row[function.prefix :].reshape(height, width).float().cpu()

    return AttentionMaps(
        rollout=on_grid(rows.rollout),
        gradient_weighted=on_grid(rows.relevance),
        layers=rows.layers,
        value=float(value.detach()),
    )


def _asked(function: PixelFunction, count: int) -> Tensor:
    """Weight (N,) of the tokens that the number is about; sums to 1."""
    asked = torch.zeros(count)
    if function.token is not None and function.grid is not None:
        asked[function.prefix + function.token[0] * function.grid[1] + function.token[1]] = 1
    elif function.prefix:
        asked[0] = 1  # class tokens come first
    else:
        asked[:] = 1 / count
    return asked


def _require_room(network: nn.Module, count: int) -> None:
    """Of layers that compute their weights openly, those of the whole pass are there at a time."""
    if (needed := 4 * open_heads(network) * count**2) > LARGEST_BYTES:
        raise NotExplainableError(
            f"attention among {count:,} tokens would take {needed / 2**30:.1f} GiB, more than {LARGEST_BYTES >> 30}: "
            "give a smaller picture, or fit with a lower resolution"
        )
