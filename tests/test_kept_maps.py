"""Explanations of flagged images in a run: asked for in the settings, kept, hashed, verified, and shown."""

from __future__ import annotations

import html
import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import explainvad
from PIL import Image
from run_factories import make_record, make_start

from explainvad import Inspector, LotReport
from explainvad import pipeline as pipeline_module
from explainvad.attribution.references import ReferenceGallery
from explainvad.config import AttributionConfig
from explainvad.errors import ConfigError, IntegrityError
from explainvad.explaining import METHODS, explain
from explainvad.kept_maps import kept_explanation
from explainvad.record.run import Run
from explainvad.record.verify import verify_run
from explainvad.report.explanations import map_words
from explainvad.report.layers import explaining_layer
from explainvad.reporting import load_report
from explainvad.types import (
    AttributionMap,
    Explanation,
    ImageRecord,
    InspectionImage,
    KeptExplanation,
    KeptMap,
    ReferenceMatch,
)

KINDS = ("evidence", "attention", "gradients", "prompts")


@pytest.fixture(scope="module")
def small_lot(lot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of the lot: one normal, one rusty, one foreign."""
    folder = tmp_path_factory.mktemp("small") / "lot"
    folder.mkdir()
    for name in ("lot.toml", "00_good.png", "08_rusty.png", "11_foreign.png"):
        shutil.copy(lot / name, folder)
    return folder


@pytest.fixture(scope="module")
def plain(inspector: Inspector, small_lot: Path, tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    return inspector.analyze(small_lot, tmp_path_factory.mktemp("runs") / "plain")


@pytest.fixture(scope="module")
def explained(inspector: Inspector, small_lot: Path, tmp_path_factory: pytest.TempPathFactory) -> LotReport:
    out = tmp_path_factory.mktemp("runs") / "explained"
    return inspector.analyze(small_lot, out, attribution={"maps": KINDS})


def verdicts(report: LotReport) -> list[tuple[str, float, float]]:
    return [(r.decision.value, r.verdict.p_value, r.verdict.score) for r in report.records if r.verdict]


def test_flagged_images_keep_their_maps_and_verdicts_stay(plain: LotReport, explained: LotReport) -> None:
    assert verdicts(plain) == verdicts(explained)
    assert explained.provenance.config["attribution"] == {"maps": list(KINDS)}
    assert all(record.explanation is None for record in plain.records)
    flagged = [record for record in explained.records if record.flagged]
    assert len(flagged) >= 2 and any(not record.flagged for record in explained.records)
    for record in explained.records:
        assert (record.explanation is not None) == record.flagged
    for record in flagged:
        kept = record.explanation
        assert kept is not None and kept.failure == "" and kept.methods == KINDS
        assert kept.at == (record.findings[0].region.peak_xy if record.findings else None)
        assert {found.scorer for found in kept.maps} == set(record.scores) and kept.nearest and kept.baseline
        assert {lacking.name for lacking in kept.not_given} >= {"prompt-relevance"}  # no scorer here knows words
        for found in kept.maps:
            assert found.path.startswith(f"attributions/{record.image_id}-") and found.method and found.explains
            with Image.open(explained.run_dir / found.path) as picture:
                assert (picture.mode, picture.size) == ("L", (record.width, record.height))
                low, high = picture.getextrema()
            assert (low, high) == (0, 255) or (found.signed and 1 in (low, 256 - high))
        drawn = [name for name in record.artifacts if name.startswith("attributions/")]
        assert drawn == [found.path for found in kept.maps]


def test_an_altered_map_is_found_and_never_shown(explained: LotReport, tmp_path: Path) -> None:
    run_dir = shutil.copytree(explained.run_dir, tmp_path / "run")
    assert verify_run(run_dir).ok
    name = next(found.path for r in explained.records if r.explanation for found in r.explanation.maps)
    (run_dir / name).write_bytes((explained.run_dir / name).read_bytes()[:-1] + b"\0")
    assert [(p.where, p.what.partition(":")[0]) for p in verify_run(run_dir).problems] == [(name, "altered")]
    with pytest.raises(IntegrityError, match=f"{name} was altered"):
        load_report(run_dir).render(formats=["html"])
    (run_dir / name).unlink()
    assert [problem.where for problem in verify_run(run_dir).problems] == [name]
    shutil.copy(explained.run_dir / name, run_dir / name)
    (run_dir / "attributions" / "more.png").touch()
    assert [p.what for p in verify_run(run_dir).problems] == ["no ledger line accounts for this file"]


def test_what_fails_in_an_explanation_costs_no_verdict(
    inspector: Inspector, small_lot: Path, plain: LotReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> Explanation:
        raise RuntimeError("out of\n memory")

    monkeypatch.setattr(pipeline_module, "explain", fails)
    report = inspector.analyze(small_lot, tmp_path / "run", attribution={"maps": ["gradients"]})
    assert verdicts(report) == verdicts(plain)
    flagged = [record for record in report.records if record.flagged]
    for record in flagged:
        assert record.explanation is not None and record.explanation.failure == "RuntimeError: out of memory"
        assert not record.explanation.maps
    (line,) = [text for text in report.provenance.fallbacks if text.startswith("explanations failed")]
    assert f"for {len(flagged)} of {len(flagged)} flagged images" in line and "out of memory" in line
    report.render(formats=["html"])
    page = (report.run_dir / "report.html").read_text("utf-8")
    assert page.count("It failed: RuntimeError: out of memory") == len(flagged)


@pytest.fixture
def record(explained: LotReport) -> Iterator[ImageRecord]:
    yield replace(next(r for r in explained.records if r.flagged), findings=(), explanation=None, artifacts={})


def explanation_of(*maps: AttributionMap) -> Explanation:
    return Explanation("img-00001", "a.png", maps, (), (), (), "black")


def test_kept_grey_values_stand_for_the_map(record: ImageRecord) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(40, 60)).astype(np.float32)
    values[:20] = 0
    for signed in (False, True):
        found = AttributionMap("occlusion", "unet", "m", "e", "f", values, signed, {"delta": 0.5})
        explanation, files = kept_explanation(record, ("gradients",), lambda at, found=found: explanation_of(found))
        (kept,) = explanation.maps
        grey = np.asarray(Image.open(io.BytesIO(files[kept.path])), np.float64)
        step = (kept.high - kept.low) / 255
        np.testing.assert_allclose(kept.low + grey * step, values, atol=0.51 * step)
        assert kept.facts == {"delta": 0.5} and kept.signed == signed
        if signed:
            assert (grey[:20] == 128).all()  # nothing is added to what is nothing


def test_a_run_makes_small_maps_from_what_it_found_before(
    inspector: Inspector, small_lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Explanation] = []

    def watched(*given: Any, **how: Any) -> Explanation:
        found = len(looked_for)
        made.append(explain(*given, **how))
        assert len(looked_for) == found  # the reference of the verdict is compared with
        return made[-1]

    def nearest(gallery: ReferenceGallery, image: InspectionImage) -> tuple[ReferenceMatch, bytes]:
        looked_for.append(image.file)
        return own(gallery, image)

    looked_for: list[str] = []
    own = ReferenceGallery.nearest
    monkeypatch.setattr(ReferenceGallery, "nearest", nearest)
    monkeypatch.setattr(pipeline_module, "explain", watched)
    monkeypatch.setattr(pipeline_module, "SIDE", 40)  # of pictures of 80 x 64 px
    report = inspector.analyze(small_lot, tmp_path / "run", attribution={"maps": KINDS})
    assert made and looked_for
    for explanation in made:
        assert {shown.values.shape for shown in explanation.maps} == {(32, 40)}
    for record in (record for record in report.records if record.explanation):
        assert record.explanation is not None and record.reference is not None
        assert record.reference.reference_id in record.explanation.baseline
        for kept in record.explanation.maps:
            assert kept.frame.endswith(", at 40 x 32 px")
            assert Image.open(report.run_dir / kept.path).size == (40, 32)


@pytest.mark.parametrize("signed", [False, True])
def test_a_map_of_nothing_is_kept_shown_and_said_to_be_nothing(record: ImageRecord, signed: bool) -> None:
    zero = AttributionMap("a", "s", "m", "e", "f", np.zeros((6, 8), np.float32), signed)
    with np.errstate(all="raise"):
        explanation, files = kept_explanation(record, (), lambda at: explanation_of(zero))
    (kept,) = explanation.maps
    grey = np.asarray(Image.open(io.BytesIO(files[kept.path])))
    assert (kept.low, kept.high) == (0, 0) and (grey == (128 if signed else 0)).all()
    layer, _ = explaining_layer(files[kept.path], signed)
    assert not np.asarray(Image.open(io.BytesIO(layer.data)).convert("RGBA"))[..., 3].any()  # it covers nothing
    assert "f. It is 0 everywhere." in map_words(kept)


def test_maps_and_figures_are_finite() -> None:
    for values, facts in (([[np.nan, 0]], {}), ([[1, 0]], {"delta": np.inf})):
        with pytest.raises(ValueError, match="must be finite"):
            AttributionMap("a", "s", "m", "e", "f", np.array(values, np.float32), facts=facts)


def test_kinds_are_those_that_explain_knows_and_others_are_refused(inspector: Inspector, small_lot: Path) -> None:
    assert AttributionConfig(maps=METHODS).maps == METHODS
    with pytest.raises(ConfigError, match=r"attribution\.maps\.1 = 'attributes'.*'evidence', 'attention'"):
        inspector.analyze(small_lot, attribution={"maps": ["evidence", "attributes"]})


def test_the_command_line_goes_before_the_settings_file(lot: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lot"
    folder.mkdir()
    shutil.copy(lot / "08_rusty.png", folder)
    (folder / "explainvad.toml").write_text('[attribution]\nmaps = ["gradients"]\n')
    asked = ("analyze", folder, "--model", model, "--device", "cpu", "--formats", "json", "--out")
    for maps, expected in (("evidence, prompts", ["evidence", "prompts"]), ("none", []), (None, ["gradients"])):
        done = explainvad(*asked, tmp_path / str(maps), *(("--maps", maps) if maps else ()))
        assert done.code == 0, done.err
        report = load_report(tmp_path / str(maps))
        assert report.provenance.config["attribution"] == {"maps": expected}
        (record,) = report.records
        assert (record.explanation is None) == (not expected)
    refused = explainvad(*asked, tmp_path / "refused", "--maps", "evidences")
    assert refused.code == 2 and "attribution.maps.0 = 'evidences'" in refused.err
    assert not (tmp_path / "refused").exists()


def test_a_map_that_is_no_artifact_is_not_recorded(tmp_path: Path) -> None:
    start = make_start(2)
    stray = KeptMap("occlusion", "memory", "m", "e", "f", "attributions/img-00002-01.png", 0.0, 1.0)
    record = replace(make_record(start, 1), explanation=KeptExplanation(("gradients",), maps=(stray,)))
    with Run.open(tmp_path / "run", start) as run:
        with pytest.raises(ValueError, match=r"'attributions/img-00002-01\.png' is none of its artifacts"):
            run.add(record, {})
        run.add(record, {stray.path: b"png"})
        assert list(run.done[record.image_id].artifacts) == [stray.path]


def test_html_has_every_kept_map_as_a_layer(explained: LotReport) -> None:
    explained.render(formats=["html", "json", "pdf"])
    page = (explained.run_dir / "report.html").read_text("utf-8")
    flagged = [record for record in explained.records if record.flagged]
    for record in flagged:
        assert record.explanation is not None
        section = page[page.index(f'<section class="image" id="{record.image_id}"') :]
        section = html.unescape(section[: section.index("</section>")])
        n_maps = 4 + len(record.explanation.maps)  # the fused one, three of doubt
        assert section.count('type="radio"') == section.count('<div class="map map-') == n_maps
        for number, kept in enumerate(record.explanation.maps, start=5):
            assert f'class="pick-{number}">{kept.name.replace("-", " ").capitalize()}, {kept.scorer}<' in section
            assert f".pick-{number}:checked" in page  # the style sheet shows it without a script
            assert kept.method in section and kept.frame in section
        assert section.count(f"over {record.image_id}: strongest at") == len(record.explanation.maps)
        assert section.count("<li>Normal patch: ") == len(record.explanation.nearest)
        assert section.count("<li>Not given: ") == len(record.explanation.not_given)
    assert verify_run(explained.run_dir).ok
