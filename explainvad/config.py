"""Settings of a fit and of an inspection, from TOML. An unknown key is an error that names the nearest known one."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from explainvad.errors import ConfigError

FILE_NAME = "explainvad.toml"


class DetectionConfig(BaseModel):
    """``[detection]``: how the scorers of the embedded profile are trained. Changing it means fitting anew."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: int = Field(default=448, ge=64, le=2048, description="longer side for the backbone, px")
    adaptation_steps: int = Field(default=300, ge=0, le=100_000, description="of the backbone to the product; 0: none")
    adaptation_minutes: float = Field(default=2.5, gt=0, le=1440, description="time budget that may cut them short")
    reconstruction_steps: int = Field(default=300, ge=1, le=100_000, description="training steps of the decoder")
    bank_rows: int = Field(default=8000, ge=16, le=200_000, description="most rows of the memory bank")


class BackboneConfig(BaseModel):
    """``[backbones]``: how pretrained networks are run. Part of the model: its scores depend on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Literal["auto", "fp32", "bf16"] = Field(default="auto", description="auto: bf16 where it is faster")
    compile: bool = Field(default=False, description="torch.compile the networks; minutes at first, faster then")


class DescriberConfig(BaseModel):
    """``[describer]``: which model writes about regions, beside the measured sentences. It changes no verdict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: Literal["measured", "vlm", "endpoint"] = Field(default="measured", description="measured: no language model")
    model: str | None = Field(default=None, description="vlm: folder or hub id; endpoint: the model's name there")
    revision: str | None = Field(default=None, description="commit, tag or branch of a hub id")
    base_url: str | None = Field(default=None, description="of the endpoint, up to /v1; pictures are sent there")
    # Of these names only: a file of settings must not send just any secret of the environment to a server
    key_variable: str = Field(
        default="EXPLAINVAD_ENDPOINT_KEY",
        pattern=r"^EXPLAINVAD_([A-Z0-9_]*_)?KEY$",
        description="environment variable of its key: EXPLAINVAD_KEY or EXPLAINVAD_..._KEY",
    )
    arm: Literal["informed", "blind"] = Field(default="informed", description="whether it is told the measured facts")
    quantization: Literal["none", "8bit", "4bit"] = Field(default="none", description="of a vlm, with bitsandbytes")
    picture_px: int = Field(default=512, ge=64, le=2048, description="longer side of each of the four pictures")
    max_new_tokens: int = Field(default=1024, ge=256, le=8192, description="an answer that needs more is refused")
    temperature: float = Field(default=0.0, ge=0, le=2, description="0: greedy")
    minutes: float = Field(default=30.0, gt=0, le=10_000, description="for all regions of a lot")
    timeout: float = Field(default=120.0, gt=0, le=3600, description="seconds for one answer")
    retries: int = Field(default=2, ge=0, le=5, description="of a busy or failing endpoint")
    at_once: int = Field(default=2, ge=1, le=16, description="most requests to the endpoint at the same time")

    @model_validator(mode="after")
    def _names_its_model(self) -> DescriberConfig:
        if self.use != "measured" and not self.model:
            raise ValueError(f'use = "{self.use}" needs model = "..." in [describer]')
        if self.use == "endpoint" and not self.base_url:
            raise ValueError('use = "endpoint" needs base_url = "http://HOST:PORT/v1" in [describer]')
        if self.base_url is not None:
            url = urlsplit(self.base_url)
            _ = url.port  # raises ValueError for one that is no port
            more = url.query or url.fragment or "@" in url.netloc
            if url.scheme not in ("http", "https") or not url.hostname or more:
                raise ValueError(
                    "base_url must be http://HOST[:PORT][/PATH] or https://..., without user, password and query: "
                    f"the key is read from the environment variable {self.key_variable}"
                )
        return self


class RegionsConfig(BaseModel):
    """``[regions]``: who draws the outlines of regions. It changes no verdict and no p-value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    refine: Literal["threshold", "sam"] = Field(default="threshold", description="sam: where it agrees")
    sam: str = Field(default="", pattern=r"^[^\x00]{0,4096}$", description="its weights: a name, file or folder")
    agreement: float = Field(default=0.5, gt=0, le=1, description="of SAM's mask with the evidence; dropped below it")

    @property
    def sam_file(self) -> Path | None:
        """The checkpoint, or the folder of one, that ``sam`` names; None where it is a name in the weight store."""
        path = Path(self.sam)
        return path if len(path.parts) > 1 or path.suffix in (".pth", ".pt", ".bin", ".safetensors") else None

    @model_validator(mode="after")
    def _sam_has_weights(self) -> RegionsConfig:
        if self.refine == "sam" and not self.sam:
            raise ValueError(
                'refine = "sam" needs sam = "NAME" of weights in the store (`explainvad models pull sam-vit-b`), or '
                'sam = "PATH" of a checkpoint of Segment Anything'
            )
        return self


class AttributionConfig(BaseModel):
    """``[attribution]``: which explanations of flagged images a run keeps. They change no verdict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    maps: tuple[Literal["evidence", "attention", "gradients", "prompts"], ...] = Field(
        default=(), description="kinds kept for the report; none by default, for each takes time"
    )


