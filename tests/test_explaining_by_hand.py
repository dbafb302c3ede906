"""Explanations of a scorer whose numbers a hand can compute: places, sizes, what is not sound, what is not made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from explainvad.attribution.references import ReferenceGallery
from explainvad.explaining import explain
from explainvad.kept_maps import kept_explanation
from explainvad.types import (
    AttributionMap,
    Explanation,
    ImageRecord,
    ImageScore,
    InspectionImage,
    PixelFunction,
    ReferenceMatch,
    Scorer,
    ScorerCard,
)

WIDTH, HEIGHT = 160, 120
FRAME = (60, 80)  # the working frame, half of the image
WINDOW = (slice(12, 52), slice(32, 72))


def image() -> InspectionImage:
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return InspectionImage("img-1", "a.png", pixels, "0" * 64, 1, Path("a.png"))


class Plain:
    """Its map is a ramp; it counts how often it is asked."""

    name = "hand"

    def __init__(self, distance: NDArray[np.float32] | None = None) -> None:
        self.distance = np.ones((6, 8), np.float32) if distance is None else distance
        self.scored = 0

    def score(self, images: Sequence[InspectionImage]) -> list[ImageScore]:
        self.scored += 1
        ramp = np.tile(np.arange(WIDTH, dtype=np.float32), (HEIGHT, 1))
        return [ImageScore(self.name, 1.0, ramp, {"distance": self.distance}) for _ in images]

    def card(self) -> ScorerCard:
        return ScorerCard(self.name, "by hand", "", "", "", {})


class ByHand(Plain):
    """Its number is ``value`` of a window of ones, against a baseline of zeros."""

    def __init__(self, value: Callable[[Tensor], Tensor], distance: NDArray[np.float32] | None = None) -> None:
        super().__init__(distance)
        self.value = value
        self.asked: list[Tensor] = []

    def pixel_function(self, *_: Any) -> PixelFunction:
        def value(frames: Tensor) -> Tensor:
            self.asked.append(frames.detach().clone())
            return self.value(frames)

        frame = torch.ones(3, 40, 40)
        return PixelFunction("a number", value, frame, torch.zeros(3, 40, 40), FRAME, WINDOW, nn.Identity())


class NoGallery:
    def nearest(self, _: InspectionImage) -> tuple[ReferenceMatch, bytes]:
        raise AssertionError("a reference was looked for")


def explained(scorer: Any, gallery: Any = None, **how: Any) -> Explanation:
    gallery = gallery or ReferenceGallery.fit([image()])
    return explain(image(), [cast(Scorer, scorer)], gallery, lambda _: ("", ""), **how)


def maps_of(found: Explanation) -> dict[str, AttributionMap]:
    return {shown.name: shown for shown in found.maps}


def corner(frames: Tensor) -> Tensor:
    """The pixels of rows 10 to 19 and columns 20 to 29 of the window."""
    return frames[:, :, 10:20, 20:30].sum((1, 2, 3))


@pytest.mark.parametrize("longest", [None, 80])
def test_the_window_that_the_network_saw_lies_where_it_is_in_the_image(longest: int | None) -> None:
    found = maps_of(explained(ByHand(corner), methods=["gradients"], longest=longest))
    factor = 2 if longest is None else 1  # image px for a px of the working frame
    top, left = WINDOW[0].start + 10, WINDOW[1].start + 20
    rows, cols = (slice(factor * first, factor * (first + 10)) for first in (top, left))
    for name in ("integrated-gradients", "occlusion"):
        values = found[name].values
        assert values.shape == (60 * factor, 80 * factor)
        inner = values[rows, cols][factor : -factor or None, factor : -factor or None]
        if name == "integrated-gradients":
            np.testing.assert_allclose(inner, 3, rtol=1e-4)  # each of three channels gives its difference of 1
        else:
            np.testing.assert_allclose(inner, 75, rtol=1e-4)  # squares of 5 px: 3 * 25
        outside = values.copy()
        outside[rows.start - factor : rows.stop + factor, cols.start - factor : cols.stop + factor] = 0
        assert not outside.any(), name
        assert "rows 12 to 52 and columns 32 to 72 of a working frame of 60 x 80 px, 0 elsewhere" in found[name].frame


def test_a_window_outside_of_its_frame_is_refused() -> None:
    given = ("a number", corner, torch.zeros(3, 40, 40))
    with pytest.raises(ValueError, match=r"window must lie in a working frame of \(60, 80\) px"):
        PixelFunction(*given, torch.zeros(3, 40, 40), FRAME, (slice(30, 70), WINDOW[1]), nn.Identity())
    with pytest.raises(ValueError, match=r"the shape \(3, 40, 40\) of the window, got \(3, 40, 40\) and \(3, 40, 8\)"):
        PixelFunction(*given, torch.zeros(3, 40, 8), FRAME, WINDOW, nn.Identity())


def test_maps_are_made_at_the_size_that_is_asked_for_and_say_it() -> None:
    scorer = ByHand(corner, distance=np.arange(48, dtype=np.float32).reshape(6, 8))
    whole, small = (maps_of(explained(scorer, longest=longest)) for longest in (None, 20))
    for name, shown in whole.items():
        assert shown.values.shape == (HEIGHT, WIDTH) and shown.frame.endswith(", at 160 x 120 px")
        assert small[name].values.shape == (15, 20) and small[name].frame.endswith(", at 20 x 15 px")
    # of a map that is finer, a pixel is the mean of what it covers; one that is coarser lies as in the large map
    np.testing.assert_allclose(small["anomaly-map"].values[0], np.arange(20) * 8 + 3.5)
    means = whole["distance"].values.reshape(15, 8, 20, 8).mean((1, 3))
    np.testing.assert_allclose(small["distance"].values, means, atol=1)
    assert maps_of(explained(scorer, longest=9999))["distance"].values.shape == (HEIGHT, WIDTH)  # never enlarged


def test_what_is_not_finite_is_noted_with_the_reason_and_not_scaled() -> None:
    """The root of 0 has no gradient: its value is finite, and a path integral over it is not."""
    distance = np.ones((6, 8), np.float32)
    distance[2, 3], distance[4, 4] = np.nan, np.inf
    found = explained(ByHand(lambda frames: (0 * corner(frames)).sqrt(), distance), methods=["evidence", "gradients"])
    assert maps_of(found).keys() == {"anomaly-map", "occlusion"}
    reasons = {lacking.name: lacking.reason for lacking in found.not_given}
    assert reasons["distance"] == "2 of its 48 values are not finite"
    assert reasons["integrated-gradients"] == "its figures are not finite: convergence_delta"
    nowhere = explained(ByHand(lambda frames: corner(frames) * torch.nan), methods=["gradients"])
    assert not nowhere.maps and nowhere.not_given[0].reason.startswith("its figures are not finite: value")


def test_a_signed_map_of_nothing_is_kept_as_nothing() -> None:
    found = explained(ByHand(lambda frames: 0 * corner(frames) + 7), methods=["gradients"])
    record = cast(ImageRecord, type("Record", (), {"findings": (), "image_id": "img-1"})())
    with np.errstate(all="raise"):
        kept, _ = kept_explanation(record, ("gradients",), lambda _: found)
    assert [(m.name, m.signed, m.low, m.high) for m in kept.maps] == [
        ("integrated-gradients", True, 0, 0),
        ("occlusion", True, 0, 0),
    ]


def test_nothing_is_scored_and_no_reference_found_that_no_method_needs() -> None:
    for methods, scored in (((), 0), (("prompts", "attention", "gradients"), 0), (("evidence", "prompts"), 1)):
        plain = Plain()
        assert explained(plain, NoGallery(), methods=methods).baseline == ""
        assert plain.scored == scored, methods
    scorer = ByHand(corner)
    assert explained(scorer, NoGallery(), methods=["attention", "evidence"]).baseline == "" and scorer.scored == 1
    explained(scorer, methods=["evidence", "gradients"], scores=scorer.score([image()]))
    assert scorer.scored == 2  # the one that was passed on


def test_a_reference_that_was_found_is_not_looked_for_again() -> None:
    reference, picture = ReferenceGallery.fit([image()]).nearest(image())
    known = (ReferenceMatch("ref-077", reference.sha256, 0.0), picture)
    found = explained(ByHand(corner), NoGallery(), methods=["gradients"], reference=known)
    assert found.baseline.startswith("the nearest reference picture of the model, ref-077,")


def test_the_number_at_both_ends_is_asked_for_once_for_all_maps() -> None:
    scorer = ByHand(corner)
    found = maps_of(explained(scorer, methods=["gradients"]))
    for shown in found.values():
        assert (shown.facts["value"], shown.facts["baseline_value"]) == (300, 0)
    alone = [frames for frames in scorer.asked if len(frames) == 1 and not frames.any()]
    assert len(alone) == 2  # ours, and captum's own for its convergence delta
