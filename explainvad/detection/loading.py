"""Networks from a configuration and a state dict: every tensor finds its place, or the loading is refused.

A network with some random weights looks like any other and scores like none. Configurations may come from
elsewhere: they can name an architecture and its arguments, but no file to read and no address to fetch.
"""

from __future__ import annotations

import inspect
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from math import lcm
from pathlib import Path
from typing import IO, Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from explainvad.errors import WeightsError

SHOWN = 3  # keys that a message names
COUNTER = ".num_batches_tracked"  # of batch normalisation: no weight, and older checkpoints lack it
RESERVED = frozenset(
    {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes"}
)
UNBUILDABLE = (RuntimeError, TypeError, ValueError, KeyError, AttributeError, AssertionError)


class Clip(NamedTuple):
    """A CLIP model: encoders, the tokenizer of its texts, and the normalisation of its images (channels on [0, 1])."""

    network: nn.Module  # open_clip.CLIP in evaluation mode
    tokenizer: Any  # open_clip.SimpleTokenizer: texts -> int64 (n, context_length)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def timm_network(name: str, config: Mapping[str, Any], classes: int = 0) -> nn.Module:
    """The network that a config.json of timm describes, freshly initialised; without a head unless ``classes``."""
    architecture, arguments = config.get("architecture"), config.get("model_args") or {}
    # a name like hf-hub:… would be fetched
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise WeightsError(
            f"{name}: expected an architecture of timm {timm.__version__}, got {architecture!r}: put config.json right"
        )
    if taken := RESERVED.intersection(arguments):
        raise WeightsError(f"{name}: model_args may not hold {', '.join(sorted(taken))}: remove it from config.json")
    try:
        return timm.create_model(architecture, pretrained=False, num_classes=classes, **arguments).eval()
    except UNBUILDABLE as error:
        raise WeightsError(
            f"{name}: timm {timm.__version__} cannot build {architecture} with {arguments}: {error}; "
            "put config.json right"
        ) from error


def head_keys(name: str, config: Mapping[str, Any]) -> set[str]:
    """Keys of the classifier, which a headless network lacks: the only ones that may be left over."""
    with torch.device("meta"):  # names only, no memory
        whole, headless = (timm_network(name, config, classes).state_dict().keys() for classes in (2, 0))
    return whole - headless


def require_multiple(name: str, network: nn.Module, multiple: int) -> None:
    """Raise WeightsError unless every layer's grid covers a frame exactly whose sides are multiples of ``multiple``."""
    needed = lcm(*(layer["reduction"] for layer in network.feature_info))  # type: ignore[union-attr]
    if multiple % needed:
        raise WeightsError(
            f'{name}: frames must be multiples of {needed} px, got {multiple}: put "multiple": {needed} in config.json'
        )


def clip_network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """The CLIP that an open_clip_config.json describes, freshly initialised; only open_clip's own towers."""
    from open_clip import CLIP  # type: ignore[import-untyped]

    model = dict(config.get("model_cfg") or {})
    towers = [f"{tower}.{key}" for tower in ("vision_cfg", "text_cfg") for key in model.get(tower) or {}]
    foreign = [key for key in towers if key.partition(".")[2].startswith(("hf_", "timm_"))]
    if model.pop("custom_text", False) or foreign:
        raise WeightsError(
            f"{name}: expected a CLIP with the towers and the tokenizer of open_clip itself, got "
            f"{', '.join(foreign) or 'custom_text'}: take another model"
        )
    accepted = inspect.signature(CLIP).parameters
    if unknown := [key for key in model if key not in accepted]:
        raise WeightsError(f"{name}: expected in model_cfg some of {', '.join(accepted)}, got {', '.join(unknown)}")
    try:
        return CLIP(**model).eval()
    except UNBUILDABLE as error:
        raise WeightsError(
            f"{name}: open_clip cannot build this model_cfg: {error}; put open_clip_config.json right"
        ) from error


def clip_tokenizer(name: str, config: Mapping[str, Any]) -> Any:
    """The byte-pair tokenizer that comes with open_clip; no network."""
    from open_clip import SimpleTokenizer

    text = config["model_cfg"]["text_cfg"]
    arguments = text.get("tokenizer_kwargs") or {}
    if set(arguments) - {"clean"}:  # others name files, or fetch
        raise WeightsError(f"{name}: expected of tokenizer_kwargs only clean, got {', '.join(arguments)}")
    tokenizer = SimpleTokenizer(context_length=text.get("context_length", 77), **arguments)
    if (words := text.get("vocab_size", tokenizer.vocab_size)) < tokenizer.vocab_size:
        raise WeightsError(f"{name}: expected a vocab_size of {tokenizer.vocab_size}, open_clip's own, got {words}")
    return tokenizer


def load_strictly(
    name: str, network: nn.Module, tensors: Mapping[str, Tensor], droppable: Callable[[], set[str]] = set
) -> None:
    """Put ``tensors`` into ``network``: none may be missing, of another shape, or left over and not ``droppable``.

    Raises WeightsError that names the first of them.
    """
    own = network.state_dict()
    missing, left = _unplaced(own, tensors, droppable)
    if missing or left:
        tensors = _converted(name, network, tensors)
        missing, left = _unplaced(own, tensors, droppable)
    if missing or left:
        found = [f"{_few(keys)} {what}" for what, keys in (("missing", missing), ("left over", left)) if keys]
        raise WeightsError(
            f"{name}: the weights do not fit {type(network).__name__}, which expects {len(own)} tensors: "
            f"{'; '.join(found)}. Get weights of this very architecture"
        )
    for key in sorted(own.keys() & tensors.keys()):
        _require_shape(name, key, own[key], tensors[key])
    network.load_state_dict({key: tensors.get(key, own[key]) for key in own}, strict=True)


def _require_shape(name: str, key: str, expected: Tensor, got: Tensor) -> None:
    if expected.shape != got.shape:
        raise WeightsError(
            f"{name}: expected {key} of shape {tuple(expected.shape)}, got {tuple(got.shape)}: get weights of this "
            "very architecture, or put model_args in config.json right"
        )


def _unplaced(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], droppable: Callable[[], set[str]]
) -> tuple[list[str], list[str]]:
    """Keys that are missing, and keys that are left over."""
    missing = sorted(key for key in own.keys() - tensors.keys() if not key.endswith(COUNTER))
    left = tensors.keys() - own.keys()
    return missing, sorted(left - droppable() if left else left)


