"""Findings with the measured sentences, and a describer that adds to them: what the tests of describers begin with."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from region_examples import make_facts, make_image, make_region

from explainvad.explanation.claims import check_sentence
from explainvad.explanation.describers.asking import Respondent
from explainvad.explanation.describers.model import ModelDescriber
from explainvad.explanation.describers.store import AnswerStore
from explainvad.explanation.sentences import MeasuredDescriber
from explainvad.types import Finding, InspectionImage

MEASURED = MeasuredDescriber.author
SIZE = (60, 90)  # rows, columns


def part_image(seed: int = 0) -> InspectionImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return make_image(pixels)


def reference_picture(seed: int = 1) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(part_image(seed).pixels).save(stream, "JPEG")
    return stream.getvalue()


def findings(n: int = 1, **facts: Any) -> tuple[Finding, ...]:
    """``n`` regions at different places, described by measurements that are the same for all."""
    made = []
    for number, (row, column) in zip(range(1, n + 1), itertools.cycle([(4, 6), (30, 40), (12, 60)]), strict=False):
        mask = np.zeros(SIZE, dtype=np.bool_)
        mask[row : row + 8, column : column + 10] = True
        region, measured = make_region(mask, f"R{number}"), make_facts(shape="compact", elongation=1.3, **facts)
        texts = MeasuredDescriber().describe(part_image(), region, measured)
        made.append(Finding(region, measured, tuple(check_sentence(text, MEASURED, measured) for text in texts)))
    return tuple(made)


def describer(respondent: Respondent, folder: Path | None = None, **settings: Any) -> ModelDescriber:
    usual: dict[str, Any] = {
        "part": "Pump flange",
        "arm": "informed",
        "picture_px": 64,
        "minutes": 1.0,
        "timeout": 20.0,
        "store": AnswerStore(folder),
    }
    return ModelDescriber(respondent, **{**usual, **settings})
