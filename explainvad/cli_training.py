"""The command that trains the backbone. :mod:`explainvad.cli` takes it up beside its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from explainvad.progress import progress


def train_backbone(
    out: Annotated[Path, typer.Option("--out", help="Folder for weights, log and plot.", show_default=False)],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Settings of the training in TOML; defaults when not given.", show_default=False),
    ] = None,
) -> None:
    """Train the embedded backbone on generated images. A run that was cut short is resumed by the same command."""
    from explainvad.training import loop
    from explainvad.training.config import TrainingConfig, load_training_config

    settings = load_training_config(config) if config else TrainingConfig()
    with progress() as step:
        weights = loop.train_backbone(settings, out, progress=step)
    typer.echo(f"weights {weights}")
    typer.echo(f"log     {out / loop.LOG}")
    typer.echo(f"plot    {out / loop.PLOT}")
