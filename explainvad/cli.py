"""The command line. Heavy modules are imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import io
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from explainvad.cli_audit import audit_sample
from explainvad.cli_backbone import export_backbone, train_backbone
from explainvad.cli_describers import DescriberChoice
from explainvad.cli_evaluate import compare, evaluate
from explainvad.cli_explain import Maps, explain_command, kinds_of
from explainvad.cli_fit import Device, GroupBy, extend, fit, inspect
from explainvad.cli_models import models_app
from explainvad.cli_prompts import prompts_command
from explainvad.cli_sampling import sampling_plan_command
from explainvad.cli_sign import sign_command
from explainvad.errors import ExplainVADError, UsageError
from explainvad.progress import progress

if TYPE_CHECKING:
    from explainvad.config import InspectionConfig
    from explainvad.types import LotReport, Pages

EXIT_FOUND = 1
EXIT_NOT_INSPECTED = 3
EXIT_INTEGRITY = 4
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
FORMATS = "pdf,html,csv,json"
ALL_FORMATS = f"{FORMATS},parquet,coco,maps"
# What an analysis may set anew
LEVELS = {"alpha", "beta", "gamma", "q", "prior", "confidence", "group_by", "pages"}
LEVELS |= {"describer", "regions", "attribution"}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="From a folder of product images to an audit report: anomaly detection with p-values, regions and words.",
    epilog="Exit codes: 0 finished; 1 findings, with --fail-on; 2 wrong usage or configuration; 3 finished, but some "
    "images could not be inspected; 4 integrity failure.",
)


class FailOn(StrEnum):
    """What --fail-on turns into exit code 1."""

    reject = "reject"
    defer = "defer"


class PagesOf(StrEnum):
    """Which images get a page in the report."""

    flagged = "flagged"
    all = "all"


Lot = Annotated[Path, typer.Argument(help="Folder of images; sub-folders are walked.", show_default=False)]
RunDir = Annotated[Path, typer.Argument(help="Folder that analyze wrote.", show_default=False)]
Formats = Annotated[str, typer.Option("--formats", help=f"Comma-separated, of {ALL_FORMATS}.")]

PageChoice = Annotated[
    PagesOf | None,
    typer.Option(
        "--pages",
        help="Images with a page of their own: flagged, or all; as configured when not given.",
        show_default=False,
    ),
]
Templates = Annotated[
    Path | None,
    typer.Option(
        "--templates", help="Folder with theme.toml, a logo and templates in place of ours.", show_default=False
    ),
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for images, model and report.")] = Path("demo"),
) -> None:
    """Make a demonstration lot, fit a model, inspect the lot and write its report."""
    from explainvad.demo import DEMO_CONFIG, make_demo
    from explainvad.pipeline import Inspector

    with progress() as step:
        folders = make_demo(out, progress=lambda done, of: step("photographing the demonstration part", done, of))
        model = out / "flange.evad"
        if not model.exists():
            Inspector.fit(folders.reference, config=DEMO_CONFIG, progress=step).save(model)
        report = Inspector.load(model).analyze(folders.lot, out / "report", progress=step)
    _render(report, _formats(FORMATS))
    _summary(report)


app.command()(fit)


@app.command()
def analyze(
    lot: Lot,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Model to inspect with; found by itself when there is one.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder; reports/LOT when not given.", show_default=False)
    ] = None,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="Level of the decision; the model's when not given.")
    ] = None,
    group_by: GroupBy = None,
    formats: Formats = FORMATS,
    pages: PageChoice = None,
    describer: DescriberChoice = None,
    maps: Maps = None,
    templates: Templates = None,
    fail_on: Annotated[
        FailOn | None, typer.Option("--fail-on", help="Exit with 1 on a rejected (or also deferred) item.")
    ] = None,
    device: Device = None,
) -> None:
    """Inspect a lot and write its report. A run that was cut short is resumed by the same command."""
    from explainvad.bundle import find_model

    if not lot.is_dir():
        raise UsageError(f"expected a folder of images, got {lot}: name the lot's folder")
    wanted = _formats(formats)
    _check_templates(templates)
    settings = _settings_for(lot.absolute(), describer and describer.value)
    levels = settings.model_dump(include=settings.model_fields_set & LEVELS) if settings else {}
    given = {"alpha": alpha, "group_by": group_by, "pages": pages and pages.value}
    levels |= {name: value for name, value in given.items() if value is not None}
    if describer is not None:
        levels["describer"] = {**levels.get("describer", {}), "use": describer.value}
    if maps is not None:
        levels["attribution"] = {"maps": kinds_of(maps)}
    path = find_model(lot, model or (settings.model if settings else None))
    from explainvad.pipeline import Inspector

    with progress() as step:
        inspector = Inspector.load(path, device or (settings.device if settings else "auto"))
        report = inspector.analyze(lot, out, progress=step, **levels)
    _render(report, wanted, templates=templates)
    _summary(report)
    counts = report.statistics.counts
    if fail_on and (counts["REJECT"] or (fail_on is FailOn.defer and counts["DEFER"])):
        raise typer.Exit(EXIT_FOUND)
    if counts["NOT_INSPECTED"]:
        raise typer.Exit(EXIT_NOT_INSPECTED)


def _settings_for(lot: Path, describer: str | None) -> InspectionConfig | None:
    """The settings in the lot's folder, or in the nearest one above that has any; ``describer`` as was asked for."""
    from explainvad.config import FILE_NAME, load_for_describer

    found = next((f / FILE_NAME for f in (lot, *lot.parents) if (f / FILE_NAME).is_file()), None)
    if found is None:
        return None
    settings = load_for_describer(found, describer)
    if found.parent == lot and "describer" in settings.model_fields_set:
        raise UsageError(
            f"{found} lies in the lot, and its [describer] could send pictures to wherever who made the lot wants: put "
            "that table into the file of a folder above the lot"
        )
    return settings


