"""Commands that make and export the backbone. :mod:`explainvad.cli` takes them up beside its own."""

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


def export_backbone(
    out: Annotated[Path, typer.Option("--out", help="File to write, NAME.onnx.", show_default=False)],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", help="Model whose adapted backbone it is; the shipped one otherwise.", show_default=False
        ),
    ] = None,
) -> None:
    """Write the backbone as one ONNX file, checked against torch. Needs the extra `onnx`."""
    from explainvad.detection.backbone.embedded import load_shipped
    from explainvad.detection.backbone.onnx_export import export_onnx
    from explainvad.pipeline import Inspector

    if model:
        typer.echo(f"onnx    {export_onnx(Inspector.load(model, 'cpu').ensemble.backbone.network, out)}")
    else:
        network, manifest = load_shipped()
        typer.echo(f"onnx    {export_onnx(network, out, weights_sha256=manifest['sha256'])}")
