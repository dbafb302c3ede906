"""The command that tries prompts on a lot. :mod:`explainvad.cli` takes it up beside its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explainvad.errors import LotError, UnreadableImageError
from explainvad.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from explainvad.detection.clip.encoder import ClipEncoder
    from explainvad.detection.clip.prompt_separation import PromptStudy
    from explainvad.detection.clip.prompts import PromptConfig
    from explainvad.types import Progress

SHOWN = 20  # images of the ranking, and states, that the terminal shows
NO_VERDICTS = (
    "These scores are no verdicts: without calibration on normal images nobody knows how high the score of a good part "
    "may be. For p-values, fit a model: explainvad fit REFERENCE --profile zero-shot --out NAME.evad"
)


def prompts_command(
    lot: Annotated[Path, typer.Argument(help="Folder of images; sub-folders are walked.", show_default=False)],
    prompt_set: Annotated[
        str | None, typer.Option("--set", help="Shipped set of words, compared with generic.", show_default=False)
    ] = None,
    object_name: Annotated[
        str | None, typer.Option("--object", help="What the images show, in the singular.", show_default=False)
    ] = None,
    backbone: Annotated[str, typer.Option("--backbone", help="CLIP of the weight store.")] = "clip-vit-b-16-plus-240",
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Folder of normal images, to compare with.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings in TOML; its [prompts] are tried.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File for all figures, NAME.json.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Try prompts on a lot: do they tell normal from anomalous, and which words matter? Needs a CLIP, no model."""
    chosen = _prompts(config, prompt_set, object_name)
    from explainvad.detection.backbones import Backbones
    from explainvad.detection.clip.encoder import ClipEncoder
    from explainvad.detection.clip.prompt_separation import PromptStudy
    from explainvad.detection.clip.prompts import PromptConfig
    from explainvad.detection.ensemble import resolve_device

    encoder = ClipEncoder.of(Backbones(device=resolve_device(device)), backbone)
    with progress() as step:
        seen = _embed(lot, encoder, "seeing the lot", step)
        normal = _embed(reference, encoder, "seeing the reference images", step) if reference else None
        generic = PromptConfig(object=chosen.object)
        studies, normal_studies = [], []
        for prompts in dict.fromkeys((generic, chosen)):
            texts = encoder.texts([phrase.text for phrase in prompts.phrases()])
            studies.append(PromptStudy(prompts, texts, seen.embeddings))
            if normal:
                normal_studies.append(PromptStudy(prompts, texts, normal.embeddings))
    typer.echo(f"lot     {lot}: {len(seen.files)} images, {len(seen.unreadable)} unreadable")
    typer.echo(f"clip    {encoder.weights}")
    for study in studies:
        typer.echo(f"prompts {study.prompts.describe()}: {len(study.phrases)} phrases")
    _compare(studies, normal_studies)
    _words(studies[-1])
    _rank(studies[-1], seen.files)
    typer.echo(f"\n{NO_VERDICTS}")
    if out:
        out.write_text(_json(lot, encoder, seen, normal, studies, normal_studies), "utf-8")
        typer.echo(f"json    {out}")


