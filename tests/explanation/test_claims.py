"""The promises of claim verification: true sentences pass, false ones are caught, the rest is left alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from region_examples import make_facts, make_image, make_region, random_facts
from scipy import ndimage
from uncheckable_sentences import UNCHECKABLE

from explainvad.explanation.claims import check_sentence, verify
from explainvad.explanation.colour import BRIGHTER, DARKER, NO_BASELINE, RING, SAME_BRIGHTNESS
from explainvad.explanation.facts import measure
from explainvad.explanation.part import part_mask
from explainvad.explanation.place import PLACES
from explainvad.explanation.sentences import MeasuredDescriber
from explainvad.types import ClaimStatus, RegionFacts, Sentence

DESCRIBER = MeasuredDescriber()
IMAGE = make_image(np.zeros((4, 4, 3), dtype=np.uint8))

OPPOSITE_COLOUR = {
    "redder": "greener",
    "redder and yellower": "greener and bluer",
    "yellower": "bluer",
    "greener and yellower": "redder and bluer",
} | {
    "greener": "redder",
    "greener and bluer": "redder and yellower",
    "bluer": "yellower",
    "redder and bluer": "greener and yellower",
}
OTHER_SHAPE = {
    "compact": "elongated",
    "elongated": "compact",
    "line-like": "irregular",
    "irregular": "compact",
    "ring-shaped": "compact",
    "point-like": "elongated",
}


def check(text: str, facts: RegionFacts) -> Sentence:
    return check_sentence(text, "somebody", facts)


def describe(facts: RegionFacts, seed: int) -> tuple[str, ...]:
    return DESCRIBER.describe(IMAGE, make_region(np.ones((4, 4), dtype=bool), f"R{seed}"), facts)


def test_every_measured_sentence_is_supported() -> None:
    for seed in range(1500):
        facts = random_facts(seed)
        for sentence in describe(facts, seed):
            checked = check_sentence(sentence, DESCRIBER.author, facts)
            assert checked.status is ClaimStatus.SUPPORTED, checked
            assert checked.claims and checked.author == DESCRIBER.author and checked.text == sentence


def test_every_sentence_on_measured_pictures_is_supported() -> None:
    rng = np.random.default_rng(7)
    words: Counter[str] = Counter()
    for seed in range(60):
        height, width = rng.integers(40, 160, 2)
        pixels = rng.normal(120, rng.uniform(0, 12), (height, width, 3))
        blob = ndimage.gaussian_filter(rng.normal(size=(height, width)), rng.uniform(1, 12))
        labels, _ = ndimage.label(blob > np.quantile(blob, rng.uniform(0.5, 0.98)))
        mask = labels == rng.integers(1, labels.max() + 1)
        pixels[mask] += rng.normal(0, 30, 3)
        image = make_image(pixels.clip(0, 255).astype(np.uint8), mm_per_pixel=0.05 if seed % 2 else None)
        region = make_region(mask, f"R{seed}")
        facts = measure(image, region, part_mask=part_mask(image))
        words.update((facts.shape, facts.brightness, str(facts.touches_edge), facts.place))
        for sentence in DESCRIBER.describe(image, region, facts):
            assert check(sentence, facts).status is ClaimStatus.SUPPORTED, (sentence, facts)
    assert len(words) > 12


def _flips(facts: RegionFacts, sentences: tuple[str, ...]) -> Iterator[tuple[str, dict[str, object]]]:
    """Every sentence with each of the facts that it states, put wrong."""
    place, size, colour = sentences[0], sentences[1], sentences[-1]
    form = sentences[2] if len(sentences) == 4 else None
    if facts.cells:
        row, column = divmod(PLACES.index(facts.place), 3)
        far = PLACES[3 * (2 - row) + 2 - column] if facts.place != "centre" else "lower right"
        if len(facts.cells) == 1:
            yield (
                place,
                {"place": far, "cells": (far,), "image_place": far, "image_cells": (far,), "radial_zone": "rim"},
            )
        if facts.clock is not None:
            yield place, {"clock": (facts.clock + 5) % 12 + 1}
        if "rim" in place:
            yield place, {"radial_zone": "centre"}
    else:
        yield place, {"cells": (facts.place,), "image_cells": (facts.place,)}
    other = OTHER_SHAPE[facts.shape]
    yield (
        place,
        {
            "shape": other,
            "elongation": 3.0 if other == "elongated" else 1.2,
            "solidity": 0.9,
            "holes": 0,
            "area_px": 900,
        },
    )
    yield size, {"length_px": facts.length_px * 1.5}
    yield size, {"width_px": facts.width_px * 0.5}
    if facts.length_mm is not None and facts.width_mm is not None:
        yield size, {"length_mm": facts.length_mm * 1.4}
        yield size, {"width_mm": facts.width_mm * 2}
    yield size, {"area_share": facts.area_share * 0.5 if facts.area_share > 2e-4 else 0.1}
    if form is not None:
        if facts.orientation_deg is not None:
            yield form, {"orientation_deg": (facts.orientation_deg + 50) % 180}
        if facts.holes:
            yield form, {"holes": facts.holes + 2}
            yield form, {"holes": 0}
        if facts.touches_edge:
            yield form, {"touches_edge": False}
    if facts.baseline == NO_BASELINE:
        yield colour, {"baseline": RING}
        return
    brighter = {"brightness": DARKER if facts.brightness != DARKER else BRIGHTER}
    yield colour, brighter
    if facts.brightness != SAME_BRIGHTNESS:
        yield colour, {"brightness": SAME_BRIGHTNESS}
        yield colour, {"delta_l": -facts.delta_l}
    if facts.colour is not None:
        opposite = {"delta_a": -facts.delta_a, "delta_b": -facts.delta_b}
        yield colour, {"colour": OPPOSITE_COLOUR[facts.colour], **opposite}
        yield colour, {"colour": None}
    yield colour, {"delta_e": facts.delta_e + 10}
    yield colour, {"noise_delta_e": facts.noise_delta_e + 2}


def test_a_sentence_with_one_fact_put_wrong_is_contradicted() -> None:
    n, missed = 0, []
    for seed in range(400):
        facts = random_facts(seed)
        for sentence, wrong in _flips(facts, describe(facts, seed)):
            n += 1
            checked = check(sentence, dataclasses.replace(facts, **wrong))
            if checked.status is not ClaimStatus.CONTRADICTED:
                missed.append((wrong, checked))
    assert n > 4000
    assert not missed, (len(missed), missed[:3])


OTHER_FACTS = make_facts(
    place="lower right",
    cells=("lower right",),
    clock=4,
    brightness="brighter",
    delta_l=9.0,
    colour="bluer",
    delta_b=-9.0,
    shape="compact",
    elongation=1.1,
    orientation_deg=None,
    holes=2,
    frame="image",
    image_place="lower right",
    image_cells=("lower right",),
)


@pytest.mark.parametrize("facts", [make_facts(), OTHER_FACTS], ids=["dark upper left", "bright lower right"])
def test_uncheckable_sentences_are_left_alone(facts: RegionFacts) -> None:
    assert len(set(UNCHECKABLE)) >= 60
    checked = [check(sentence, facts) for sentence in UNCHECKABLE]
    wrong = [c for c in checked if c.status in (ClaimStatus.CONTRADICTED, ClaimStatus.SUPPORTED)]
    assert len(wrong) <= 1, wrong
    assert all(claim.measured == "not measured" for c in checked for claim in c.claims if c not in wrong)


SUPPORTED = """
    A dark, elongated mark is visible in the upper left of the part.
    The mark is darker than its surroundings.
    It is located in the upper left corner, at about 10 o'clock.
    The region is not brighter than its surroundings.
    It is about 34 px long.
    It is 34 x 9 px.
    It measures roughly 4.1 mm by 1.1 mm.
    Its width is 1090 µm.
    Its length is 34.2 px and its width is 9.1 px.
    It is less than 5 mm long.
    Its area is 1.38 mm².
    Its area is 0.0138 square centimetres.
    It does not touch the edge of the image.
    It has no holes.
    It contains no hole.
    It is without holes.
    There is a dark region in the top left corner of the part.
    The part shows a dark spot in the upper left.
    The upper left of the part shows a dark mark.
    In the upper-left corner of the part, a dark region can be seen.
    Located near the top left edge of the part, it appears darker than its surroundings.
    A dark elongated area, about 34 px long and 9 px wide, is visible in the upper left.
    It lies in the upper left and not in the lower right.
    The darker, elongated region lies on the left side of the part.
    The region, which is elongated, is darker than its surroundings.
    The region is not compact.
    It runs at about 30 degrees.
    It is not measurably different from its surroundings in colour.
