"""From a configuration to a fitted ensemble of its profile, and from a bundle back to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from explainvad.config import InspectionConfig
from explainvad.detection.ensemble import EmbeddedEnsemble, Ensemble, resolve_device
from explainvad.types import InspectionImage, Progress


def fit_ensemble(
    images: Sequence[InspectionImage], config: InspectionConfig, *, few: bool, progress: Progress | None
) -> Ensemble:
    """Fit the profile's scorers to the FIT images. ``few``: each must be able to leave images out."""
    device = resolve_device(config.device)
    if config.profile == "embedded":
        return EmbeddedEnsemble.fit(
            images, config.seed, **config.detection.model_dump(), device=device, few=few, progress=progress
        )
    # timm, torchvision and open_clip take seconds to import
    from explainvad.detection.backbones import Backbones
    from explainvad.detection.pretrained import PretrainedEnsemble

    asked = config.backbones
    bf16 = None if asked.precision == "auto" else asked.precision == "bf16"
    backbones = Backbones(device=device, bf16=bf16, compile=asked.compile)
    return PretrainedEnsemble.fit(images, config, backbones, few=few, progress=progress)


def restore_ensemble(
    arrays: Mapping[str, dict[str, NDArray[Any]]],
    settings: Mapping[str, Any],
    config: InspectionConfig,
    device: str,
) -> Ensemble:
    """Rebuild a fitted ensemble from what its ``state`` gave."""
    device = resolve_device(device)
    if config.profile == "embedded":
        return EmbeddedEnsemble.restore(arrays, settings, device)
    from explainvad.detection.backbones import Backbones
    from explainvad.detection.pretrained import PretrainedEnsemble

    # precision as at fit: calibration holds for scores that are computed alike
    backbones = Backbones(device=device, bf16=settings["bf16"], compile=config.backbones.compile)
    return PretrainedEnsemble.restore(arrays, settings, config, backbones)
