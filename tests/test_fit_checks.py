"""What is checked at the end of a fit: each scorer by what it is, on images that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import EPOCH
from tiny_parts import GOOD, part

from explainvad import Inspector
from explainvad.detection.scorer import FrozenScorer, ScorerOptions
from explainvad.fit_checks import FITTED, PAIRS, check_fit
from explainvad.model_card import model_card
from explainvad.types import ImageScore, InspectionImage, ScorerCard


@dataclass
class Toy:
    """Scores by brightness; its map is the picture's grey (``copies``: the same whatever the picture)."""

    family: str
    copies: bool = False
    name: str = "toy"
    asked: list[str] = field(default_factory=list)

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None: ...

    def score(self, images: Sequence[InspectionImage]) -> list[ImageScore]:
        self.asked += [image.image_id for image in images]
        maps = [image.pixels.mean(axis=2).astype(np.float32) for image in images]
        if self.copies:
            maps = [np.random.default_rng(0).normal(size=m.shape).astype(np.float32) for m in maps]
        return [ImageScore(self.name, float(m.mean()), m) for m in maps]

    def card(self) -> ScorerCard:
        return ScorerCard(self.name, self.family, "", "", "", {})


@dataclass
class Members:
    scorers: tuple[Any, ...]


@dataclass
class Cell:
    by_scorer: dict[str, np.ndarray]


@dataclass
class Calibration:
    cells: dict[str, Cell]


def images(count: int, what: str) -> list[InspectionImage]:
    return [InspectionImage(f"{what}-{i}", "x.png", part(i, GOOD), "0" * 64, 1, Path("x.png")) for i in range(count)]


def checked(scorer: Any, n_fit: int = 30, n_held_out: int = 12, cal: float = 100.0) -> dict[str, dict[str, Any]]:
    calibration = Calibration({"a": Cell({"toy": np.full(40, cal)}), "b": Cell({"toy": np.full(10, cal)})})
    found = check_fit(Members((scorer,)), calibration, images(n_fit, "fit"), images(n_held_out, "held"), 0)  # type: ignore[arg-type]
    return {check["name"]: check for check in found.get("toy", [])}


class TestWhoIsChecked:
    def test_reconstructions_are_checked_for_copying_and_over_fitting(self) -> None:
        scorer = Toy("reconstruction, strongest")
        found = checked(scorer)
        assert list(found) == ["identity mapping", "over-fitting to normals"]
        held = [name for name in scorer.asked if name.startswith("held")]
        assert len(held) == 2 * PAIRS  # as they are, and with a defect
        assert sum(name.startswith("fit") for name in scorer.asked) == FITTED

    def test_a_scorer_that_copies_defects_fails(self) -> None:
        assert not checked(Toy("reconstruction"))["identity mapping"]["failed"]
        found = checked(Toy("reconstruction", copies=True))["identity mapping"]
        assert found["failed"] and "it may copy defects" in found["sentence"]

    def test_calibration_scores_of_all_cells_tell_of_over_fitting(self) -> None:
        assert not checked(Toy("distillation"), cal=0.0)["over-fitting to normals"]["failed"]
        found = checked(Toy("distillation"), cal=1e6)["over-fitting to normals"]
        assert found["failed"] and "50 of 50" in found["sentence"]

    def test_a_memory_bank_is_not_compared_with_its_own_images(self) -> None:
        scorer = Toy("memory bank")
        assert checked(scorer) == {} and scorer.asked == []

    def test_without_held_out_images_nothing_is_planted(self) -> None:
        scorer = Toy("reconstruction")
        assert checked(scorer, n_held_out=0) == {} and scorer.asked == []


class Slow(FrozenScorer[Any]):
    """A bank whose search takes four times as long as its backbone, and prompts that say nothing."""

    name, family, summary, source, weights = "toy", "memory bank", "", "", ""

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None: ...

    def score_one(self, image: InspectionImage) -> ImageScore:
        raise AssertionError("nothing is scored")

    def latency(self, image: InspectionImage) -> tuple[float, float, int]:
        return 0.4, 0.1, 5000


class TestFrozenScorers:
    @pytest.fixture
    def slow(self) -> Slow:
        return Slow(ScorerOptions(), None)  # type: ignore[arg-type]

    def test_a_slow_bank_is_said(self, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
        found = checked(slow)["bank latency"]
        assert found["failed"] and found["value"] == pytest.approx(4.0) and "5,000 rows" in found["sentence"]

    def test_no_stopwatch_where_bundles_must_be_alike(self, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        assert checked(slow) == {}

    def test_prompts_that_do_not_separate_are_said(self, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        slow.separation = 0.1, 0.3, 12
        found = checked(slow)
        assert list(found) == ["domain gap"] and found["domain gap"]["failed"]


def test_the_card_shows_every_check_and_the_failed_ones_among_the_fallbacks(inspector: Inspector) -> None:
    good = {"name": "over-fitting to normals", "value": 0.0, "failed": False, "sentence": "No sign."}
    bad = {"name": "identity mapping", "value": 1.0, "failed": True, "sentence": "It copies."}
    known = inspector.card()
    fitted = {**inspector.fitted, "checks": {"reconstruction": [good, bad]}}
    card = model_card("id", inspector.config, known.scorers, (), known.calibration, fitted)
    facts = next(scorer.facts for scorer in card.scorers if scorer.name == "reconstruction")
    assert (facts["over-fitting to normals"], facts["identity mapping"]) == ("No sign.", "It copies.")
    assert [line for line in card.fallbacks if "identity" in line or "over-fitting" in line] == [
        "reconstruction scorer, identity mapping: It copies."
    ]


def test_a_fit_of_the_embedded_profile_is_checked(inspector: Inspector) -> None:
    assert {name: [c["name"] for c in found] for name, found in inspector.fitted["checks"].items()} == {
        "reconstruction": ["identity mapping", "over-fitting to normals"]
    }
