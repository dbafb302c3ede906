"""The demo on disk: reference photographs, a lot to inspect, and the same lot labelled."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from explainvad.demo.defects import DEFECTS, photograph_defect
from explainvad.demo.files import jpeg, png, write
from explainvad.demo.parts import flange
from explainvad.demo.photograph import Shot, photograph
from explainvad.errors import StorageError, UsageError

LOT_COMPOSITION = {
    "good": 14,
    "scratch": 3,
    "dent": 3,
    "stain": 3,
    "missing_feature": 2,
    "wrong_colour": 2,
    "foreign_part": 1,
    "truncated_file": 1,
    "text_file": 1,
}

_LOT_TOML = """\
lot_id = "42"
part = "Pump flange DN50 PN16"
serials = "printed in each file's name"
drawing = "EP-4711"
revision = "C"
customer = "Example Pumps Ltd"
issuer = "Example Pumps Ltd, Quality Department"
site = "Sampletown Works, cell 3"
operator = "A. Nobody"
operator_role = "visual inspector"
reviewer = "B. Noone"
reviewer_role = "quality auditor"
procedure = "VI-017 Visual inspection of turned flanges"
acceptance_criteria = "VI-017, section 5: no scratch, dent or stain; bolt holes complete; colour as drawn"
sampling_plan = "every part"
deviations = "none"
camera = "Overhead camera 1, 400 x 300 px"
optics = "35 mm, f/8"
lighting = "dome light, white"
camera_calibration = "CAL-0815, 2025-11-03"
mm_per_pixel = 0.4
"""
_NOT_AN_IMAGE = b"Export failed: camera 1 did not answer within 5 s.\n"
_MARKER = "demo.json"
_REFERENCE, _LOT = 0, 1  # roles; part of every image's seed


@dataclass(frozen=True, slots=True)
class DemoFolders:
    """Where the demo lies: ``reference`` and ``lot`` are flat, ``labelled`` has good/, <defect>/, ground_truth/."""

    root: Path
    reference: Path
    lot: Path
    labelled: Path


def make_demo(
    out: Path, seed: int = 7, n_reference: int = 120, progress: Callable[[int, int], None] | None = None
) -> DemoFolders:
    """Photograph the demo's parts into folder ``out`` and return where they are.

    The same ``seed`` gives the same bytes; an image depends on the seed, its role and its index alone.
    ``progress(done, total)`` is called after each file. A demo that is already there, made with the same
    arguments and whole, is left as it is; one that was interrupted is made again.

    Raises :class:`UsageError` when ``out`` holds anything else, and :class:`StorageError` when it cannot be
    written.
    """
    if seed < 0 or n_reference < 1:
        raise UsageError(
            f"the demo needs a seed >= 0 and at least 1 reference image, got seed {seed} and {n_reference} images"
        )
    folders = DemoFolders(out, out / "reference", out / "lot42", out / "labelled")
    try:
        if _is_whole(out, seed, n_reference):
            return folders
        files: list[str] = []
        _write_marker(out, seed, n_reference, files)
        total = n_reference + sum(LOT_COMPOSITION.values())
        for done, written in enumerate(_write_all(folders, seed, n_reference), start=1):
            files += [path.relative_to(out).as_posix() for path in written]
            if progress is not None:
                progress(done, total)
        _write_marker(out, seed, n_reference, files)
    except OSError as error:
        raise StorageError(f"the demo cannot be written to {out}: {error}") from error
    return folders


def _is_whole(out: Path, seed: int, n_reference: int) -> bool:
    """Tell whether this very demo is in ``out`` already; refuse a folder that holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        marker = json.loads((out / _MARKER).read_text(encoding="utf-8"))
        made = marker["seed"], marker["n_reference"]
        files = marker["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"the demo needs a new or empty folder, but {out} holds something else: name another folder"
        ) from None
    if made != (seed, n_reference):
        raise UsageError(
            f"{out} holds a demo made with seed {made[0]} and {made[1]} reference images, asked for were "
            f"seed {seed} and {n_reference}: name another folder, or delete this one"
        )
    return bool(files) and all((out / name).is_file() for name in files)


def _write_marker(out: Path, seed: int, n_reference: int, files: list[str]) -> None:
    """Write what ``out`` is; ``files`` stays empty until all are there."""
    out.mkdir(parents=True, exist_ok=True)
    marker = {"seed": seed, "n_reference": n_reference, "files": files}
    (out / _MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")


def _write_all(folders: DemoFolders, seed: int, n_reference: int) -> Iterator[list[Path]]:
    """Write the demo, image by image, and yield what was written for each."""
    for index in range(n_reference):
        shot = Shot.draw(_generator(seed, _REFERENCE, index))
        path = folders.reference / f"flange_{index + 1:04d}.jpg"
        yield [write(path, jpeg(photograph(flange(), shot)))]

    kinds = [(kind, number) for kind, count in LOT_COMPOSITION.items() for number in range(count)]
    serials = 2101 + np.random.default_rng([seed, _LOT]).permutation(len(kinds))
    write(folders.lot / "lot.toml", _LOT_TOML.encode())
    for index, (kind, number) in enumerate(kinds):
        yield _write_lot_file(folders, seed, index, kind, number, f"flange_{serials[index]}")


def _write_lot_file(folders: DemoFolders, seed: int, index: int, kind: str, number: int, stem: str) -> list[Path]:
    """Write one file of the lot and, where it can be read, its labelled copy and mask."""
    name = f"{stem}.jpg"
    if kind == "text_file":
        return [write(folders.lot / f"{stem}.png", _NOT_AN_IMAGE)]
    shot = Shot.draw(_generator(seed, _LOT, index))
    if kind in DEFECTS:
        part = photograph_defect(kind, number, shot, _generator(seed, _LOT, index, 1))
        image = jpeg(part.picture)
        mask = write(folders.labelled / "ground_truth" / kind / f"{stem}.png", png(part.mask))
        return [mask, write(folders.lot / name, image), write(folders.labelled / kind / name, image)]
    image = jpeg(photograph(flange(), shot))
    if kind == "truncated_file":
        return [write(folders.lot / name, image[: len(image) * 2 // 5])]
    return [write(folders.lot / name, image), write(folders.labelled / kind / name, image)]


def _generator(*entropy: int) -> np.random.Generator:
    return np.random.default_rng(entropy)
