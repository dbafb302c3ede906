"""A training run that is over in a second."""

from __future__ import annotations

import tomllib

from explainvad.training.config import TrainingConfig

TOML = """\
steps = 4
items = 2
normal = 1
test = 1
side = 32
families = ["lattice", "printed"]
precision = "fp32"
workers = 0
report_every = 2

[architecture]
stem = 8
detail = 8
width = 16
context = 16
conv_blocks = 1
attention_blocks = 1
heads = 2
dimension = 16
"""
CONFIG = TrainingConfig.model_validate(tomllib.loads(TOML))
