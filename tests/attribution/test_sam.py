"""Outlines by a segmenter: what it is asked, which of its masks is taken, and when none is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_sam import NAME, tiny_sam

from explainvad.attribution.regions import ThresholdAttributor
from explainvad.attribution.sam import SamRefiner, SamSegmenter
from explainvad.attribution.sam_choice import agreement, choose, own_part
from explainvad.attribution.sam_prompts import MOST_PEAKS, SamPrompt, nominal_points, peaks, prompt_for
from explainvad.types import InspectionImage, Region


def grid(*rows: str) -> NDArray[np.float32]:
    """A map from a grid of digits; "." is 0."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], dtype=np.float32)


def mask(*rows: str) -> NDArray[np.bool_]:
    return np.array([[c == "#" for c in row] for row in rows])


def picture(height: int, width: int, mm_per_pixel: float | None = None, seed: int = 0) -> InspectionImage:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return InspectionImage("img", "img.png", pixels, "0", 1, Path("img.png"), mm_per_pixel)


def cut(fused_map: NDArray[np.float32], image: InspectionImage, threshold: float = 1.0) -> tuple[Region, ...]:
    attributor = ThresholdAttributor(threshold, np.inf, lambda mass: 0.01, lambda scores: {}, at_least=9)
    return attributor.regions(image, fused_map, ())


class Stub:
    """A segmenter that offers given masks, for each prompt the next ones."""

    name = "SAM stub"

    def __init__(self, *offers: Sequence[NDArray[np.bool_]], sees: bool = True) -> None:
        self.offers, self.sees = list(offers), sees
        self.seen, self.forgotten, self.prompts = 0, 0, list[SamPrompt]()

    def see(self, pixels: NDArray[np.uint8]) -> bool:
        self.seen += 1
        return self.sees

    def masks(self, prompt: SamPrompt) -> Iterator[tuple[NDArray[np.bool_], float]]:
        self.prompts.append(prompt)
        offer = self.offers[len(self.prompts) - 1]
        yield from zip(offer, np.linspace(0.9, 0.1, len(offer)).tolist(), strict=True)

    def forget(self) -> None:
        self.forgotten += 1


# -- prompts ----------------------------------------------------------------------------------------------


def blobs() -> NDArray[np.float32]:
    """Two peaks in one component, on a ground that is lowest to its left and right."""
    y, x = np.mgrid[:60, :90]
    hills = 6 * np.exp(-((y - 30) ** 2 + (x - 35) ** 2) / 40) + 5 * np.exp(-((y - 30) ** 2 + (x - 52) ** 2) / 40)
    return (hills + 0.3 * np.exp(-((x - 45) ** 2) / 900)).astype(np.float32)


def test_a_prompt_holds_box_peaks_and_nominal_places() -> None:
    fused_map = blobs()
    (region,) = cut(fused_map, picture(60, 90))
    component = region.mask.to_array()
    prompt = prompt_for(fused_map, component, region.xyxy, region.peak_xy, 1.0)
    y, x = np.nonzero(component)
    assert prompt.box.tolist() == [x.min(), y.min(), x.max(), y.max()]
    inside, outside = prompt.points[prompt.labels == 1], prompt.points[prompt.labels == 0]
    assert inside.astype(int).tolist() == [[35, 30], [52, 30]]
    assert len(outside) == 4
    x0, y0, x1, y1 = prompt.box
    for px, py in outside:
        assert fused_map[int(py), int(px)] <= 1.0
        gap = max(x0 - px, px - x1, y0 - py, py - y1)
        assert gap >= 4 and not component[int(py), int(px)]


def test_peaks_are_apart_few_and_the_regions_own_comes_first() -> None:
    plateau = np.zeros((40, 200), dtype=np.float32)
    plateau[10:30, 10:190] = 3.0
    found = peaks(plateau, plateau > 1, (10, 10, 190, 30), (189, 29))
    assert found[0] == (189, 29) and 1 < len(found) <= MOST_PEAKS
    assert all(np.hypot(a[0] - b[0], a[1] - b[1]) >= 45 for a in found for b in found if a != b)
    # A higher value beside the component is none of its peaks
    two = grid("....", ".29.", "....")
    assert peaks(two, two == 2, (1, 1, 2, 2), (1, 1)) == [(1, 1)]


def test_nominal_points_leave_neither_the_image_nor_the_nominal() -> None:
    fused_map = np.full((30, 30), 0.5, dtype=np.float32)
    fused_map[:6, :6] = 3.0
    corner = nominal_points(fused_map, (0, 0, 6, 6), 1.0)
    assert len(corner) == 2 and all(0 <= x < 30 and 0 <= y < 30 for x, y in corner)  # none above or to the left
    fused_map[:, 6:] = 2.0  # another region is no nominal place
    assert len(nominal_points(fused_map, (0, 0, 6, 6), 1.0)) == 1
    assert nominal_points(fused_map, (0, 0, 30, 30), 1.0) == []


