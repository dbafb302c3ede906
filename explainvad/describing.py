"""Between configuration and words: the model that describes a lot's regions, and what the record says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explainvad.config import DescriberConfig, InspectionConfig
from explainvad.explanation.describers.asking import Respondent
from explainvad.explanation.describers.model import ModelDescriber
from explainvad.explanation.describers.model_folder import FoundModel, find_model
from explainvad.explanation.describers.store import FOLDER, AnswerStore
from explainvad.record.finished import finished_start
from explainvad.types import Progress


@dataclass(frozen=True, slots=True, eq=False)
class RunDescriber:
    """Who describes a run's regions beside the measured sentences, and what the run records of it.

    ``model`` is None where nobody does, and of a finished run, in which nothing is left to describe.
    """

    model: ModelDescriber | None
    recorded: dict[str, Any]


def _vlm(config: InspectionConfig, found: FoundModel | None) -> Respondent:
    from explainvad.detection.ensemble import resolve_device
    from explainvad.explanation.describers.vlm import VisionLanguageModel

    settings, device = config.describer, resolve_device(config.device)
    return VisionLanguageModel.load(found or find_model(settings), settings, config.seed, device)


def _endpoint(config: InspectionConfig, found: FoundModel | None) -> Respondent:
    from explainvad.explanation.describers.endpoint import Endpoint

    return Endpoint(config.describer, config.seed)


# Takes the model's folder where it was found before
RESPONDENTS: dict[str, Callable[[InspectionConfig, FoundModel | None], Respondent]] = {
    "vlm": _vlm,
    "endpoint": _endpoint,
}


def run_describer(
    config: InspectionConfig, part: str | None, run_dir: Path, progress: Progress | None = None
) -> RunDescriber:
    """The model of ``[describer]``, ready to describe one lot.

    ``part`` is the part's name; ``progress`` counts regions. Answers are kept below ``run_dir`` until the run is
    finished; of a run that is, neither weights nor server are touched. Raises WeightsError, ConfigError or UsageError
    when the model cannot be used; that an endpoint does not answer is no error (ModelDescriber.fallbacks).
    """
    settings = config.describer
    recorded = recorded_describer(settings)
    if settings.use == "measured":
        return RunDescriber(None, recorded)
    if (finished := finished_start(run_dir)) is not None:
        there = finished.config.get("describer")
        weights = there.get("weights") if isinstance(there, dict) else None
        return RunDescriber(None, recorded if weights is None else recorded | {"weights": weights})
    found = find_model(settings) if settings.use == "vlm" else None
    model = ModelDescriber(
        RESPONDENTS[settings.use](config, found),
        part=part,
        arm=settings.arm,
        picture_px=settings.picture_px,
        minutes=settings.minutes,
        timeout=settings.timeout,
        store=AnswerStore(run_dir / FOLDER),
        progress=progress,
    )
    return RunDescriber(model, recorded if found is None else recorded | {"weights": found.weights})


def recorded_describer(describer: DescriberConfig) -> dict[str, Any]:
    """``[describer]`` as a run records it: every key that can change a result; of one that is not used, none can.

    A model's folder is recorded by its name: where it lies is this machine's business. What its weights are comes on
    top (run_describer), so that a run is never resumed with others.
    """
    if describer.use == "measured":
        return {"use": "measured"}
    recorded = describer.model_dump(mode="json")
    folder = Path(recorded["model"]).expanduser()
    if describer.use == "vlm" and folder.is_dir():
        recorded["model"] = folder.resolve().name
    return recorded


def forget_answers(run_dir: Path) -> None:
    """Drop the answers kept for a run that is finished: what they became is in the record."""
    AnswerStore(run_dir / FOLDER).clear()
