"""Words are tried on categories without any fit; an untrained CLIP shows what luck finds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import CLIP_CONFIG, write_weights

from explainvad.detection.backbones import Backbones
from explainvad.detection.clip.prompts import GENERIC, PromptConfig, shipped_sets
from explainvad.detection.weights import WeightStore
from explainvad.detection.weights_install import bring
from explainvad.evaluation.experiments import GOOD, ExperimentData
from explainvad.evaluation.metrics.resampling import Resampling
from explainvad.evaluation.prompt_probe import (
    CLIP,
    GENERATED,
    GENERIC_WORDS,
    NAMED,
    OWN,
    TRADES,
    WORDINGS,
    Category,
    Probe,
    generated_categories,
    load_categories,
    trained_clip,
    untrained_clip,
)

FEW = Resampling(50)


@pytest.fixture(scope="module")
def categories() -> tuple[Category, ...]:
    return generated_categories(3, n_good=4, n_each=2)


@pytest.fixture(scope="module")
def probe(categories: tuple[Category, ...]) -> Probe:
    return Probe(untrained_clip(0), categories, FEW)


class Words:
    """A CLIP that knows two directions: it sees brightness, and reads whether a text says "damaged"."""

    def __init__(self, told: bool = True) -> None:
        self.told = told

    def see(self, image):
        bright = float(image.pixels.mean()) / 255
        return type("Seen", (), {"whole": torch.nn.functional.normalize(torch.tensor([bright, 1 - bright]), dim=0)})

    def texts(self, phrases):
        return torch.tensor([[0.0, 1.0] if ("damaged" in text) == self.told else [1.0, 0.0] for text in phrases])


def dark(name: str, own: PromptConfig) -> Category:
    """Bright things, of which the defective ones are dark."""
    values = np.array([200, 205, 210, 215, 90, 95, 20, 25])
    kinds = np.array([GOOD] * 4 + ["soot"] * 2 + ["char"] * 2)
    images = [type("Image", (), {"pixels": np.full((4, 4, 3), value, np.uint8)}) for value in values]
    return Category(name, ExperimentData([], images, kinds, [None] * 8), own)


def test_generated_categories_hold_what_they_say(categories: tuple[Category, ...]) -> None:
    assert [c.name for c in categories] == list(GENERATED)
    for c in categories:
        kinds = GENERATED[c.name][3]
        assert {k: int((c.data.kinds == k).sum()) for k in (GOOD, *kinds)} == {GOOD: 4, **dict.fromkeys(kinds, 2)}
        assert [mask is not None and mask.any() for mask in c.data.masks] == (c.data.kinds != GOOD).tolist()
        assert len({image.sha256 for image in c.data.test}) == len(c.data.test) == len(c.data.masks)
    again = generated_categories(3, n_good=4, n_each=2)
    assert [i.sha256 for i in again[2].data.test] == [i.sha256 for i in categories[2].data.test]


def test_every_trade_has_a_shipped_set_and_a_name() -> None:
    for prompts, thing in (*TRADES.values(), *((made[1], made[2]) for made in GENERATED.values())):
        assert prompts in shipped_sets() and PromptConfig(set=prompts, object=thing).phrases()


def test_wordings_say_more_and_more(categories: tuple[Category, ...]) -> None:
    said = categories[0].wordings
    assert tuple(said) == WORDINGS
    assert (said[GENERIC_WORDS].object, said[NAMED].object) == ("object", "metal surface")
    assert said[NAMED].set == GENERIC and said[OWN].set == "metal-surface"


def test_words_that_are_right_find_everything_and_the_opposite_ones_nothing() -> None:
    own = PromptConfig(normal_states=("clean {}",), anomalous_states=("damaged {}",))
    wrong = PromptConfig(normal_states=("damaged {}",), anomalous_states=("clean {}",))
    category = dark("lamp", own)
    told = Probe(Words(), [category], FEW)
    assert told.interval(own, category).estimate == 1 and told.interval(wrong, category).estimate == 0
    assert told.interval(own, category, "char").estimate == 1
    difference = told.difference(own, [wrong], category)
    assert (difference.estimate, difference.lower, difference.upper) == (1, 1, 1)
    averaged = told.difference(own, [own, wrong], category)
    assert averaged.estimate == 0.5 and told.mean_auroc([own, wrong], category).estimate == 0.5
    assert told.mean_auroc([], category) is None and told.difference(own, [], category) is None
    assert told.raised_states(category) == {"soot": "damaged object", "char": "damaged object"}


def test_a_state_counts_by_what_defects_raise_not_by_what_the_thing_has() -> None:
    own = PromptConfig(normal_states=("clean {}",), anomalous_states=("damaged {}", "shiny {}"))
    category = dark("lamp", own)
    assert set(Probe(Words(), [category], FEW).raised_states(category).values()) == {"damaged object"}
    assert set(Probe(Words(told=False), [category], FEW).raised_states(category).values()) == {"shiny object"}


def test_an_untrained_clip_is_one_by_its_seed_and_says_so(probe: Probe, categories: tuple[Category, ...]) -> None:
    assert probe.encoder.weights == "small CLIP: random initialisation, for experiments only (seed 0)"
    texts = ["a photo of a nut.", "a photo of a damaged nut."]
    assert torch.equal(untrained_clip(0).texts(texts), probe.encoder.texts(texts))
    assert not torch.equal(untrained_clip(1).texts(texts), probe.encoder.texts(texts))
    study = probe.study(categories[0].own, categories[0])
    assert study.images.shape == (12, 32) and 0 <= study.separation.separation <= 1


def test_without_weights_the_words_are_not_tried_and_the_command_is_named(tmp_path: Path) -> None:
    found, why = trained_clip(Backbones(WeightStore(tmp_path)))
    assert found is None and why.startswith("The words were not tried: ") and f"models pull {CLIP}" in why


def test_with_weights_they_are(tmp_path: Path) -> None:
    write_weights(tmp_path / "clip", "open_clip", CLIP_CONFIG)
    bring(WeightStore(tmp_path / "store"), CLIP, tmp_path / "clip")
    found, why = trained_clip(Backbones(WeightStore(tmp_path / "store"), bf16=False))
    assert found is not None and found.name == CLIP and not why


def test_categories_of_a_data_set_get_the_words_of_their_trade(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("train/good", "test/good", "test/torn"):
        for category in ("carpet", "odd_thing"):
            for i in range(3):
                file = tmp_path / category / part / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(file)
    both = load_categories(tmp_path, most_each=2)
    assert {c.name: (c.own.set, c.own.object) for c in both} == {
        "carpet": ("textile", "carpet"),
        "odd_thing": (GENERIC, "odd thing"),
    }
    assert all(sorted(c.data.kinds) == [GOOD, GOOD, "torn", "torn"] for c in both)
    (one,) = load_categories(tmp_path / "odd_thing")
    assert one.name == "odd_thing" and one.wordings[NAMED] == one.wordings[OWN]
