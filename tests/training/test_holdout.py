"""Hold-out scores of features whose AUROC is known beforehand."""

from __future__ import annotations

import math
import warnings

import pytest
import tiny_training
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from explainvad.detection.backbone.network import Architecture, HybridBackbone
from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.items import Item
from explainvad.training import holdout
from explainvad.training.holdout import NORMAL_CROPS, TEST_CROPS, HoldoutScore, holdout_scores


class Brightness(nn.Module):
    """Unit features that turn with a cell's brightness; ``blind`` ones never turn."""

    architecture = Architecture(dimension=2)

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.0 if blind else 1.0))
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.modes.append(self.training)
        angle = self.gain * F.avg_pool2d(images.mean(1, keepdim=True), 8)
        return torch.cat((angle.cos(), angle.sin()), dim=1)


def squares(dice: Dice, family: str, *, normal: int, test: int, side: int) -> Item:
    """Grey crops; the first test crop is intact, and the others have a defective cell that is brighter."""
    grey = 0.2 + 0.1 * dice.rand(1).item() * torch.ones(normal + test, 3, side, side)
    mask = torch.zeros(test, side, side, dtype=torch.bool)
    mask[1:, 8:16, 8:16] = True
    crops = grey[normal:].clone()
    crops[mask[:, None].expand_as(crops)] += 0.3
    return Item(grey[:normal], crops, mask, family)


@pytest.mark.parametrize(("blind", "expected"), [(False, 1.0), (True, 0.5)])
def test_features_that_tell_and_features_that_do_not(
    blind: bool, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdout, "make_item", squares)
    scores = holdout_scores(Brightness(blind), ("lattice", "strata"), 3, 32)  # type: ignore[arg-type]
    assert scores == dict.fromkeys(("lattice", "strata"), HoldoutScore(expected, expected, expected))


def test_uncertain_cells_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def smudged(dice: Dice, family: str, **sizes: int) -> Item:
        item = squares(dice, family, **sizes)
        item.mask[0, 0, :2] = True  # 2 of 64 px: neither normal nor defective
        item.test[0, :, :8, :8] += 0.2  # would rank above normal cells if it counted as one
        return item

    monkeypatch.setattr(holdout, "make_item", smudged)
    score = holdout_scores(Brightness(), ("lattice",), 3, 32)["lattice"]  # type: ignore[arg-type]
    assert (score.pooled, score.within) == (1.0, 1.0)


@pytest.mark.parametrize("every", [True, False])
def test_an_auroc_without_one_of_the_classes_is_nan_and_no_warning(
    every: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_class(dice: Dice, family: str, **sizes: int) -> Item:
        item = squares(dice, family, **sizes)
        item.mask[:] = every
        return item

    monkeypatch.setattr(holdout, "make_item", one_class)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score = holdout_scores(Brightness(), ("lattice",), 2, 32)["lattice"]  # type: ignore[arg-type]
    assert all(math.isnan(value) for value in (score.pooled, score.within, score.crop))


def test_a_surface_without_defects_does_not_spoil_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def intact_first(dice: Dice, family: str, **sizes: int) -> Item:
        item = squares(dice, family, **sizes)
        numbers.append(len(numbers))
        return item if numbers[-1] else Item(item.normal, item.normal[:TEST_CROPS], item.mask & False, family)

    numbers: list[int] = []
    monkeypatch.setattr(holdout, "make_item", intact_first)
    score = holdout_scores(Brightness(), ("lattice",), 3, 32)["lattice"]  # type: ignore[arg-type]
    assert score == HoldoutScore(1.0, 1.0, 1.0)


def test_surfaces_are_pooled_but_also_judged_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def uneven(dice: Dice, family: str, **sizes: int) -> Item:
        """Every other surface is so loud that its normal cells differ more than the others' defects."""
        item = squares(dice, family, **sizes)
        numbers.append(len(numbers))
        if numbers[-1] % 2:
            item.test[:, :, 16:] += 0.35
            item.test[1:, :, 8:16, 8:16] += 0.5
        return item

    numbers: list[int] = []
    monkeypatch.setattr(holdout, "make_item", uneven)
    score = holdout_scores(Brightness(), ("lattice",), 4, 32)["lattice"]  # type: ignore[arg-type]
    # Of each 48 cells 2 are defective; those of a quiet surface lie below the 24 loud cells of a loud one
    defects, normal, loud = 4 + 4, 4 * 46, 2 * 24
    assert score.within == 1.0
    assert score.pooled == pytest.approx(1 - 4 * loud / (defects * normal))


def test_held_out_items_are_the_same_in_every_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def recorded(dice: Dice, family: str, **sizes: int) -> Item:
        seen.append((family, dice.rand().item(), *sizes.values()))
        return squares(dice, family, **sizes)

    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(holdout, "make_item", recorded)
    for _ in range(2):
        holdout_scores(Brightness(), ("lattice", "strata"), 2, 32)  # type: ignore[arg-type]
    assert seen[:4] == seen[4:]
    assert len({draw for _, draw, *_ in seen}) == 4
    assert [(s[0], *s[2:]) for s in seen[1:3]] == [(f, NORMAL_CROPS, TEST_CROPS, 32) for f in ("lattice", "strata")]


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_network_as_it_was(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdout, "make_item", squares)
    network = Brightness().train(training)
    holdout_scores(network, ("lattice",), 1, 32)  # type: ignore[arg-type]
    assert network.training is training
    assert set(network.modes) == {False}


def test_real_items_and_an_untrained_network_are_better_than_chance() -> None:
    torch.manual_seed(0)
    network = HybridBackbone(tiny_training.CONFIG.architecture.build())
    scores = holdout_scores(network, ("lattice", "printed"), 8, 48)
    assert list(scores) == ["lattice", "printed"]
    for score in scores.values():
        assert 0.5 < score.pooled <= 1 and 0.5 < score.within <= 1 and 0 <= score.crop <= 1
    assert holdout_scores(network, ("lattice", "printed"), 8, 48) == scores
