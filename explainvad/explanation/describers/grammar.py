"""Holds what a model writes to a JSON schema, token by token (llguidance)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from torch import Tensor
from transformers import LogitsProcessor

from explainvad.explanation.describers.word_probabilities import TokenProbability

_COMPACT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class GrammarError(Exception):
    """The schema cannot be enforced with this tokenizer."""


class SchemaGrammar(LogitsProcessor):
    """Leaves only tokens that can still lead to JSON of the schema; one object serves one call of ``generate``.

    ``tokens`` is that of :func:`token_table`, ``prompt_length`` the number of tokens before the answer.
    """

    def __init__(self, tokens: Any, schema: Mapping[str, Any], prompt_length: int) -> None:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=_COMPACT)
        if fault := llguidance.LLMatcher.validate_grammar(grammar, tokens):
            raise GrammarError(fault)
        self._tokens, self._matcher = tokens, llguidance.LLMatcher(tokens, grammar)
        self._read = prompt_length
        self._last: tuple[Tensor, float, float] | None = None  # logits, and log-sum-exp of all and of the allowed ones
        self._written: list[TokenProbability] = []
        self._bits = allocate_token_bitmask(1, tokens.vocab_size)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mask ``scores``, float (1, V), after ``input_ids``, int (1, T).

        They must be the model's own logits, touched by no other processor, for :meth:`probabilities` to be right.
        """
        self._take(input_ids[0, self._read :].tolist())
        self._read = input_ids.shape[1]
        if fault := self._matcher.get_error():
            raise GrammarError(fault)

        # A matrix of logits may be wider than the vocabulary: what is beyond is no token.
        allowed = np.zeros(scores.shape[1], dtype=bool)
        if self._matcher.is_stopped():
            allowed[self._tokens.eos_token] = True
        else:
            fill_next_token_bitmask(self._matcher, self._bits)
            bits = np.unpackbits(self._bits[0].view(np.uint8), bitorder="little")[: scores.shape[1]]
            allowed[: len(bits)] = bits
        masked = scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), float("-inf"))
        whole, kept = (torch.logsumexp(logits[0].double(), 0).item() for logits in (scores, masked))
        self._last = scores[0], whole, kept
        return masked

    def probabilities(self, written: Sequence[int]) -> list[TokenProbability]:
        """Of every token of the answer, which ``written`` holds in order. To be called once, when it is finished."""
        self._take(written[len(self._written) :])
        return self._written

    def _take(self, chosen: Sequence[int]) -> None:
        """Take up what was chosen since the last call: at most one token."""
        for token in chosen:
            if self._last is not None:
                logits, whole, kept = self._last
                own = logits[token].double().item()
                self._written.append(TokenProbability(own - whole, own - kept, kept - whole))
            if not self._matcher.is_stopped():
                self._matcher.consume_token(token)


def token_table(tokenizer: Any, n_logits: int) -> Any:
    """What llguidance must know of a fast tokenizer of transformers. Raises GrammarError."""
    try:
        return llguidance.hf.from_tokenizer(tokenizer, n_vocab=max(n_logits, len(tokenizer)))
    except Exception as error:  # a library of its own kind of errors
        raise GrammarError(f"its tokenizer cannot be held to a grammar: {error}") from error
