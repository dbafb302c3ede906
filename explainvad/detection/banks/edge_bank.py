"""A memory bank for edge devices: PatchCore on a small CNN-transformer, its bank product-quantised.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, on MobileViT (Mehta & Rastegari,
"MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision Transformer", ICLR 2022). Neighbours are found
among product codes (Jégou et al., "Product Quantization for Nearest Neighbor Search", PAMI 2011), and the nearest are
ranked again by their exact distances. A bank of few images is searched exactly, so that images can be left out.
"""

from __future__ import annotations

from pydantic import Field

from explainvad.detection.banks.patchcore import PatchCore, PatchCoreOptions


class EdgeBankOptions(PatchCoreOptions):
    """What the edge bank may be told; layers 2 and 3 of MobileViT have strides of 8 and 16 px."""

    backbone: str = Field("mobilevit-s", description="the frozen network whose features are kept")
    max_rows: int = Field(8192, ge=1, le=2_000_000, description="of the bank, however many patches there are")


class EdgeBank(PatchCore):
    """PatchCore on a small network with a quantised search."""

    name = "edge-bank"
    summary = "Distance of each patch of a small network to the nearest normal patch of a quantised coreset"
    source = "Roth et al., PatchCore, CVPR 2022, on MobileViT (Mehta & Rastegari, ICLR 2022), product-quantised"
    options_type = EdgeBankOptions
    quantised = True
