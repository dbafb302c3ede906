"""What a language model is asked about one region, and what whoever answers must be able to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from explainvad.types import WordProbability

REASON_LENGTH = 160  # characters of a reason that a report prints


class NoAnswerError(Exception):
    """A region could not be described by the model. ``str(error)`` is the reason that the report prints."""


class InvalidAnswerError(NoAnswerError):
    """There is an answer, but none that may be used; asked again, the model might give one."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """Texts and pictures (RGB, 8 bits a channel) in reading order, and the JSON schema of the answer."""

    system: str
    parts: tuple[str | Image.Image, ...]
    schema: Mapping[str, Any]
    attempt: int = field(default=0)

    def digest(self, identity: str) -> str:
        """SHA-256 of all that the answer of the model ``identity`` depends on."""
        digest = hashlib.sha256(json.dumps([identity, self.system, self.schema, self.attempt]).encode())
        for part in self.parts:
            content = part.encode() if isinstance(part, str) else part.tobytes()
            kind = "text" if isinstance(part, str) else f"picture {part.width} x {part.height}"
            digest.update(f"\0{kind}, {len(content)}\0".encode())  # no two questions run together into one
            digest.update(content)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """An answer as it was written, and by field the probabilities of its chosen words, where the model tells them."""

    text: str
    word_probabilities: Mapping[str, WordProbability] = field(default_factory=dict)


class Respondent(Protocol):
    """A model that answers questions."""

    label: str  # "endpoint NAME at HOST", for the report's fallbacks
    author: str  # all that the report says of it beside the prompt
    identity: str  # what its answers depend on, beside the question
    at_once: int  # how many questions it may be asked at the same time

    def unavailable(self) -> str | None:
        """Why it cannot be asked at all; None where it can."""
        ...

    def cleaned(self, text: str) -> str:
        """A text of the user without anything that the model would take for more than text."""
        ...

    def answer(self, question: Question, seconds: float) -> Reply:
        """The answer, at most ``seconds`` later. Raises NoAnswerError."""
        ...


def one_line(text: str, length: int) -> str:
    """Printable text on one line, elided to ``length`` characters."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"