def _prompts(config: Path | None, prompt_set: str | None, object_name: str | None) -> PromptConfig:
    from explainvad.config import load_config, validated
    from explainvad.detection.clip.prompts import PromptConfig

    given = dict(load_config(config).prompts or {}) if config else {}
    given |= {key: value for key, value in (("set", prompt_set), ("object", object_name)) if value is not None}
    return validated(PromptConfig, given, "prompts")


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Embeddings (N, d) of unit length of readable images (of a long one the mean of its squares), and the others."""

    files: list[str]
    embeddings: Tensor
    unreadable: list[tuple[str, str]]


def _embed(folder: Path, encoder: ClipEncoder, what: str, step: Progress) -> _Seen:
    import torch

    from explainvad.lot import read_image, scan

    files, rows, unreadable = [], [], []
    found = scan(folder)
    for done, file in enumerate(found, start=1):
        try:
            image = read_image(file)
        except UnreadableImageError as error:
            unreadable.append((file.file, str(error)))
            continue
        files.append(file.file)
        rows.append(encoder.see(image).whole)
        step(what, done, len(found))
    if not files:
        raise LotError(f"no readable image in {folder}; the first: {unreadable[0][0]}: {unreadable[0][1]}")
    return _Seen(files, torch.stack(rows), unreadable)


def _compare(studies: Sequence[PromptStudy], normal: Sequence[PromptStudy]) -> None:
    """One column a set of prompts, and what is doubtful about each."""
    from explainvad.detection.clip.prompt_separation import NEARLY_IDENTICAL

    found = [study.separation for study in studies]
    count = len(studies[0].images)
    alike = [int((f.distance < NEARLY_IDENTICAL).sum()) for f in found]
    typer.echo("")
    _row("", [_name(study) for study in studies])
    _row("similarity to normal prompts, mean", [f"{float(f.normal.mean()):.3f}" for f in found])
    _row("similarity to anomalous prompts, mean", [f"{float(f.anomalous.mean()):.3f}" for f in found])
    _row("separation: 0 alike, 1 apart", [f"{f.separation:.2f}" for f in found])
    _row("images where both kinds are alike", [f"{n} of {count}" for n in alike])
    contrasts = ["one image" if f.contrast is None else f"{f.contrast:.1f}" for f in found]
    _row("agreement on how images differ", contrasts)
    if normal:
        _row("separation on reference images", [f"{study.separation.separation:.2f}" for study in normal])
        above = [_above(study, reference) for study, reference in zip(studies, normal, strict=True)]
        _row("images above every reference image", [f"{n} of {count}" for n in above])
    typer.echo("")
    for study in studies:
        for warning in study.warnings():
            typer.echo(f"warning {_name(study)}: {warning}")
    if len(studies) > 1:
        better = max(studies, key=lambda study: study.separation.separation)
        typer.echo(f"note    {_name(better)} separates better on these images")


def _words(study: PromptStudy) -> None:
    """States by influence, and those without any."""
    typer.echo(f"\nstates of {_name(study)} by influence: how far leaving one out moves a score, at most")
    for state, anomalous, value in study.weights[:SHOWN]:
        typer.echo(f"{value:8.3f}  {'anomalous' if anomalous else 'normal':<9}  {state}")
    if study.idle:
        typer.echo(f"never matter: {', '.join(study.idle)}")


def _rank(study: PromptStudy, files: Sequence[str]) -> None:
    """Images by zero-shot score."""
    distance = study.separation.distance
    order = study.scores.argsort(descending=True, stable=True).tolist()
    typer.echo(f"\n{'score':>8}  {'separation':>10}  image, and the states nearest to it")
    for i in order[:SHOWN]:
        normal, anomalous = study.nearest(i)
        score, apart = float(study.scores[i]), float(distance[i])
        typer.echo(f"{score:8.3f}  {apart:10.2f}  {files[i]}  {anomalous} | {normal}")
    if len(files) > SHOWN:
        typer.echo(f"{'':10}{len(files) - SHOWN} more, all of them with --out")


def _above(study: PromptStudy, normal: PromptStudy) -> int:
    return int((study.scores > normal.scores.max()).sum())


def _name(study: PromptStudy) -> str:
    own = study.prompts.model_fields_set - {"set", "object"}
    return study.prompts.set + (" + own words" if own else "")


def _row(label: str, values: Sequence[str]) -> None:
    typer.echo((f"{label:<38}" + "".join(f"{value:>22}" for value in values)).rstrip())


def _json(
    lot: Path,
    encoder: ClipEncoder,
    seen: _Seen,
    normal: _Seen | None,
    studies: Sequence[PromptStudy],
    normal_studies: Sequence[PromptStudy],
) -> str:
    """All figures; similarities of an image are in the order of its set's phrases."""
    sets: list[dict[str, Any]] = [{"name": _name(study), **study.to_json(seen.files)} for study in studies]
    for figures, study, reference in zip(sets, studies, normal_studies, strict=False):
        figures["reference"] = reference.to_json(normal.files if normal else [])
        figures["above_every_reference"] = _above(study, reference)
    content = {
        "lot": lot.name,
        "clip": encoder.name,
        "weights": encoder.weights,
        "note": NO_VERDICTS,
        "unreadable": [{"file": file, "reason": reason} for file, reason in seen.unreadable],
        "sets": sets,
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
