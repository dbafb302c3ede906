"""A vision language model from a folder or the hub: safetensors only, complete, and no code of the model's own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import psutil
import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from explainvad.errors import WeightsError
from explainvad.explanation.describers.asking import one_line
from explainvad.explanation.describers.model_folder import REASON_LENGTH, FoundModel

GIGABYTE = 1e9
BYTES = {"8bit": 1.0, "4bit": 0.5}  # of a quantized weight; of others, those of the precision

# For models whose checkpoints bring no chat template (PaliGemma)
PLAIN_TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE{% elif c['type'] == 'text' %}"
    "{{ c['text'] }}\n{% endif %}{% endfor %}{% endfor %}"
)


@dataclass(frozen=True, slots=True, eq=False)
class LocalModel:
    """A loaded network in evaluation mode, its processor, and what it was loaded from."""

    network: Any
    processor: Any
    found: FoundModel
    setting: str  # "cpu, float32", "cuda, bfloat16, 4bit"


def load_model(found: FoundModel, quantization: str, device: str) -> LocalModel:
    """Load a model onto ``device`` (cpu, cuda or cuda:N, which must be there).

    Raises WeightsError that says what to do when it is incomplete, too large, or needs what is not installed.
    """
    _require_quantization(quantization)
    logging.set_verbosity_error()  # what it warns of is an error here
    logging.disable_progress_bar()
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    _require_memory(found, BYTES.get(quantization, dtype.itemsize), device)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    placed: dict[str, Any] = {}
    if quantization != "none":
        bits = quantization == "4bit"
        placed["quantization_config"] = transformers.BitsAndBytesConfig(load_in_4bit=bits, load_in_8bit=not bits)
        placed["device_map"] = {"": device}
    try:
        processor = AutoProcessor.from_pretrained(found.folder, **options)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            found.folder, use_safetensors=True, output_loading_info=True, dtype=dtype, **placed, **options
        )
        network, info = loaded
        _require_complete(found.name, info)
        if not placed:
            network = network.to(device)
    except WeightsError:
        raise
    except Exception as error:  # of any of four libraries; whatever it is, this model cannot be used
        if _out_of_memory(error):
            raise _too_large(found.name, f"does not fit into the memory of {device}") from error
        raise WeightsError(
            f"the vision language model {found.name} cannot be loaded: {one_line(str(error), REASON_LENGTH)}. "
            "Use a folder or hub id of a model for image-text-to-text, or another describer"
        ) from error
    _require_tokenizer(processor, found.name)
    setting = ", ".join([device, str(dtype).removeprefix("torch."), *([quantization] if placed else [])])
    return LocalModel(network.eval(), processor, found, setting)


def _require_memory(found: FoundModel, bytes_each: float, device: str) -> None:
    """Refuse weights that the free memory cannot hold: on the CPU the system would rather kill the process."""
    needed = bytes_each * _n_weights(found)
    free = psutil.virtual_memory().available if device == "cpu" else torch.cuda.mem_get_info(device)[0]
    if needed > free:
        needs = f"needs {needed / GIGABYTE:.3g} GB of memory on {device}, and {free / GIGABYTE:.3g} GB are free"
        raise _too_large(found.name, needs)


def _n_weights(found: FoundModel) -> int:
    """How many numbers the files hold, by their headers; what cannot be read is left to who loads it."""
    n = 0
    for path in found.folder.glob("*.safetensors"):
        try:
            with safe_open(path, "np") as tensors:
                n += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
        except (OSError, SafetensorError):
            continue
    return n


def _out_of_memory(error: Exception) -> bool:
    # Of the CPU's allocator torch raises a plain RuntimeError
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _too_large(name: str, why: str) -> WeightsError:
    return WeightsError(
        f'the vision language model {name} {why}: use a smaller model, quantization = "4bit" in [describer], another '
        "--device, or an endpoint"
    )


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
