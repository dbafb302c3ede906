"""One tiny model, one lot and its report, made once a session. Tests must not change them: copy first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import EPOCH
from tiny_parts import CONFIG, FOREIGN, GOOD, RUSTY, write_lot, write_references

if TYPE_CHECKING:  # at run time only the fixtures load what is heavy
    from signed_runs import People

    from explainvad import Inspector, LotReport

KINDS = [*[GOOD] * 8, *[RUSTY] * 3, FOREIGN]
LOT_TOML = 'lot_id = "L-7"\npart = "Ribbed disc"\nmm_per_pixel = 0.5\n'


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="also what takes minutes, and kills at fifty moments each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless asked for; what asks for more time than others starts first."""
    if not config.getoption("--thorough"):
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip(reason="takes long: only with --thorough"))
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.fixture(autouse=True)
def _no_lots_before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The lots that one test inspects are not the history of the next test's."""
    yield
    for history in tmp_path_factory.getbasetemp().glob("fit*/*.history.jsonl"):
        history.unlink()


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of normal parts, enough for CONFIG."""
    return write_references(tmp_path_factory.mktemp("fit") / "reference")


@pytest.fixture(scope="session")
def fitted(references: Path) -> Inspector:
    """The inspector as ``fit`` left it, saved beside its references as ``tiny.evad``."""
    import torch

    from explainvad import Inspector

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        inspector = Inspector.fit(references, config=CONFIG)
    inspector.save(references.parent / "tiny.evad")
    return inspector


@pytest.fixture(scope="session")
def model(fitted: Inspector, references: Path) -> Path:
    """The bundle of the tiny model."""
    return references.parent / "tiny.evad"


@pytest.fixture(scope="session")
def inspector(model: Path) -> Inspector:
    """The tiny model, loaded."""
    from explainvad import Inspector

    return Inspector.load(model, "cpu")


@pytest.fixture(scope="session")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures with a lot.toml: normal parts, rusty ones, and one of another make."""
    folder = write_lot(tmp_path_factory.mktemp("lots") / "lot7", KINDS)
    (folder / "lot.toml").write_text(LOT_TOML)
    return folder


@pytest.fixture(scope="session")
def report(inspector: Inspector, lot: Path, tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    """The lot's report, rendered in all formats."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        report = inspector.analyze(lot, tmp_path_factory.mktemp("reports") / "lot7")
        report.render()
    return report


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    """An authority and two persons who sign."""
    from signed_runs import make_people

    return make_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="session")
def quiet_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three images that no detector saw, with its real report."""
    from signed_runs import rendered_run

    return rendered_run(tmp_path_factory.mktemp("quiet") / "run")


@pytest.fixture(scope="session")
def signed_run(quiet_run: Path, people: People, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one signature."""
    from signed_runs import signed_once

    return signed_once(quiet_run, people, tmp_path_factory.mktemp("once") / "run")


@pytest.fixture(scope="session")
def twice_signed_run(signed_run: Path, people: People, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a second person's signature, which is time-stamped."""
    from signed_runs import signed_again

    return signed_again(signed_run, people, tmp_path_factory.mktemp("twice") / "run")
