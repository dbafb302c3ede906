"""Between configuration and words: the model that describes a lot's regions, and what the record says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from explainvad.config import DescriberConfig, InspectionConfig
from explainvad.explanation.describers.asking import Respondent
from explainvad.explanation.describers.model import ModelDescriber
from explainvad.explanation.describers.store import FOLDER, AnswerStore
from explainvad.types import Progress


def _vlm(config: DescriberConfig, seed: int, device: str) -> Respondent:
    from explainvad.explanation.describers.vlm import VisionLanguageModel

    return VisionLanguageModel.load(config, seed, device)


def _endpoint(config: DescriberConfig, seed: int, device: str) -> Respondent:
    from explainvad.explanation.describers.endpoint import Endpoint

    return Endpoint(config, seed)


RESPONDENTS: dict[str, Callable[[DescriberConfig, int, str], Respondent]] = {"vlm": _vlm, "endpoint": _endpoint}


def model_describer(
    config: InspectionConfig, part: str | None, run_dir: Path, progress: Progress | None = None
) -> ModelDescriber | None:
    """The model of ``[describer]``, ready to describe one lot; None where measured sentences are all that is wanted.

    ``part`` is the part's name; ``progress`` counts regions. Answers are kept below ``run_dir`` until the run is
    finished. Raises WeightsError or ConfigError when the model cannot be used; that an endpoint does not answer is no
    error (ModelDescriber.fallbacks).
    """
    settings = config.describer
    if settings.use == "measured":
        return None
    return ModelDescriber(
        RESPONDENTS[settings.use](settings, config.seed, config.device),
        part=part,
        arm=settings.arm,
        picture_px=settings.picture_px,
        minutes=settings.minutes,
        timeout=settings.timeout,
        store=AnswerStore(run_dir / FOLDER),
        progress=progress,
    )


def recorded_describer(describer: DescriberConfig) -> dict[str, Any]:
    """``[describer]`` as a run records it: every key that can change a result; of one that is not used, none can.

    A model's folder is recorded by its name: where it lies is this machine's business, and its weights are hashed.
    """
    if describer.use == "measured":
        return {"use": "measured"}
    recorded = describer.model_dump(mode="json")
    folder = Path(recorded["model"]).expanduser()
    if describer.use == "vlm" and folder.is_dir():
        recorded["model"] = folder.resolve().name
    return recorded
