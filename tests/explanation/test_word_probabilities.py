"""How probable chosen words were: against figures worked out from the logits themselves."""

from __future__ import annotations

import json
from pathlib import Path

import llguidance
import numpy as np
import pytest
import torch
from brief_questions import REGIONS, brief
from described_regions import describer, findings, part_image, reference_picture
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from tiny_vlms import write_model
from transformers import LogitsProcessorList

from explainvad.config import DescriberConfig
from explainvad.explanation.describers.answer import VOCABULARIES
from explainvad.explanation.describers.asking import Reply
from explainvad.explanation.describers.grammar import _COMPACT, SchemaGrammar
from explainvad.explanation.describers.model_folder import find_model
from explainvad.explanation.describers.store import AnswerStore
from explainvad.explanation.describers.vlm import VisionLanguageModel
from explainvad.explanation.describers.word_probabilities import TokenProbability, word_probabilities
from explainvad.types import WordProbability


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_model("qwen2_5_vl", tmp_path_factory.mktemp("vlm") / "tiny")


def load(folder: Path, **settings: object) -> VisionLanguageModel:
    config = DescriberConfig.model_validate({"use": "vlm", "model": str(folder), **settings})
    return VisionLanguageModel.load(find_model(config), config, 0, "cpu")


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_every_token_is_as_probable_as_its_logits_say(folder: Path, temperature: float) -> None:
    """Also where a temperature reshapes what is drawn from: it comes behind the grammar."""
    model = load(folder, temperature=temperature)
    inputs, asked = model.inputs(brief()), brief()
    length = inputs["input_ids"].shape[1]
    grammar = SchemaGrammar(model._tokens, asked.schema, length)
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(3)
        generated = model._network.generate(
            **inputs,
            generation_config=model._generation,
            logits_processor=LogitsProcessorList([grammar]),
            return_dict_in_generate=True,
            output_logits=True,
        )
    written = generated.sequences[0, length:].tolist()
    found = grammar.probabilities(written)
    assert len(found) == len(written) == len(generated.logits)

    schema = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(asked.schema), defaults=_COMPACT)
    matcher, bits = llguidance.LLMatcher(model._tokens, schema), allocate_token_bitmask(1, model._tokens.vocab_size)
    choices = 0
    for token, logits, told in zip(written, generated.logits, found, strict=True):
        own = np.exp(logits[0].double().numpy())
        own /= own.sum()
        allowed = np.zeros(len(own), dtype=bool)
        if matcher.is_stopped():
            allowed[model._tokens.eos_token] = True
        else:
            fill_next_token_bitmask(matcher, bits)
            allowed[:] = np.unpackbits(bits[0].view(np.uint8), bitorder="little")[: len(own)]
            matcher.consume_token(token)
        held = np.where(allowed, own, 0) / own[allowed].sum()
        assert held.sum() == pytest.approx(1)
        assert np.exp(told.log_raw) == pytest.approx(own[token], rel=1e-9)
        assert np.exp(told.log_masked) == pytest.approx(held[token], rel=1e-9)
        assert np.exp(told.log_kept) == pytest.approx(own[allowed].sum(), rel=1e-9)
        assert told.log_masked >= told.log_raw
        choices += allowed.sum() > 1
    assert 10 < choices < len(written)  # some are forced, and then certain
    assert max(told.log_masked for told in found) == pytest.approx(0)


def test_a_reply_tells_them_for_every_closed_field(folder: Path) -> None:
    reply = load(folder).answer(brief(), 60)
    said = json.loads(reply.text)
    assert set(reply.word_probabilities) == set(VOCABULARIES)
    for field, told in reply.word_probabilities.items():
        assert told.word == said[field] and said["region_id"] in REGIONS
        assert 0 < told.raw < told.masked < 1
        assert told.raw == pytest.approx(told.masked * (1 - told.removed))


def tokens(*probabilities: tuple[float, float]) -> list[TokenProbability]:
    """Of raw and masked ones."""
    return [TokenProbability(np.log(raw), np.log(masked), np.log(raw / masked)) for raw, masked in probabilities]


def test_a_word_is_all_tokens_that_carry_a_part_of_it_or_of_its_closing_quote() -> None:
    pieces = [b'{"comparison": "', b"It is", b'", "sha', b'pe": "com', b"pact", b'", "size": ', b'"small"', b"}<end>"]
    told = tokens((0.5, 1), (0.1, 0.1), (0.2, 1), (0.3, 0.6), (0.4, 1), (0.5, 0.5), (0.25, 0.5), (1, 1))
    found = word_probabilities(pieces, told, ("shape", "size", "severity"))
    assert {field: (p.word, p.n_tokens) for field, p in found.items()} == {
        "shape": ("compact", 3),
        "size": ("small", 1),
    }
    shape = found["shape"]
    assert (shape.raw, shape.masked) == pytest.approx((0.3 * 0.4 * 0.5, 0.6 * 1 * 0.5))
    assert shape.removed == pytest.approx(1 - 0.3 / 0.6 * 0.4 / 1 * 0.5 / 0.5)


def test_a_forced_tail_costs_a_long_word_nothing_but_in_the_models_own_distribution() -> None:
    start = b'{"defect_type": "'
    short = word_probabilities([start, b"dent", b'"}'], tokens((1, 1), (0.1, 0.2), (0.5, 1)), ("defect_type",))
    pieces = [start, b"con", b"tam", b"ina", b"tion", b'"}']
    long = word_probabilities(pieces, tokens((1, 1), (0.1, 0.2), *[(0.5, 1)] * 4), ("defect_type",))
    assert short["defect_type"].masked == pytest.approx(long["defect_type"].masked) == pytest.approx(0.2)
    assert short["defect_type"].raw > long["defect_type"].raw


def test_they_are_kept_with_an_answer_and_told_again_after_a_crash(folder: Path, tmp_path: Path) -> None:
    first, again = (
        describer(load(folder), tmp_path / "answers").describe(part_image(), findings(), reference_picture())[0]
        for _ in range(2)
    )
    assert set(first.word_probabilities) == set(VOCABULARIES)
    for field, told in first.word_probabilities.items():
        kept = again.word_probabilities[field]
        assert (told.word, told.raw, told.masked, told.removed) == (kept.word, kept.raw, kept.masked, kept.removed)


def test_what_the_store_keeps_is_what_it_gives(tmp_path: Path) -> None:
    reply = Reply("{}", {"size": WordProbability("small", 0.1, 1 / 3, 0.7, 2)})
    AnswerStore(tmp_path).put("0" * 64, reply)
    found = AnswerStore(tmp_path).get("0" * 64)
    assert found is not None and found.text == "{}"
    assert (found.word_probabilities["size"].masked, found.word_probabilities["size"].n_tokens) == (1 / 3, 2)
    with pytest.raises(ValueError, match=r"masked must lie in \[0, 1\], got 1.5"):
        WordProbability("small", 0.1, 1.5, 0.7, 2)