def test_a_region_of_one_pixel_has_a_prompt() -> None:
    fused_map = np.zeros((20, 20), dtype=np.float32)
    fused_map[7, 9] = 4.0
    prompt = prompt_for(fused_map, fused_map > 1, (9, 7, 10, 8), (9, 7), 1.0)
    assert prompt.box.tolist() == [9, 7, 9, 7] and prompt.points[0].tolist() == [9, 7]
    assert prompt.labels.tolist() == [1, 0, 0, 0, 0]


# -- choice -----------------------------------------------------------------------------------------------

MAP = grid(
    "........",
    "..2332..",
    "..2992..",
    "..2332..",
    "........",
)
CLUSTER = MAP > 1
CORE = mask("........", "........", "...##...", "........", "........")
WIDE = mask("........", ".######.", ".######.", ".######.", "........")


def test_agreement_by_hand() -> None:
    excess = MAP[CLUSTER] - 1
    total = 6 * 1 + 4 * 2 + 2 * 8  # six of 2, four of 3, two of 9
    assert agreement(CLUSTER, CLUSTER, excess) == 1.0
    assert agreement(CORE, CLUSTER, excess) == pytest.approx(16 / total)  # a sixth of the area, half of the evidence
    assert agreement(WIDE, CLUSTER, excess) == pytest.approx(1 / (1 + 6 / 12))
    assert agreement(np.ones_like(CLUSTER), CLUSTER, excess) == pytest.approx(1 / (1 + 28 / 12))
    assert agreement(~CLUSTER, CLUSTER, excess) == agreement(np.zeros_like(CLUSTER), CLUSTER, excess) == 0.0
    assert agreement(CLUSTER, CLUSTER, 0 * excess) == 1.0


def test_the_evidence_chooses_and_predicted_quality_only_breaks_ties() -> None:
    excess, nothing = MAP[CLUSTER] - 1, np.zeros_like(CLUSTER)
    best = choose([(np.ones_like(CLUSTER), 0.99), (CORE, 0.5), (WIDE, 0.1)], CLUSTER, excess)
    assert best.mask is WIDE and best.agreement == pytest.approx(2 / 3)
    assert choose([(nothing, 0.1), (beside := ~CLUSTER, 0.2)], CLUSTER, excess).mask is beside
    assert choose([(nothing, 0.2), (~CLUSTER, 0.2)], CLUSTER, excess).mask is nothing  # the first
    with pytest.raises(ValueError, match="at least one mask"):
        choose([], CLUSTER, excess)


def test_a_regions_own_part_of_a_mask() -> None:
    drawn = mask("#..####.", "#......#", "..##...#")
    cluster = mask("...#....", "........", "........")
    other = mask("......#.", "........", "........")
    expected = mask("...###..", "........", "........")
    np.testing.assert_array_equal(own_part(drawn, cluster, other), expected)


# -- outlines ---------------------------------------------------------------------------------------------


def test_a_mask_that_agrees_is_the_outline_and_the_clusters_figures_stay() -> None:
    image = picture(5, 8, mm_per_pixel=0.5)
    (before,) = cut(MAP, image)
    (after,) = SamRefiner(Stub([CORE, WIDE]), 0.5).refine(image, MAP, [before], 1.0)
    np.testing.assert_array_equal(after.mask.to_array(), WIDE)
    assert (after.refined_by, after.xyxy, after.area_px, after.area_mm2) == ("sam", (1, 1, 7, 4), 18, 4.5)
    assert (after.peak_xy, after.mass, after.p_value) == (before.peak_xy, before.mass, before.p_value)
    assert after.outline == "outline by SAM stub, agreement 0.67"


@pytest.mark.parametrize(
    ("offer", "limit", "said"),
    [
        (WIDE, 0.7, "threshold outline kept: SAM disagreed (0.67 < 0.70)"),
        (WIDE, 0.667, "threshold outline kept: SAM disagreed (0.6667 < 0.6670)"),
        (np.zeros_like(CLUSTER), 0.5, "threshold outline kept: SAM disagreed (0.00 < 0.50)"),
        (np.ones_like(CLUSTER), 0.5, "threshold outline kept: SAM disagreed (0.30 < 0.50)"),
    ],
)
def test_a_mask_that_disagrees_is_dropped(offer: NDArray[np.bool_], limit: float, said: str) -> None:
    image = picture(5, 8)
    (before,) = cut(MAP, image)
    (after,) = SamRefiner(Stub([offer]), limit).refine(image, MAP, [before], 1.0)
    assert (after.refined_by, after.mask, after.xyxy) == ("threshold", before.mask, before.xyxy)
    assert after.outline == said


