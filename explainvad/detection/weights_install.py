"""Weights come into the store: checked that they load, held against the lock, and put under their name in one step."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from explainvad.detection.catalogue import CATALOGUE
from explainvad.detection.loading import unpickled
from explainvad.detection.sam_checkpoint import sam_checkpoint, take_sam
from explainvad.detection.weights import WeightStore, weights_in
from explainvad.detection.weights_lock import (
    LAYOUTS,
    Locked,
    alone,
    checked_name,
    locked_file,
    read_lock,
    require_same,
    write_lock,
)
from explainvad.errors import StorageError, WeightsError

PICKLES = {
    "timm": "pytorch_model.bin",
    "open_clip": "open_clip_pytorch_model.bin",
    "segment_anything": "pytorch_model.bin",
}
TEACHERS = ("pdn-small", "pdn-medium")  # architectures of this package, of EfficientAD's teacher


def bring(store: WeightStore, name: str, folder: Path, *, update: bool = False) -> Locked:
    """Take the weights in ``folder`` into the store as ``name`` and lock them; in place where they lie there already.

    The folder has the layout of the hub: a configuration and safetensors, or else one file of pickled tensors, which
    is read without running any code and kept as safetensors. A checkpoint of Segment Anything needs no configuration,
    and may be named itself. Raises WeightsError when they do not load, and IntegrityError when ``name`` is locked to
    others and not ``update``.
    """
    require_free(name)
    checkpoint = sam_checkpoint(folder)
    with staging(store, name) as scratch:
        in_place = folder.resolve() == (store.root / name).resolve()
        target = folder if in_place else scratch
        if checkpoint is not None:
            take_sam(name, checkpoint, target)
            return settle(store, name, target, "segment_anything", "folder", licence=_licence(name), update=update)
        library = _library(name, folder)
        config, tensors = LAYOUTS[library]
        if not in_place:
            shutil.copyfile(folder / config, scratch / config)
        if not (folder / tensors).is_file():
            convert(_pickle(folder, library), target / tensors)
        elif not in_place:
            shutil.copyfile(folder / tensors, scratch / tensors)
        return settle(store, name, target, library, "folder", licence=_licence(name, target / config), update=update)


def require_free(name: str) -> None:
    """Raise WeightsError for a name that weights in a store cannot have."""
    if checked_name(name) == "embedded":
        raise WeightsError("embedded ships with the package: there is nothing to pull, and the name is taken")


@contextmanager
def staging(store: WeightStore, what: str) -> Iterator[Path]:
    """A folder in the store in which weights become complete; nothing of it is left when that fails."""
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=store.root) as scratch:
            folder = Path(scratch) / "weights"
            folder.mkdir()
            yield folder
    except OSError as error:
        raise StorageError(
            f"{what} could not be taken up: {error.filename or store.root}: {error.strerror or error}. What was there "
            "is as it was: put this right (free space, permissions) and give the same command again"
        ) from error


def settle(
    store: WeightStore,
    name: str,
    folder: Path,
    library: str,
    origin: Literal["hub", "folder", "archive"],
    *,
    hub: str | None = None,
    revision: str | None = None,
    licence: str | None = None,
    update: bool = False,
) -> Locked:
    """Put complete weights under their name and lock them, or hold them against the lock. Errors as for `bring`."""
    entry = Locked(
        origin=origin,
        hub=hub,
        revision=revision,
        licence=licence,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        files={file: locked_file(folder / file) for file in LAYOUTS[library]},
    )
    target = store.root / name
    with alone(store.root):
        lock = read_lock(store.root)
        known = lock.weights.get(name)
        if known is not None and not update:
            require_same(name, known, entry)
            entry = known
        if known is None and target != folder and target.exists():
            raise WeightsError(
                f"{target} holds weights that nobody locked, and they were left alone: lock them with "
                f"`explainvad models pull {name} --from {target}`, or move them away"
            )
        weights = weights_in(folder, name, entry)
        if weights.config.get("architecture") in TEACHERS:
            weights.tensors()  # no network of timm; the scorer that takes them loads them strictly
        else:
            _ = weights.clip() if weights.is_clip else weights.sam() if weights.is_sam else weights.network()
        lock.weights[name] = entry
        with _in_place(folder, target):
            write_lock(store.root, lock)
    return entry


def convert(pickled: Path, target: Path) -> None:
    """Write the tensors of a pickled state dict as safetensors; no code in the file is run."""
    # clones, because safetensors refuses memory that two tensors share
    save_file({key: value.clone().contiguous() for key, value in unpickled(pickled.name, pickled).items()}, target)


def _library(name: str, folder: Path) -> str:
    """Whose layout ``folder`` has; the catalogue decides where both are there."""
    found = [library for library, (config, _) in LAYOUTS.items() if (folder / config).is_file()]
    if not found:
        raise WeightsError(
            f"expected a folder with config.json and model.safetensors (timm), or open_clip_config.json and "
            f"open_clip_model.safetensors, or one checkpoint of Segment Anything, got {folder}"
        )
    wanted = CATALOGUE[name].library if name in CATALOGUE else found[-1]
    return wanted if wanted in found else found[0]


def _pickle(folder: Path, library: str) -> Path:
    """The one file of pickled tensors in ``folder``."""
    if (folder / PICKLES[library]).is_file():
        return folder / PICKLES[library]
    found = sorted(p for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if len(found) != 1:
        raise WeightsError(
            f"expected {LAYOUTS[library][1]} in {folder}, or one file of tensors, got "
            f"{', '.join(p.name for p in found) or 'none'}"
        )
    return found[0]


def _licence(name: str, config: Path | None = None) -> str | None:
    """What is known of the licence of weights in a folder."""
    if name in CATALOGUE:
        return CATALOGUE[name].licence
    if config is None:
        return None
    try:
        stated = json.loads(config.read_text("utf-8"))
        return stated.get("licence") or stated.get("license") or (stated.get("pretrained_cfg") or {}).get("license")
    except (ValueError, AttributeError, RecursionError):
        return None  # the configuration is refused further on, with its reason


@contextmanager
def _in_place(new: Path, path: Path) -> Iterator[None]:
    """Put the folder ``new`` at ``path``; what was there comes back when that or the block fails."""
    old = new.with_name(f".{new.name}.old")
    if new == path:
        yield
        return
    try:
        if path.exists():
            path.rename(old)
        new.rename(path)
        yield
    except BaseException:
        if not new.exists():
            path.rename(new)
        if old.exists():
            old.rename(path)
        raise
