"""The shared values: what they refuse, and that a mask survives its run lengths."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from explainvad.errors import NotFittedError
from explainvad.types import (
    CalibrationFacts,
    Decision,
    ImageRecord,
    ImageScore,
    InspectionImage,
    LotInfo,
    LotReport,
    LotStatistics,
    Mask,
    ModelCard,
    ProbabilityBound,
    Provenance,
    Verdict,
)


def image(pixels: Any) -> InspectionImage:
    return InspectionImage("img-00001", "a.png", pixels, "0" * 64, 1, Path("a.png"))


def verdict(**changed: Any) -> Verdict:
    values: dict[str, Any] = {
        "decision": Decision.REJECT,
        "score": 1.5,
        "p_value": 0.02,
        "alpha": 0.05,
        "probability": ProbabilityBound(0.4, 0.05, "bound"),
        "aleatoric": 0.1,
        "epistemic": 0.2,
        "epistemic_limit": 0.3,
        "scorer_p_values": {"memory_bank": 0.02},
        "gates": (),
        "reasons": ("p = 0.02 is at most alpha = 0.05",),
    }
    return Verdict(**{**values, **changed})


def record(decision: Decision | None, failure: str | None) -> ImageRecord:
    return ImageRecord(
        image_id="img-00001",
        file="a.png",
        sha256=None,
        size_bytes=None,
        width=None,
        height=None,
        notes=(),
        verdict=None if decision is None else verdict(decision=decision),
        scores={},
        findings=(),
        reference=None,
        artifacts={},
        failure=failure,
    )


class TestInspectionImage:
    def test_height_comes_before_width_in_pixels(self) -> None:
        wide = image(np.zeros((3, 5, 3), dtype=np.uint8))
        assert (wide.height, wide.width) == (3, 5)

    @pytest.mark.parametrize(
        ("pixels", "got"),
        [
            (np.zeros((3, 5), dtype=np.uint8), r"got uint8 \(3, 5\)"),
            (np.zeros((3, 5, 4), dtype=np.uint8), r"got uint8 \(3, 5, 4\)"),
            (np.zeros((3, 5, 3), dtype=np.float32), r"got float32 \(3, 5, 3\)"),
            (np.zeros((0, 5, 3), dtype=np.uint8), r"got uint8 \(0, 5, 3\)"),
        ],
    )
    def test_anything_but_rgb_bytes_is_refused(self, pixels: Any, got: str) -> None:
        with pytest.raises(ValueError, match=r"pixels must be uint8 with shape \(H, W, 3\), " + got):
            image(pixels)

    def test_it_cannot_be_changed(self) -> None:
        with pytest.raises(FrozenInstanceError):
            image(np.zeros((3, 5, 3), dtype=np.uint8)).file = "b.png"  # type: ignore[misc]


class TestImageScore:
    def test_a_score_and_its_map_are_finite_numbers(self) -> None:
        plane = np.zeros((3, 5), dtype=np.float32)
        assert ImageScore("bank", -2.0, plane).evidence == {}
        for value in (np.nan, np.inf, -np.inf):
            with pytest.raises(ValueError, match="the score and map of bank must be finite"):
                ImageScore("bank", value, plane)
            with pytest.raises(ValueError, match="the score and map of bank must be finite"):
                ImageScore("bank", 0.0, np.full_like(plane, value))

    @pytest.mark.parametrize("plane", [np.zeros((3, 5)), np.zeros((3, 5, 1), dtype=np.float32)])
    def test_the_map_has_one_type_and_two_axes(self, plane: Any) -> None:
        with pytest.raises(ValueError, match=r"anomaly_map of bank must be float32 with shape \(H, W\), got float"):
            ImageScore("bank", 0.0, plane)


class TestMask:
    @settings(deadline=None, derandomize=True)
    @given(npst.arrays(np.bool_, npst.array_shapes(min_dims=2, max_dims=2, max_side=12)))
    def test_every_mask_survives(self, mask: Any) -> None:
        encoded = Mask.from_array(mask)
        assert np.array_equal(encoded.to_array(), mask) and encoded.to_array().dtype == np.bool_
        assert encoded.area == mask.sum()
        assert sum(encoded.counts) == mask.size
        assert all(count > 0 for count in encoded.counts[1:])  # only the first run may be empty

    @pytest.mark.parametrize(
        ("rows", "counts"),
        [
            (["..", ".."], (4,)),
            (["##", "##"], (0, 4)),
            ([".#", "#."], (1, 2, 1)),
            (["#..", "..#"], (0, 1, 4, 1)),
        ],
    )
    def test_runs_go_row_by_row_and_start_with_zeros(self, rows: list[str], counts: tuple[int, ...]) -> None:
        mask = np.array([[letter == "#" for letter in row] for row in rows])
        assert Mask.from_array(mask).counts == counts

    def test_what_does_not_fill_the_frame_is_refused(self) -> None:
        with pytest.raises(ValueError, match="run lengths must add up to 2 x 3, got 5"):
            Mask(2, 3, (5,))
        with pytest.raises(ValueError, match=r"mask must be bool with shape \(H, W\), got uint8 \(2, 3\)"):
            Mask.from_array(np.zeros((2, 3), dtype=np.uint8))  # type: ignore[arg-type]


class TestVerdict:
    @settings(deadline=None, derandomize=True)
    @given(st.floats(min_value=0, max_value=1, exclude_min=True))
    def test_p_values_lie_above_zero_and_at_most_at_one(self, p: float) -> None:
        assert verdict(p_value=p).p_value == p

    @pytest.mark.parametrize("p", [0.0, -0.1, 1.0001, float("nan")])
    def test_no_image_is_impossible(self, p: float) -> None:
        with pytest.raises(ValueError, match=r"p_value must lie in \(0, 1\]"):
            verdict(p_value=p)

    def test_what_was_not_inspected_has_none(self) -> None:
        with pytest.raises(ValueError, match="a verdict needs an inspected image"):
            verdict(decision=Decision.NOT_INSPECTED)


class TestImageRecord:
    def test_it_has_either_a_verdict_or_a_failure(self) -> None:
        assert record(None, "file is empty").decision is Decision.NOT_INSPECTED
        for decision, failure in ((None, None), (Decision.REJECT, "file is empty")):
            with pytest.raises(ValueError, match="img-00001: exactly one of verdict and failure"):
                record(decision, failure)

    def test_rejected_and_deferred_images_are_flagged_and_no_others(self) -> None:
        inspected = [d for d in Decision if d is not Decision.NOT_INSPECTED]
        assert [d for d in inspected if record(d, None).flagged] == [Decision.REJECT, Decision.DEFER]
        assert all(record(d, None).decision is d for d in inspected)
        assert not record(None, "file is empty").flagged


class Recorder:
    """A renderer that writes nothing and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Path, tuple[str, ...]]] = []

    def render(self, report: LotReport, out: Path, formats: Any, *, pages: Any, templates: Any) -> list[Path]:
        self.asked.append((out, tuple(formats)))
        return [out / "report"]


