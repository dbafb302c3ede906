"""The networks that are known by a short name: what they are, where they come from, and under which licence.

Hub ids, architectures, normalisation and licences are timm's and open_clip's own records; sizes follow from the
parameters in float32. Weights of other names can be brought along in a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Library = Literal["timm", "open_clip", "segment_anything", "explainvad"]


@dataclass(frozen=True, slots=True)
class Pretrained:
    """One backbone by name."""

    library: Library
    architecture: str  # as the library calls it
    hub: str | None  # repository on the Hugging Face hub; None ships with the package
    licence: str  # of the weights
    megabytes: int  # of the weights in float32, about
    multiple: int  # px; sides of a frame are multiples of it, so that every layer's grid covers the frame exactly
    family: str
    purpose: str
    model_args: Mapping[str, Any] = field(default_factory=dict)  # what the library needs for frames of any size


def _timm(
    tagged: str, licence: str, megabytes: int, multiple: int, family: str, purpose: str, **args: Any
) -> Pretrained:
    """A model of timm, named architecture.tag; the hub keeps it under that name."""
    return Pretrained(
        "timm", tagged.partition(".")[0], f"timm/{tagged}", licence, megabytes, multiple, family, purpose, args
    )


def _sam(architecture: str, size: str, megabytes: int) -> Pretrained:
    """A Segment Anything; the hub keeps it in the layout of transformers, which is taken over at a pull."""
    hub, purpose = f"facebook/sam-vit-{size}", "outlines of regions"
    return Pretrained("segment_anything", architecture, hub, "Apache-2.0", megabytes, 1, "promptable", purpose)


_ANY_SIZE = {
    "dynamic_img_size": True
}  # positions are interpolated to each frame; a frame of the native size needs none
_DINOV2 = "self-supervised transformer"

CATALOGUE: dict[str, Pretrained] = {
    "embedded": Pretrained(
        "explainvad", "HybridBackbone", None, "Apache-2.0", 6, 16, "hybrid", "default; ships with the package"
    ),
    "resnet-18": _timm("resnet18.tv_in1k", "BSD-3-Clause", 47, 32, "CNN", "PaDiM; small CNN memory banks"),
    # PatchCore's figures are with torchvision's first weights of this network
    "wide-resnet-50-2": _timm("wide_resnet50_2.tv_in1k", "BSD-3-Clause", 276, 32, "CNN", "PatchCore, SA-PatchCore"),
    "vit-small": _timm(
        "vit_small_patch16_224.augreg_in21k_ft_in1k", "Apache-2.0", 88, 16, "transformer", "supervised ViT", **_ANY_SIZE
    ),
    # windows of 7 are padded inside the network, so 32 is enough
    "swin-tiny": _timm(
        "swin_tiny_patch4_window7_224.ms_in1k", "MIT", 113, 32, "transformer", "hierarchical ViT", strict_img_size=False
    ),
    "dino-small": _timm("vit_small_patch16_224.dino", "Apache-2.0", 87, 16, _DINOV2, "DINO features", **_ANY_SIZE),
    "dinov2-small": _timm(
        "vit_small_patch14_dinov2.lvd142m", "Apache-2.0", 88, 14, _DINOV2, "AnomalyDINO", **_ANY_SIZE
    ),
    "dinov2-small-reg": _timm(
        "vit_small_patch14_reg4_dinov2.lvd142m", "Apache-2.0", 88, 14, _DINOV2, "Dinomaly, small", **_ANY_SIZE
    ),
    "dinov2-base-reg": _timm(
        "vit_base_patch14_reg4_dinov2.lvd142m", "Apache-2.0", 346, 14, _DINOV2, "Dinomaly", **_ANY_SIZE
    ),
    "dinov3-small": _timm(  # rotary positions: any size as it is
        "vit_small_patch16_dinov3.lvd1689m", "DINOv3-License", 86, 16, _DINOV2, "AnomalyDINO with newer features"
    ),
    "mobilevit-s": _timm("mobilevit_s.cvnets_in1k", "CVNets-License", 22, 32, "CNN-transformer", "edge memory bank"),
    "tiny-vit-5m": _timm(
        "tiny_vit_5m_224.dist_in22k_ft_in1k", "Apache-2.0", 22, 32, "CNN-transformer", "edge memory bank"
    ),
    "efficientvit-b0": _timm(
        "efficientvit_b0.r224_in1k", "Apache-2.0", 14, 32, "CNN-transformer", "smallest edge bank"
    ),
    "mobilenetv4-small": _timm("mobilenetv4_conv_small.e2400_r224_in1k", "Apache-2.0", 15, 32, "CNN", "edge CNN"),
    # open_clip 3.3 resolves both its tags, laion400m_e31 and _e32, to this repository of epoch 31; the file of epoch 32
    # is a release of open_clip on GitHub (vit_b_16_plus_240-laion400m_e32-699c4b84.pt) and can be pulled from a folder
    "clip-vit-b-16-plus-240": Pretrained(
        "open_clip",
        "ViT-B-16-plus-240",
        "timm/vit_base_patch16_plus_clip_240.laion400m_e31",
        "MIT",
        834,
        16,
        "image and text",
        "WinCLIP",
    ),
    "sam-vit-b": _sam("vit_b", "base", 375),
    "sam-vit-l": _sam("vit_l", "large", 1249),
    "sam-vit-h": _sam("vit_h", "huge", 2564),
}
