"""The ensemble of registered scorers: who is asked, what is left out and said, and that a bundle gives it back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pytest
import torch
from patterned import normal_pictures, picture
from pydantic import Field

from explainvad.config import InspectionConfig, parse_config
from explainvad.detection import registry
from explainvad.detection.backbones import Backbones
from explainvad.detection.pretrained import PretrainedEnsemble
from explainvad.detection.scorer import FrozenScorer, ScorerOptions
from explainvad.errors import ConfigError, NotFittedError, UsageError
from explainvad.types import ImageScore, InspectionImage


class BrightnessOptions(ScorerOptions):
    """One number, and what CLIP scorers take."""

    factor: float = Field(default=1.0, gt=0)
    prompts: dict[str, Any] = Field(default={})


class Brightness(FrozenScorer[BrightnessOptions]):
    """How much brighter an image is than the brightest one of the fit."""

    name, family, summary, source = "brightness", "toy", "Brighter is worse", "none"
    options_type = BrightnessOptions
    few_images = extendable = True
    weights = "none"

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        self.arrays = {"means": torch.tensor([float(image.pixels.mean()) for image in images])}
        self.facts = {"images": str(len(images))}

    def score_one(self, image: InspectionImage) -> ImageScore:
        value = self.options.factor * float(image.pixels.mean() - self.arrays["means"].max())
        return ImageScore(self.label, value, np.zeros((image.height, image.width), np.float32))

    def without(self, images: Sequence[int]) -> Self:
        rest = type(self)(self.options, self.backbones)
        kept = [i for i in range(len(self.arrays["means"])) if i not in images]
        rest.arrays = {"means": self.arrays["means"][kept]}
        return rest

    def extend(self, images: Sequence[InspectionImage], seed: int) -> None:
        more = torch.tensor([float(image.pixels.mean()) for image in images])
        self.arrays["means"] = torch.cat((self.arrays["means"], more))


class Greedy(Brightness):
    """Reads the lot itself, and needs many images."""

    name = "greedy"
    few_images = extendable = False
    reads_lot = True

    def with_lot(self, images: Sequence[InspectionImage]) -> Self:
        lot = type(self)(self.options, self.backbones)
        lot.fit(images, 0)
        return lot


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SCORERS, "brightness", f"{__name__}:Brightness")
    monkeypatch.setitem(registry.SCORERS, "greedy", f"{__name__}:Greedy")


def custom(*scorers: dict[str, Any], **settings: Any) -> InspectionConfig:
    return parse_config({"profile": "custom", "scorer": scorers, **settings}, "test")


def fitted(
    images: Sequence[InspectionImage], config: InspectionConfig, backbones: Backbones, few: bool = False
) -> PretrainedEnsemble:
    return PretrainedEnsemble.fit(images, config, backbones, registry.build(config, backbones), few=few)


def grey(level: int) -> InspectionImage:
    return picture(np.full((16, 16, 3), level, np.uint8))


BOTH = ({"use": "brightness"}, {"use": "greedy", "factor": 2.0})


class TestBuilding:
    def test_an_unknown_scorer_is_refused_with_the_nearest_name(self, backbones: Backbones) -> None:
        with pytest.raises(
            ConfigError, match=r"unknown scorer 'brigthness'; the nearest is brightness \(registered: .*unet"
        ):
            registry.build(custom({"use": "brigthness"}), backbones)

    @pytest.mark.parametrize(
        ("member", "message"),
        [
            (
                {"use": "brightness", "factr": 2},
                r"\[\[scorer\]\] 1, brightness: unknown key factr; the nearest known one is factor",
            ),
            ({"use": "brightness", "factor": -1}, r"\[\[scorer\]\] 1, brightness: factor = -1: .*greater than 0"),
            ({"use": "brightness", "label": "a b"}, r"label = 'a b'"),
        ],
    )
    def test_options_are_checked_by_name_and_value(
        self, member: dict[str, Any], message: str, backbones: Backbones
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            registry.build(custom(member), backbones)

    def test_two_scorers_of_one_name_need_labels(self, backbones: Backbones) -> None:
        twice = {"use": "brightness"}, {"use": "brightness", "factor": 3.0}
        with pytest.raises(
            ConfigError, match="two scorers are called brightness: give each a name of its own with label"
        ):
            registry.build(custom(*twice), backbones)
        labelled = custom(twice[0], {**twice[1], "label": "bright-3"})
        assert [scorer.label for scorer in registry.build(labelled, backbones)] == ["brightness", "bright-3"]

    def test_prompts_reach_the_scorers_that_take_them_and_their_own_win(self, backbones: Backbones) -> None:
        own = {"use": "brightness", "label": "own", "prompts": {"object": "cap"}}
        config = custom({"use": "brightness"}, own, prompts={"object": "tile"})
        assert [s.options.prompts["object"] for s in registry.build(config, backbones)] == ["tile", "cap"]

    def test_every_registered_name_leads_to_its_class(self) -> None:
        for name in registry.SCORERS:
            kind = registry.scorer_type(name)
            assert kind.name == name
            assert issubclass(kind, FrozenScorer) and issubclass(kind.options_type, ScorerOptions)
            assert len(kind.summary) > 10 and len(kind.source) > 3

    def test_every_profile_is_made_of_registered_scorers_with_valid_options(self) -> None:
        for profile, chosen in registry.PROFILES.items():
            InspectionConfig(profile=profile)  # type: ignore[arg-type]
            for member in chosen:
                options = {key: value for key, value in member.items() if key != "use"}
                registry.scorer_type(member["use"]).options_type(**options)

    def test_a_package_may_register_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Point:
            name, value = "theirs", f"{__name__}:Greedy"

        monkeypatch.setattr(registry, "entry_points", lambda group: [Point] if group == "explainvad.scorers" else [])
        assert registry.scorer_type("theirs") is Greedy


class TestEnsemble:
    def test_asks_every_scorer(self, backbones: Backbones) -> None:
        ensemble = fitted([grey(100), grey(110)], custom(*BOTH), backbones)
        assert [(s.scorer, s.value) for s in ensemble.score(grey(120))] == [("brightness", 10.0), ("greedy", 20.0)]

    def test_not_fitted_is_said(self, backbones: Backbones) -> None:
        (scorer,) = registry.build(custom({"use": "brightness"}), backbones)
        with pytest.raises(NotFittedError, match="the brightness scorer was used before fit"):
            scorer.score([grey(1)])

    def test_few_images_keep_the_scorers_that_can_leave_some_out(self, backbones: Backbones) -> None:
        ensemble = fitted([grey(100), grey(110)], custom(*BOTH), backbones, few=True)
        assert [card.name for card in ensemble.cards()] == ["brightness"]
        assert "greedy scorer: not used, too few reference images" in ensemble.missing[0]
        assert ensemble.without([1]).score(grey(120))[0].value == 20.0
        assert ensemble.score(grey(120))[0].value == 10.0
        with pytest.raises(UsageError, match="2 reference images are too few for greedy: photograph 60 or more"):
            fitted([grey(1), grey(2)], custom({"use": "greedy"}), backbones, few=True)

    def test_a_scorer_that_reads_the_lot_is_marked_and_given_it(self, backbones: Backbones) -> None:
        ensemble = fitted([grey(100)], custom(*BOTH), backbones)
        assert ensemble.reads_lot
        assert ensemble.missing[0].startswith("greedy scores the lot against itself: its p-values")
        brightness, greedy = ensemble.for_lot([grey(50)]).score(grey(60))
        assert (brightness.value, greedy.value) == (-40.0, 20.0)
        alone = fitted([grey(100)], custom(BOTH[0]), backbones)
        assert not alone.reads_lot and alone.for_lot([grey(50)]) is alone

    def test_extension_grows_the_banks_and_leaves_the_first_ensemble_alone(self, backbones: Backbones) -> None:
        ensemble = fitted([grey(100)], custom(*BOTH), backbones)
        larger = ensemble.extended([grey(115)])
        assert [s.value for s in larger.score(grey(120))] == [5.0, 40.0]
        assert [s.value for s in ensemble.score(grey(120))] == [20.0, 40.0]
        with pytest.raises(UsageError, match="greedy cannot be extended: fit again on all images"):
            fitted([grey(1)], custom(BOTH[1]), backbones).extended([grey(2)])

    def test_comes_back_from_its_state(self, backbones: Backbones) -> None:
        config = custom(*BOTH)
        ensemble = fitted(normal_pictures(3), config, backbones)
        arrays, settings = ensemble.state()
        back = PretrainedEnsemble.restore(arrays, settings, config, backbones)
        image = normal_pictures(1, first=9)[0]
        assert [s.value for s in back.score(image)] == [s.value for s in ensemble.score(image)]
        assert back.cards()[0].facts == {"images": "3"}

    def test_left_out_scorers_stay_left_out(self, backbones: Backbones) -> None:
        config = custom(*BOTH)
        ensemble = fitted([grey(1), grey(2)], config, backbones, few=True)
        arrays, settings = ensemble.state()
        back = PretrainedEnsemble.restore(arrays, settings, config, backbones)
        assert back.missing == ensemble.missing
        assert [card.name for card in back.cards()] == ["brightness"]


def test_scorers_belong_to_the_profile_custom() -> None:
    with pytest.raises(ConfigError, match=r'\[\[scorer\]\] belongs to profile = "custom", but the profile is edge'):
        parse_config({"profile": "edge", "scorer": [{"use": "unet"}]}, "test")
    with pytest.raises(ConfigError, match=r'profile = "custom" needs a \[\[scorer\]\]'):
        parse_config({"profile": "custom"}, "test")
