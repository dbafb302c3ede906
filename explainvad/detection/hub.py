"""Weights from the Hugging Face hub. Only ``explainvad models pull`` comes here; fitting and analysing never do."""

from __future__ import annotations

import sys
from pathlib import Path

from explainvad.detection.catalogue import CATALOGUE
from explainvad.detection.sam_checkpoint import HUB_LAYOUT, LIBRARY, take_sam
from explainvad.detection.weights import WeightStore, how_to_get
from explainvad.detection.weights_install import PICKLES, convert, settle, staging
from explainvad.detection.weights_lock import LAYOUTS, Locked, differences, locked_file, read_lock
from explainvad.errors import IntegrityError, WeightsError
from explainvad.offline import forbidden_by

REASON = 300  # characters of the hub's own words in a message
ELSEWHERE = (
    "on a machine with a network, `explainvad models pull` and `explainvad models export` write an archive, which "
    "`explainvad models import` takes up here"
)


def pull(store: WeightStore, name: str, *, update: bool = False, endpoint: str | None = None) -> Locked:
    """Get the weights ``name`` from the hub and lock them; weights that are there as locked are left as they are.

    Locked weights come at the locked commit and must have the locked hashes, unless ``update``. Nothing of a pull
    that fails is kept. Raises WeightsError when the hub cannot be reached or has no such weights, IntegrityError when
    other bytes come than the hub or the lock says, and StorageError when they cannot be written.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        raise WeightsError(f"there are no weights called {name} to pull: {how_to_get(name)}")
    if entry.hub is None:
        raise WeightsError(f"{name} ships with the package: there is nothing to pull")
    locked = read_lock(store.root).weights.get(name)
    hub, revision = entry.hub, None
    if locked and not update:
        if not differences(name, store.root / name, locked, afresh=True):
            return locked
        hub, revision = locked.hub or hub, locked.revision
    if (variable := forbidden_by()) is not None:
        raise WeightsError(f"{name} is not here, and {variable} forbids the network: {ELSEWHERE}; or unset it")
    with staging(store, name) as folder:
        commit = _download(folder, name, hub, revision, entry.library, endpoint)
        return settle(
            store, name, folder, entry.library, "hub", hub=hub, revision=commit, licence=entry.licence, update=update
        )


def _download(folder: Path, name: str, hub: str, revision: str | None, library: str, endpoint: str | None) -> str:
    """Put configuration and tensors into ``folder``; returns the commit that they are of."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi(endpoint=endpoint)
    config, tensors = HUB_LAYOUT if library == LIBRARY else LAYOUTS[library]
    scratch = folder.with_name("download")
    # The hub's errors are those of its HTTP client, which differs from release to release, and OSError
    failures: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, ValueError)
    try:
        info = api.model_info(hub, revision=revision, files_metadata=True)
        offered = {file.rfilename: file for file in info.siblings or []}
        source = tensors if tensors in offered else PICKLES[library]
        if info.sha is None or not {config, source} <= offered.keys():
            raise WeightsError(
                f"{name}: expected {config} and {tensors} in {hub}, got {', '.join(offered) or 'nothing'}"
            )
        for file in (config, source):
            path = Path(api.hf_hub_download(hub, file, revision=info.sha, local_dir=scratch))
            _require_offered(f"{hub}/{file}", path, offered[file].size, getattr(offered[file].lfs, "sha256", None))
    except failures as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of this machine's disk
        reason = (" ".join(str(error).split()) or type(error).__name__)[:REASON].rstrip(".")
        raise WeightsError(f"{name} could not be pulled from {hub}: {reason}. Try again; or {ELSEWHERE}") from error
    if library == LIBRARY:
        take_sam(name, scratch / source, folder)
        return info.sha
    (scratch / config).rename(folder / config)
    if source == tensors:
        (scratch / tensors).rename(folder / tensors)
    else:
        convert(scratch / source, folder / tensors)
    return info.sha


def _require_offered(what: str, path: Path, size: int | None, sha256: str | None) -> None:
    """Raise IntegrityError when a download is not what the hub announced."""
    got = locked_file(path)
    if size not in (None, got.size) or sha256 not in (None, got.sha256):
        raise IntegrityError(
            f"{what}: the hub announced sha256 {sha256 or 'unknown'} ({size} bytes), but sent {got.sha256} ({got.size} "
            "bytes): pull again, on another network if it stays so"
        )
