"""SA-PatchCore: PatchCore whose deeper patches have seen the whole image, for parts that go together.

Ishida et al., "SA-PatchCore: Anomaly Detection in Dataset With Co-Occurrence Relationships Using Self-Attention", IEEE
Access 2023. The first layer is kept as it is. Of each deeper one every channel f_c, after a maximum over 3 x 3 cells,
attends to itself over all positions, without parameters: softmax(f_c f_c^T) f_c. An image scores its largest distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.banks.patchcore import PatchCore


class SAPatchCore(PatchCore):
    """PatchCore with self-attention in place of averages."""

    name = "sa-patchcore"
    summary = (
        "Distance of each patch, joined with what its image holds elsewhere, to the nearest normal one of a coreset"
    )
    source = "Ishida et al., SA-PatchCore, IEEE Access 2023"

    def aggregated(self, levels: Sequence[Tensor]) -> Sequence[Tensor]:
        """The first layer, and the others after self-attention."""
        return [levels[0], *map(attended, levels[1:])]


def attended(level: Tensor) -> Tensor:
    """Channels (1, d, rows, cols) after a 3 x 3 maximum and self-attention over their positions, each by itself."""
    # a channel is a head of its own, in which a position is a token of length 1
    tokens = F.max_pool2d(level, 3, stride=1, padding=1).flatten(2)[..., None]
    attention = F.scaled_dot_product_attention(tokens, tokens, tokens, scale=1.0)
    return attention.reshape(level.shape).contiguous(memory_format=torch.channels_last)
