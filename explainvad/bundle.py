"""A fitted model on disk: ``model.evad/`` with a manifest, safetensors and reference pictures. No pickle anywhere.

``manifest.json`` names every other file with its sha256, and the bundle is known by the sha256 of the manifest.
Loading verifies all of them before anything is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from explainvad.errors import IntegrityError, ModelNotFoundError, StorageError, UsageError

SCHEMA = 2
SUFFIX = ".evad"
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """What a bundle holds: JSON contents, tensors by component, and files (name -> bytes)."""

    contents: Mapping[str, Any]
    tensors: Mapping[str, Tensors]
    files: Mapping[str, bytes]
    model_id: str  # sha256 of the manifest


def write_bundle(
    path: Path, contents: Mapping[str, Any], tensors: Mapping[str, Tensors], files: Mapping[str, bytes]
) -> str:
    """Write a bundle folder at ``path`` and return its model id.

    It appears under its name only when it is complete. An older bundle there is replaced; anything else is left alone
    and is a UsageError. Raises StorageError when writing fails.
    """
    require_target(path)
    # contiguous: safetensors writes an array's memory as it lies, and a transposed one would come back scrambled
    payload = {
        f"{name}.safetensors": save({key: np.ascontiguousarray(array) for key, array in t.items()})
        for name, t in tensors.items()
    } | dict(files)
    manifest = {
        "schema": SCHEMA,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(payload.items())},
        "contents": contents,
    }
    data = json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
            folder = Path(scratch) / "bundle"
            for name, content in {**payload, "manifest.json": data}.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            _swap(folder, path, Path(scratch) / "old")
    except OSError as error:
        raise StorageError(f"the model could not be written to {path}: {error.strerror or error}") from error
    return hashlib.sha256(data).hexdigest()


def require_target(path: Path) -> None:
    """Raise UsageError unless a bundle may be written at ``path``; ask before a fit, not after it."""
    if path.suffix != SUFFIX:
        raise UsageError(f"a model is written to a folder named *{SUFFIX}, got {path.name}: use {path.name}{SUFFIX}")
    if path.exists() and not (path / "manifest.json").is_file():
        raise UsageError(f"{path.name} exists and is no model bundle: choose another --out, or move it away")


def _swap(new: Path, path: Path, old: Path) -> None:
    """Put ``new`` at ``path`` and what was there at ``old``; what was there comes back when that fails."""
    try:
        if path.exists():
            path.rename(old)
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise


def read_bundle(path: Path) -> Bundle:
    """Read and verify a bundle. Raises ModelNotFoundError, or IntegrityError naming the first file that is wrong."""
    try:
        data = (path / "manifest.json").read_bytes()
    except OSError as error:
        raise ModelNotFoundError(
            f"expected a model bundle (a folder with manifest.json) at {path}, found none: "
            f"make one with `explainvad fit REFERENCE --out {path.name}`"
        ) from error
    try:
        manifest = json.loads(data)
        schema, listed, contents = manifest["schema"], dict(manifest["files"]), manifest["contents"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{path.name}/manifest.json is damaged: fit the model again, or restore it") from error
    if schema != SCHEMA:
        raise IntegrityError(f"{path.name} has schema {schema}, this version reads {SCHEMA}: fit the model again")
    payload = {}
    root = path.resolve()
    for name, expected in listed.items():
        if not _lies_inside(root, name):
            raise IntegrityError(f"{path.name} lists {name!r}, which lies outside the bundle: do not use it")
        try:
            payload[name] = (root / name).read_bytes()
        except OSError as error:
            raise IntegrityError(
                f"{path.name}/{name} is missing: restore the bundle, or fit the model again"
            ) from error
        got = hashlib.sha256(payload[name]).hexdigest()
        if got != expected:
            raise IntegrityError(
                f"{path.name}/{name} was altered: expected sha256 {str(expected)[:16]}…, got {got[:16]}…; "
                "restore the bundle, or fit the model again"
            )
    try:
        tensors = {n.removesuffix(".safetensors"): load(b) for n, b in payload.items() if n.endswith(".safetensors")}
    except (SafetensorError, KeyError) as error:  # KeyError: a type that numpy does not have
        raise IntegrityError(f"{path.name} holds tensors that cannot be read: {error}") from error
    files = {n: b for n, b in payload.items() if not n.endswith(".safetensors")}
    return Bundle(contents, tensors, files, hashlib.sha256(data).hexdigest())


def _lies_inside(root: Path, name: str) -> bool:
    """Whether ``name`` leads to a place below ``root`` (resolved) without ``..`` and without links."""
    target = root / name
    try:
        return root in target.parents and target.resolve() == target
    except (ValueError, RuntimeError):  # a zero byte, links in a circle
        return False


def find_model(lot: Path, configured: Path | None) -> Path:
    """The bundle for a lot: the configured one, else the only ``*.evad`` in the lot, beside it or above it.

    Raises ModelNotFoundError that lists the three ways out.
    """
    if configured is not None:
        return configured
    lot = lot.absolute()
    for folder in (lot, *lot.parents):
        found = sorted(p for p in folder.glob(f"*{SUFFIX}") if (p / "manifest.json").is_file())
        if len(found) == 1:
            return found[0]
        if found:
            raise ModelNotFoundError(
                f"{folder} holds {len(found)} models ({', '.join(p.name for p in found)}): say which with --model, "
                'or with model = "…" in explainvad.toml'
            )
    raise ModelNotFoundError(
        f"no model was found for {lot.name}. Three ways out:\n"
        "  1. name one:        explainvad analyze LOT --model MODEL.evad\n"
        '  2. configure one:   model = "MODEL.evad" in an explainvad.toml in the lot or a folder above it\n'
        "  3. make one:        explainvad fit REFERENCE --out MODEL.evad, beside the lot or above it"
    )