def _converted(name: str, network: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """An original checkpoint in timm's names, by the conversion that timm keeps beside each architecture.

    It may rename and drop. It may not resize, which timm does to positional embeddings without a word.
    """
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    try:
        with torch.no_grad():
            converted: Mapping[str, Tensor] = convert(dict(tensors), network)
    except UNBUILDABLE as error:
        raise WeightsError(f"{name}: timm cannot convert these weights to {type(network).__name__}: {error}") from error
    sizes = Counter(tensor.numel() for tensor in tensors.values())
    for key, tensor in converted.items():
        if not sizes[tensor.numel()]:  # made of another number of values
            _require_shape(name, key, tensor, tensors.get(key, tensor[:0]))
        sizes[tensor.numel()] -= 1
    return converted


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def unpickled(name: str, pickled: Path | IO[bytes]) -> dict[str, Tensor]:
    """The tensors of a pickled state dict, of the file ``name``; no code in it is run. WeightsError when it is none."""
    try:
        found = torch.load(pickled, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{name} was refused: expected a file of tensors and nothing else ({str(error).splitlines()[0]}); "
            "get the weights as safetensors"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise WeightsError(f"{name}: expected a state dict, names and tensors: get the weights as safetensors")
    return {key.removeprefix("module."): value for key, value in found.items()}  # the prefix of training in parallel
