"""A vision language model from a folder or the hub: safetensors only, complete, and no code of the model's own."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from explainvad.config import DescriberConfig
from explainvad.errors import WeightsError
from explainvad.explanation.describers.asking import one_line

OFFLINE = ("EXPLAINVAD_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
NEEDED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")  # of a repository; pickles are never fetched
REASON_LENGTH = 300  # characters of a library's own words in a message
HASH_SHOWN = 12  # hex digits in an author line

# For models whose checkpoints bring no chat template (PaliGemma)
PLAIN_TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE{% elif c['type'] == 'text' %}"
    "{{ c['text'] }}\n{% endif %}{% endfor %}{% endfor %}"
)

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True, eq=False)
class LocalModel:
    """A loaded network in evaluation mode, its processor, and what the report calls it.

    ``weights`` names exactly these weights: a commit of the hub, or a SHA-256 over all files that matter.
    """

    network: Any
    processor: Any
    name: str
    weights: str
    setting: str  # "cpu, float32", "cuda, bfloat16, 4bit"


def load_model(config: DescriberConfig, device: str) -> LocalModel:
    """Load ``config.model`` onto ``device`` (auto, cpu, cuda, cuda:N).

    Raises WeightsError that says what to do when it is missing, incomplete, or needs what is not installed.
    """
    assert config.model is not None  # the configuration saw to it
    _require_quantization(config.quantization)
    folder, name, weights = _found(config.model, config.revision)
    _require_layout(folder, name)

    import torch
    import transformers
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()  # what it warns of is an error here
    logging.disable_progress_bar()
    target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    dtype = torch.float32 if target == "cpu" else torch.bfloat16
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    placed: dict[str, Any] = {}
    if config.quantization != "none":
        bits = config.quantization == "4bit"
        placed["quantization_config"] = transformers.BitsAndBytesConfig(load_in_4bit=bits, load_in_8bit=not bits)
        placed["device_map"] = {"": target}
    try:
        processor = AutoProcessor.from_pretrained(folder, **options)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, dtype=dtype, **placed, **options
        )
        network, info = loaded
    except Exception as error:  # of any of four libraries; whatever it is, this model cannot be used
        raise WeightsError(
            f"the vision language model {name} cannot be loaded: {one_line(str(error), REASON_LENGTH)}. "
            "Use a folder or hub id of a model for image-text-to-text, or another describer"
        ) from error
    _require_complete(name, info)
    _require_tokenizer(processor, name)
    if not placed:
        network = network.to(target)
    setting = ", ".join([target, str(dtype).removeprefix("torch."), *([config.quantization] if placed else [])])
    return LocalModel(network.eval(), processor, name, weights, setting)


def _found(model: str, revision: str | None) -> tuple[Path, str, str]:
    """The folder of a model, what it is called, and what identifies its weights."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise WeightsError(f"[describer] revision = {revision!r} is for models of the hub, but {model} is a folder")
        return folder, one_line(folder.resolve().name, 60), f"weights sha256 {_digest(folder)[:HASH_SHOWN]}"
    if _HUB_ID.fullmatch(model) is None or ".." in model:
        raise WeightsError(f"there is no folder {model}, and it is no hub id (OWNER/NAME): set model in [describer]")
    folder = _snapshot(model, revision)
    return folder, model, f"revision {folder.name[:HASH_SHOWN]}"


def _snapshot(model: str, revision: str | None) -> Path:
    """A model of the hub: from the local cache, else fetched, unless the environment forbids the network."""
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"revision": revision, "allow_patterns": list(NEEDED)}
    try:
        return Path(snapshot_download(model, local_files_only=True, **options))
    except Exception as missing:  # the hub's errors are those of its HTTP client, which differs between releases
        if asked := [name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]:
            raise WeightsError(
                f"the vision language model {model} is not here, and {asked[0]} forbids the network: fetch it on a "
                "machine with a network, and set model in [describer] to its folder"
            ) from missing
    try:
        return Path(snapshot_download(model, **options))
    except Exception as error:
        raise WeightsError(
            f"the vision language model {model} could not be fetched: {one_line(str(error), REASON_LENGTH)}. "
            "Try again, or set model in [describer] to a folder that holds it"
        ) from error


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


def _require_complete(name: str, info: dict[str, Any]) -> None:
    """Refuse what transformers would leave random with a mere warning."""
    lacking = sorted(map(str, (*info.get("missing_keys", ()), *info.get("mismatched_keys", ()))))
    if lacking or info.get("error_msgs"):
        what = f"{len(lacking)} tensors are missing or of another shape ({lacking[0]} first)" if lacking else "errors"
        raise WeightsError(f"{name}: {what}, so a part of the network would be random: get the whole checkpoint")


def _require_tokenizer(processor: Any, name: str) -> None:
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not getattr(tokenizer, "is_fast", False):
        raise WeightsError(f"{name}: expected a processor with a fast tokenizer (tokenizer.json), which grammars need")
    if getattr(processor, "chat_template", None) is None:
        if getattr(tokenizer, "chat_template", None) is not None:
            processor.chat_template = tokenizer.chat_template
            return
        token = getattr(processor, "image_token", None) or getattr(tokenizer, "image_token", None)
        if not isinstance(token, str):
            raise WeightsError(f"{name}: its processor has neither a chat template nor an image token")
        processor.chat_template = PLAIN_TEMPLATE.replace("IMAGE", token.replace("{", "").replace("%", ""))


def _require_quantization(quantization: str) -> None:
    if quantization == "none":
        return
    lacking = [package for package in ("bitsandbytes", "accelerate") if find_spec(package) is None]
    if lacking:
        raise WeightsError(
            f'quantization = "{quantization}" in [describer] needs {" and ".join(lacking)}: pip install '
            f'{" ".join(lacking)}, or set it to "none"'
        )
