"""A small run that no detector made, with the real report of it; and reports of it that are signed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from own_authority import PASSPHRASE, Authority, Identity, time_stamp_server
from run_factories import make_record, make_start, make_statistics

from explainvad.record.run import Run
from explainvad.report.signing_keys import KeyFile
from explainvad.reporting import load_report
from explainvad.signing import sign
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


def signed_once(run_dir: Path, people: People, to: Path) -> Path:
    """Copy a run and have the first person sign its report."""
    with _now():
        sign(shutil.copytree(run_dir, to), people.first.key, name=people.first.name, meaning="performed")
    return to


def signed_again(run_dir: Path, people: People, to: Path) -> Path:
    """Copy a run and have the second person sign its report, with a time stamp."""
    with _now(), time_stamp_server(people.authority.issue_stamper()) as url:
        shutil.copytree(run_dir, to)
        sign(
            to,
            people.second.key,
            name=people.second.name,
            meaning="reviewed",
            reason="All three were looked at",
            timestamp_url=url,
        )
    return to


@contextmanager
def _now() -> Iterator[None]:
    """Certificates are valid at the real time only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        yield
