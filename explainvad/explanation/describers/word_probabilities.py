"""How probable the chosen words of an answer were to the model that wrote it, token by token.

A word's probability is the product over the tokens that carry a part of it or of its closing quote, each given all
before it. The quote is one of them, so that no word is the beginning of another. Of the tokenizations of a word only
the one that was written counts. Under the grammar, tokens that are forced have probability 1: only where there was a
choice does a word lose any, however long it is. Under the model's own distribution every token can lose some, so raw
products are not for comparing words of different length: nothing here ranks words, it is said of the chosen one alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from explainvad.types import WordProbability


@dataclass(frozen=True, slots=True)
class TokenProbability:
    """One written token: its log-probability in the model's own distribution, and in that over allowed tokens.

    Both are of the same logits, at temperature 1. ``log_kept`` is the log of the own probability of all allowed tokens.
    """

    log_raw: float
    log_masked: float
    log_kept: float


def word_probabilities(
    pieces: Sequence[bytes], tokens: Sequence[TokenProbability], fields: Iterable[str]
) -> dict[str, WordProbability]:
    """By field, the probabilities of the word that was chosen for it; without fields that are not found.

    ``pieces`` are the bytes of the written tokens, in order, which spell JSON as the grammar writes it: one space
    behind colons and commas, and no quote within a text.
    """
    text, ends = b"".join(pieces), list(accumulate(map(len, pieces)))
    found: dict[str, WordProbability] = {}
    for field in fields:
        value = re.search(rf'"{field}": "([^"]*)"'.encode(), text)
        if value is None:
            continue
        chosen = [
            token
            for token, piece, end in zip(tokens, pieces, ends, strict=True)
            if end > value.start(1) and end - len(piece) < value.end()
        ]
        found[field] = WordProbability(
            word=value[1].decode("utf-8", "replace"),
            raw=_product(token.log_raw for token in chosen),
            masked=_product(token.log_masked for token in chosen),
            removed=1 - _product(token.log_kept for token in chosen),
            n_tokens=len(chosen),
        )
    return found


def _product(logarithms: Iterable[float]) -> float:
    """At most 1: of a forced token the sum over all allowed ones may round to more."""
    return min(1.0, math.exp(math.fsum(logarithms)))