class ScorerConfig(BaseModel):
    """``[[scorer]]``: one member of a custom ensemble; what else it says are that scorer's own options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str = Field(description="name of a registered scorer")

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside ``use``; the scorer itself validates them."""
        return dict(self.model_extra or {})


class InspectionConfig(BaseModel):
    """All settings. ``alpha``, ``gamma`` and ``q`` are levels of guarantees, in (0, 1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path | None = Field(default=None, description="bundle to inspect with, relative to this file")
    profile: Literal["embedded", "standard", "zero-shot", "edge", "custom"] = "embedded"
    alpha: float = Field(default=0.05, gt=0, lt=1, description="most normal images rejected, as a share")
    beta: float = Field(default=0.10, gt=0, lt=1, description="most defects accepted, where defects were labelled")
    gamma: float = Field(default=0.02, gt=0, lt=1, description="level of each deferral rule")
    q: float = Field(default=0.10, gt=0, lt=1, description="false discovery rate of the lot's list")
    prior: float = Field(default=0.05, gt=0, lt=1, description="defect rate assumed for the probability of a defect")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of the bounds in the lot statement")
    group_by: str | None = Field(default=None, description="cells with a calibration of their own: REGEX or CSV")
    pages: Literal["flagged", "all"] = Field(
        default="flagged", description="images with a page in the report; all: pictures of every image are kept"
    )
    scheme: Literal["auto", "split", "leave-one-out"] = Field(
        default="auto", description="of calibration; auto: leave-one-out below 60 groups of reference images"
    )
    synthetic_defects: int = Field(
        default=0, ge=0, le=100_000, description="made at fit, for probabilities and power marked as synthetic"
    )
    seed: int = Field(default=0, ge=0, lt=2**32)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto: the GPU if any")
    detection: DetectionConfig = DetectionConfig()
    backbones: BackboneConfig = BackboneConfig()
    describer: DescriberConfig = DescriberConfig()
    regions: RegionsConfig = RegionsConfig()
    attribution: AttributionConfig = AttributionConfig()
    prompts: dict[str, Any] | None = Field(default=None, description="of CLIP scorers: object, set, states, templates")
    scorer: tuple[ScorerConfig, ...] = Field(default=(), description="of the profile custom")

    @model_validator(mode="after")
    def _scorers_are_of_custom(self) -> InspectionConfig:
        if self.scorer and self.profile != "custom":
            raise ValueError(f'[[scorer]] belongs to profile = "custom", but the profile is {self.profile}')
        if self.profile == "custom" and not self.scorer:
            raise ValueError('profile = "custom" needs a [[scorer]] with use = "NAME" for each of its scorers')
        return self


def load_config(path: Path) -> InspectionConfig:
    """Read a TOML file. ``model``, the folder of a vlm and a path of SAM become absolute, relative to it.

    Raises ConfigError.
    """
    return load_for_describer(path, None)


def load_for_describer(path: Path, use: str | None) -> InspectionConfig:
    """As :func:`load_config`; ``use``, where given, replaces that of a [describer] table that is there.

    What ``model`` means depends on it: the folder of a vlm is one beside the file, the model's name at an endpoint is
    a name whatever lies there.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path.name}: expected a readable TOML file, got: {error}") from error
    if use is not None and isinstance(table := raw.get("describer"), dict):
        table["use"] = use
    config = parse_config(raw, path.name)
    if config.model is not None:
        config = config.model_copy(update={"model": (path.parent / config.model).resolve()})
    folder = path.parent / (config.describer.model or "")
    if config.describer.model and config.describer.use == "vlm" and folder.is_dir():
        describer = config.describer.model_copy(update={"model": str(folder.resolve())})
        config = config.model_copy(update={"describer": describer})
    if (checkpoint := config.regions.sam_file) is not None:
        found = str((path.parent / checkpoint).resolve())
        config = config.model_copy(update={"regions": config.regions.model_copy(update={"sam": found})})
    return config


def parse_config(raw: dict[str, object], origin: str) -> InspectionConfig:
    """Validate settings; ``origin`` names them in errors. Raises ConfigError with one line per fault."""
    return validated(InspectionConfig, raw, origin)


Model = TypeVar("Model", bound=BaseModel)


def validated(kind: type[Model], raw: object, origin: str) -> Model:
    """``raw`` as a ``kind``; ConfigError with one line per fault, each naming ``origin``."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        faults = [_explain(kind, fault["loc"], fault["type"], fault["msg"], fault["input"]) for fault in error.errors()]
        raise ConfigError("\n".join(f"{origin}: {fault}" for fault in faults)) from error


def _explain(kind: type[BaseModel], location: tuple[int | str, ...], fault: str, message: str, value: object) -> str:
    key = ".".join(str(part) for part in location)
    if not key:
        return message.removeprefix("Value error, ")
    if fault != "extra_forbidden":
        return f"{key} = {value!r}: {message}"
    for part in location[:-1]:  # down to the table that the key stands in
        inner = kind.model_fields[str(part)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    known = list(kind.model_fields)
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.0)
    return f"unknown key {key}; the nearest known one is {near[0]} (known here: {', '.join(known)})"
