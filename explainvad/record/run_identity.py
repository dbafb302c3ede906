"""Which run a folder holds, and whether it is the one that is to be taken up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from explainvad.errors import RunConflictError
from explainvad.record.ledger import LEDGER
from explainvad.record.storage import storage_errors
from explainvad.whole_files import sync_folder

_SHOWN_DIFFERENCES = 6


def prepare_folder(root: Path) -> None:
    """Create the folder, or make sure that it is empty or holds a ledger. Raises RunConflictError and StorageError."""
    with storage_errors(root):
        if root.exists() and not root.is_dir():
            raise RunConflictError(f"{root} is a file, expected a folder; use another --out")
        root.mkdir(parents=True, exist_ok=True)
        sync_folder(root.parent)
        names = sorted(entry.name for entry in root.iterdir())
    if names and LEDGER not in names:
        raise RunConflictError(
            f"{root} holds files ({', '.join(names[:3])}) but no run. Nothing was changed: use another --out"
        )


def refuse_another_run(root: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise RunConflictError where the run that is there, by its ``run_started``, is not the one to be taken up."""
    found = list(_differences(_identity(there), _identity(here), ""))
    if found:
        more = f"; and {n} more" if (n := len(found) - _SHOWN_DIFFERENCES) > 0 else ""
        raise RunConflictError(
            f"{root} holds another run: {'; '.join(found[:_SHOWN_DIFFERENCES])}{more}. Nothing was changed: use "
            "another --out, or the same lot, model and configuration to resume it"
        )


def _identity(body: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a run the same run."""
    files = {entry["image_id"]: entry["file"] for entry in body["files"]}
    return {"lot": body["lot"], "model": body["model"]["model_id"], "config": body["config"], "files": files}


def _differences(there: Any, here: Any, name: str) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in {**there, **here}:
            yield from _differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{name} is {there!r} there and {here!r} here"