"""
PARTLY = """
    A dark scratch in the upper left of the part.
    It lies in the upper centre of the part.
    It is near the left edge, at 11 o'clock.
    The anomaly is a dark streak, possibly a scratch.
    It is darker than its surroundings because of corrosion.
    The severe mark is darker than its surroundings.
    It is 36 px long.
    It is line-like.
    It is darker than its surroundings and scores 0.97.
"""
CONTRADICTED = """
    A bright scratch in the lower right of the part.
    It is brighter than its surroundings.
    The mark is not darker than its surroundings.
    It isn't darker than its surroundings.
    It lies in the lower right of the part.
    It lies not in the upper left but in the lower right of the part.
    It does not lie in the upper left of the part.
    While the part is clean otherwise, the region lies in the lower right.
    The lower right corner of the part shows a bright spot.
    The defect is situated in the bottom right corner, close to the edge.
    There appears to be a round mark on the right side.
    The region is round.
    It is a compact, bright spot at the bottom right of the part.
    It is 50 px long.
    It is more than 5 mm long.
    It is 12 mm long.
    It covers 3 % of the part.
    It is located at 4 o'clock.
    It has three holes.
    It has a hole.
    It touches the edge of the image.
    It runs vertically.
    It is redder than its surroundings.
    It is not different, it is brighter than its surroundings.
    It spreads across the whole part.
