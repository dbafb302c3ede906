"""The flow on pretrained backbones: tiny networks from a store, from the first fit to an extended revision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from command_line import explainvad
from tiny_models import CLIP, CNN, VIT, write_store, write_weights
from tiny_parts import GOOD, RUSTY, write_lot, write_part, write_references

from explainvad import Decision, Inspector
from explainvad.config import InspectionConfig, parse_config
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_install import bring
from explainvad.errors import UsageError, WeightsError
from explainvad.lot import read_image, scan
from explainvad.model_card import NO_PROMPTS

SCORERS = [
    {"use": "patchcore", "backbone": CNN, "resolution": 64},
    {"use": "anomaly-dino", "backbone": VIT, "resolution": 64},
    {"use": "dinomaly", "backbone": VIT, "resolution": 64, "steps": 5},
    {"use": "winclip", "backbone": CLIP},
]


def custom(*scorers: dict[str, Any], **settings: Any) -> InspectionConfig:
    fixed = {"profile": "custom", "alpha": 0.1, "device": "cpu", "backbones": {"precision": "fp32"}}
    return parse_config({**fixed, "scorer": scorers, **settings}, "test")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("weights") / "store")


@pytest.fixture(autouse=True)
def _store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPLAINVAD_WEIGHTS", str(store))


@pytest.fixture(scope="module")
def ensemble(store: Path, references: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of four scorers on three backbones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPLAINVAD_WEIGHTS", str(store))
        return Inspector.fit(references, config=custom(*SCORERS)).save(tmp_path_factory.mktemp("m") / "four.evad")


@pytest.fixture(scope="module")
def bank(store: Path, references: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one memory bank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPLAINVAD_WEIGHTS", str(store))
        return Inspector.fit(references, config=custom(SCORERS[1])).save(tmp_path_factory.mktemp("m") / "bank.evad")


class TestFlow:
    def test_a_lot_is_inspected_by_all_scorers_and_reported(self, ensemble: Path, tmp_path: Path) -> None:
        lot = write_lot(tmp_path / "lot", [*[GOOD] * 4, *[RUSTY] * 3])
        report = Inspector.load(ensemble, "cpu").analyze(lot, tmp_path / "run")
        labels = {"patchcore", "anomaly-dino", "dinomaly", "winclip"}
        assert all(set(record.scores) == labels for record in report.records)
        assert {scorer.name for scorer in report.model.scorers} == labels
        flagged = {r.file[3:7] for r in report.records if r.decision in {Decision.REJECT, Decision.DEFER}}
        assert "rust" in flagged
        assert all("sha256" in scorer.weights for scorer in report.model.scorers)
        assert not any(line.startswith("CLIP scorer") for line in report.provenance.fallbacks)
        (pdf, *_) = report.render(formats=["pdf"])
        assert pdf.stat().st_size > 20_000

    def test_the_loaded_model_gives_the_very_scores_of_the_fitted_one(self, references: Path, tmp_path: Path) -> None:
        fitted = Inspector.fit(references, config=custom(*SCORERS))
        loaded = Inspector.load(fitted.save(tmp_path / "m.evad"), "cpu")
        image = read_image(scan(write_lot(tmp_path / "lot", [RUSTY]))[0])
        for mine, theirs in zip(fitted.ensemble.score(image), loaded.ensemble.score(image), strict=True):
            assert mine.value == theirs.value
            np.testing.assert_array_equal(mine.anomaly_map, theirs.anomaly_map)

    def test_a_verdict_does_not_depend_on_the_neighbours(self, ensemble: Path, tmp_path: Path) -> None:
        inspector = Inspector.load(ensemble, "cpu")
        files = scan(write_lot(tmp_path / "lot", [RUSTY, GOOD, RUSTY]))
        alone = inspector.inspect(read_image(files[2]))[0]
        for file in files:
            last = inspector.inspect(read_image(file))[0]
        assert (last.scores, last.verdict.p_value) == (alone.scores, alone.verdict.p_value)

    def test_few_references_leave_the_trained_scorers_out_and_say_so(self, tmp_path: Path) -> None:
        references = write_references(tmp_path / "ref", 24)
        inspector = Inspector.fit(references, config=custom(*SCORERS[1:3]))
        card = inspector.card()
        assert [scorer.name for scorer in card.scorers] == ["anomaly-dino"]
        assert card.calibration.scheme == "leave-one-out" and card.calibration.n_cal == 24
        assert any(line.startswith("dinomaly scorer: not used, too few reference images") for line in card.fallbacks)

    def test_an_ensemble_without_clip_says_so(self, bank: Path) -> None:
        card = Inspector.load(bank, "cpu").card()
        assert "CLIP scorer: not used, it is not part of this ensemble" in card.fallbacks

    def test_words_that_nothing_reads_are_named(self, ensemble: Path, bank: Path) -> None:
        asked = custom(SCORERS[1], prompts={"object": "plate"})
        for bundle, unread in ((bank, True), (ensemble, False)):
            inspector = Inspector.load(bundle, "cpu")
            assert (NO_PROMPTS in inspector.card(asked).fallbacks) is unread
            assert NO_PROMPTS not in inspector.card().fallbacks


class TestWeights:
    def test_a_profile_without_its_weights_names_every_command(
        self, references: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("EXPLAINVAD_WEIGHTS", str(tmp_path / "empty"))
        monkeypatch.setattr("explainvad.fitting.ReferenceImages.read", lambda *_, **__: pytest.fail("images were read"))
        done = explainvad("fit", references, "--out", tmp_path / "m.evad", "--profile", "standard")
        assert done.code == 2
        for name in ("dinov2-small-reg", "clip-vit-b-16-plus-240"):
            assert done.err.count(f"explainvad models pull {name}`") == 1
        assert not (tmp_path / "m.evad").exists()

    def test_a_model_meets_no_other_weights_than_those_of_its_fit(
        self, bank: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "store"
        shutil.copytree(store, other)
        config = json.loads((store / VIT / "config.json").read_text())
        write_weights(tmp_path / "new" / VIT, "timm", config, seed=1)
        bring(WeightStore(other), VIT, tmp_path / "new" / VIT, update=True)
        monkeypatch.setenv("EXPLAINVAD_WEIGHTS", str(other))
        with pytest.raises(WeightsError, match=f"fitted with other weights {VIT}: expected sha256 .*, got sha256 "):
            Inspector.load(bank, "cpu")


class TestExport:
    def test_the_backbone_of_a_bank_is_written_for_its_frames(self, bank: Path, tmp_path: Path) -> None:
        done = explainvad("export-backbone", "--model", bank, "--out", tmp_path / "bank.onnx")
        assert done.code == 0, done.err
        assert "frames of 80 x 64 px" in done.out
        inputs = onnxruntime.InferenceSession(tmp_path / "bank.onnx").get_inputs()
        assert inputs[0].shape[1:] == [3, 64, 80]

    def test_two_banks_have_no_backbone_to_choose(self, ensemble: Path, tmp_path: Path) -> None:
        done = explainvad("export-backbone", "--model", ensemble, "--out", tmp_path / "two.onnx")
        assert done.code == 2 and "expected a model with one memory bank" in done.err and "got 2" in done.err


class TestExtending:
    def test_a_new_revision_knows_more_and_is_calibrated_anew(
        self, bank: Path, references: Path, tmp_path: Path
    ) -> None:
        further = tmp_path / "further"
        for seed in range(500, 504):
            write_part(further / f"new_{seed}.png", seed)
        renamed = tmp_path / "renamed"  # the same images under other names, in another order
        renamed.mkdir()
        for number, file in enumerate(sorted(references.iterdir(), reverse=True)):
            shutil.copy(file, renamed / f"{number:03d}.png")
        done = explainvad(
            "extend", bank, further, "--reference", renamed, "--out", tmp_path / "v2.evad", "--device", "cpu"
        )
        assert done.code == 0, done.err
        before, after = Inspector.load(bank, "cpu"), Inspector.load(tmp_path / "v2.evad", "cpu")
        assert after.fitted["extends"] == [before.model_id]
        assert "extended by 4 further reference images" in " ".join(after.card().fallbacks)
        assert after.split == before.split
        assert after.card().calibration.n_cal == before.card().calibration.n_cal
        image = read_image(scan(further)[0])  # in the new bank itself
        assert after.ensemble.score(image)[0].value < before.ensemble.score(image)[0].value
        # a larger bank is nearer to everything, so its calibration is another one
        old, new = (model.calibrator.cell("").by_scorer["anomaly-dino"] for model in (before, after))
        assert (new <= old).all() and (new < old).any()

    def test_calibration_images_must_be_those_of_the_fit(self, bank: Path, references: Path, tmp_path: Path) -> None:
        inspector = Inspector.load(bank, "cpu")
        write_part(tmp_path / "further" / "a.png", 500)
        fewer = tmp_path / "fewer"
        shutil.copytree(references, fewer)
        next(fewer.iterdir()).unlink()
        with pytest.raises(UsageError, match=r"expected the 60 reference images .* got 59, of which 59 are among them"):
            inspector.extend(tmp_path / "further", fewer)

    def test_a_further_image_must_be_unseen(self, bank: Path, references: Path, tmp_path: Path) -> None:
        inspector = Inspector.load(bank, "cpu")
        (tmp_path / "further").mkdir()
        shutil.copy(references / "part_007.png", tmp_path / "further" / "twin.png")
        with pytest.raises(UsageError, match=r"twin\.png is a reference image of this model already"):
            inspector.extend(tmp_path / "further", references)
        write_part(tmp_path / "other" / "part_007_again.png", 501)
        with pytest.raises(UsageError, match=r"part_007_again\.png shows a part that calibrates this model"):
            inspector.extend(tmp_path / "other", references, group=r"part_(\d+)")

    def test_what_has_no_bank_cannot_be_extended(self, model: Path, references: Path, tmp_path: Path) -> None:
        write_part(tmp_path / "further" / "a.png", 500)
        with pytest.raises(UsageError, match="profile embedded cannot be extended: fit it again on all images"):
            Inspector.load(model, "cpu").extend(tmp_path / "further", references)