def lot_report(renderer: Recorder | None) -> LotReport:
    calibration = CalibrationFacts(8, 8, 9, 25, "each", 0.1, 0.1, 0.28, (0.0,), 1.0, 1.0, 1.0, 0.1)
    card = ModelCard("m", "embedded", "use", (), calibration, "8 x 8 px", 0, "2026", None, {}, (), ())
    provenance = Provenance("EV-1", "2026", "2026", "explainvad", {}, "Linux", {}, "0" * 64, 2, (), 0)
    statistics = LotStatistics(0, 0, dict.fromkeys(Decision, 0), None, None, 0.0, 0.1, ())
    return LotReport(LotInfo("L"), (), statistics, card, provenance, Path("runs/L"), renderer)


class TestLotReport:
    def test_it_is_rendered_into_its_run_unless_told_otherwise(self) -> None:
        recorder = Recorder()
        assert lot_report(recorder).render() == [Path("runs/L/report")]
        assert lot_report(recorder).render("elsewhere", ["csv"]) == [Path("elsewhere/report")]
        assert recorder.asked == [(Path("runs/L"), ("pdf", "html", "csv", "json")), (Path("elsewhere"), ("csv",))]

    def test_without_a_renderer_it_says_where_one_comes_from(self) -> None:
        with pytest.raises(NotFittedError, match=r"Inspector\.analyze or explainvad render"):
            lot_report(None).render()
