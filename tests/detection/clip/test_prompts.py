"""Prompts are configuration: what the shipped sets say, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from explainvad.config import validated
from explainvad.detection.backbones import Backbones
from explainvad.detection.clip.encoder import ClipEncoder
from explainvad.detection.clip.prompts import Phrase, PromptConfig, prompt_set, shipped_sets
from explainvad.errors import ConfigError

TRADES = ["glass-transparent", "metal-surface", "pcb-electronics", "pharma-medical", "printed-packaging", "textile"]


def test_the_generic_set_is_that_of_winclip() -> None:
    phrases = PromptConfig(object="metal nut").phrases()
    assert len(phrases) == (7 + 4) * 21
    assert [phrase.anomalous for phrase in phrases] == [False] * 147 + [True] * 84
    assert [phrase.state for phrase in phrases[:42]] == ["{}"] * 21 + ["flawless {}"] * 21
    texts = [phrase.text for phrase in phrases]
    assert "a photo of a metal nut." in texts
    assert "a close-up photo of the metal nut without flaw." in texts
    assert phrases[-1] == Phrase(
        "a photo of the metal nut with damage for anomaly detection.",
        anomalous=True,
        state="{} with damage",
        template="a photo of the {} for anomaly detection.",
    )
    assert "Jeong" in prompt_set("generic").source


def test_there_is_a_set_for_each_trade() -> None:
    assert shipped_sets() == ("generic", *TRADES)


@pytest.mark.parametrize("name", ["generic", *TRADES])
def test_a_shipped_set_keeps_its_own_rules_and_fits_into_clip(name: str, backbones: Backbones) -> None:
    shipped = prompt_set(name)
    lists = {key: getattr(shipped, key) for key in ("normal_states", "anomalous_states", "templates")}
    prompts = PromptConfig(set=name, object="injection-moulded housing of a pump", **lists)
    assert prompts.phrases() == PromptConfig(set=name, object=prompts.object).phrases()
    assert len({phrase.text for phrase in prompts.phrases()}) == len(prompts.phrases())
    tokenizer = backbones.weights("tiny-clip").clip().tokenizer
    assert max(len(tokenizer.encode(phrase.text)) for phrase in prompts.phrases()) + 2 <= 77
    assert min(map(len, prompts.states())) > 1


def test_own_lists_take_the_place_of_the_sets() -> None:
    prompts = PromptConfig(
        set="textile", object="belt", anomalous_states=("{} with a burn",), templates=("a {}", "the {}!")
    )
    normal = prompt_set("textile").normal_states
    assert prompts.states() == (normal, ("{} with a burn",))
    assert [phrase.text for phrase in prompts.phrases()][-2:] == ["a belt with a burn", "the belt with a burn!"]
    assert len(prompts.phrases()) == 2 * (len(normal) + 1)
    assert prompts.describe() == 'set textile, object "belt", own anomalous states and templates'
    assert PromptConfig().describe() == 'set generic, object "object"'


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"set": "metl-surfaces"}, r"set = 'metl-surfaces': .*the nearest is metal-surface \(shipped: generic, glass"),
        ({"templates": ["a photo of a part"]}, "expected {} once in each, .* got 'a photo of a part'"),
        ({"normal_states": ["{} by {}"]}, "expected {} once in each, .* got '{} by {}'"),
        ({"anomalous_states": ["{} in {red}"]}, "expected {} once in each, .* got '{} in {red}'"),
        ({"anomalous_states": ["{red} part"]}, "expected {} once in each, .* got '{red} part'"),
        ({"templates": ["a {}", "the {}", "a {}"]}, "'a {}' is there twice"),
        ({"normal_states": ["damaged {}"]}, "'damaged {}' is both a normal and an anomalous state"),
        ({"object": " "}, "expected the name of an object"),
        ({"object": "{}"}, "expected the name of an object without braces"),
        ({"objct": "nut"}, "unknown key objct; the nearest known one is object"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validated(PromptConfig, given, "[prompts]")


def test_phrases_reach_clip_as_they_are(backbones: Backbones) -> None:
    texts = ClipEncoder.of(backbones, "tiny-clip").texts([p.text for p in PromptConfig(templates=("a {}.",)).phrases()])
    assert texts.shape == (11, 16)
    assert len({tuple(row) for row in texts.tolist()}) == 11