"""


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (line.strip(), status)
        for block, status in (
            (SUPPORTED, ClaimStatus.SUPPORTED),
            (PARTLY, ClaimStatus.PARTLY),
            (CONTRADICTED, ClaimStatus.CONTRADICTED),
        )
        for line in block.strip().splitlines()
    ],
)
def test_free_text(text: str, status: ClaimStatus) -> None:
    checked = check(text, make_facts())
    assert checked.status is status, checked


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("It is darker than its surroundings because the tool was worn.", "cause"),
        ("It lies in the upper left of the part and is critical.", "severity"),
        ("A dark scratch in the upper left of the part.", "defect type"),
        ("It is 34 px long and 7 years old.", "number"),
        ("It is dark and fuzzy.", "other"),
    ],
)
def test_what_is_not_measured_stays_unverifiable(text: str, kind: str) -> None:
    checked = check(text, make_facts())
    assert checked.status is ClaimStatus.PARTLY
    (claim,) = [claim for claim in checked.claims if claim.status is ClaimStatus.UNVERIFIABLE]
    assert claim.kind == kind and claim.measured == "not measured"


def test_neighbouring_cells_are_partly_right() -> None:
    facts = make_facts(place="centre", cells=("centre", "middle left"), clock=None, radial_zone="centre")
    by_place = {place: check(f"It lies in the {place} of the part.", facts).status for place in PLACES}
    assert {place for place, status in by_place.items() if status is ClaimStatus.SUPPORTED} == {"centre", "middle left"}
    assert {place for place, status in by_place.items() if status is ClaimStatus.CONTRADICTED} == set()
    far = make_facts(radial_zone="rim")
    status = {place: check(f"It lies in the {place} of the part.", far).status for place in PLACES}
    assert {place for place in PLACES if status[place] is ClaimStatus.PARTLY} == {"upper centre", "middle left"}
    assert status["centre"] is ClaimStatus.CONTRADICTED


def test_a_place_of_the_image_is_held_against_the_image() -> None:
    facts = make_facts(image_place="centre", image_cells=("centre",))  # a small part, off to the side
    for words, status in (
        ("the upper left of the part", ClaimStatus.SUPPORTED),
        ("the upper left", ClaimStatus.SUPPORTED),
        ("the centre of the image", ClaimStatus.SUPPORTED),
        ("the lower right of the part", ClaimStatus.CONTRADICTED),
        ("the upper left of the image", ClaimStatus.PARTLY),
    ):
        assert check(f"It lies in {words}.", facts).status is status, words
    assert check("It spreads across the whole image.", facts).status is ClaimStatus.CONTRADICTED


def test_another_frame_or_baseline_cannot_be_checked() -> None:
    assert check("It covers 3 % of the image.", make_facts()).status is ClaimStatus.UNVERIFIABLE
    assert check("It is brighter than the reference image.", make_facts()).status is ClaimStatus.UNVERIFIABLE
    assert check("It is 4 mm long.", make_facts(length_mm=None)).status is ClaimStatus.UNVERIFIABLE


@pytest.mark.parametrize(
    ("stated", "measured", "status"),
    [
        ("34.2", 34.249, ClaimStatus.SUPPORTED),
        ("34.2", 34.26, ClaimStatus.PARTLY),
        ("34", 34.49, ClaimStatus.SUPPORTED),
        ("34", 37.0, ClaimStatus.PARTLY),
        ("34", 38.0, ClaimStatus.CONTRADICTED),
        ("about 34", 37.0, ClaimStatus.SUPPORTED),
        ("about 34", 38.0, ClaimStatus.CONTRADICTED),
        ("1,204", 1204.3, ClaimStatus.SUPPORTED),
        ("at least 30", 34.2, ClaimStatus.SUPPORTED),
        ("at least 40", 34.2, ClaimStatus.CONTRADICTED),
    ],
)
def test_numbers_hold_to_within_their_rounding(stated: str, measured: float, status: ClaimStatus) -> None:
    assert check(f"It is {stated} px long.", make_facts(length_px=measured)).status is status


def test_claims_quote_the_sentence_and_show_the_measurement() -> None:
    (claim,) = check("It lies in the LOWER RIGHT of the part.", make_facts()).claims
    assert (claim.kind, claim.stated, claim.measured) == (
        "place",
        "in the LOWER RIGHT of the part",
        "upper left of the part",
    )


def test_free_text_is_split_into_sentences() -> None:
    text = "It is 34.2 px long, approx. 4 mm. It is brighter than its surroundings! Corrosion?"
    checked = verify(text, "a model", make_facts())
    assert [c.text for c in checked] == [
        "It is 34.2 px long, approx. 4 mm.",
        "It is brighter than its surroundings!",
        "Corrosion?",
    ]
    assert [c.status for c in checked][1:] == [ClaimStatus.CONTRADICTED, ClaimStatus.UNVERIFIABLE]
    assert verify("", "a model", make_facts()) == ()


def test_an_endless_sentence_is_not_read() -> None:
    assert check("It is 90 px long" + ", bright" * 4000, make_facts()).status is ClaimStatus.UNVERIFIABLE


@pytest.mark.parametrize(
    "text",
    ["", " ", ".", "İ" * 50, "(" * 900, "the " * 240, "a dark " * 140, "1,2,3 x " * 120],
)
def test_odd_text_does_no_harm(text: str) -> None:
    assert check(text, make_facts()).status is ClaimStatus.UNVERIFIABLE
