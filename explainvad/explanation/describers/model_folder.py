"""Where a vision language model lies, and what identifies its weights: settled before anything of it is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explainvad.config import DescriberConfig
from explainvad.errors import WeightsError
from explainvad.explanation.describers.asking import one_line
from explainvad.offline import forbidden_by

NEEDED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")  # of a repository; pickles are never fetched
WHOLE = ("config.json", "*.safetensors", "*processor_config.json", "tokenizer*")  # one of each, at least
INDEX = "model.safetensors.index.json"  # of weights that are cut into several files
REASON_LENGTH = 300  # characters of a library's own words in a message
HASH_SHOWN = 12  # hex digits in an author line

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True, eq=False)
class FoundModel:
    """A folder with a model, what the report calls it, and what identifies exactly these weights.

    ``weights`` is "weights sha256 HEX", over all files that take part in an answer, or "revision COMMIT" of the hub.
    """

    folder: Path
    name: str
    weights: str

    @property
    def shown(self) -> str:
        """``weights`` with a hash that fits into a line."""
        kind, _, digest = self.weights.rpartition(" ")
        return f"{kind} {digest[:HASH_SHOWN]}"


def find_model(config: DescriberConfig) -> FoundModel:
    """The model that ``config`` names: a folder, or a model of the hub, from its cache or fetched into it.

    Reads every file of a folder once. Raises WeightsError that says what to do when there is none, or it is no model.
    """
    assert config.model is not None  # the configuration saw to it
    model, revision = config.model, config.revision
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise WeightsError(f"[describer] revision = {revision!r} is for models of the hub, but {model} is a folder")
        name = one_line(folder.resolve().name, 60)
        _require_layout(folder, name)
        return FoundModel(folder, name, f"weights sha256 {_digest(folder)}")
    if _HUB_ID.fullmatch(model) is None or ".." in model:
        raise WeightsError(f"there is no folder {model}, and it is no hub id (OWNER/NAME): set model in [describer]")
    folder = _snapshot(model, revision)
    _require_layout(folder, model)
    return FoundModel(folder, model, f"revision {folder.name}")


def _snapshot(model: str, revision: str | None) -> Path:
    """A model of the hub: from the local cache where it is whole, else fetched, unless the network is forbidden."""
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"revision": revision, "allow_patterns": list(NEEDED)}
    missing: Exception | None = None
    try:
        cached = Path(snapshot_download(model, local_files_only=True, **options))
        if _seems_whole(cached) or forbidden_by():
            return cached
    except Exception as error:  # the hub's errors are those of its HTTP client, which differs between releases
        missing = error
    if variable := forbidden_by():
        raise WeightsError(
            f"the vision language model {model} is not here, and {variable} forbids the network: fetch it on a "
            "machine with a network, and set model in [describer] to its folder"
        ) from missing
    try:
        return Path(snapshot_download(model, **options))
    except Exception as error:
        raise WeightsError(
            f"the vision language model {model} could not be fetched: {one_line(str(error), REASON_LENGTH)}. "
            "Try again, or set model in [describer] to a folder that holds it"
        ) from error


def _seems_whole(folder: Path) -> bool:
    """Whether nothing is missing from a snapshot of the cache, as far as that can be told without the hub.

    Whoever asked for one file, or was cut off, leaves a folder that the hub's library takes for a whole one.
    """
    if not all(any(folder.glob(pattern)) for pattern in WHOLE):
        return False
    try:
        return all((folder / name).exists() for name in _shards(folder))
    except (OSError, ValueError, AttributeError):
        return False


def _shards(folder: Path) -> set[str]:
    """The files that an index says the weights are cut into; none without an index."""
    index = folder / INDEX
    return set(json.loads(index.read_text("utf-8"))["weight_map"].values()) if index.exists() else set()


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files that take part in an answer."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in NEEDED for p in folder.glob(pattern) if p.is_file()):
        with path.open("rb") as source:
            content = hashlib.file_digest(source, "sha256").hexdigest()
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()


def _require_layout(folder: Path, name: str) -> None:
    """A configuration and safetensors, and no weights beside them that only pickle could read."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        known = isinstance(config, dict) and isinstance(config.get("model_type"), str)
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{name}: expected a readable config.json in {folder}: {error}") from error
    if not known:
        raise WeightsError(f"{name}: expected config.json to name a model_type, as transformers writes it")
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(f"{name}: expected weights as *.safetensors in {folder}: other formats are not loaded")