def test_regions_share_one_look_and_no_pixel() -> None:
    fused_map = np.zeros((30, 60), dtype=np.float32)
    fused_map[10:20, 5:20] = 3.0
    fused_map[10:20, 30:45] = 2.0
    image = picture(30, 60)
    regions = cut(fused_map, image)
    left, right = np.zeros((30, 60), dtype=np.bool_), np.zeros((30, 60), dtype=np.bool_)
    left[10:20, 5:26], right[10:20, 22:46] = True, True
    stub = Stub([left], [right])
    first, second = (r.mask.to_array() for r in SamRefiner(stub, 0.5).refine(image, fused_map, regions, 1.0))
    assert stub.seen == stub.forgotten == 1 and len(stub.prompts) == 2
    assert not (first & second).any()
    np.testing.assert_array_equal(first, left)
    np.testing.assert_array_equal(second, right & ~left)
    # Neither may take what is the other's cluster
    stub = Stub([left | (fused_map == 2)], [right])
    first, _ = (r.mask.to_array() for r in SamRefiner(stub, 0.3).refine(image, fused_map, regions, 1.0))
    assert not (first & (fused_map == 2)).any()


def test_without_regions_nothing_is_looked_at() -> None:
    stub = Stub()
    assert SamRefiner(stub, 0.5).refine(picture(5, 8), MAP, (), 1.0) == () and stub.seen == 0


def test_an_image_too_narrow_for_sam_keeps_its_outlines() -> None:
    image = picture(5, 8)
    (after,) = SamRefiner(Stub(sees=False), 0.5).refine(image, MAP, cut(MAP, image), 1.0)
    assert after.outline == "threshold outline kept: the image is too narrow for SAM, 8 x 5 px"


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.1])
def test_a_limit_beyond_its_range_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match=r"limit must lie in \(0, 1\]"):
        SamRefiner(Stub(), limit)


# -- the network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(60, 80), (64, 64), (300, 200), (9, 200), (1, 1), (150, 700)])
def test_masks_have_the_images_shape_whatever_it_is(height: int, width: int) -> None:
    segmenter = SamSegmenter(tiny_sam(), NAME)
    image = picture(height, width)
    image.pixels[:] = image.pixels[:, :, :1]  # grey
    assert segmenter.see(image.pixels)
    fused_map = np.zeros((height, width), dtype=np.float32)
    fused_map[height // 2, width // 2] = 5.0
    (region,) = cut(fused_map, image)
    prompt = prompt_for(fused_map, region.mask.to_array(), region.xyxy, region.peak_xy, 1.0)
    offers = list(segmenter.masks(prompt))
    assert len(offers) == 3
    for mask_, quality in offers:
        assert mask_.shape == (height, width) and mask_.dtype == np.bool_ and isinstance(quality, float)
    (refined,) = SamRefiner(segmenter, 1e-6).refine(image, fused_map, [region], 1.0)
    assert refined.mask.area == refined.area_px >= 1


def test_masks_are_those_of_segment_anythings_own_predictor() -> None:
    from segment_anything import SamPredictor

    image, fused_map = picture(60, 90), blobs()
    (region,) = cut(fused_map, image)
    prompt = prompt_for(fused_map, region.mask.to_array(), region.xyxy, region.peak_xy, 1.0)
    segmenter, predictor = SamSegmenter(tiny_sam(), NAME), SamPredictor(tiny_sam())
    segmenter.see(image.pixels)
    predictor.set_image(image.pixels)
    masks, quality = zip(*segmenter.masks(prompt), strict=True)
    expected, expected_quality, _ = predictor.predict(
        point_coords=prompt.points, point_labels=prompt.labels, box=prompt.box, multimask_output=True
    )
    assert expected.any() and not expected.all()
    np.testing.assert_array_equal(masks, expected)
    np.testing.assert_array_equal(quality, expected_quality)


def test_of_an_image_nothing_stays_whatever_becomes_of_it() -> None:
    image, fused_map = picture(60, 90), blobs()
    segmenter = SamSegmenter(tiny_sam(), NAME)
    refiner = SamRefiner(segmenter, 0.5)
    refiner.refine(image, fused_map, cut(fused_map, image), 1.0)
    assert segmenter._predictor.features is None
    stub = Stub()  # without an offer it fails
    with pytest.raises(IndexError):
        SamRefiner(stub, 0.5).refine(image, fused_map, cut(fused_map, image), 1.0)
    assert stub.forgotten == 1


def test_masks_are_made_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than one mask of the image's size is made before the one before it was looked at."""
    image, fused_map = picture(60, 90), blobs()
    (region,) = cut(fused_map, image)
    segmenter, made = SamSegmenter(tiny_sam(), NAME), list[int]()
    network = segmenter._predictor.model
    own = network.postprocess_masks
    monkeypatch.setattr(network, "postprocess_masks", lambda *given: (made.append(1), own(*given))[1])
    segmenter.see(image.pixels)
    offers = segmenter.masks(prompt_for(fused_map, region.mask.to_array(), region.xyxy, region.peak_xy, 1.0))
    for count, _ in enumerate(offers, start=1):
        assert len(made) == count and not torch.is_inference_mode_enabled()


def test_what_rounds_to_no_row_is_not_seen() -> None:
    segmenter = SamSegmenter(tiny_sam(), NAME)
    assert not segmenter.see(np.zeros((1, 300, 3), dtype=np.uint8))
