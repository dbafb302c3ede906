"""Adaptation to a product: what a step sees, what it may cost, and when its result is not used."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from patterned import normal_pictures, pattern, picture, random_backbone
from torch import Tensor, nn

from explainvad.detection.backbone import adaptation
from explainvad.detection.backbone.adaptation import NORMAL, SAME_PLACE, SHIFT, TEST, TIMED, adapt, bf16_pays
from explainvad.detection.backbone.embedded import EmbeddedBackbone
from explainvad.detection.backbone.network import Architecture
from explainvad.detection.synthesis.dice import Dice
from explainvad.types import InspectionImage

HOUR = 60.0
IMAGES = normal_pictures(10)


@pytest.fixture
def small_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not look at what the held-out check finds."""
    monkeypatch.setattr(adaptation, "BANK", 1000)


@pytest.fixture
def as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops of a batch are those of their frames, and nothing is blended into them."""

    def untouched(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
        return picture, torch.zeros(picture.shape[1:], dtype=torch.bool)

    monkeypatch.setattr(adaptation, "relight", lambda dice, picture, strength: picture)
    monkeypatch.setattr(adaptation, "blend_defects", untouched)


def judged(*aurocs: float) -> Callable[..., float]:
    """Stands in for the held-out check: these values, one after the other."""
    values = iter(aurocs)
    return lambda *_: next(values)


def weights(backbone: EmbeddedBackbone) -> list[Tensor]:
    return [tensor.clone() for tensor in backbone.network.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- What comes out


def test_the_same_images_and_seed_give_the_same_weights(small_bank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for seed in (5, 5, 6):
        torch.rand(seed)  # what was drawn before must not matter
        with monkeypatch.context() as patch:
            patch.setattr(adaptation, "_held_out_auroc", judged(0.0, 1.0))
            runs.append(weights(adapt(random_backbone(), IMAGES, steps=2, minutes=HOUR, seed=seed)))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_adaptation_makes_new_weights_and_leaves_the_old_backbone_as_it_was(
    small_bank: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "_held_out_auroc", judged(0.9, 0.95))
    backbone = random_backbone()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    before, features = weights(backbone), backbone.features(IMAGES[0])
    adapted = adapt(backbone, IMAGES, steps=3, minutes=HOUR, seed=0)
    assert same(weights(backbone), before)
    assert not any(p.requires_grad for p in (*backbone.network.parameters(), *adapted.network.parameters()))
    assert not backbone.network.training and not adapted.network.training
    for old, new in zip(before, weights(adapted), strict=True):
        assert torch.equal(new, new.half().float())
        assert old.shape == new.shape
    assert not torch.allclose(adapted.features(IMAGES[0]), features, atol=1e-3)
    assert adapted.resolution == backbone.resolution
    assert adapted.weights == "random, seed 0; adapted"
    assert adapted.facts == {
        "adaptation": f"3 steps on 8 reference images, {'bf16' if bf16_pays('cpu') else 'fp32'}",
        "blended defects on held-out normals": "cell AUROC 0.900 before, 0.950 after adaptation, 2 images; "
        "adapted weights in use",
    }


@pytest.mark.parametrize(("after", "kept"), [(0.8, True), (0.79, False)])
def test_a_result_that_does_worse_on_held_out_images_is_not_used(
    after: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "_held_out_auroc", judged(0.8, after))
    backbone = random_backbone()
    used = adapt(backbone, IMAGES, steps=2, minutes=HOUR, seed=0)
    image = normal_pictures(1, first=50)[0]
    assert torch.equal(used.features(image), backbone.features(image)) is not kept
    assert used.weights.endswith("; adapted") is kept
    said = used.facts["blended defects on held-out normals"]
    assert said.endswith("adapted weights in use" if kept else "shipped weights in use")
    assert f"0.800 before, {after:.3f} after" in said


def test_training_lowers_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    def recorded(*arguments: object) -> float:
        losses.append(step(*arguments))  # type: ignore[arg-type]
        return losses[-1]

    losses: list[float] = []
    step = adaptation.training_step
    monkeypatch.setattr(adaptation, "training_step", recorded)
    monkeypatch.setattr(adaptation, "_held_out_auroc", judged(0.0, 1.0))
    adapt(random_backbone(1), IMAGES, steps=30, minutes=HOUR, seed=1)
    assert np.mean(losses[-6:]) < 0.85 * np.mean(losses[:6])


@pytest.mark.parametrize(("count", "held_out"), [(8, 2), (12, 2), (20, 4)])
def test_the_last_fifth_of_the_images_is_kept_out_of_the_training_and_judges_it(
    count: int, held_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(network: nn.Module, frames: list[Tensor], *_: object) -> int:
        seen.append((frames, None))
        return 1

    def checked(backbone: EmbeddedBackbone, train: list[Tensor], check: list[Tensor], side: int, seed: int) -> float:
        seen.append((train, check))
        return 0.5

    seen: list[tuple[list[Tensor], list[Tensor] | None]] = []
    monkeypatch.setattr(adaptation, "_train", trained)
    monkeypatch.setattr(adaptation, "_held_out_auroc", checked)
    backbone, images = random_backbone(), normal_pictures(count)
    adapt(backbone, images, steps=1, minutes=HOUR, seed=0)
    frames = [backbone.working_frame(image) for image in images]
    for train, check in seen:
        assert same(train, frames[:-held_out])
        assert check is None or same(check, frames[-held_out:])
    assert [check is None for _, check in seen] == [False, True, False]


# --- What it may cost


def clock(each: float, first: float = 0.0) -> SimpleNamespace:
    """A clock that is read at each of the first steps, and no more; a step takes ``each`` seconds, the first one more.

    The stopwatch of the whole shows 0, then 95 s.
    """
    times, whole = iter([0.0, *(first + each * i for i in range(1, TIMED + 1))]), iter((0.0, 95.4))
    return SimpleNamespace(perf_counter=lambda: next(times), monotonic=lambda: next(whole))


@pytest.mark.parametrize(
    ("minutes", "done"),
    [(0.5, 3 * TIMED), (1 / 6000, TIMED + 1), (HOUR, 4 * TIMED)],  # TIMED steps take 10 s
)
def test_a_time_budget_cuts_the_steps_and_the_facts_say_so(
    minutes: float, done: int, small_bank: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "training_step", lambda *_: 0.0)
    monkeypatch.setattr(adaptation, "time", clock(10.0 / TIMED, first=40.0))
    told: list[tuple[int, int]] = []
    steps = 4 * TIMED
    adapted = adapt(
        *(random_backbone(), IMAGES), steps=steps, minutes=minutes, seed=0, progress=lambda _, *step: told.append(step)
    )
    cut = f" of {steps}, cut by the time budget" if done < steps else ""
    assert adapted.facts["adaptation"].startswith(f"{done} steps{cut} on 8 reference images, ")
    expected = steps if done == steps else done
    assert told == [(i + 1, steps if i < TIMED else expected) for i in range(done)]


def test_so_few_steps_are_not_timed(small_bank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "time", clock(1.0))
    adapted = adapt(random_backbone(), IMAGES, steps=1, minutes=1e-9, seed=0)
    assert adapted.facts["adaptation"].startswith("1 steps on 8 reference images, ")
    assert adapted.facts["adaptation"].endswith(", in 95 s")


def test_what_must_be_the_same_bytes_again_names_no_seconds(small_bank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    adapted = adapt(random_backbone(), IMAGES, steps=1, minutes=HOUR, seed=0)
    assert " s" not in adapted.facts["adaptation"].removeprefix("1 steps")


def test_the_rate_falls_to_its_end_within_the_budget(small_bank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    monkeypatch.setattr(adaptation, "training_step", lambda *_: 0.0)
    monkeypatch.setattr(adaptation, "set_learning_rate", lambda _, rate: rates.append(rate))
    monkeypatch.setattr(adaptation, "time", clock(1.0 / TIMED))
    adapt(random_backbone(), IMAGES, steps=10_000, minutes=8 / 60, seed=0)
    assert len(rates) == 8 * TIMED
    assert rates[-1] < 0.05 * adaptation.LEARNING_RATE < max(rates) <= adaptation.LEARNING_RATE
    assert all(rate > 0 for rate in rates)


def test_random_numbers_and_threads_are_given_back(small_bank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class StoppedError(Exception):
        pass

    def stopped(what: str, done: int, of: int) -> None:
        threads.append(torch.get_num_threads())
        if done == 2:
            raise StoppedError

    threads: list[int] = []
    state, before = torch.get_rng_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        adapt(random_backbone(), IMAGES, steps=1, minutes=HOUR, seed=0, progress=stopped)
        assert torch.get_num_threads() == 3
        with pytest.raises(StoppedError):
            adapt(random_backbone(), IMAGES, steps=9, minutes=HOUR, seed=0, progress=stopped)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 1, 1]
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_is_for_gpus_and_cpus_with_matrix_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for tiles in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda tiles=tiles: tiles)
        assert bf16_pays("cpu") is tiles
        assert bf16_pays("cuda") and bf16_pays("cuda:1")


# --- What a step sees


def numbered(count: int, side: int) -> list[Tensor]:
    """Frames (3, side, side) whose pixels tell their row, their column and the frame's number."""
    place = torch.arange(side, dtype=torch.uint8)
    return [
        torch.stack((place[:, None].expand(side, side), place.expand(side, side), torch.full((side, side), i).byte()))
        for i in range(count)
    ]


