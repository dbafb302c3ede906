"""A small run that no detector made, with the real report of it; and reports of it that are signed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from own_authority import PASSPHRASE, Authority, Identity
from run_factories import make_record, make_start, make_statistics

from explainvad.record.run import Run
from explainvad.report.signing_keys import KeyFile
from explainvad.reporting import load_report
from explainvad.types import LotInfo


def rendered_run(run_dir: Path) -> Path:
    """Three images without findings, rendered as PDF, JSON and CSV."""
    start = make_start(3, lot=LotInfo("quiet", operator="A. Nobody"))
    with Run.open(run_dir, start) as run:
        for image_id, file in start.files:
            run.add(replace(make_record(make_start(), 0), image_id=image_id, file=file), {})
        run.finish(make_statistics(run.done.values()))
    load_report(run_dir).render(formats=["pdf", "csv", "json"])
    return run_dir


@dataclass(frozen=True)
class Signatory:
    """A person with a key."""

    name: str
    identity: Identity
    key: KeyFile


@dataclass(frozen=True)
class People:
    """An authority, its root as a file, and two persons with keys of both kinds."""

    authority: Authority
    root: Path
    first: Signatory
    second: Signatory


def make_people(folder: Path) -> People:
    authority = Authority()
    return People(
        authority,
        authority.pem(folder / "root.pem"),
        signatory(authority, folder, "A. Nobody", "rsa"),
        signatory(authority, folder, "Bê Reviewer", "ec"),
    )


def signatory(authority: Authority, folder: Path, name: str, kind: str) -> Signatory:
    identity = authority.issue(name, kind=kind)
    return Signatory(name, identity, KeyFile(identity.p12(folder / f"{kind}.p12"), PASSPHRASE))


def copied(run_dir: Path, to: Path) -> Path:
    return shutil.copytree(run_dir, to)
