"""The command line and its models: how one is fitted, found and looked at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import Outcome, explainvad, ledger
from tiny_parts import CONFIG_TOML, GOOD, RUSTY, write_lot, write_part, write_references

from explainvad import Inspector


class TestFindingTheModel:
    """``explainvad analyze lot42/`` without --model, and settings from explainvad.toml."""

    @pytest.fixture
    def line(self, tmp_path: Path) -> Path:
        """A folder with a lot in it, in which nothing else is found."""
        write_lot(tmp_path / "line" / "lot", [GOOD])
        return tmp_path / "line"

    def analyze(self, line: Path, *options: object) -> Outcome:
        return explainvad("analyze", line / "lot", "--out", line / "run", "--formats", "csv", *options)

    def used(self, line: Path) -> str:
        return str(ledger(line / "run")[0]["body"]["model"]["model_id"])

    def test_named_on_the_command_line(self, line: Path, model: Path, inspector: Inspector) -> None:
        (line / "explainvad.toml").write_text('model = "nowhere.evad"')
        assert self.analyze(line, "--model", model).code == 0
        assert self.used(line) == inspector.model_id

    @pytest.mark.parametrize("place", ["lot", "."])
    def test_named_in_a_toml_in_the_lot_or_above(
        self, line: Path, model: Path, place: str, inspector: Inspector
    ) -> None:
        shutil.copytree(model, line / "models" / "right.evad")
        for name in ("one.evad", "two.evad"):
            shutil.copytree(model, line / name)
        up = "../" if place == "lot" else ""
        (line / place / "explainvad.toml").write_text(f'model = "{up}models/right.evad"\nalpha = 0.2')
        assert self.analyze(line).code == 0
        assert self.used(line) == inspector.model_id
        assert ledger(line / "run")[0]["body"]["config"]["alpha"] == 0.2
        assert ledger(line / "run")[0]["body"]["files"] == [{"image_id": "img-00001", "file": "00_good.png"}]

    def test_the_command_line_outranks_the_toml(self, line: Path, model: Path) -> None:
        (line / "explainvad.toml").write_text(f'model = "{model}"\nalpha = 0.2\nq = 0.3')
        assert self.analyze(line, "--alpha", "0.3").code == 0
        config = ledger(line / "run")[0]["body"]["config"]
        assert (config["alpha"], config["q"]) == (0.3, 0.3)

    def test_the_only_model_beside_the_lot(self, line: Path, model: Path, inspector: Inspector) -> None:
        shutil.copytree(model, line / "tiny.evad")
        assert self.analyze(line).code == 0
        assert self.used(line) == inspector.model_id

    def test_none_lists_the_three_ways_out(self, line: Path) -> None:
        done = self.analyze(line)
        assert done.code == 2
        for way in ("--model MODEL.evad", "explainvad.toml", "explainvad fit REFERENCE"):
            assert way in done.err
        assert not (line / "run").exists()

    def test_several_ask_which(self, line: Path, model: Path) -> None:
        for name in ("one.evad", "two.evad"):
            shutil.copytree(model, line / name)
        done = self.analyze(line)
        assert done.code == 2
        assert "one.evad, two.evad" in done.err

    def test_an_unknown_key_names_the_nearest(self, line: Path, model: Path) -> None:
        (line / "explainvad.toml").write_text("alhpa = 0.2")
        done = self.analyze(line, "--model", model)
        assert done.code == 2
        assert "explainvad.toml: unknown key alhpa; the nearest known one is alpha" in done.err
        (line / "explainvad.toml").unlink()
        (line / "lot" / "lot.toml").write_text('parrt = "x"')
        done = self.analyze(line, "--model", model)
        assert done.code == 2
        assert "unknown key parrt in lot.toml; did you mean part?" in done.err
        assert not (line / "run").exists()


class TestInspect:
    """What a model says of itself."""

    def test_it_shows_the_id_the_splits_and_the_limits(self, model: Path, inspector: Inspector) -> None:
        done = explainvad("inspect", model)
        assert done.code == 0
        assert f"id      {inspector.model_id}" in done.out
        assert "splits  split: FIT 23, NORM 8, CAL 29, DEF 0 (every image its own group)" in done.out
        for scorer in ("reconstruction", "memory_bank"):
            assert f"scorer  {scorer}" in done.out
        assert "note    CLIP scorer: not used" in done.out

    def test_what_is_no_model_is_named(self, tmp_path: Path) -> None:
        done = explainvad("inspect", tmp_path / "none.evad")
        assert done.code == 2
        assert "none.evad" in done.err

    def test_an_altered_one_is_an_integrity_failure(self, model: Path, tmp_path: Path) -> None:
        broken = shutil.copytree(model, tmp_path / "broken.evad")
        (broken / "references" / "ref-001.jpg").unlink()
        done = explainvad("inspect", broken)
        assert done.code == 4
        assert "broken.evad/references/ref-001.jpg is missing" in done.err


class TestFit:
    """Fitting from the command line."""

    def test_what_was_asked_for_is_in_the_model(self, tmp_path: Path) -> None:
        for seed in range(44):  # two pictures of every part
            write_part(tmp_path / "reference" / f"part{seed // 2:02d}_{seed % 2}.png", seed)
        write_lot(tmp_path / "defects", [RUSTY] * 9, first=2000)
        (tmp_path / "tiny.toml").write_text(
            CONFIG_TOML.replace("reconstruction_steps = 30", "reconstruction_steps = 5")
        )
        done = explainvad(
            *("fit", tmp_path / "reference", "--out", tmp_path / "part.evad", "--config", tmp_path / "tiny.toml"),
            *("--group", r"part(\d+)_", "--defects", tmp_path / "defects", "--alpha", "0.2", "--seed", "5"),
        )
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"model   {tmp_path / 'part.evad'}\n")
        card = Inspector.load(tmp_path / "part.evad").card()
        assert (card.seed, card.calibration.alpha, card.calibration.n_def) == (5, 0.2, 9)
        assert card.calibration.n_groups == 22
        assert card.calibration.grouping == r"by the pattern part(\d+)_"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--alpha", "0.04"), "20 reference images of different parts are too few: needed are at least 24"),
            (("--alpha", "0.001"), "needed are at least 999"),
            (("--group", r"unit(\d+)"), r"--group 'unit(\\d+)' does not match part_000.png"),
            (("--group", "(["), "expected a CSV file or a regular expression, got '(['"),
            (("--group", "none.csv"), "the group table none.csv cannot be read"),
            (("--config", "none.toml"), "none.toml: expected a readable TOML file"),
            (("--profile", "strandard"), "profile = 'strandard'"),
            (("--seed", "-1"), "seed = -1"),
            (("--device", "gpu"), "device = 'gpu'"),
            (("--defects", "nowhere"), "nowhere does not exist"),
        ],
    )
    def test_what_cannot_be_fitted_is_said_at_once(
        self, options: tuple[str, ...], message: str, tmp_path: Path
    ) -> None:
        write_references(tmp_path / "reference", 30 if "--defects" in options else 20)
        if "--config" not in options:
            (tmp_path / "tiny.toml").write_text(CONFIG_TOML)
            options = (*options, "--config", str(tmp_path / "tiny.toml"))
        done = explainvad("fit", tmp_path / "reference", "--out", tmp_path / "part.evad", *options)
        assert done.code == 2
        assert message in done.err
        assert not (tmp_path / "part.evad").exists()

    def test_an_unknown_key_of_the_configuration_names_the_nearest(self, references: Path, tmp_path: Path) -> None:
        (tmp_path / "bad.toml").write_text("[detection]\nbank_row = 5")
        done = explainvad("fit", references, "--out", tmp_path / "m.evad", "--config", tmp_path / "bad.toml")
        assert done.code == 2
        assert "bad.toml: unknown key detection.bank_row; the nearest known one is bank_rows" in done.err

    def test_the_device_of_the_configuration_is_kept(self, references: Path, tmp_path: Path) -> None:
        (tmp_path / "bad.toml").write_text('device = "gpu"')
        done = explainvad("fit", references, "--out", tmp_path / "m.evad", "--config", tmp_path / "bad.toml")
        assert done.code == 2
        assert "device = 'gpu'" in done.err

    def test_the_name_must_say_that_it_is_a_model(self, references: Path, tmp_path: Path) -> None:
        done = explainvad("fit", references, "--out", tmp_path / "model")
        assert done.code == 2
        assert "a folder named *.evad, got model: use model.evad" in done.err

    def test_no_references_is_wrong_usage(self, tmp_path: Path) -> None:
        done = explainvad("fit", tmp_path / "nowhere", "--out", tmp_path / "m.evad")
        assert done.code == 2
        assert "nowhere does not exist" in done.err
