"""Seeded draws: a function of integers, and of the right range."""

from __future__ import annotations

import math

import pytest
import torch

from explainvad.detection.synthesis.dice import Dice


def sequence(*entropy: int) -> list[object]:
    """One draw of each kind."""
    dice = Dice(*entropy)
    tensors = [dice.rand(2, 3), dice.normal(4)]
    scalars = [dice.uniform(-1, 1), dice.log_uniform(1, 8), dice.integer(1000), dice.coin(), dice.sign()]
    return [*(t.tolist() for t in tensors), *scalars, dice.choice("abcdefgh")]


def test_the_same_integers_give_the_same_draws_whatever_else_is_drawn() -> None:
    expected = sequence(3, 14, 15)
    torch.manual_seed(1)
    other = Dice(3, 14)
    other.rand(100)
    assert sequence(3, 14, 15) == expected


@pytest.mark.parametrize("entropy", [(3, 14, 16), (4, 14, 15), (14, 3, 15), (3, 14)])
def test_other_integers_give_other_draws(entropy: tuple[int, ...]) -> None:
    assert Dice(*entropy).rand(4).tolist() != Dice(3, 14, 15).rand(4).tolist()


def test_the_number_of_integers_counts_even_when_they_are_zero() -> None:
    # numpy's seed sequences alone read (7), (7, 0) and (7, 0, 0) as one
    draws = {tuple(Dice(*entropy).rand(4).tolist()) for entropy in ((7,), (7, 0), (7, 0, 0), (0, 7), (), (0,), (0, 0))}
    assert len(draws) == 7


def test_neighbouring_seeds_are_unrelated() -> None:
    draws = torch.stack([Dice(0, index).normal(400) for index in range(8)])
    assert (torch.corrcoef(draws) - torch.eye(8)).abs().max() < 0.2  # 4 deviations of a correlation of 400


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    sequence(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_uniform_fills_its_range() -> None:
    dice = Dice(5)
    drawn = [dice.uniform(-2, 6) for _ in range(2000)]
    assert -2 <= min(drawn) < -1.9 and 5.9 < max(drawn) < 6
    assert sum(drawn) / 2000 == pytest.approx(2, abs=0.25)  # 5 deviations


def test_log_uniform_is_as_likely_in_each_octave() -> None:
    dice = Dice(6)
    drawn = [dice.log_uniform(0.5, 8) for _ in range(2000)]
    assert min(drawn) >= 0.5 and max(drawn) < 8
    octaves = [sum(math.floor(math.log2(x)) == k for x in drawn) for k in range(-1, 3)]
    assert sum(octaves) == 2000
    assert all(abs(count - 500) < 100 for count in octaves)  # 5 deviations


def test_integers_and_choices_reach_every_option_and_no_other() -> None:
    dice = Dice(7)
    assert {dice.integer(5) for _ in range(200)} == {0, 1, 2, 3, 4}
    assert {dice.choice(("a", "b", "c")) for _ in range(100)} == {"a", "b", "c"}
    assert {dice.sign() for _ in range(50)} == {-1.0, 1.0}


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_a_coin_falls_as_often_as_it_should(probability: float) -> None:
    dice = Dice(8)
    share = sum(dice.coin(probability) for _ in range(2000)) / 2000
    assert share == pytest.approx(probability, abs=5 * math.sqrt(probability * (1 - probability) / 2000))
