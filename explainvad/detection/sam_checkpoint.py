"""Checkpoints of Segment Anything as they are handed about: one file, or the folder of transformers.

The published files hold tensors and nothing that says which network they are of; the shapes say it
(:mod:`explainvad.detection.sam_network`). On the hub the same tensors go by other names, those of transformers.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from explainvad.detection.loading import unpickled
from explainvad.detection.sam_network import architecture, sam_network
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_lock import LAYOUTS
from explainvad.errors import WeightsError

LIBRARY = "segment_anything"
HUB_LAYOUT = ("config.json", "model.safetensors")  # of transformers, whatever the library
PICKLED = (".pth", ".pt", ".bin")
CHECKPOINTS = (*PICKLED, ".safetensors")
_MODEL_TYPE = "sam"  # as transformers calls it
# transformers -> segment_anything, in this order
_NAMES = (
    (r"^(prompt_encoder\.shared_embedding|shared_image_embedding)\.positional_embedding$",
     "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^vision_encoder\.", "image_encoder."),
    (r"^image_encoder\.layers\.", "image_encoder.blocks."),
    (r"\.neck\.conv1\.", ".neck.0."),
    (r"\.neck\.layer_norm1\.", ".neck.1."),
    (r"\.neck\.conv2\.", ".neck.2."),
    (r"\.neck\.layer_norm2\.", ".neck.3."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"\.point_embed\.", ".point_embeddings."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.0\.", r"\1.layers.1."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.proj_in\.", r"\1.layers.0."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.proj_out\.", r"\1.layers.2."),
    (r"\.layer_norm(\d|_final_attn)", r".norm\1"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class OpenedSam:
    """A network ready for use, and what the record says of it."""

    network: nn.Module  # segment_anything.modeling.Sam
    architecture: str  # vit_b, vit_l, vit_h, …
    source: str  # name, hash and licence in one line
    sha256: str | None  # of its tensors on disk; None of a random initialisation


def open_sam(setting: str, file: Path | None, store: WeightStore | None = None) -> OpenedSam:
    """The network of ``file``, a checkpoint or the folder of one; without it, of the weights called ``setting``.

    Weights by name must be what the lock says; a file is what it is, and its hash is recorded. Raises WeightsError
    that names the command to run when they are missing or do not fit, IntegrityError when they were altered.
    """
    if file is None:
        weights = (store or WeightStore()).weights(setting)
        sha256 = weights.locked.sha256 if weights.locked else None
        network = weights.sam()
        return OpenedSam(network, str(weights.config["architecture"]), weights.describe(), sha256)
    checkpoint = sam_checkpoint(file)
    if checkpoint is None:
        raise WeightsError(
            f"there is no checkpoint of Segment Anything at {file}: name a .pth or .safetensors file, a folder that "
            "holds one, or weights of the store, which `explainvad models pull sam-vit-b` brings"
        )
    try:
        content = checkpoint.read_bytes()  # once: what is hashed is what is loaded
    except OSError as error:
        raise WeightsError(f"{checkpoint} cannot be read: {error.strerror or error}") from error
    sha256, tensors = hashlib.sha256(content).hexdigest(), read_sam(checkpoint.name, content)
    del content  # as large as the network that is built now
    source = f"{checkpoint.name}, sha256 {sha256[:16]}…, licence not stated"
    return OpenedSam(*sam_network(checkpoint.name, tensors), source, sha256)


def sam_checkpoint(path: Path) -> Path | None:
    """The checkpoint of Segment Anything that ``path`` names or holds; None where it is none of these.

    A file is taken for one; so is the only file of tensors in a folder without a configuration, or with one that
    says it is transformers' Segment Anything. What is in it is looked at when it is read.
    """
    if path.is_file():
        return path if path.suffix in CHECKPOINTS else None
    if not path.is_dir():
        return None
    configured = any((path / config).is_file() for config, _ in LAYOUTS.values())
    if configured and not _transformers(path):
        return None
    found = sorted(p for p in path.iterdir() if p.suffix in CHECKPOINTS and p.is_file())
    safe = [p for p in found if p.suffix not in PICKLED] or found  # the hub has both, of the same tensors
    return safe[0] if len(safe) == 1 else None


def _transformers(folder: Path) -> bool:
    """Whether the folder is transformers' layout of a Segment Anything."""
    try:
        config = json.loads((folder / HUB_LAYOUT[0]).read_text("utf-8"))
        return isinstance(config, dict) and config.get("model_type") == _MODEL_TYPE
    except (OSError, ValueError, RecursionError):
        return False


def read_sam(name: str, content: bytes) -> dict[str, Tensor]:
    """The tensors of a file ``name`` by segment_anything's names; no code in it is run. WeightsError if that fails."""
    if name.endswith(PICKLED):
        tensors = unpickled(name, io.BytesIO(content))
    else:
        try:
            tensors = load(content)
        except (SafetensorError, ValueError) as error:
            raise WeightsError(f"{name}: expected tensors in the format safetensors: {error}") from error
    return {own_name(key): value for key, value in tensors.items()} if is_transformers(tensors) else tensors


def is_transformers(tensors: dict[str, Tensor]) -> bool:
    """Whether the tensors go by transformers' names."""
    return any(key.startswith("vision_encoder.") for key in tensors)


def own_name(key: str) -> str:
    """What segment_anything calls the tensor that transformers calls ``key``."""
    for pattern, name in _NAMES:
        key = re.sub(pattern, name, key)
    return key


def take_sam(name: str, checkpoint: Path, folder: Path) -> None:
    """Put a checkpoint into ``folder`` in the store's own layout: safetensors, and which architecture they are of."""
    tensors = read_sam(checkpoint.name, checkpoint.read_bytes())
    config, target = LAYOUTS[LIBRARY]
    stated = json.dumps({"architecture": architecture(name, tensors)})
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, folder / target)
    (folder / config).write_text(stated + "\n", encoding="utf-8")
