"""The scorers by name. Packages add theirs through the entry-point group ``explainvad.scorers``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from explainvad.config import InspectionConfig, ScorerConfig, validated
from explainvad.detection.backbones import Backbones
from explainvad.detection.scorer import FrozenScorer
from explainvad.errors import ConfigError, WeightsError
from explainvad.types import Progress

GROUP = "explainvad.scorers"

# name -> where its class is; loaded when it is used
SCORERS: dict[str, str] = {
    "patchcore": "explainvad.detection.banks.patchcore:PatchCore",
    "sa-patchcore": "explainvad.detection.banks.sa_patchcore:SAPatchCore",
    "anomaly-dino": "explainvad.detection.banks.anomaly_dino:AnomalyDINO",
    "edge-bank": "explainvad.detection.banks.edge_bank:EdgeBank",
    "padim": "explainvad.detection.padim:PaDiM",
    "efficient-ad": "explainvad.detection.distillation.efficient_ad:EfficientAD",
    "dinomaly": "explainvad.detection.reconstruction.dinomaly:Dinomaly",
    "uniad": "explainvad.detection.reconstruction.uniad:UniAD",
    "mem-ae": "explainvad.detection.reconstruction.mem_ae:MemAE",
    "masked-vit": "explainvad.detection.reconstruction.masked_vit:MaskedViT",
    "vit-ae": "explainvad.detection.reconstruction.vit_ae:ViTAutoencoder",
    "unet": "explainvad.detection.reconstruction.unet:UNetAutoencoder",
    "winclip": "explainvad.detection.clip.winclip:WinCLIP",
    "musc": "explainvad.detection.clip.musc:MuSc",
}

# The members of each profile and the options in which they differ from their defaults. The two DINO scorers of
# `standard` look through one backbone, so that they share its forward pass.
PROFILES: dict[str, tuple[dict[str, Any], ...]] = {
    "standard": (
        {"use": "dinomaly", "backbone": "dinov2-small-reg"},
        {"use": "anomaly-dino", "backbone": "dinov2-small-reg"},
        {"use": "winclip"},
    ),
    "zero-shot": ({"use": "winclip", "shots": 0},),
    "edge": ({"use": "edge-bank"},),
}
PROMPTED = "prompts"  # option of scorers that ask CLIP; `[prompts]` is its default


def scorer_type(name: str) -> type[FrozenScorer[Any]]:
    """The class of a registered scorer. Raises ConfigError that names the nearest one."""
    found = {**{point.name: point.value for point in entry_points(group=GROUP)}, **SCORERS}
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown scorer {name!r}; the nearest is {near} (registered: {', '.join(sorted(found))})")
    module, _, attribute = found[name].partition(":")
    kind: type[FrozenScorer[Any]] = getattr(import_module(module), attribute)
    return kind


def members(config: InspectionConfig) -> Sequence[ScorerConfig]:
    """The scorers that a configuration asks for."""
    return config.scorer or [ScorerConfig(**member) for member in PROFILES[config.profile]]


def build(config: InspectionConfig, backbones: Backbones, progress: Progress | None = None) -> list[FrozenScorer[Any]]:
    """The scorers of a configuration, not fitted yet, with names of their own.

    Raises ConfigError for an unknown scorer, a wrong option, or a name that two scorers share, and one WeightsError
    that names all weights that are missing.
    """
    scorers, lacking = [], []
    for number, member in enumerate(members(config), start=1):
        kind = scorer_type(member.use)
        options = member.options
        if PROMPTED in kind.options_type.model_fields and config.prompts:
            options = {PROMPTED: config.prompts, **options}
        valid = validated(kind.options_type, options, f"[[scorer]] {number}, {member.use}")
        try:
            scorers.append(kind(valid, backbones, progress))
        except WeightsError as error:
            lacking.append(str(error))
    if lacking:
        raise WeightsError("\n".join(dict.fromkeys(lacking)))
    labels = [scorer.label for scorer in scorers]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f'two scorers are called {label}: give each a name of its own with label = "…"')
    return scorers