def origin(crops: Tensor) -> list[tuple[int, int, int]]:
    """Top, left and frame of crops (n, 3, s, s) of numbered frames, mirrored or not."""
    return [tuple((255 * crop.amin((1, 2))).round().int().tolist()) for crop in crops]


def test_test_crops_come_from_other_images_than_the_normal_ones(as_they_are: None) -> None:
    frames = numbered(7, 90)
    roles: list[set[int]] = [set(), set()]
    for step in range(20):
        normal, test, mask = adaptation._batch(Dice(3, step), frames, 48)
        assert normal.shape == (NORMAL, 3, 48, 48) and test.shape == (TEST, 3, 48, 48)
        assert mask.shape == (TEST, 48, 48) and mask.dtype == torch.bool
        assert normal.dtype == test.dtype == torch.float32
        normals, tested = ({frame for *_, frame in origin(crops)} for crops in (normal, test))
        assert not normals & tested
        assert len(tested) <= 2 and len(normals) <= 5
        for role, seen in zip(roles, (normals, tested), strict=True):
            role |= seen
    assert roles == [set(range(7))] * 2  # each image takes both roles


def test_some_normal_crops_lie_where_a_test_crop_does_and_others_anywhere(as_they_are: None) -> None:
    frames, paired = numbered(4, 200), round(SAME_PLACE * NORMAL)
    far = 0
    for step in range(10):
        normal, test, _ = adaptation._batch(Dice(4, step), frames, 48)
        away = [
            max(abs(a - b) for a, b in zip(one[:2], other[:2], strict=True))
            for one, other in zip(origin(normal), origin(test) * NORMAL, strict=False)
        ]
        assert max(away[:paired]) <= SHIFT + 1
        assert max(away[:paired]) > 0
        far += sum(a > SHIFT + 1 for a in away[paired:])
    assert far > 0.7 * 10 * (NORMAL - paired)


