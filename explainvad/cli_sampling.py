"""The command that reads a sampling plan from the standard. :mod:`explainvad.cli` takes it up beside its own."""

from __future__ import annotations

from typing import Annotated

import typer

MULTIPLES = (0, 0.5, 1, 1.5, 2, 3, 5, 10)  # of the AQL: where the operating characteristic is printed
NO_ERROR = (
    "These figures presume inspection without error: give --sensitivity and --specificity, as measured on labelled "
    "images, to see what misses and false alarms make of them."
)
ERROR = (
    "Inspection error calls a share p Se + (1 - p)(1 - Sp) of the units defective in place of p: misses let worse lots "
    "pass, false alarms reject good ones, and a larger sample removes neither."
)


def sampling_plan_command(
    lot_size: Annotated[int, typer.Option("--lot-size", help="Units in the lot.", show_default=False)],
    aql: Annotated[
        float, typer.Option("--aql", help="Acceptable quality level, per cent defective.", show_default=False)
    ],
    level: Annotated[str, typer.Option("--level", help="General inspection level: I, II or III.")] = "II",
    sensitivity: Annotated[
        float, typer.Option("--sensitivity", help="Share of defective units that inspection finds.", min=0, max=1)
    ] = 1.0,
    specificity: Annotated[
        float, typer.Option("--specificity", help="Share of good units that inspection passes.", min=0, max=1)
    ] = 1.0,
) -> None:
    """Look up the sample for a lot in MIL-STD-105E, and what it risks when inspection errs."""
    from explainvad.uncertainty.acceptance_sampling import (
        limiting_quality,
        probability_of_acceptance,
        producer_risk,
        sampling_plan,
    )

    plan = sampling_plan(lot_size, aql, level)
    whole = ", the whole lot" if plan.sample_size == lot_size else ""
    typer.echo(f"plan    MIL-STD-105E, single, normal inspection, level {level}, AQL {aql:g} %, lot of {lot_size}")
    typer.echo(f"letter  {plan.letter}")
    typer.echo(f"sample  {plan.sample_size} units{whole}")
    typer.echo(f"accept  with up to {plan.acceptance_number} defective (Ac)")
    typer.echo(f"reject  with {plan.rejection_number} or more (Re)\n")

    # One column for inspection without error, and one for that which was asked for
    errors = tuple(dict.fromkeys([(1.0, 1.0), (sensitivity, specificity)]))
    _row("sensitivity, specificity", [f"{se:g}, {sp:g}" for se, sp in errors])
    for share in (multiple * aql / 100 for multiple in MULTIPLES):
        accepted = [float(probability_of_acceptance(plan, share, *by)) for by in errors]
        _row(f"P(accept) with {100 * share:.4g} % defective", [f"{p:.3f}" for p in accepted])
    _row("P(reject) at the AQL", [f"{producer_risk(plan, *by):.3f}" for by in errors])
    limits = [limiting_quality(plan, *by) for by in errors]
    _row("% defective where P(accept) = 0.1", ["none" if share is None else f"{100 * share:.3g}" for share in limits])
    typer.echo(f"\n{NO_ERROR if len(errors) == 1 else ERROR}")


def _row(label: str, values: list[str]) -> None:
    typer.echo(f"{label:<36}" + "".join(f"{value:>14}" for value in values))
