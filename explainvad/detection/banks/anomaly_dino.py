"""AnomalyDINO: a memory bank of the last tokens of a self-supervised transformer.

Damm et al., "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2", WACV 2025. Tokens are compared
by the cosine distance 1 - cos(m_test, m*), and an image scores the mean of its largest 1 %. Of few images the bank also
holds views turned by 45 degrees, without what lies outside of the image (where the paper's turned images are black, so
that a black patch would be normal). A mask of the foreground can keep the background out of bank and score.

Differences from the paper: frames are rounded, not cropped, to whole patches; a coreset is kept where images are many;
for the mask see ``foreground``. It is off unless asked for, since no defect is found where it hides the part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor

from explainvad.detection.backbones import FINAL
from explainvad.detection.banks.foreground import fit_foreground, foreground, sensible
from explainvad.detection.banks.patch_bank import BankOptions, PatchBank
from explainvad.detection.banks.views import View, turned
from explainvad.detection.frames import spread_out, top_mean
from explainvad.errors import ConfigError
from explainvad.types import InspectionImage

TOP = 0.01  # share of patches whose mean distance is the image's score
MASK_IMAGES = 24  # reference images, at most, that the mask is fitted to


class AnomalyDINOOptions(BankOptions):
    """What AnomalyDINO may be told."""

    backbone: str = Field("dinov2-small", description="the frozen transformer whose last tokens are kept")
    resolution: int = Field(448, ge=32, le=2048, description="px, of the working frame's shorter side")
    rotations: Literal["auto", 1, 4, 8] = Field(
        "auto", description="views of a reference image over a full turn; auto: 8 of few images, else 1"
    )
    mask: bool = Field(False, description="whether only patches of the foreground count, where one is found")


class AnomalyDINO(PatchBank[AnomalyDINOOptions]):
    """A memory bank of unit vectors."""

    name = "anomaly-dino"
    summary = "Cosine distance of each patch to the nearest normal patch; of an image the mean of the largest 1 %"
    source = "Damm et al., AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2, WACV 2025"
    options_type = AnomalyDINOOptions
    prepared = ("direction", "cut")

    def chosen_layers(self) -> tuple[int, ...]:
        """The last one, normalised by the network."""
        return (FINAL,)

    def assembled(self, levels: Sequence[Tensor]) -> Tensor:
        """Tokens of length 1."""
        (tokens,) = levels
        return F.normalize(tokens, dim=0)

    def measure(self, distance: Tensor) -> Tensor:
        """1 - cos, which is half of the squared distance of unit vectors."""
        return distance.square() / 2

    def image_score(self, distance: Tensor) -> float:
        """Mean of the largest TOP of all patches."""
        return top_mean(distance, TOP)

    def views(self, image: InspectionImage) -> Sequence[View]:
        """The image, turned as the options say."""
        return turned(image, self.rotations)

    @property
    def rotations(self) -> int:
        """Views of a reference image."""
        if self.options.rotations == "auto":
            return 8 if self.separate else 1
        return self.options.rotations

    def prepare(self, images: Sequence[InspectionImage]) -> dict[str, Tensor]:
        """The mask, where it is asked for and sensible; what was decided is a fact. ConfigError with few images."""
        self.facts["views"] = f"{self.rotations} of a reference image"
        if not self.options.mask:
            return {}
        if self.separate:
            raise ConfigError(
                f"{self.label}: mask = true is not for so few images that each is judged by the others, because it is "
                "fitted to all of them together: set mask = false, or give more images"
            )
        grids = [self.patches(images[i]) for i in spread_out(len(images), MASK_IMAGES)]
        direction, cut, middle, rim = fit_foreground(grids)
        filled = f"foreground fills {middle:.0%} of the middle and {rim:.0%} of the rim of reference images"
        self.facts["mask"] = f"used: {filled}" if sensible(middle, rim) else f"asked for, but not used: {filled}"
        return {"direction": direction, "cut": cut} if sensible(middle, rim) else {}

    def visible(self, grid: Tensor) -> Tensor | None:
        """The foreground, where there is a mask."""
        if "direction" not in self.arrays:
            return None
        return foreground(grid, self.arrays["direction"], self.arrays["cut"])
