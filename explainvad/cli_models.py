"""``explainvad models``: pretrained weights on this machine. :mod:`explainvad.cli` takes the group up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

EXIT_INTEGRITY = 4
PIPED_WIDTH = 200  # columns; a line a model where nobody is watching

models_app = typer.Typer(
    no_args_is_help=True,
    help="Pretrained weights: list them, pull them from the Hugging Face hub, verify them, carry them to machines "
    "without a network. They lie in the folder EXPLAINVAD_WEIGHTS, else in ~/.cache/explainvad/weights.",
)

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names as listed.", show_default=False)]
Update = Annotated[bool, typer.Option("--update", help="Move the lock to what comes, on purpose.")]


@models_app.command("list")
def list_models() -> None:
    """List the known weights: whether they are here and locked, their size, licence and use."""
    from rich.console import Console
    from rich.table import Table

    from explainvad.detection.catalogue import CATALOGUE
    from explainvad.detection.weights_lock import present, read_lock, weights_root

    root = weights_root()
    lock, here = read_lock(root).weights, present(root)
    table = Table(box=None, pad_edge=False, header_style="")
    for column in ("name", "state", "MB", "licence", "used for"):
        table.add_column(column, no_wrap=column in ("name", "MB"), justify="right" if column == "MB" else "left")
    for name in [*CATALOGUE, *sorted({*lock, *here} - CATALOGUE.keys())]:
        entry, locked = CATALOGUE.get(name), lock.get(name)
        if entry and entry.hub is None:
            state = "shipped"
        elif name in here:
            state = "locked" if locked else "present, not locked"
        else:
            state = "locked, missing" if locked else "missing"
        size = max(1, round(locked.size / 1e6)) if locked else entry.megabytes if entry else "?"
        licence = (locked.licence if locked else None) or (entry.licence if entry else "not stated")
        table.add_row(name, state, str(size), licence, entry.purpose if entry else "your own")
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    with console.capture() as printed:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))
    typer.echo(f"\nstore {root}\nNAME:random is the same network untrained, for experiments only")


@models_app.command()
def pull(
    names: Names,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Take the weights NAME from this folder, not from the hub; a checkpoint of Segment Anything as it is.",
            show_default=False,
        ),
    ] = None,
    update: Update = False,
) -> None:
    """Get weights from the hub, or from a folder, and lock them by commit and hashes."""
    from explainvad.detection.hub import pull as pull_from_hub
    from explainvad.detection.weights import WeightStore
    from explainvad.detection.weights_install import bring
    from explainvad.errors import UsageError

    if folder and len(names) > 1:
        raise UsageError(f"--from holds the weights of one model, got {len(names)} names: give one command for each")
    store = WeightStore()
    for name in names:
        locked = bring(store, name, folder, update=update) if folder else pull_from_hub(store, name, update=update)
        typer.echo(f"locked  {name}: {locked.describe(name)}")


@models_app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="All that are locked when not given.")
    ] = None,
) -> None:
    """Hash weights again and hold them against the lock; exit code 4 when something differs."""
    from explainvad.detection.weights_lock import differences, present, read_lock, weights_root
    from explainvad.errors import WeightsError

    root = weights_root()
    lock = read_lock(root).weights
    if unknown := [name for name in names or [] if name not in lock]:
        raise WeightsError(f"expected locked weights, {', '.join(unknown)} are not: see `explainvad models list`")
    altered = False
    for name in names or sorted(lock):
        found = differences(name, root / name, lock[name], afresh=True)
        altered |= bool(found)
        for problem in found:
            typer.echo(f"ALTERED  {problem}", err=True)
        if not found:
            typer.echo(f"checked  {name}: {lock[name].describe(name)}")
    for name in [] if names else sorted(set(present(root)) - lock.keys()):
        typer.echo(f"not locked  {name}: it will not be loaded")
    if altered:
        raise typer.Exit(EXIT_INTEGRITY)


@models_app.command("export")
def export_archive(
    names: Names,
    out: Annotated[Path, typer.Option("--out", help="Archive to write, FILE.tar.", show_default=False)],
) -> None:
    """Write locked weights to one archive, for machines without a network."""
    from explainvad.detection.weights import WeightStore
    from explainvad.detection.weights_archive import export_weights

    export_weights(WeightStore(), names, out)
    typer.echo(f"archive {out}")


@models_app.command("import")
def import_archive(
    archive: Annotated[Path, typer.Argument(metavar="FILE.tar", help="As export wrote it.", show_default=False)],
    update: Update = False,
) -> None:
    """Take up the weights of an archive and lock them."""
    from explainvad.detection.weights import WeightStore
    from explainvad.detection.weights_archive import import_weights

    for name, locked in import_weights(WeightStore(), archive, update=update).items():
        typer.echo(f"locked  {name}: {locked.describe(name)}")
