"""The image encoder of MobileSAM (Zhang et al., "Faster Segment Anything", 2023): timm's TinyViT, changed as it needs.

MobileSAM is SAM with the encoder exchanged. Its TinyViT keeps the grid of the third stage in the fourth, so that an
embedding has 64 x 64 places as SAM's, and ends in SAM's neck. Checkpoints name tensors as TinyViT's authors do, with
each stage's downsampling at the end of the stage before; they also hold the classifier that the encoder grew from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor, nn

PREFIX = "image_encoder."
MARK = f"{PREFIX}patch_embed.seq.0.c.weight"  # a tensor that every checkpoint has, and SAM's own have not
SIDE, CHANNELS = 1024, 256  # px of the frame; of the embedding
_UNUSED = re.compile(rf"{PREFIX}(norm_head|head)\.|.*\.attention_bias_idxs$")  # classifier, and what follows from sizes


class MobileEncoder(nn.Module):
    """Normalised frames (B, 3, 1024, 1024) -> embeddings (B, 256, 64, 64); freshly initialised."""

    img_size = SIDE

    def __init__(self) -> None:
        from segment_anything.modeling.common import LayerNorm2d  # type: ignore[import-untyped]

        super().__init__()
        trunk: Any = timm.create_model("tiny_vit_5m_224", pretrained=False, num_classes=0)
        self.patch_embed, self.stages = trunk.patch_embed, trunk.stages
        trunk.stages[-1].downsample.conv2.conv.stride = (1, 1)
        self.neck = nn.Sequential(
            nn.Conv2d(trunk.num_features, CHANNELS, 1, bias=False),
            LayerNorm2d(CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(CHANNELS),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Embed normalised frames."""
        embedded: Tensor = self.neck(self.stages(self.patch_embed(frames)))
        return embedded


def is_mobile(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint is one of MobileSAM's."""
    return MARK in tensors


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names of :class:`MobileEncoder`, without the classifier, which it does not have."""
    return {_renamed(key): value for key, value in tensors.items() if not _UNUSED.match(key)}


def _renamed(key: str) -> str:
    if not key.startswith(PREFIX):
        return key
    key = re.sub(r"\.seq\.([02])\.", lambda found: f".conv{int(found[1]) // 2 + 1}.", key)
    key = re.sub(r"\.layers\.(\d+)\.downsample\.", lambda found: f".stages.{int(found[1]) + 1}.downsample.", key)
    return key.replace(".layers.", ".stages.").replace(".c.", ".conv.")
