"""What all memory banks share, on features that a hand can compute."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy import CELL, ToyBank, patches_of, random_squares, squares, toy_bank

from explainvad.detection.banks import patch_bank
from explainvad.detection.banks.bank_rows import nearest_pair
from explainvad.detection.frames import gaussian_blur, smooth_map, to_frame
from explainvad.errors import NotExplainableError, NotFittedError, UsageError
from explainvad.types import InspectionImage


class Read(Sequence[InspectionImage]):
    """Makes images as they are asked for; counts readings, and how many images are alive at each."""

    def __init__(self, count: int) -> None:
        self.count, self.read, self.alive = count, [0] * count, 0
        self._pixels: list[weakref.ref[Any]] = []

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, i: int) -> InspectionImage: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[InspectionImage]: ...
    def __getitem__(self, i: int | slice) -> InspectionImage | Sequence[InspectionImage]:
        assert isinstance(i, int)
        if i >= self.count:
            raise IndexError(i)
        self.read[i] += 1
        image = random_squares(1, seed=i)[0]
        self.alive = max(self.alive, sum(ref() is not None for ref in self._pixels) + 1)
        self._pixels.append(weakref.ref(image.pixels))
        return image


def fitted(images: Sequence[InspectionImage], separate: bool = False, **options: Any) -> ToyBank:
    bank = toy_bank(**options)
    bank.separate = separate
    bank.fit(images, seed=0)
    return bank


def distances(images: Sequence[InspectionImage], rows: Tensor) -> Tensor:
    return torch.cdist(patches_of(images).double(), rows.double()).amin(1).float()


@pytest.mark.parametrize("separate", [False, True])
def test_each_row_is_the_patch_that_its_origin_names(separate: bool) -> None:
    images = random_squares(20, seed=0)
    bank = fitted(images, separate, max_rows=100)
    rows, origin = bank.arrays["bank"], bank.arrays["origin"]
    assert rows.dtype == torch.float16 and origin.dtype == torch.int32
    assert len({tuple(o) for o in origin.tolist()}) == len(rows) == (20 * 5 if separate else 100)
    patches = patches_of(images).reshape(20, 8, 8, 3)
    assert torch.equal(rows, patches[*origin.long().T].half())
    blocks = (origin[:, 0] % patch_bank.BLOCKS).tolist()
    assert blocks == sorted(blocks)


def test_the_bank_keeps_its_share_of_all_patches_or_max_rows() -> None:
    images = random_squares(10, seed=0)
    assert len(fitted(images, share=0.25).arrays["bank"]) == 160
    bank = fitted(images, share=0.25, max_rows=7)
    assert len(bank.arrays["bank"]) == 7
    capped = ", the most it may have; a share of 0.25 would be 160"
    assert bank.facts["bank"] == "7 rows of 640 patches from 10 images" + capped
    assert bank.facts["search"] == "exact over 7 rows"


def test_of_few_images_each_contributes_the_same_number() -> None:
    bank = fitted(random_squares(6, seed=0), separate=True, max_rows=60)
    assert bank.arrays["origin"][:, 0].bincount().tolist() == [10] * 6
    assert len(fitted(random_squares(2, seed=0), separate=True).arrays["bank"]) == 128  # there are no more


def test_fitting_is_deterministic_and_depends_on_the_seed() -> None:
    images = random_squares(10, seed=0)
    one, other, again = toy_bank(), toy_bank(), toy_bank()
    one.fit(images, seed=1)
    again.fit(images, seed=1)
    other.fit(images, seed=2)
    assert all(torch.equal(one.arrays[name], again.arrays[name]) for name in one.arrays)
    assert not torch.equal(one.arrays["origin"], other.arrays["origin"])


@pytest.mark.parametrize("separate", [False, True])
def test_images_are_read_once_and_few_of_them_held(separate: bool) -> None:
    images = Read(31)
    bank = fitted(images, separate)
    assert images.read == [1] * 31
    assert images.alive <= 2 * patch_bank.BATCH
    assert bank.extractor.batches == [2] * 15 + [1]  # type: ignore[attr-defined]


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    bank = toy_bank(label="colours")
    bank.progress = lambda *what: told.append(what)
    bank.fit(random_squares(3, seed=0), seed=0)
    assert told == [("filling colours", 2, 3), ("filling colours", 3, 3)]


def test_the_map_is_the_smoothed_distance_to_the_nearest_row() -> None:
    bank = fitted(random_squares(20, seed=0), max_rows=50)
    (image,) = random_squares(1, seed=9, rows=6, cols=10)
    (score,) = bank.score([image])
    expected = distances([image], bank.arrays["bank"].float()).reshape(6, 10)
    np.testing.assert_allclose(score.evidence["distance"], expected, rtol=1e-4)
    np.testing.assert_allclose(
        score.anomaly_map, to_frame(smooth_map(expected, (48, 80), patch_bank.SIGMA), 48, 80), rtol=1e-4
    )
    assert score.scorer == "toy" and score.value == pytest.approx(float(expected.max()), rel=1e-5)
    nearest = torch.cdist(patches_of([image]), bank.arrays["bank"].float()).argmin(1)
    assert np.array_equal(score.evidence["neighbour"].reshape(-1, 3), bank.arrays["origin"][nearest].numpy())


def test_the_map_of_a_large_image_is_in_its_own_frame() -> None:
    bank = fitted(random_squares(20, seed=0))
    bank.extractor.size = lambda image: (32, 64)  # type: ignore[method-assign]
    (score,) = bank.score(random_squares(1, seed=9, rows=8, cols=16))
    small = smooth_map(torch.tensor(score.evidence["distance"]), (32, 64), patch_bank.SIGMA)
    np.testing.assert_allclose(score.anomaly_map, to_frame(small, 64, 128), rtol=1e-5)
    assert score.member_maps.shape == (patch_bank.MEMBERS, 8, 16)


def test_member_maps_are_blurred_like_the_map_but_on_the_grid_of_patches() -> None:
    bank = fitted(random_squares(1, seed=0))  # of one image, so that every member is the whole
    bank.extractor.size = lambda image: (32, 64)  # type: ignore[method-assign]
    (score,) = bank.score(random_squares(1, seed=9, rows=8, cols=16))
    expected = gaussian_blur(torch.tensor(score.evidence["distance"]), patch_bank.SIGMA / 4)
    for member in score.member_maps:
        np.testing.assert_allclose(member, expected, rtol=1e-3, atol=1e-4)


def test_a_member_is_the_bank_without_the_images_of_the_blocks_it_did_not_draw() -> None:
    bank = fitted(random_squares(40, seed=0), max_rows=200)
    (image,) = random_squares(1, seed=9)
    (score,) = bank.score([image])
    block = bank.arrays["origin"][:, 0] % patch_bank.BLOCKS
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(16, (patch_bank.MEMBERS, 16), generator=generator)
    assert (score.members >= np.float32(score.value)).all() and (score.members > score.value).any()
    for value, grid, blocks in zip(score.members, score.member_maps, drawn, strict=True):
        rows = bank.arrays["bank"][torch.isin(block, blocks)].float()
        expected = distances([image], rows).reshape(8, 8)
        assert value == pytest.approx(float(expected.max()), rel=1e-3)
        np.testing.assert_allclose(grid, gaussian_blur(expected, patch_bank.SIGMA / CELL), rtol=1e-2, atol=1e-3)


def test_members_of_a_single_image_agree_with_it() -> None:
    (score,) = fitted(random_squares(1, seed=0)).score(random_squares(1, seed=9))
    np.testing.assert_allclose(score.members, score.value, rtol=1e-3)


def test_a_score_does_not_depend_on_the_other_images() -> None:
    bank, images = fitted(random_squares(20, seed=0)), random_squares(3, seed=9)
    together = [score.value for score in bank.score(images)]
    assert together == [bank.score([image])[0].value for image in images]


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), left_out=st.sets(st.integers(0, 6), max_size=6))
def test_a_score_against_fewer_images_is_never_smaller(seed: int, left_out: set[int]) -> None:
    bank = fitted(random_squares(7, seed), separate=True, max_rows=70)
    rest = bank.without(sorted(left_out))
    assert not set(rest.arrays["origin"][:, 0].tolist()) & left_out
    assert len(rest.arrays["bank"]) == 10 * (7 - len(left_out)) and len(bank.arrays["bank"]) == 70
    for image in random_squares(3, seed + 5000):
        (against_all,), (against_some,) = bank.score([image]), rest.score([image])
        assert against_some.value >= against_all.value
        assert (against_some.evidence["distance"] >= against_all.evidence["distance"]).all()


def test_an_image_left_out_is_new_to_the_rest() -> None:
    images = random_squares(4, seed=0)
    bank = fitted(images, separate=True)
    assert bank.score([images[2]])[0].value == pytest.approx(0, abs=1e-3)  # rounding to half precision
    assert bank.without([2]).score([images[2]])[0].value > 0.03


def test_what_cannot_be_left_out() -> None:
    images = random_squares(3, seed=0)
    with pytest.raises(ValueError, match="toy chose its rows from all images together: set `separate` before fit"):
        fitted(images).without([0])
    with pytest.raises(ValueError, match="a bank needs an image, but all 3 were left out"):
        fitted(images, separate=True).without([0, 1, 2])


@pytest.mark.parametrize("separate", [False, True])
def test_a_loaded_bank_scores_as_the_fitted_one_did(separate: bool) -> None:
    bank = fitted(random_squares(20, seed=0), separate)
    arrays, facts = bank.state()
    other = toy_bank()
    other.fit(random_squares(2, seed=3), seed=0)
    images = random_squares(3, seed=9)
    other.score(images)
    other.separate = separate
    other.load(arrays, facts)
    for one, again in zip(bank.score(images), other.score(images), strict=True):
        assert one.value == again.value
        assert np.array_equal(one.anomaly_map, again.anomaly_map) and np.array_equal(one.members, again.members)
    assert other.facts == bank.facts


def test_a_refit_forgets_the_first_bank() -> None:
    bank = fitted(random_squares(20, seed=0))
    images = random_squares(3, seed=1)
    bank.score(images)
    bank.fit(images, seed=0)
    assert bank.score([images[0]])[0].evidence["neighbour"][..., 0].max() < 3


def test_nothing_is_scored_before_fit() -> None:
    with pytest.raises(NotFittedError, match="toy"):
        toy_bank().score(random_squares(1, seed=0))


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_features_beyond_half_precision_are_refused(value: float) -> None:
    bank = toy_bank()
    bank.patches = lambda image: torch.full((3, 4, 4), value)  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="toy: features of mean colours are not finite, or larger than"):
        bank.fit(random_squares(2, seed=0), seed=0)


def test_extending_by_what_is_known_adds_nothing() -> None:
    images = random_squares(10, seed=0)
    bank = fitted(images)
    before = bank.arrays["bank"]
    bank.extend(images, seed=0)
    # the greedy choice left no patch of these images farther than its rows lie apart
    assert torch.equal(bank.arrays["bank"].sort(0).values, before.sort(0).values)
    assert bank.facts["extended"].startswith("0 rows of 10 further images")


def test_an_extended_bank_covers_new_images_as_it_covers_the_old_ones() -> None:
    old = random_squares(20, seed=0, spread=15)
    bank = fitted(old)
    radius = nearest_pair(bank.arrays["bank"].float())
    assert float(distances(old, bank.arrays["bank"]).max()) <= radius * 1.01
    rng = np.random.default_rng(0)
    new = [squares(np.clip(rng.normal((220, 60, 60), 4, (8, 8, 3)), 0, 255)) for _ in range(5)]
    before = len(bank.arrays["bank"])
    assert float(distances(new, bank.arrays["bank"]).min()) > radius
    bank.extend(new, seed=0)
    rows, origin = bank.arrays["bank"], bank.arrays["origin"]
    added = origin[:, 0] >= 20
    assert before < len(rows) == before + int(added.sum()) <= before + 5 * 6
    assert set(origin[added, 0].tolist()) <= {20, 21, 22, 23, 24}
    assert float(distances(new, rows).max()) <= radius * 1.01
    # only what lies farther than the radius was taken, from the bank and from one another
    assert nearest_pair(rows.float()) >= radius * 0.99
    patches = patches_of([*old, *new]).reshape(25, 8, 8, 3)
    assert torch.equal(rows, patches[*origin.long().T].half())
    assert bank.arrays["counts"].tolist() == [25, 25 * 64]
    assert bank.facts["bank"] == f"{len(rows):,} rows of 1,600 patches from 25 images"
    assert bank.facts["extended"] == (
        f"{len(rows) - before} rows of 5 further images, those farther than {radius:.4g} from every row"
    )


def test_a_new_image_adds_its_share_at_most() -> None:
    bank = fitted(random_squares(20, seed=0, spread=2.0))
    before = len(bank.arrays["bank"])
    bank.extend(random_squares(1, seed=5, spread=60.0), seed=0)
    assert len(bank.arrays["bank"]) == before + round(0.1 * 64)


def test_numbers_go_on_through_several_extensions() -> None:
    bank = fitted(random_squares(4, seed=0, spread=2.0))
    bank.extend(random_squares(2, seed=1, spread=30.0), seed=0)
    bank.extend(random_squares(2, seed=2, spread=60.0), seed=0)
    assert int(bank.arrays["origin"][:, 0].max()) in (6, 7)
    assert bank.arrays["counts"].tolist() == [8, 8 * 64]
    assert bank.facts["extended"].count("further images") == 2
    neighbour = bank.score(random_squares(1, seed=2, spread=60.0))[0].evidence["neighbour"]
    assert 6 in neighbour[..., 0]


def test_an_extended_bank_stays_within_max_rows() -> None:
    bank = fitted(random_squares(10, seed=0, spread=2.0), max_rows=60)
    bank.extend(random_squares(10, seed=1, spread=60.0), seed=0)
    assert len(bank.arrays["bank"]) == 60
    assert {number >= 10 for number in bank.arrays["origin"][:, 0].tolist()} == {True, False}


def test_few_images_extend_each_by_itself() -> None:
    bank = fitted(random_squares(4, seed=0), separate=True, max_rows=40)
    grown = bank.extended(random_squares(2, seed=1), seed=0)
    assert grown.arrays["origin"][:, 0].bincount().tolist() == [10] * 6
    assert bank.arrays["origin"][:, 0].bincount().tolist() == [10] * 4
    back = grown.without([4, 5])
    image = random_squares(1, seed=9)
    assert back.score(image)[0].value == bank.score(image)[0].value


def test_the_card_says_what_the_bank_is() -> None:
    card = fitted(random_squares(4, seed=0), label="colours").card()
    assert (card.name, card.family, card.weights) == ("colours", "memory bank", "none")
    assert card.facts["features"] == "mean colours, layers 0"


def test_a_backbone_without_gradients_is_refused_by_name() -> None:
    bank = fitted(random_squares(2, seed=0))
    image = random_squares(1, seed=5)[0]
    with pytest.raises(NotExplainableError, match="toy: no gradients can be taken through mean colours"):
        bank.pixel_function(image, bank.score([image])[0], image)
