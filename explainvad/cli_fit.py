"""The commands that make a model and say what it is. :mod:`explainvad.cli` takes them up beside its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explainvad.progress import progress

if TYPE_CHECKING:
    from explainvad.config import InspectionConfig
    from explainvad.pipeline import Inspector

Config = Annotated[Path | None, typer.Option("--config", help="Settings in TOML.", show_default=False)]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda or cuda:N; auto when not given.", show_default=False),
]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        help="Which images show one part: a regular expression on file names, or a CSV with the columns file,group. "
        "Parts, not files, are dealt to the splits.",
        show_default=False,
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        help="Which calibration cell (product, camera, cavity) an image belongs to: a regular expression on file "
        "names, or a CSV with the columns file,group.",
        show_default=False,
    ),
]


def fit(
    reference: Annotated[list[Path], typer.Argument(help="Folders or files of normal images.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Model to write, NAME.evad.", show_default=False)],
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            help="Ensemble of scorers: embedded (needs no weights), standard, zero-shot, edge, custom.",
        ),
    ] = None,
    config: Config = None,
    defects: Annotated[
        Path | None,
        typer.Option("--defects", help="Folder of labelled defects: makes ACCEPT possible.", show_default=False),
    ] = None,
    synthetic: Annotated[
        int | None,
        typer.Option(
            "--synthetic-defects",
            help="Defects to make, for power and probabilities that are marked as synthetic; never for ACCEPT.",
            show_default=False,
        ),
    ] = None,
    group: Group = None,
    group_by: GroupBy = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="Most normal images rejected, as a share.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of splits, training and masks.")] = None,
    device: Device = None,
) -> None:
    """Fit a model on images of normal parts."""
    given = {"profile": profile, "alpha": alpha, "seed": seed, "device": device}
    settings = settings_from(config, **given, group_by=group_by, synthetic_defects=synthetic)
    from explainvad.bundle import require_target

    require_target(out)
    from explainvad.pipeline import Inspector

    with progress() as step:
        inspector = Inspector.fit(reference, config=settings, defects=defects, group=group, progress=step)
    inspector.save(out)
    typer.echo(f"model   {out}")
    _describe(inspector)


def extend(
    model: Annotated[Path, typer.Argument(help="A *.evad bundle with a memory bank.", show_default=False)],
    further: Annotated[
        list[Path], typer.Argument(help="Folders or files of further normal images.", show_default=False)
    ],
    reference: Annotated[
        list[Path],
        typer.Option("--reference", help="Normal images that the model was fitted to; repeatable.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", help="Model to write, NAME.evad.", show_default=False)],
    defects: Annotated[
        Path | None,
        typer.Option("--defects", help="Labelled defects of the first fit, where there were any.", show_default=False),
    ] = None,
    group: Group = None,
    device: Device = None,
) -> None:
    """Take further normal images into a model's memory banks: a new revision, calibrated anew."""
    from explainvad.bundle import require_target
    from explainvad.pipeline import Inspector

    require_target(out)
    with progress() as step:
        known = Inspector.load(model, device or "auto")
        inspector = known.extend(further, reference, defects=defects, group=group, progress=step)
    inspector.save(out)
    typer.echo(f"model   {out}, extends {known.model_id[:16]}…")
    _describe(inspector)


def inspect(model: Annotated[Path, typer.Argument(help="A *.evad bundle.", show_default=False)]) -> None:
    """Say what a model is: scorers, splits, calibration and limits. Verifies its files first."""
    from explainvad.pipeline import Inspector

    _describe(Inspector.load(model, "cpu"))


def settings_from(path: Path | None, **given: Any) -> InspectionConfig:
    """Settings from a file, with what was given on the command line on top."""
    from explainvad.config import InspectionConfig, load_config, parse_config

    base = load_config(path) if path else InspectionConfig()
    return parse_config({**base.model_dump(), **{k: v for k, v in given.items() if v is not None}}, "command line")


def _describe(inspector: Inspector) -> None:
    card = inspector.card()
    c = card.calibration
    typer.echo(f"id      {card.model_id}")
    typer.echo(f"profile {card.profile}, seed {card.seed}, fitted {card.fitted_at} on images of {card.image_sizes}")
    typer.echo(f"splits  {c.scheme}: FIT {c.n_fit}, NORM {c.n_norm}, CAL {c.n_cal}, DEF {c.n_def} ({c.grouping})")
    for cell in c.cells or (c,):
        bound = cell.conditional_alpha
        typer.echo(
            f"promise {cell.cell}{': ' if cell.cell else ''}P(REJECT | normal) <= {cell.alpha:g}"
            + (f"; for this calibration set at most {bound:.3f} with 95 % confidence" if bound is not None else "")
            + f"; smallest p-value {cell.smallest_p:.4f}"
        )
    if c.power is not None:
        sizes = f"nine in ten from {c.power.a90:.3g} px" if c.power.a90 else "nine in ten: at no size seen"
        typer.echo(f"power   {c.power.hits} of {c.power.n} {c.power.kind} defects significant; {sizes}")
    for scorer in card.scorers:
        facts = "; ".join(f"{k}: {v}" for k, v in scorer.facts.items())
        typer.echo(f"scorer  {scorer.name} ({scorer.family}): {scorer.weights}. {facts}")
    for line in (*card.fallbacks, *card.limits):
        typer.echo(f"note    {line}")
