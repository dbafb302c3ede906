from __future__ import annotations

import re

import numpy as np
import pytest
from region_examples import make_facts, make_image, make_region, random_facts

from explainvad.explanation.colour import NO_BASELINE, REFERENCE, SAME_BRIGHTNESS
from explainvad.explanation.sentences import MeasuredDescriber
from explainvad.types import RegionFacts

DESCRIBER = MeasuredDescriber()
IMAGE = make_image(np.zeros((4, 4, 3), dtype=np.uint8))


def describe(facts: RegionFacts, region_id: str = "R1") -> tuple[str, ...]:
    return DESCRIBER.describe(IMAGE, make_region(np.ones((4, 4), dtype=bool), region_id), facts)


def every_wording(facts: RegionFacts) -> set[str]:
    return {sentence for i in range(40) for sentence in describe(facts, f"R{i}")}


def test_every_wording_of_one_region() -> None:
    assert every_wording(make_facts(cells=("upper left", "upper centre", "centre"), touches_edge=True)) == {
        "An elongated region lies in the upper left of the part, at about 10 o'clock near the rim, and reaches into"
        " the upper centre and the centre.",
        "In the upper left of the part, at about 10 o'clock near the rim, there is an elongated region, which reaches"
        " into the upper centre and the centre.",
        "The region is elongated and lies in the upper left of the part, at about 10 o'clock near the rim; it also"
        " reaches into the upper centre and the centre.",
        "It measures 34.2 × 9.1 px (4.10 × 1.09 mm) and covers 0.40 % of the part.",
        "It is 34.2 px long and 9.1 px wide (4.10 × 1.09 mm) and covers 0.40 % of the part.",
        "It runs at 32° counter-clockwise from the horizontal and touches the edge of the image.",
        "It is darker than its surroundings (ΔL* −12.4, ΔE00 10.0, noise 1.8).",
    }


def test_a_region_always_reads_the_same() -> None:
    assert describe(make_facts(), "R7") == describe(make_facts(), "R7")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"length_mm": None, "width_mm": None}, "It measures 34.2 × 9.1 px and covers 0.40 % of the part."),
        ({"frame": "image", "area_share": 0.25}, "(4.10 × 1.09 mm) and covers 25 % of the image."),
        ({"area_share": 1e-6}, "covers less than 0.01 % of the part."),
        ({"area_share": 0.00043}, "covers 0.043 % of the part."),
        ({"length_px": 1204.4, "width_px": 0.71}, "It measures 1,204 × 0.7 px"),
        ({"length_mm": 120.4, "width_mm": 0.037}, "(120 × 0.037 mm)"),
        ({"holes": 1, "orientation_deg": None}, "It encloses one hole."),
        ({"holes": 3}, "It runs at 32° counter-clockwise from the horizontal and encloses 3 holes."),
        (
            {"holes": 3, "orientation_deg": 90.3, "touches_edge": True},
            "It runs vertically, encloses 3 holes and touches the edge of the image.",
        ),
        ({"orientation_deg": 179.8}, "It runs horizontally."),
        ({"cells": ()}, "An elongated region spreads across the part."),
        ({"clock": None, "radial_zone": "middle"}, "An elongated region lies in the upper left of the part."),
        (
            {"shape": "compact", "frame": "image", "clock": 8},
            "A compact region lies in the upper left of the image, at",
        ),
        (
            {"colour": "redder and yellower", "delta_a": 8.04, "delta_b": 7.0},
            "It is darker, redder and yellower than its surroundings (ΔL* −12.4, Δa* 8.0, Δb* 7.0, ΔE00 10.0, noise",
        ),
        (
            {"colour": "bluer", "brightness": SAME_BRIGHTNESS, "delta_l": -0.04, "baseline": REFERENCE},
            "It is bluer than the reference image, but not measurably different in brightness (ΔL* 0.0, ",
        ),
        (
            {"brightness": SAME_BRIGHTNESS},
            "It is not measurably different from its surroundings in brightness or colour (ΔE00 10.0, noise 1.8).",
        ),
        (
            {"baseline": NO_BASELINE, "brightness": SAME_BRIGHTNESS},
            "It leaves no normal surroundings to compare its brightness and colour with.",
        ),
    ],
)
def test_wording_follows_the_facts(changes: dict[str, object], text: str) -> None:
    wordings = every_wording(make_facts(**changes))
    assert any(text in sentence for sentence in wordings), wordings


def test_nothing_to_say_of_the_form_leaves_three_sentences() -> None:
    assert len(describe(make_facts(orientation_deg=None))) == 3


def test_grammar_for_a_thousand_regions() -> None:
    for seed in range(1000):
        sentences = describe(random_facts(seed), f"R{seed}")
        assert 3 <= len(sentences) <= 4
        for sentence in sentences:
            assert re.fullmatch(r"[A-Z].*[a-z)]\.|.*[%d]\.", sentence), sentence
            assert not re.search(
                r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]|  | [,.;)]|None|nan|\b1 holes|-|\b0 holes|−0\.0",
                sentence.replace("-shaped", "").replace("-like", "").replace("counter-clockwise ", ""),
            ), sentence


def test_no_cause_type_or_severity_is_named() -> None:
    said = " ".join(sentence for seed in range(300) for sentence in describe(random_facts(seed), f"R{seed}"))
    assert not re.search(r"defect|scratch|dent|stain|caus|sever|critical|minor|damage|due to|likely", said)
