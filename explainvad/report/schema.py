"""The published schema of report.json, and its reader: made from the value types so that they cannot drift apart.

Run as a module to print it: ``python -m explainvad.report.schema > explainvad/report/report.schema.json``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import JsonValue, TypeAdapter, create_model

from explainvad.types import LotReport, Provenance

SCHEMA_FILE = Path(__file__).with_name("report.schema.json")


def report_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of report.json: every key required, no other key allowed."""
    schema = TypeAdapter(_document()).json_schema(mode="serialization")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:explainvad:report:1"} | schema
    for node in (schema, *schema["$defs"].values()):
        if "properties" in node:
            node["required"] = list(node["properties"])
            node["additionalProperties"] = False
    return schema


def report_of(data: bytes, run_dir: Path) -> LotReport:
    """Read a report.json back. Raises pydantic's ValidationError, a ValueError, when it breaks the schema."""
    document = _document().model_validate_json(data, strict=True)
    return LotReport(**vars(document) | {"provenance": Provenance(**vars(document.provenance)), "run_dir": run_dir})


@cache
def _document() -> Any:
    """The model of a report.json."""
    # pydantic cannot follow the recursive alias types.JSON; its own JsonValue is the same type.
    provenance = _model(Provenance, config=Mapping[str, JsonValue])
    return _model(LotReport, without=("run_dir", "renderer"), provenance=provenance)


def _model(source: type, without: tuple[str, ...] = (), **changed: Any) -> Any:
    hints = get_type_hints(source) | changed
    members: dict[str, Any] = {name: (hint, ...) for name, hint in hints.items() if name not in without}
    return create_model(source.__name__, __doc__=inspect.getdoc(source), **members)


if __name__ == "__main__":
    print(json.dumps(report_schema(), indent=1, ensure_ascii=False))