def test_crops_reach_every_place_of_their_frames_and_no_other(as_they_are: None) -> None:
    frames = numbered(2, 100)
    places = [place for step in range(40) for place in origin(adaptation._batch(Dice(5, step), frames, 64)[0])]
    for axis in (0, 1):
        seen = {place[axis] for place in places}
        assert min(seen) == 0 and max(seen) == 36 and len(seen) > 30


def test_masks_lie_where_pictures_were_altered(as_they_are: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def whitened(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
        """Upper left."""
        mask = torch.zeros(picture.shape[1:], dtype=torch.bool)
        mask[: 4 + dice.integer(20), : 4 + dice.integer(20)] = True
        return torch.where(mask, 1.0, picture), mask

    monkeypatch.setattr(adaptation, "blend_defects", whitened)
    mirrored = set()
    for step in range(12):
        normal, test, mask = adaptation._batch(Dice(6, step), numbered(5, 80), 48)
        assert torch.equal((test == 1).all(1), mask)
        assert not (normal == 1).all(1).any()
        assert mask[:, 0].any(1).all() and not mask[:, -1].any()
        left, right = mask[:, :, 0].any(1).all(), mask[:, :, -1].any(1).all()
        assert left != right
        mirrored.add(bool(right))
        # the normal crops are mirrored as the test crops are: columns rise to the right, or fall
        for crops in (normal, torch.where(mask[:, None], 0.0, test)):
            assert ((crops[:, 1, -1, -1] < crops[:, 1, -1, 0]) == right).all()
    assert mirrored == {True, False}


def test_the_donor_of_a_defect_is_the_next_test_crop(as_they_are: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def recorded(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((picture, donor))
        return picture, torch.zeros(picture.shape[1:], dtype=torch.bool)

    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(adaptation, "blend_defects", recorded)
    adaptation._batch(Dice(7), numbered(5, 80), 48)
    assert len(seen) == TEST
    pictures, donors = (origin(torch.stack(crops)) for crops in zip(*seen, strict=True))
    assert donors == [*pictures[1:], pictures[0]]


def test_added_light_is_weak_and_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def lit(dice: Dice, picture: Tensor, strength: float) -> Tensor:
        strengths.append(strength)
        return picture + 5 * strength

    def recorded(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
        pictures.append(picture)
        return picture, torch.zeros(picture.shape[1:], dtype=torch.bool)

    strengths: list[float] = []
    pictures: list[Tensor] = []
    monkeypatch.setattr(adaptation, "relight", lit)
    monkeypatch.setattr(adaptation, "blend_defects", recorded)
    normal, *_ = adaptation._batch(Dice(7), numbered(5, 80), 48)
    assert len(strengths) == NORMAL + TEST
    assert 0 <= min(strengths) < max(strengths) <= adaptation.LIGHT
    assert normal.max() == 1  # what is too bright is clipped
    assert torch.stack(pictures).max() == 1  # and lit before defects are blended in


def test_blended_defects_of_real_pictures_are_where_the_masks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "relight", lambda dice, picture, strength: picture)
    frames = [torch.full((3, 64, 64), 40 * i, dtype=torch.uint8) for i in range(1, 6)]
    _, test, mask = adaptation._batch(Dice(8), frames, 48)
    plain = test.flatten(2).median(2).values[:, :, None, None]
    altered = (test - plain).abs().amax(1) > 0.005
    assert mask.any()
    near = F.max_pool2d(altered.float()[:, None], 5, stride=1, padding=2)[:, 0] > 0
    assert not (mask & ~near).any()


# --- Frames of any size


def test_small_frames_are_padded_by_repeating_their_border() -> None:
    frame = torch.arange(3 * 2 * 3, dtype=torch.uint8).reshape(3, 2, 3)
    padded = adaptation._at_least(frame, 4)
    assert padded.shape == (3, 4, 4) and padded.dtype == torch.uint8
    assert padded[0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert torch.equal(padded[:, :2, :3], frame)
    assert torch.equal(adaptation._at_least(frame, 2), frame)


def sized(*sizes: tuple[int, int]) -> list[InspectionImage]:
    return [picture(pattern(i, *size)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("images", "side"),
    [
        (sized(*[(64, 64)] * 6), 64),
        (sized(*[(16, 16)] * 6), 32),  # the smallest working frame
        (sized(*[(160, 200)] * 6), 128),
        (sized((16, 64), (64, 64), (48, 64), (64, 16), (64, 64), (32, 48)), 64),
    ],
)
def test_crops_are_as_large_as_the_frames_allow(
    images: list[InspectionImage], side: int, small_bank: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded(network: nn.Module, *rest: object) -> float:
        shapes.append([tuple(t.shape) for t in rest if isinstance(t, Tensor)])
        return 0.0

    shapes: list[list[tuple[int, ...]]] = []
    monkeypatch.setattr(adaptation, "SIDE", 128)
    monkeypatch.setattr(adaptation, "training_step", recorded)
    adapt(random_backbone(resolution=256), images, steps=1, minutes=HOUR, seed=0)
    assert shapes == [[(1, NORMAL, 3, side, side), (1, TEST, 3, side, side), (1, TEST, side, side)]]


def test_the_smallest_pictures_are_adapted_to(small_bank: None) -> None:
    adapted = adapt(random_backbone(), sized(*[(16, 16)] * 8), steps=2, minutes=HOUR, seed=0)
    assert adapted.features(sized((16, 16))[0]).isfinite().all()


# --- The held-out check


class Colours(nn.Module):
    """Features: a cell's mean colour; ``blind`` ones are all alike."""

    architecture = Architecture(width=3, dimension=3)

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.blind = blind

    def forward(self, images: Tensor) -> Tensor:
        cells = F.avg_pool2d(images, 8)
        return torch.zeros_like(cells) if self.blind else cells


def check(blind: bool = False, train: int = 100, checked: int = 100) -> float:
    """The check on frames of two greys."""
    backbone = EmbeddedBackbone(Colours(blind), 64, "none")  # type: ignore[arg-type]
    train_frames, check_frames = ([torch.full((3, 64, 64), grey).byte()] * 3 for grey in (train, checked))
    return adaptation._held_out_auroc(backbone, train_frames, check_frames, 64, 0)


def test_the_check_by_hand(small_bank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def blackened(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
        """The upper left cells."""
        mask = torch.zeros(picture.shape[1:], dtype=torch.bool)
        mask[:16, :16] = True
        altered.append(mask)
        return torch.where(mask, 0.0, picture), mask

    altered: list[Tensor] = []
    monkeypatch.setattr(adaptation, "blend_defects", blackened)
    assert check() == 1  # black is far from the bank, and all else lies in it
    assert len(altered) == adaptation.CHECKS // 2
    assert check(blind=True) == 0.5
    assert check(train=0) == 0  # a bank of the training images alone: there black is normal, and grey is not


def test_uncertain_cells_are_left_out_of_the_check(small_bank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def smudged(dice: Dice, picture: Tensor, donor: Tensor) -> tuple[Tensor, Tensor]:
        """A defective cell, and one that is darker still but has 2 of 64 px in the mask."""
        mask = torch.zeros(picture.shape[1:], dtype=torch.bool)
        mask[:8, :8], mask[8:9, 8:10] = True, True
        altered = picture.clone()
        altered[:, :8, :8], altered[:, 8:16, 8:16] = 0.2, 0.0
        return altered, mask

    monkeypatch.setattr(adaptation, "blend_defects", smudged)
    assert check() == 1


def test_without_any_visible_defect_the_check_is_undecided(as_they_are: None, small_bank: None) -> None:
    assert check() == 0.5


def test_the_check_is_the_same_before_and_after(small_bank: None) -> None:
    backbone = random_backbone()
    frames = [backbone.working_frame(image) for image in IMAGES]
    first, again, other = (adaptation._held_out_auroc(backbone, frames[:8], frames[8:], 64, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert 0.6 < first < 1
    assert np.isfinite(other)
