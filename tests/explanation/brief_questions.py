"""Questions about a region, for models of which every token costs time."""

from __future__ import annotations

import json

from described_regions import findings, part_image, reference_picture

from explainvad.explanation.describers.asking import Question
from explainvad.explanation.describers.pictures import region_pictures
from explainvad.explanation.describers.prompt import region_question

REGIONS = ("R1", "R2", "R3")


def brief() -> Question:
    """The real schema and pictures, but few words: a tiny model needs no more."""
    whole = question(side=32)
    schema = json.loads(json.dumps(whole.schema).replace("{0,239}", "{0,15}"))
    assert schema != whole.schema
    parts = [f"{place}:" if isinstance(part, str) else part for place, part in enumerate(whole.parts)]
    return Question("Look.", tuple(parts), schema)


def question(name: str = "Pump flange", side: int = 64) -> Question:
    """The whole question of the informed arm."""
    (finding,) = findings()
    pictures = region_pictures(part_image(), finding.region, reference_picture(), side)
    return region_question(pictures, finding, REGIONS, name, "informed")
