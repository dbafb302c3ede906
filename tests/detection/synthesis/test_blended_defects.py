"""Every kind of defect: seeded, within its place, and called a defect only where somebody could see it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.synthesis.defects import KINDS, VISIBLE, _shifted, blend_defects
from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.items import FAMILIES

SIDE = 80
SEEDS = range(40)


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    """One of each family."""
    return [make(Dice(3, i), SIDE).clamp(0, 1) for i, make in enumerate(FAMILIES.values())]


def grown(place: Tensor, by: int) -> Tensor:
    """A mask (n, n) and all within ``by`` px of it."""
    return F.max_pool2d(place.float()[None], 2 * by + 1, stride=1, padding=by)[0] > 0


def change(before: Tensor, after: Tensor) -> Tensor:
    """Largest change (n, n) of any channel."""
    return (after - before).abs().amax(0)


def largest(values: Tensor) -> float:
    return max(values.flatten().tolist(), default=0.0)


def plain(level: float = 0.5) -> Tensor:
    return torch.full((3, SIDE, SIDE), level)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_has_the_form_of_its_picture_and_a_cover(kind: str, pictures: list[Tensor]) -> None:
    for seed in SEEDS:
        before, donor = pictures[seed % 9], pictures[(seed + 4) % 9]
        kept = before.clone()
        after, cover = KINDS[kind](Dice(seed), before, donor)
        assert after.shape == before.shape and after.dtype == torch.float32
        assert after.isfinite().all()
        assert cover.shape == (SIDE, SIDE)
        assert cover.min() >= 0 and cover.max() <= 1
        assert torch.equal(before, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_its_seed_decides_a_defect(kind: str, pictures: list[Tensor]) -> None:
    first, again, other = (KINDS[kind](Dice(seed), pictures[6], pictures[2]) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


@pytest.mark.parametrize("kind", KINDS)
def test_far_from_its_cover_a_defect_changes_nothing(kind: str, pictures: list[Tensor]) -> None:
    seen = 0
    for seed in SEEDS:
        before = pictures[seed % 9]
        after, cover = KINDS[kind](Dice(seed, 1), before, pictures[(seed + 4) % 9])
        near = grown(cover > 0.02, 12)
        assert largest(change(before, after)[~near]) < VISIBLE / 2
        seen += not near.all() and largest(change(before, after)[near]) > VISIBLE
    assert seen > 20


def test_a_field_that_is_moved_does_not_come_back_on_the_other_side() -> None:
    field = torch.arange(1.0, 10).reshape(3, 3)
    assert _shifted(field, 0, 1).tolist() == [[0, 1, 2], [0, 4, 5], [0, 7, 8]]
    assert _shifted(field, -1, -2).tolist() == [[6, 0, 0], [9, 0, 0], [0, 0, 0]]
    assert torch.equal(_shifted(field, 0, 0), field)


def test_the_rim_of_a_scratch_belongs_to_it() -> None:
    rims = 0
    for seed in range(100):
        after, cover = KINDS["scratch"](Dice(seed), plain(), plain())
        difference = after - plain()
        assert (difference.abs() <= 0.5 * cover + 1e-6).all()  # a plain ground gets a contrast of 0.5 at most
        rims += bool(difference.max() > VISIBLE and difference.min() < -VISIBLE)
    assert rims > 20


@pytest.mark.parametrize("kind", ["dent", "broken_edge"])
def test_shading_and_fracture_lines_belong_to_the_mask(kind: str) -> None:
    for seed in SEEDS:
        after, cover = KINDS[kind](Dice(seed), plain(), plain())
        assert ((cover == 0) | (cover == 1)).all()
        assert largest(change(plain(), after)[cover == 0]) < 1.5 * VISIBLE


@pytest.mark.parametrize("kind", KINDS)
def test_most_defects_can_be_seen_and_their_masks_lie_where_they_are(kind: str, pictures: list[Tensor]) -> None:
    found, seeds = 0, range(150)
    for seed in seeds:
        before, donor = pictures[seed % 9], pictures[(seed + 4) % 9]
        after, mask = blend_defects(Dice(seed), before, donor, (kind,))
        assert after.shape == before.shape and after.min() >= 0 and after.max() <= 1
        assert mask.shape == (SIDE, SIDE) and mask.dtype == torch.bool
        assert not (mask & ~grown(change(before, after) > VISIBLE, 2)).any()  # 2 px: a pixel's neighbourhood
        found += bool(mask.any())
    assert found >= 0.7 * len(seeds)


@pytest.mark.parametrize("kind", ["warped", "missing"])
def test_what_cannot_be_seen_is_no_defect(kind: str) -> None:
    # Bending a plain ground shows nothing, nor does smearing it, unless it takes another brightness
    empty = 0
    for seed in SEEDS:
        after, mask = blend_defects(Dice(seed), plain(), plain(), (kind,))
        assert mask.any() == (change(plain(), after).max() > VISIBLE)
        empty += not mask.any()
    assert (empty == len(SEEDS)) if kind == "warped" else (0 < empty < len(SEEDS))


def test_darkening_black_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def shadow(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
        return picture - 0.3, torch.ones(picture.shape[1:])

    monkeypatch.setitem(KINDS, "shadow", shadow)
    after, mask = blend_defects(Dice(0), plain(0.0), plain(), ("shadow",))
    assert torch.equal(after, plain(0.0)) and not mask.any()
    after, mask = blend_defects(Dice(0), plain(1.0), plain(), ("shadow",))
    assert after.max() < 0.71 and mask.all()


def test_on_texture_it_takes_more_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def brighter(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
        return picture + 0.08, torch.ones(picture.shape[1:])

    monkeypatch.setitem(KINDS, "brighter", brighter)
    stripes = plain(0.1)
    stripes[..., ::2] = 0.9  # deviation 0.4, which adds 0.1 to VISIBLE
    for picture, seen in ((plain(), True), (stripes, False)):
        mask = next(  # of a seed that draws one defect
            mask
            for after, mask in (blend_defects(Dice(seed), picture, plain(), ("brighter",)) for seed in range(50))
            if largest(change(picture, after)) < 0.1
        )
        assert mask.all() if seen else not mask.any()


def test_the_mask_needs_both_cover_and_change(monkeypatch: pytest.MonkeyPatch) -> None:
    def halves(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
        """Brightens the upper half, and covers the left one."""
        after, cover = picture.clone(), torch.zeros(picture.shape[1:])
        after[:, : SIDE // 2] = 0.9
        cover[:, : SIDE // 2] = 1.0
        return after, cover

    monkeypatch.setitem(KINDS, "halves", halves)
    mask = blend_defects(Dice(0), plain(), plain(), ("halves",))[1]
    expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    expected[: SIDE // 2 + 2, : SIDE // 2] = True  # the change is a mean over 5 x 5 px: it reaches 2 px further
    assert torch.equal(mask, expected)


def test_one_to_three_defects_of_the_asked_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    for name in list(KINDS):

        def recorded(dice: Dice, picture: Tensor, donor: Tensor, name: str = name) -> tuple[Tensor, Tensor]:
            drawn.append(name)
            return picture, torch.zeros(picture.shape[1:])

        monkeypatch.setitem(KINDS, name, recorded)
    counts = []
    for seed in range(200):
        drawn.clear()
        blend_defects(Dice(seed), plain(), plain(), ("pit", "dent"))
        assert set(drawn) <= {"pit", "dent"}
        counts.append(len(drawn))
    assert [counts.count(n) > 20 for n in (1, 2, 3)] == [True] * 3
    assert set(counts) == {1, 2, 3}
    for count in (1, 2, 5):
        drawn.clear()
        blend_defects(Dice(count), plain(), plain(), count=count)
        assert len(drawn) == count
    drawn.clear()
    for seed in range(200):
        blend_defects(Dice(seed), plain(), plain())
    assert set(drawn) == set(KINDS)
