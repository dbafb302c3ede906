"""What the report says of a model: who made the verdicts, on what, and where its limits are."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from explainvad.config import InspectionConfig
from explainvad.types import CalibrationFacts, ModelCard, ScorerCard

INTENDED_USE = (
    "Screening of product images for deviations from the reference images, with a person deciding on every "
    "rejected and deferred item. Not for use as the only safeguard."
)
LIMITS = (
    "Every guarantee needs the inspected images to be exchangeable with the calibration images: same product, camera, "
    "lighting and handling.",
    "Normal images bound false rejects only. How many defects are missed is unknown unless defects were labelled.",
    "Defects smaller than about five pixels across at the working resolution may not be seen.",
)
NO_SAM = "SAM refinement: not used, regions are cut by the calibrated threshold"
NO_LANGUAGE_MODEL = "language model: not used, sentences are written from measured facts"
NO_PROMPTS = "prompts: those of the configuration are not used, no scorer of this ensemble reads words"
PACKAGES = (
    *("explainvad", "torch", "timm", "open-clip-torch", "faiss-cpu", "transformers"),
    *("numpy", "scipy", "scikit-image", "pillow", "weasyprint"),
)


def model_card(
    model_id: str,
    config: InspectionConfig,
    scorers: tuple[ScorerCard, ...],
    missing: tuple[str, ...],
    calibration: CalibrationFacts,
    fitted: Mapping[str, Any],
) -> ModelCard:
    """Put the card together; ``missing`` is what the ensemble lacks, ``fitted`` what :meth:`Inspector.fit` noted."""
    return ModelCard(
        model_id=model_id,
        profile=config.profile,
        intended_use=INTENDED_USE,
        scorers=tuple(_checked(scorer, fitted["checks"].get(scorer.name, ())) for scorer in scorers),
        calibration=calibration,
        image_sizes=size_range(fitted["sizes"]),
        seed=config.seed,
        fitted_at=fitted["fitted_at"],
        fit_seconds=fitted["fit_seconds"],
        versions=fitted["versions"],
        limits=LIMITS,
        fallbacks=(
            *missing,
            *((NO_PROMPTS,) if config.prompts and not any("prompts" in scorer.facts for scorer in scorers) else ()),
            *((NO_SAM,) if config.regions.refine == "threshold" else ()),
            *((NO_LANGUAGE_MODEL,) if config.describer.use == "measured" else ()),
            *_raised_gamma(config.gamma, calibration),
            *(f"{name} scorer, {c['name']}: {c['sentence']}" for name, c in _failed(fitted["checks"])),
            *fitted["notes"],
        ),
    )


def _checked(scorer: ScorerCard, checks: Sequence[Mapping[str, Any]]) -> ScorerCard:
    """The card with what was checked at the end of the fit."""
    return replace(scorer, facts={**scorer.facts, **{check["name"]: check["sentence"] for check in checks}})


def _failed(checks: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, found in checks.items():
        yield from ((name, check) for check in found if check["failed"])


def _raised_gamma(asked: float, calibration: CalibrationFacts) -> tuple[str, ...]:
    """The fallback line of a calibration set too small for the asked deferral level."""
    if calibration.gamma <= asked:
        return ()
    n_cal = min(facts.n_cal for facts in calibration.cells or (calibration,))
    return (
        f"deferral level gamma = {asked:g} was asked for; with {n_cal} calibration images "
        f"{calibration.gamma:.3g} is in force",
    )


def size_range(sizes: Any) -> str:
    """Widths and heights [[least, most], [least, most]] in words."""
    (w0, w1), (h0, h1) = sizes
    return f"{w0} x {h0} px" if (w0, h0) == (w1, h1) else f"{w0} to {w1} x {h0} to {h1} px"


def versions() -> dict[str, str]:
    """Versions of Python and of what computes the numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
