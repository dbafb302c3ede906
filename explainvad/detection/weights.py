"""Pretrained weights on disk: a folder a model in the layout of the hub, below one root, each locked by its hashes.

The root is ``EXPLAINVAD_WEIGHTS``, else ``~/.cache/explainvad/weights``. Nothing here goes to the network, and nothing
is loaded that is not what the lock says.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from explainvad.detection.catalogue import CATALOGUE, Pretrained
from explainvad.detection.loading import (
    Clip,
    clip_network,
    clip_tokenizer,
    head_keys,
    load_strictly,
    require_multiple,
    timm_network,
)
from explainvad.detection.sam_network import MEAN, PUBLISHED, STD, empty_sam, sam_network
from explainvad.detection.training import reproducible
from explainvad.detection.weights_lock import LAYOUTS, LOCK, Locked, checked_name, differences, read_lock, weights_root
from explainvad.errors import IntegrityError, WeightsError

RANDOM = re.compile(r"(?P<name>.+):random(-(?P<seed>\d{1,9}))?")
CONFIG_LIMIT = 1 << 20  # bytes
MULTIPLE = 32  # px, of weights that do not say theirs
# OpenAI's normalisation, which open_clip takes where a configuration has none
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """One model's weights: where they lie, what network they belong to, and what the report says of them."""

    name: str
    library: str  # timm, open_clip or segment_anything
    folder: Path | None  # None: random ones
    config: dict[str, Any]  # timm: "architecture", "model_args", …; open_clip: "model_cfg", …; SAM: "architecture"
    multiple: int  # px; sides of a frame are multiples of it
    mean: tuple[float, float, float]  # of channels on [0, 1]
    std: tuple[float, float, float]
    locked: Locked | None = None
    seed: int = 0  # of random ones

    @property
    def is_clip(self) -> bool:
        """Whether they are a CLIP's."""
        return self.library == "open_clip"

    @property
    def is_sam(self) -> bool:
        """Whether they are a Segment Anything's."""
        return self.library == "segment_anything"

    def describe(self) -> str:
        """Hub id, revision, hash and licence in one line, for the report."""
        if self.locked is None:
            return f"{self.name.partition(':')[0]}: random initialisation, for experiments only (seed {self.seed})"
        return self.locked.describe(self.name)

    def tensors(self) -> dict[str, Tensor]:
        """The state dict, verified. Raises IntegrityError when it is not what the lock says."""
        if self.folder is None or self.locked is None:
            raise WeightsError(f"{self.name} has no tensors on disk: it is a random initialisation")
        require_locked(self.name, self.folder, self.locked)
        try:
            return load_file(self.folder / LAYOUTS[self.library][1])
        except (SafetensorError, ValueError) as error:
            raise WeightsError(f"{self.name}: expected tensors in the format safetensors: {error}") from error

    def network(self) -> nn.Module:
        """The timm network, in evaluation mode, with all its weights. WeightsError when one finds no place."""
        if self.library != "timm":
            kind = "CLIP" if self.is_clip else "Segment Anything"
            raise WeightsError(f"{self.name} is a {kind}, expected a plain backbone: see `explainvad models list`")
        with reproducible(self.seed):
            network = timm_network(self.name, self.config)
        require_multiple(self.name, network, self.multiple)
        if self.folder:
            load_strictly(self.name, network, self.tensors(), lambda: head_keys(self.name, self.config))
        return network

    def clip(self) -> Clip:
        """The CLIP, in evaluation mode, with all its weights, its tokenizer and the normalisation of its images."""
        if not self.is_clip:
            raise WeightsError(f"{self.name} is no CLIP, expected one: see `explainvad models list`")
        with reproducible(self.seed):
            network = clip_network(self.name, self.config)
        if self.folder:
            load_strictly(self.name, network, self.tensors())
        return Clip(network, clip_tokenizer(self.name, self.config), self.mean, self.std)

    def sam(self) -> nn.Module:
        """The Segment Anything, in evaluation mode, with all its weights."""
        if not self.is_sam:
            raise WeightsError(f"{self.name} is no Segment Anything, expected one: see `explainvad models list`")
        stated = self.config.get("architecture")
        if self.folder is None:
            with reproducible(self.seed):
                return empty_sam(PUBLISHED[str(stated)])
        network, got = sam_network(self.name, self.tensors())
        if got != stated:
            raise WeightsError(f"{self.name}: {stated} is what its configuration says, but its tensors are of {got}")
        return network


