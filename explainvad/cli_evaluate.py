"""The command that measures a model on labelled images. :mod:`explainvad.cli` takes it up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from explainvad.cli_fit import Config, Device, Group, settings_from
from explainvad.errors import UsageError
from explainvad.progress import progress


def evaluate(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Labelled folder: good/, <defect>/, ground_truth/<defect>/; or MVTec AD's layout.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.", show_default=False)],
    model: Annotated[Path | None, typer.Option("--model", help="Model to evaluate.", show_default=False)] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Fit this profile first.", show_default=False)
    ] = None,
    config: Config = None,
    group: Group = None,
    text: Annotated[
        bool,
        typer.Option(
            "--text",
            help="Evaluate the words about regions too: baselines, and the configured describer. Beside a fitted "
            "model, only [describer] of the settings counts.",
        ),
    ] = False,
    device: Device = None,
) -> None:
    """Measure a model on labelled images: AUROC, AUPRO, decisions by defect type, and what is said of regions."""
    if model and (profile or group or (config and not text)):
        raise UsageError("--model is fitted already: --profile, --config and --group are for evaluating without it")
    from explainvad.evaluation.evaluate import evaluate_dataset

    settings = settings_from(config, profile=profile, device=device)
    with progress() as step:
        result = evaluate_dataset(dataset, out, model=model, config=settings, group=group, text=text, progress=step)
    typer.echo(result.table())
