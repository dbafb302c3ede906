"""From a configuration to a fitted ensemble of its profile, and from a bundle back to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from explainvad.config import InspectionConfig
from explainvad.detection.ensemble import EmbeddedEnsemble, Ensemble, resolve_device
from explainvad.types import InspectionImage, Progress

FitEnsemble = Callable[[Sequence[InspectionImage], bool], Ensemble]  # FIT images, and whether they are few


def ensemble_fitter(config: InspectionConfig, progress: Progress | None) -> FitEnsemble:
    """What fits the profile's scorers; weights that are missing, and wrong options, are told before it has images.

    Scorers of ``few`` images must be able to leave images out.
    """
    device = resolve_device(config.device)
    if config.profile == "embedded":
        options = config.detection.model_dump()
        return lambda images, few: EmbeddedEnsemble.fit(
            images, config.seed, **options, device=device, few=few, progress=progress
        )
    # timm, torchvision and open_clip take seconds to import
    from explainvad.detection.backbones import Backbones
    from explainvad.detection.pretrained import PretrainedEnsemble
    from explainvad.detection.registry import build

    asked = config.backbones
    bf16 = None if asked.precision == "auto" else asked.precision == "bf16"
    backbones = Backbones(device=device, bf16=bf16, compile=asked.compile)
    scorers = build(config, backbones, progress)
    return lambda images, few: PretrainedEnsemble.fit(images, config, backbones, scorers, few=few)


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
