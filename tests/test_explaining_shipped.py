"""Explanations by the scorers that ship, in Python and by the command, and what the README says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command_line import explainvad
from tiny_parts import RUST, RUSTY, write_part

from explainvad import Inspector
from explainvad.detection.memory_bank import MemoryBank
from explainvad.detection.reconstruction.features import FeatureReconstruction
from explainvad.detection.registry import SCORERS, scorer_type
from explainvad.explaining import METHODS
from explainvad.lot import read_picture

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def test_the_number_explained_is_the_shipped_scorers_own(inspector: Inspector, tmp_path: Path) -> None:
    image = read_picture(write_part(tmp_path / "rusty.png", 2000, RUSTY))
    reconstruction, bank = inspector.ensemble.score(image)
    own = {
        reconstruction.scorer: reconstruction.evidence["distance"].mean(0).max(),
        bank.scorer: bank.evidence["distance"].max(),
    }
    assert own.keys() == {"reconstruction", "memory_bank"}
    found = inspector.explain(image, methods=["gradients"])
    occlusions = [shown for shown in found.maps if shown.name == "occlusion"]
    assert {shown.scorer: shown.facts["value"] for shown in occlusions} == pytest.approx(own, rel=2e-3)


def test_the_readme_says_which_scorers_give_gradients() -> None:
    (row,) = re.findall(r"^\| `gradients` \|.*\| (.*) \|$", README, re.MULTILINE)
    assert row == "both of the embedded profile; else all but PaDiM, EfficientAD, UniAD and MuSc"
    lacking = {name for name in SCORERS if not hasattr(scorer_type(name), "pixel_function")}
    assert lacking == {"padim", "efficient-ad", "uniad", "musc"}
    assert hasattr(FeatureReconstruction, "pixel_function") and hasattr(MemoryBank, "pixel_function")


def test_the_shipped_profile_explains_from_its_bundle(inspector: Inspector, references: Path, tmp_path: Path) -> None:
    image = write_part(tmp_path / "rusty.png", 2000, RUSTY)
    found = inspector.explain(image, methods=["evidence", "gradients"])
    assert {near.reference for near in found.nearest} <= {path.name for path in references.iterdir()}
    assert all(near.place is not None and len(near.sha256) == 64 for near in found.nearest)
    by = {(shown.scorer, shown.name): shown.values for shown in found.maps}
    for scorer in ("reconstruction", "memory_bank"):
        for name in ("integrated-gradients", "occlusion", "grad-cam"):
            values = np.abs(by[scorer, name])
            assert values[RUST].mean() > 3 * values.mean(), (scorer, name)


def test_the_command_writes_maps_and_says_what_they_are(model: Path, tmp_path: Path) -> None:
    image, out = write_part(tmp_path / "rusty.png", 2000, RUSTY), tmp_path / "maps"
    arguments: Sequence[str] = ("explain", str(image), "--model", str(model), "--out", str(out), "--device", "cpu")
    done = explainvad(*arguments, "--methods", "evidence,attention", "--at", "40,31")
    assert done.code == 0, done.err
    said = json.loads((out / "explanation.json").read_text("utf-8"))
    assert {entry["file"] for entry in said["maps"]} == {path.name for path in out.glob("*.png")}
    assert "map     memory_bank: attention-rollout" in done.out and "nearest memory_bank: x " in done.out
    again = explainvad(*arguments)
    assert again.code == 2 and "exists already: name a new folder with --out" in again.err
    for bad, message in (("40;31", "--at expects a place as X,Y"), ("900,1", "expected a place within 80 x 64 px")):
        refused = explainvad(*arguments[:-3], str(tmp_path / "other"), "--at", bad)
        assert refused.code == 2 and message in refused.err, refused.err
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    torn = explainvad("explain", str(tmp_path / "torn.png"), "--model", str(model), "--out", str(tmp_path / "x"))
    assert torn.code == 2 and "torn.png" in torn.err
    assert not (tmp_path / "other").exists() and METHODS == ("evidence", "attention", "gradients", "prompts")