app.command()(evaluate)
app.command()(compare)


@app.command()
def render(
    run_dir: RunDir,
    formats: Formats = FORMATS,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the files; the run's own when not given.")
    ] = None,
    pages: PageChoice = None,
    templates: Templates = None,
) -> None:
    """Write the report files of a finished run again, from its record alone. A signed one is never overwritten."""
    from explainvad.reporting import load_report

    _render(load_report(run_dir), _formats(formats), pages, templates, out)


@app.command()
def verify(
    target: Annotated[Path, typer.Argument(help="Folder that analyze wrote, or a PDF report.", show_default=False)],
    head: Annotated[
        str | None,
        typer.Option("--head", help="Head hash as printed in a trusted copy of the report.", show_default=False),
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust", help="Certificate that signatures must lead to (PEM or DER); repeatable.", show_default=False
        ),
    ] = None,
) -> None:
    """Prove that a run's record, or a PDF report by itself, is what was written and signed, or name what is not."""
    from explainvad.record.verify import verify_run
    from explainvad.record.verify_pdf import verify_pdf

    check = verify_run if target.is_dir() else verify_pdf
    verification = check(target, expected_head=head, trust=trust or [])
    for problem in verification.problems:
        typer.echo(f"ALTERED  {problem}", err=True)
    for line in verification.checked:
        typer.echo(f"checked  {line}")
    if not verification.ok:
        raise typer.Exit(EXIT_INTEGRITY)
    typer.echo("The record is whole.")


app.command("sign")(sign_command)
app.command()(extend)
app.add_typer(models_app, name="models")
app.command()(inspect)
app.command()(audit_sample)
app.command("sampling-plan")(sampling_plan_command)
app.command("prompts")(prompts_command)
app.command("explain")(explain_command)
app.command()(train_backbone)
app.command()(export_backbone)


def main() -> None:
    """Entry point: errors raised on purpose become one message and their exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold bytes that are no text
    try:
        app()
    except ExplainVADError as error:
        typer.echo(f"explainvad: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == EXIT_INTERRUPTED:
            typer.echo("explainvad: stopped; the same command resumes an unfinished analyze or training", err=True)
        raise
    except Exception:  # a fault of ours must not exit with 1, which means findings
        traceback.print_exc()
        sys.exit(EXIT_INTERNAL)


def _formats(text: str) -> list[str]:
    """Parse --formats, before any work is done for them."""
    formats = [name.strip() for name in text.split(",") if name.strip()]
    if not formats or not set(formats) <= set(ALL_FORMATS.split(",")):
        raise UsageError(f"--formats expects some of {ALL_FORMATS}, separated by commas, got {text!r}")
    return formats


def _check_templates(folder: Path | None) -> None:
    """Find a fault in the templates before any work is done for them."""
    if folder is not None:
        from explainvad.report.assets import templates_folder
        from explainvad.report.branding import load_branding

        load_branding(folder, templates_folder())


def _render(
    report: LotReport,
    formats: list[str],
    pages: PagesOf | None = None,
    templates: Path | None = None,
    out: Path | None = None,
) -> None:
    given: Pages | None = None if pages is None else "all" if pages is PagesOf.all else "flagged"
    top = out or report.run_dir
    paths = report.render(out, formats, pages=given, templates=templates)
    for path in dict.fromkeys(p if p.parent == top else p.parent for p in paths):  # a folder: one line
        typer.echo(f"{path.suffix[1:]:<5} {path}")


def _summary(report: LotReport) -> None:
    from explainvad.types import Decision

    s = report.statistics
    counts = ", ".join(f"{n} {name.lower().replace('_', ' ')}" for name in Decision if (n := s.counts[name]))
    typer.echo(f"lot {report.lot.lot_id}: {s.n_files} files: {counts}")


if __name__ == "__main__":
    main()
