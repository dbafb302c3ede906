"""What a training run of the embedded backbone is made of, from TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from explainvad.detection.backbone.network import Architecture
from explainvad.detection.synthesis.items import FAMILIES
from explainvad.errors import ConfigError


class ArchitectureConfig(BaseModel):
    """``[architecture]``: see :class:`explainvad.detection.backbone.network.Architecture`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stem: int = Field(default=32, ge=8, le=256)
    detail: int = Field(default=64, ge=8, le=512, multiple_of=8)
    width: int = Field(default=128, ge=8, le=1024, multiple_of=8)
    context: int = Field(default=192, ge=8, le=1024)
    conv_blocks: int = Field(default=2, ge=0, le=16, description="residual blocks at 1/8; 0: attention only")
    attention_blocks: int = Field(default=4, ge=0, le=16, description="transformer blocks at 1/16; 0: CNN only")
    heads: int = Field(default=6, ge=1, le=16)
    dimension: int = Field(default=128, ge=8, le=1024)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.context % self.heads:
            raise ValueError(f"heads must divide context, got {self.heads} heads for {self.context} channels")
        return self

    def build(self) -> Architecture:
        """As the network takes it."""
        return Architecture(**self.model_dump())


class TrainingConfig(BaseModel):
    """Settings of ``explainvad train-backbone``. The same settings on the same device give the same weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0, lt=2**32)
    steps: int = Field(default=5000, ge=1)
    items: int = Field(default=12, ge=1, description="generated surfaces in a step")
    normal: int = Field(default=3, ge=1, description="normal crops of each")
    test: int = Field(default=3, ge=1, description="crops of each with defects blended in")
    side: int = Field(default=128, ge=32, multiple_of=16, description="of a crop, px")
    learning_rate: float = Field(default=1e-3, gt=0, lt=1)
    weight_decay: float = Field(default=0.02, ge=0, lt=1)
    families: tuple[str, ...] = tuple(FAMILIES)
    precision: Literal["bf16", "fp32"] = "bf16"
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    threads: int = Field(default=1, ge=1, description="CPU threads of the training process; part of the result")
    workers: int = Field(default=1, ge=0, description="processes that generate images; no part of the result")
    report_every: int = Field(
        default=250, ge=1, description="steps between lines of the log, hold-outs and checkpoints"
    )
    architecture: ArchitectureConfig = ArchitectureConfig()

    @field_validator("families")
    @classmethod
    def _known(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(families) - set(FAMILIES))
        if unknown or not families:
            raise ValueError(f"expected some of {', '.join(FAMILIES)}, got {', '.join(unknown) or 'none'}")
        return families


def load_training_config(path: Path) -> TrainingConfig:
    """Read a TOML file. Raises ConfigError with one line per fault."""
    try:
        return TrainingConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path.name}: expected a readable TOML file, got: {error}") from error
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, f['loc']))} = {f['input']!r}: {f['msg']}" for f in error.errors())
        raise ConfigError("\n".join(f"{path.name}: {fault}" for fault in faults)) from error
