"""Describing by a vision language model on this machine (transformers)."""

from __future__ import annotations

import json
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig, LogitsProcessorList

from explainvad.config import DescriberConfig
from explainvad.errors import WeightsError
from explainvad.explanation.describers.answer import VOCABULARIES
from explainvad.explanation.describers.asking import (
    REASON_LENGTH,
    InvalidAnswerError,
    NoAnswerError,
    Question,
    Reply,
    one_line,
)
from explainvad.explanation.describers.grammar import GrammarError, SchemaGrammar, token_table
from explainvad.explanation.describers.loading import LocalModel, load_model
from explainvad.explanation.describers.model_folder import FoundModel
from explainvad.explanation.describers.prompt import cleaned_name
from explainvad.explanation.describers.word_probabilities import word_probabilities


class VisionLanguageModel:
    """A model that writes under a grammar (asking.Respondent). Greedy, or sampled with the run's seed."""

    at_once = 1  # one network, one answer

    def __init__(self, model: LocalModel, config: DescriberConfig, seed: int) -> None:
        """Raises WeightsError when its tokenizer cannot be held to a grammar."""
        self._network, self._processor, self._config, self._seed = model.network, model.processor, config, seed
        tokenizer = self._tokenizer = model.processor.tokenizer
        try:
            self._tokens = token_table(tokenizer, model.network.get_output_embeddings().weight.shape[0])
        except GrammarError as error:
            raise WeightsError(f"{model.found.name}: {error}. Use another model, or describe by an endpoint") from error
        self._generation = _generation(config, tokenizer)
        # A checkpoint's own settings, such as a repetition penalty, would be followed unseen
        model.network.generation_config = self._generation
        self._special = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})
        self.label = f"vlm {model.found.name}"
        decoding = "greedy" if config.temperature == 0 else f"temperature {config.temperature:g}"
        self.author = f"{self.label} ({model.found.shown}; {model.setting}); {decoding}, seed {seed}"
        asked = (model.found.name, model.found.weights, model.setting, config.temperature, config.max_new_tokens, seed)
        self.identity = json.dumps(["vlm", *asked])

    @classmethod
    def load(cls, found: FoundModel, config: DescriberConfig, seed: int, device: str) -> VisionLanguageModel:
        """Load the configured model, which was ``found``. Raises WeightsError."""
        return cls(load_model(found, config.quantization, device), config, seed)

    def unavailable(self) -> str | None:
        """A model that was loaded can be asked."""
        return None

    def cleaned(self, text: str) -> str:
        """The text without the special tokens of this very model."""
        return cleaned_name(text, self._special)

    def answer(self, question: Question, seconds: float) -> Reply:
        """Generate one answer. Raises NoAnswerError when it does not end in time or within the tokens it may have."""
        try:
            inputs = self.inputs(question)
            length = inputs["input_ids"].shape[1]
            grammar = SchemaGrammar(self._tokens, question.schema, length)
            with torch.inference_mode(), torch.random.fork_rng(devices=self._cuda_devices()):
                torch.manual_seed(self._seed + question.attempt)
                written = self._network.generate(
                    **inputs,
                    generation_config=self._generation,
                    logits_processor=LogitsProcessorList([grammar]),  # before the temperature, which comes last
                    max_time=seconds,
                )[0, length:]
        except GrammarError as error:
            raise NoAnswerError(f"the grammar failed: {one_line(str(error), REASON_LENGTH)}") from error
        except (RuntimeError, ValueError, IndexError, TypeError) as error:  # out of memory, pictures it cannot take
            raise NoAnswerError(f"the model failed: {one_line(str(error), REASON_LENGTH)}") from error
        text = str(self._tokenizer.decode(written, skip_special_tokens=True))
        if not text.rstrip().endswith("}"):
            if len(written) >= self._config.max_new_tokens:
                raise InvalidAnswerError(f"the answer was cut off at {self._config.max_new_tokens} tokens: be shorter")
            raise NoAnswerError("no answer in time")
        token_ids = written.tolist()
        pieces = [self._tokens.decode_bytes([token]) for token in token_ids]
        return Reply(text, word_probabilities(pieces, grammar.probabilities(token_ids), VOCABULARIES))

    def inputs(self, question: Question) -> Any:
        """What the network is given: token ids, pictures, masks, on its device and in its precision."""
        content: list[dict[str, Any]] = [{"type": "text", "text": question.system}]
        for part in question.parts:
            if isinstance(part, Image.Image):
                content.append({"type": "image", "image": part})
            else:
                content.append({"type": "text", "text": f"{part}\n"})
        # Not every template knows the role "system": one message serves all
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        inputs.pop("labels", None)
        return inputs.to(self._network.device, dtype=self._network.dtype)

    def _cuda_devices(self) -> list[torch.device]:
        return [self._network.device] if self._network.device.type == "cuda" else []


def _generation(config: DescriberConfig, tokenizer: Any) -> GenerationConfig:
    """All settings of decoding, and none of the checkpoint's own; the grammar ends an answer, then the tokenizer's
    end token does."""
    sampled = {"do_sample": True, "temperature": config.temperature, "top_k": 0} if config.temperature else {}
    return GenerationConfig(
        max_new_tokens=config.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **({"do_sample": False} | sampled),
    )
