"""The command that explains one image. :mod:`explainvad.cli` takes it up beside its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from explainvad.errors import StorageError, UsageError
from explainvad.progress import progress

Maps = Annotated[
    str | None,
    typer.Option(
        "--maps",
        help="Explanations of flagged images to keep, comma-separated, of evidence, attention, gradients and prompts, "
        "or none; as configured when not given.",
        show_default=False,
    ),
]


def explain_command(
    image: Annotated[Path, typer.Argument(help="Picture to explain.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="New folder for maps and explanation.json.", show_default=False)],
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Model to explain; found by itself when there is one.", show_default=False),
    ] = None,
    methods: Annotated[
        str, typer.Option("--methods", help="Comma-separated kinds; gradients take the longest.")
    ] = "evidence,attention,gradients,prompts",
    at: Annotated[
        str | None,
        typer.Option(
            "--at", help="Place to explain, X,Y in px; each scorer's most anomalous one if not.", show_default=False
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Explain one image: every map, nearest normal patch and word that the model's scorers can give."""
    place = None if at is None else _place(at)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already: name a new folder with --out")
    from explainvad.bundle import find_model
    from explainvad.lot import read_picture

    path, picture = find_model(image.absolute().parent, model), read_picture(image)
    from explainvad.explanation_files import JSON_FILE, explanation_files
    from explainvad.pipeline import Inspector

    with progress() as step:
        inspector = Inspector.load(path, device)
        found = inspector.explain(picture, methods=kinds_of(methods), at=place, progress=step)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in explanation_files(found).items():
            (out / name).write_bytes(data)
    except OSError as error:
        raise StorageError(f"{out} could not be written: {error.strerror}: name another folder with --out") from error
    for shown in found.maps:
        delta = shown.facts.get("convergence_delta")
        said = "" if shown.values.any() else ", zero everywhere"
        said += f", delta {delta:.2g}" if delta is not None else ""
        typer.echo(f"map     {shown.scorer}: {shown.name}{said}")
    for patch in found.nearest:
        x0, y0, x1, y1 = patch.xyxy
        whence = patch.reference or f"reference image {patch.number}"
        typer.echo(f"nearest {patch.scorer}: x {x0} to {x1}, y {y0} to {y1}: {patch.distance:.3g} from {whence}")
    for phrase in found.phrases:
        words = " ".join(f"{word.word}({word.relevance:+.3f})" for word in phrase.words)
        near = f"cosine {phrase.similarity:.3f}, elsewhere {phrase.elsewhere:.3f}"
        typer.echo(f"phrase  {phrase.scorer}: {words}, {near}")
    for lacking in found.not_given:
        typer.echo(f"note    {lacking.scorer}: no {lacking.name}: {lacking.reason}")
    typer.echo(f"json    {out / JSON_FILE}")


def kinds_of(text: str) -> list[str]:
    """Kinds of explanations, separated by commas; "none" is none. They are checked where they are used."""
    return [] if text.strip() == "none" else [name.strip() for name in text.split(",") if name.strip()]


def _place(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6}),(\d{1,6})", text)
    if found is None:
        raise UsageError(f"--at expects a place as X,Y in px, such as 120,80, got {text!r}")
    return int(found[1]), int(found[2])
