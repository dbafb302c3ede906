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
            help="Labelled folder: good/, <defect>/, ground_truth/<defect>/; a CSV file; or a public data set where "
            "you have it.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.", show_default=False)],
    category: Annotated[
        str | None, typer.Option("--category", help="Category of a data set that has several.", show_default=False)
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout", help="Data set by its name, such as mvtec-ad; recognised when not given.", show_default=False
        ),
    ] = None,
    suite: Annotated[
        bool,
        typer.Option("--suite", help="Fit and test every category; the same command resumes what was cut short."),
    ] = False,
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
    """Measure a model on labelled images: AUROC, AUPRO, F1, decisions by defect type, and what is said of regions."""
    if model and (profile or group or (config and not text)):
        raise UsageError("--model is fitted already: --profile, --config and --group are for evaluating without it")
    if suite and (model or category or text):
        raise UsageError("--suite fits each category anew: --model, --category and --text are for one category")
    settings = settings_from(config, profile=profile, device=device)
    if suite:
        from explainvad.evaluation.suite_tables import markdown
        from explainvad.evaluation.suites import evaluate_suite

        with progress() as step:
            whole = evaluate_suite(dataset, out, layout=layout, config=settings, group=group, progress=step)
        typer.echo(markdown(whole), nl=False)
        return
    from explainvad.evaluation.evaluate import evaluate_dataset

    with progress() as step:
        result = evaluate_dataset(
            dataset,
            out,
            category=category,
            layout=layout,
            model=model,
            config=settings,
            group=group,
            text=text,
            progress=step,
        )
    typer.echo(result.table())


def compare(
    first: Annotated[Path, typer.Argument(help="Folder that evaluate wrote.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one, of the same test images.", show_default=False)],
) -> None:
    """Compare two evaluations of the same test images in pairs: differences, intervals, and which are significant."""
    from explainvad.evaluation.comparing import compare_runs, comparison_table

    typer.echo(comparison_table(compare_runs(first, second)))
