"""Commands that make and export the backbone. :mod:`explainvad.cli` takes them up beside its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from explainvad.errors import UsageError
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
            "--model",
            help="Model whose backbone it is, adapted or that of its memory bank; the shipped one otherwise.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the backbone as one ONNX file, checked against torch. Needs the extra `onnx`."""
    from explainvad.detection.backbone.embedded import load_shipped
    from explainvad.detection.backbone.onnx_export import export_onnx
    from explainvad.detection.ensemble import EmbeddedEnsemble
    from explainvad.pipeline import Inspector

    if model is None:
        network, manifest = load_shipped()
        typer.echo(f"onnx    {export_onnx(network, out, weights_sha256=manifest['sha256'])}")
        return
    inspector = Inspector.load(model, "cpu")
    ensemble = inspector.ensemble
    if isinstance(ensemble, EmbeddedEnsemble):
        typer.echo(f"onnx    {export_onnx(ensemble.backbone.network, out)}")
        return
    from explainvad.detection.banks.patch_bank import PatchBank
    from explainvad.detection.edge_export import export_layers
    from explainvad.detection.frames import shorter_side_size

    banks = [scorer for scorer in ensemble.scorers if isinstance(scorer, PatchBank)]
    if len(banks) != 1:
        raise UsageError(f"expected a model with one memory bank, whose backbone is exported, got {len(banks)}")
    (bank,) = banks
    weights = bank.backbones.store.weights(bank.extractor.name)
    (_, width), (_, height) = inspector.fitted["sizes"]
    size = shorter_side_size(height, width, bank.extractor.resolution, weights.multiple)
    typer.echo(f"onnx    {export_layers(weights, bank.layers, out, *size)}, frames of {size[1]} x {size[0]} px")
