"""The command that audits a finished run. :mod:`explainvad.cli` takes it up beside its own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from explainvad.errors import UsageError

if TYPE_CHECKING:
    from explainvad.types import AuditResult


def audit_sample(
    run_dir: Annotated[Path, typer.Argument(help="Folder that analyze wrote.", show_default=False)],
    confidence: Annotated[
        float | None,
        typer.Option("--confidence", help="Confidence of the bound; 0.95 when not given.", show_default=False),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(
            "--limit", help="Share of defective images to be excluded; 0.01 when not given.", show_default=False
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Draw a further sample of a run that was audited.")] = False,
    results: Annotated[
        Path | None, typer.Option("--results", help="The filled-in sheet, to be recorded.", show_default=False)
    ] = None,
    auditor: Annotated[
        str | None, typer.Option("--auditor", help="Name of the person who looked.", show_default=False)
    ] = None,
) -> None:
    """Draw a random sample of the images that passed, or record what a person found in it."""
    from explainvad.auditing import draw_audit, record_audit

    if results is None:
        if auditor is not None:
            raise UsageError("--auditor goes with --results; leave it out to draw a sample")
        draw, sheet = draw_audit(run_dir, confidence, limit, again=again)
        typer.echo(f"draws {len(draw.sample):,} of {draw.population:,} passed images: {sheet}")
        typer.echo(
            "Fill the column result with good or defect for every row, then: explainvad audit-sample "
            f"{shlex.quote(str(run_dir))} --results {shlex.quote(str(sheet))} --auditor NAME"
        )
        return
    if auditor is None:
        raise UsageError("--results needs --auditor NAME, the person who looked")
    if confidence is not None or limit is not None or again:
        raise UsageError("--confidence, --limit and --again belong to the draw; leave them out with --results")
    _tell(record_audit(run_dir, results, auditor), run_dir)


def _tell(result: AuditResult, run_dir: Path) -> None:
    from explainvad.record.finished import read_report

    files = {record.image_id: record.file for record in read_report(run_dir).records}
    for image_id in result.defective:
        typer.echo(f"defect  {image_id} {files[image_id]}")
    # Rounded up, as a bound must be
    hundredths = -(-10_000 * result.upper_count // result.n_population)
    typer.echo(
        f"{len(result.defective):,} of {len(result.sample):,} defective: with {100 * result.confidence:g} % confidence "
        f"at most {result.upper_count:,} of {result.n_population:,} passed images ({hundredths / 100:.2f} %) are "
        f"defective; the limit {100 * result.limit:g} % is {'kept' if result.reached else 'not kept'}"
    )
    typer.echo(
        "note    the bound holds for defects that a person can see in what was looked at, and needs every sampled "
        "item to have been judged"
    )
    if result.n_draws > 1:
        typer.echo(
            f"note    this is draw {result.n_draws} of the run: the confidence is that of one audit, not of the best "
            "of several"
        )
    typer.echo(f"To put it into the report: explainvad render {shlex.quote(str(run_dir))}")
