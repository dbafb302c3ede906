"""Who draws the outlines of regions: the joint between weights, which detection knows, and their use in attribution.

Nothing here decides anything about an image: regions and their p-values are there before an outline is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from explainvad.config import RegionsConfig
from explainvad.detection.ensemble import resolve_device

if TYPE_CHECKING:
    from explainvad.attribution.sam import SamRefiner


def outline_refiner(regions: RegionsConfig, device: str) -> SamRefiner | None:
    """What draws the outlines, with its weights loaded and checked; None where the threshold does.

    Raises WeightsError that names the command to run when weights are missing or do not fit, IntegrityError when they
    are not the locked ones.
    """
    if regions.refine == "threshold":
        return None
    # segment_anything and torchvision take seconds to import
    from explainvad.attribution.sam import SamRefiner, SamSegmenter
    from explainvad.detection.sam_checkpoint import open_sam

    opened = open_sam(regions.sam, regions.sam_file)
    segmenter = SamSegmenter(opened.network, opened.architecture, resolve_device(device))
    return SamRefiner(segmenter, regions.agreement, opened.source, opened.sha256)


def recorded_regions(regions: RegionsConfig, refiner: SamRefiner | None) -> dict[str, Any]:
    """``[regions]`` as a run records it: all that can change a result, and no path of this machine.

    Of SAM that is its name and the sha256 of its weights, so that a run is never resumed with others.
    """
    if refiner is None:
        return {"refine": "threshold"}
    weights = f"sha256 {refiner.sha256}" if refiner.sha256 else refiner.source
    return regions.model_dump(mode="json") | {"sam": f"{refiner.segmenter.name}, {weights}"}
