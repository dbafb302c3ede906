"""The form of an answer: fixed words where facts can be compared, short texts where they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from explainvad.explanation.describers.asking import InvalidAnswerError, one_line
from explainvad.explanation.geometry import SHAPES
from explainvad.explanation.place import PLACES

UNDETERMINED = "undetermined"
SIZES = ("tiny", "small", "medium", "large")
SAME = "same"
BRIGHTNESSES = ("darker", "brighter", SAME)
DEFECT_TYPES = (
    *("scratch", "crack", "dent", "hole", "stain", "contamination", "missing part", "misplaced part"),
    *("broken edge", "colour change", "deformation", "other", "none visible"),
)
SEVERITIES = ("minor", "major", "critical")
VOCABULARIES = {
    "location": PLACES,
    "brightness": BRIGHTNESSES,
    "shape": SHAPES,
    "size": SIZES,
    "defect_type": DEFECT_TYPES,
    "severity": SEVERITIES,
}
TEXT_LENGTH = 240  # characters
ANSWER_LENGTH = 8_000  # characters; more is refused unread

# What a grammar lets a model write: printable ASCII that needs no escape in JSON, and begins with a letter.
_WRITABLE = rf"^[A-Za-z][ -!#-\[\]-~]{{0,{TEXT_LENGTH - 1}}}$"


def _tidy(text: object) -> object:
    return one_line(text, len(text)) if isinstance(text, str) else text


_Text = Annotated[
    str,
    Field(min_length=1, max_length=TEXT_LENGTH, json_schema_extra={"pattern": _WRITABLE}),
    BeforeValidator(_tidy),
]


class Answer(BaseModel):
    """What a model says of a region. ``visual_evidence`` comes first, so that the words follow what was seen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    visual_evidence: _Text
    comparison: _Text
    region_id: str
    location: str
    brightness: str
    shape: str
    size: str
    defect_type: str
    severity: str

    @property
    def words(self) -> dict[str, str]:
        """The words chosen from VOCABULARIES, by field."""
        return {field: str(getattr(self, field)) for field in VOCABULARIES}


@lru_cache(maxsize=64)
def answer_type(region_ids: tuple[str, ...]) -> type[Answer]:
    """The form of answers about an image with these regions: no other word than those of the vocabularies."""
    words: dict[str, Any] = {name: (Literal[(*known, UNDETERMINED)], ...) for name, known in VOCABULARIES.items()}
    words["region_id"] = (Literal[region_ids], ...)
    return cast("type[Answer]", create_model("RegionAnswer", __base__=Answer, **words))


def json_schema(region_ids: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of the answers, every member required and in order."""
    schema = answer_type(tuple(region_ids)).model_json_schema()
    properties = {name: {k: v for k, v in rule.items() if k != "title"} for name, rule in schema["properties"].items()}
    properties["region_id"] = {"type": "string", "enum": list(region_ids)}  # of one, pydantic makes a "const"
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_answer(text: str, region_id: str, region_ids: Sequence[str]) -> Answer:
    """Validate an answer about ``region_id``. Raises InvalidAnswerError saying what is wrong, in words of ours only."""
    if len(text) > ANSWER_LENGTH:
        raise InvalidAnswerError(f"the answer has more than {ANSWER_LENGTH:,} characters")
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):  # what many servers put around JSON
        text = text.strip("`").removeprefix("json")
    try:
        answer = answer_type(tuple(region_ids)).model_validate_json(text)
    except (ValidationError, RecursionError, UnicodeError) as error:
        faults = error.errors() if isinstance(error, ValidationError) else []
        if not faults or faults[0]["type"] == "json_invalid":
            raise InvalidAnswerError("the answer is not JSON, or was cut off") from error
        # The key of a superfluous member is the model's own word: it is not repeated
        named = [(f["loc"][0] if f["loc"] and f["loc"][0] in Answer.model_fields else "", f["msg"]) for f in faults]
        listing = "; ".join(f"{name}: {message}" if name else message for name, message in named[:3])
        raise InvalidAnswerError(f"the answer does not keep to the schema: {listing}") from error
    if answer.region_id != region_id:
        raise InvalidAnswerError(f"the answer is about region {answer.region_id}, not about region {region_id}")
    return answer