class WeightStore:
    """All weights of this machine, below one folder."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or weights_root()

    def weights(self, name: str) -> Weights:
        """The weights called ``name``; ``NAME:random`` and ``NAME:random-SEED`` are the same network untrained.

        Raises WeightsError that names the command to run when they are missing or nobody locked them, and
        IntegrityError when they are not what the lock says.
        """
        if random := RANDOM.fullmatch(name):
            return self._random(name, random["name"], int(random["seed"] or 0))
        folder, locked = self.root / checked_name(name), read_lock(self.root).weights.get(name)
        if not folder.is_dir():
            raise WeightsError(f"there are no weights called {name} in {self.root}: {how_to_get(name)}")
        if locked is None:
            raise WeightsError(
                f"the weights {name} are not in {LOCK}, so nobody vouched for them: "
                f"run `explainvad models pull {name} --from {folder}` if they are what they should be"
            )
        require_locked(name, folder, locked)
        return weights_in(folder, name, locked)

    def _random(self, name: str, base: str, seed: int) -> Weights:
        if (entry := CATALOGUE.get(base)) and entry.hub:
            return _weights(name, entry.library, _catalogue_config(entry), None, None, seed)
        known = self.weights(base)
        return _weights(name, known.library, known.config, None, None, seed)


def require_locked(name: str, folder: Path, locked: Locked) -> None:
    """Raise IntegrityError when a file is not what the lock says."""
    if found := differences(name, folder, locked):
        raise IntegrityError(f"{found[0]}: the weights were altered; to get the locked ones again, {how_to_get(name)}")


def weights_in(folder: Path, name: str, locked: Locked) -> Weights:
    """The weights in ``folder``, whose files are ``locked``. Raises WeightsError when the configuration will not do."""
    file = folder / LAYOUTS[locked.library][0]
    try:
        if file.stat().st_size > CONFIG_LIMIT:
            raise ValueError(f"more than {CONFIG_LIMIT} bytes")
        config: Any = json.loads(file.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no object")
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{name}: expected a readable {file.name}: {error}") from error
    if entry := CATALOGUE.get(name):
        got = config.get("architecture", entry.architecture)
        if entry.library != locked.library or (entry.library != "open_clip" and got != entry.architecture):
            raise WeightsError(
                f"{name} is {entry.architecture} of {entry.library}, got {got} of {locked.library}: "
                "give other weights a name of their own"
            )
        config.setdefault("multiple", entry.multiple)
        config["model_args"] = {**entry.model_args, **(config.get("model_args") or {})}
    return _weights(name, locked.library, config, folder, locked, 0)


def how_to_get(name: str) -> str:
    """The commands that bring the weights ``name``."""
    entry = CATALOGUE.get(name)
    if entry is None:
        return f"run `explainvad models pull {name} --from FOLDER`; `explainvad models list` shows what needs no folder"
    if entry.hub is None:
        return "it ships with the package and is in no store"
    return f"run `explainvad models pull {name}`, or `explainvad models import` with an archive"


def _weights(
    name: str, library: str, config: dict[str, Any], folder: Path | None, locked: Locked | None, seed: int
) -> Weights:
    if library == "open_clip":
        preprocess = {"mean": CLIP_MEAN, "std": CLIP_STD} | (config.get("preprocess_cfg") or {})
        try:
            multiple = config["model_cfg"]["vision_cfg"]["patch_size"]
        except (KeyError, TypeError) as error:
            raise WeightsError(f"{name}: expected model_cfg.vision_cfg.patch_size in the configuration") from error
    elif library == "segment_anything":
        preprocess, multiple = {"mean": MEAN, "std": STD}, 1  # it resizes for itself
    else:
        preprocess, multiple = config.get("pretrained_cfg") or {}, config.get("multiple", MULTIPLE)
    if not isinstance(multiple, int) or multiple < 1:
        raise WeightsError(f"{name}: expected a whole number of pixels as multiple, got {multiple!r}")
    mean, std = (_channels(name, what, preprocess.get(what)) for what in ("mean", "std"))
    return Weights(name, library, folder, config, multiple, mean, std, locked, seed)


def _channels(name: str, what: str, values: Any) -> tuple[float, float, float]:
    """Three numbers; a wrong normalisation would be felt in every score and seen nowhere."""
    try:
        r, g, b = map(float, values)
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"{name}: expected {what} of the three channels in the configuration, got {values}"
        ) from error
    return r, g, b


def _catalogue_config(entry: Pretrained) -> dict[str, Any]:
    """The configuration of a known network without its weights."""
    if entry.library == "segment_anything":
        return {"architecture": entry.architecture}
    if entry.library == "open_clip":
        import open_clip  # type: ignore[import-untyped]

        return {"model_cfg": open_clip.get_model_config(entry.architecture)}
    assert entry.hub is not None
    cfg = timm.get_pretrained_cfg(entry.hub.partition("/")[2], allow_unregistered=False)
    assert cfg is not None  # a name that timm does not know raises
    return {
        "architecture": entry.architecture,
        "model_args": dict(entry.model_args),
        "multiple": entry.multiple,
        "pretrained_cfg": {"mean": cfg.mean, "std": cfg.std},
    }
