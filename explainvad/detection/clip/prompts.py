"""What CLIP is asked: an object in normal and anomalous states, said through templates. Prompts are configuration.

Every state is put into every template (Jeong et al., "WinCLIP", CVPR 2023, section 4.1: compositional prompt
ensemble). The sets in ``prompt_sets/`` are TOML files: WinCLIP's own words for anything, and words of trades.
"""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

FOLDER = Path(__file__).with_name("prompt_sets")
GENERIC = "generic"
PLACE = "{}"


class Phrase(NamedTuple):
    """One sentence that CLIP reads, and what it was made of."""

    text: str
    anomalous: bool
    state: str
    template: str


class PromptSet(BaseModel):
    """A shipped set: words of one trade."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    source: str  # who wrote the words
    normal_states: tuple[str, ...] = Field(min_length=1)
    anomalous_states: tuple[str, ...] = Field(min_length=1)
    templates: tuple[str, ...] = Field(min_length=1)


class PromptConfig(BaseModel):
    """``[prompts]``: a shipped set and the object's name; lists of one's own take the place of the set's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: str = Field(default=GENERIC, description="a shipped set of states and templates")
    object: str = Field(default="object", min_length=1, max_length=80, description="what is seen, in the singular")
    normal_states: tuple[str, ...] = Field(default=(), description='own states, as "flawless {}"')
    anomalous_states: tuple[str, ...] = Field(default=(), description='own states, as "{} with a scratch"')
    templates: tuple[str, ...] = Field(default=(), description='own sentences, as "a photo of the {}."')

    @field_validator("set")
    @classmethod
    def _is_shipped(cls, name: str) -> str:
        if name not in shipped_sets():
            near = difflib.get_close_matches(name, shipped_sets(), n=1, cutoff=0.0)[0]
            raise ValueError(f"no such set of prompts; the nearest is {near} (shipped: {', '.join(shipped_sets())})")
        return name

    @field_validator("object")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.strip() or "{" in name or "}" in name:
            raise ValueError('expected the name of an object without braces, as "metal nut"')
        return name.strip()

    @field_validator("normal_states", "anomalous_states", "templates")
    @classmethod
    def _hold_a_place(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            if text.count(PLACE) != 1 or text.count("{") != 1 or text.count("}") != 1:
                raise ValueError(f"expected {PLACE} once in each, where the object or its state goes, got {text!r}")
            if texts.count(text) > 1:
                raise ValueError(f"{text!r} is there twice and would count double: leave it out once")
        return texts

    @model_validator(mode="after")
    def _say_different_things(self) -> PromptConfig:
        normal, anomalous = (set(states) for states in self.states())
        if both := sorted(normal & anomalous):
            raise ValueError(f"{both[0]!r} is both a normal and an anomalous state: leave it out of one")
        return self

    def states(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Normal and anomalous states, one's own or those of the set."""
        chosen = prompt_set(self.set)
        return self.normal_states or chosen.normal_states, self.anomalous_states or chosen.anomalous_states

    def phrases(self) -> tuple[Phrase, ...]:
        """Every state in every template, normal states first; the texts are those that CLIP reads."""
        templates = self.templates or prompt_set(self.set).templates
        return tuple(
            Phrase(template.replace(PLACE, state.replace(PLACE, self.object)), bool(anomalous), state, template)
            for anomalous, states in enumerate(self.states())
            for state in states
            for template in templates
        )

    def describe(self) -> str:
        """For the report: the set, the object, and which lists are one's own."""
        lists = (("normal_states", self.normal_states), ("anomalous_states", self.anomalous_states))
        own = [name.replace("_", " ") for name, given in (*lists, ("templates", self.templates)) if given]
        return f'set {self.set}, object "{self.object}"' + (f", own {' and '.join(own)}" if own else "")


@cache
def shipped_sets() -> tuple[str, ...]:
    """Names of the shipped sets, the generic one first."""
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    return (GENERIC, *(name for name in names if name != GENERIC))


@cache
def prompt_set(name: str) -> PromptSet:
    """A shipped set by name."""
    return PromptSet.model_validate(tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8")))
