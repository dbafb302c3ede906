"""What CLIP's words find without any fit: categories of images, and the words of one of them said of another.

The survey arXiv 2507.15905 asks how generic and domain-specific prompts compare, where the words fail, and what becomes
of them in another domain. Each image is embedded once, so that any number of wordings costs one matrix product.
Scores are those of whole images (:class:`PromptStudy`); where in an image words look is WinCLIP's matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from explainvad.detection.backbones import Backbones
from explainvad.detection.clip.encoder import ClipEncoder
from explainvad.detection.clip.prompt_separation import PromptStudy
from explainvad.detection.clip.prompts import GENERIC, PromptConfig
from explainvad.detection.synthesis.defects import blend_defects
from explainvad.detection.synthesis.dice import Dice
from explainvad.detection.synthesis.items import make_item
from explainvad.detection.weights import CLIP_MEAN, CLIP_STD, Weights
from explainvad.errors import WeightsError
from explainvad.evaluation.datasets.load import find_dataset
from explainvad.evaluation.differences import interval_of, paired_difference
from explainvad.evaluation.experiments import GOOD, ExperimentData
from explainvad.evaluation.metrics.images import image_metrics
from explainvad.evaluation.metrics.resampling import Measured, Resampling
from explainvad.types import InspectionImage, Interval

CLIP = "clip-vit-b-16-plus-240"
GENERIC_WORDS, NAMED, OWN = "generic words", "generic words, object named", "words of the trade"
WORDINGS = (GENERIC_WORDS, NAMED, OWN)

# By the category's name in public data sets: the shipped set of its trade, where there is one, and what to call it
TRADES: Mapping[str, tuple[str, str]] = {
    "bottle": ("glass-transparent", "bottle"),
    "can": ("printed-packaging", "beverage can"),
    "capsule": ("pharma-medical", "capsule"),
    "capsules": ("pharma-medical", "capsule"),
    "carpet": ("textile", "carpet"),
    "fabric": ("textile", "fabric"),
    "grid": ("metal-surface", "metal grid"),
    "juice_bottle": ("printed-packaging", "juice bottle"),
    "leather": ("textile", "leather"),
    "metal_nut": ("metal-surface", "metal nut"),
    "metal_plate": ("metal-surface", "metal plate"),
    **{f"pcb{i}": ("pcb-electronics", "printed circuit board") for i in range(1, 5)},
    "pill": ("pharma-medical", "pill"),
    "screw": ("metal-surface", "screw"),
    "sheet_metal": ("metal-surface", "metal sheet"),
    "transistor": ("pcb-electronics", "transistor"),
    "tubes": ("metal-surface", "metal tube"),
    "vial": ("pharma-medical", "vial"),
    "zipper": ("textile", "zipper"),
}
# Generated surfaces: family, set, what to call it, and kinds of defects that such a thing may have
GENERATED: Mapping[str, tuple[str, str, str, tuple[str, ...]]] = {
    "metal": ("tooled_metal", "metal-surface", "metal surface", ("scratch", "dent", "pit", "stain")),
    "fabric": ("lattice", "textile", "fabric", ("stain", "warped", "foreign", "crack")),
    "print": ("printed", "printed-packaging", "label", ("spatter", "scratch", "displaced", "stain")),
    "board": ("assembly", "pcb-electronics", "printed circuit board", ("missing", "displaced", "foreign", "scratch")),
}
_SIDE = 128  # px of generated images


@dataclass(frozen=True, slots=True, eq=False)
class Category:
    """Labelled images of one kind of thing, and the words of its trade."""

    name: str
    data: ExperimentData  # of which the test images alone are looked at
    own: PromptConfig

    @property
    def wordings(self) -> dict[str, PromptConfig]:
        """By the names of WORDINGS, from the least to the most that is said of the thing."""
        return {GENERIC_WORDS: PromptConfig(), NAMED: PromptConfig(object=self.own.object), OWN: self.own}


def generated_categories(seed: int, n_good: int = 16, n_each: int = 4) -> tuple[Category, ...]:
    """Surfaces and parts that the package draws, with a defect that can be seen; the same seed gives the same."""
    made = []
    for number, (name, (family, prompts, thing, kinds)) in enumerate(GENERATED.items()):
        dice = Dice(seed, number)
        # one crop more: it gives foreign material to the others
        pictures = make_item(dice, family, normal=n_good + n_each * len(kinds) + 1, test=1, side=_SIDE).normal
        labels = [GOOD] * n_good + [kind for kind in kinds for _ in range(n_each)]
        images, masks = [], []
        for i, (picture, kind) in enumerate(zip(pictures, labels, strict=False)):
            mask = torch.zeros(_SIDE, _SIDE, dtype=torch.bool)
            while kind != GOOD and not mask.any():  # a mark that nobody could see is drawn again
                altered, mask = blend_defects(dice, picture.clamp(0, 1), pictures[-1].clamp(0, 1), (kind,), 1)
            images.append(_image(f"{name}-{i:03d}", altered if mask.any() else picture))
            masks.append(mask.numpy())
        data = ExperimentData([], images, np.array(labels), masks)
        made.append(Category(name, data, PromptConfig(set=prompts, object=thing)))
    return tuple(made)


def _image(name: str, picture: Tensor) -> InspectionImage:
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    data = pixels.tobytes()
    return InspectionImage(name, name, pixels, hashlib.sha256(data).hexdigest(), len(data), Path(name))


def load_categories(root: Path, seed: int = 0, most_each: int | None = None) -> tuple[Category, ...]:
    """All categories of a labelled data set. Those that TRADES does not know get generic words and their own name."""
    found = []
    for category, place in find_dataset(root).categories.items():
        name = category or root.resolve().name
        prompts, thing = TRADES.get(name, (GENERIC, name.replace("_", " ").replace("{", "").replace("}", "")))
        data = ExperimentData.load(place, seed, most_fit=1, most_each=most_each, category=category)
        found.append(Category(name, data, PromptConfig(set=prompts, object=thing[:80])))
    return tuple(found)


def trained_clip(backbones: Backbones) -> tuple[ClipEncoder | None, str]:
    """The CLIP of the store; without weights None, and a sentence that says how to get them."""
    try:
        return ClipEncoder.of(backbones, CLIP), ""
    except WeightsError as error:
        return None, f"The words were not tried: {error}"


def untrained_clip(seed: int) -> ClipEncoder:
    """A small CLIP that knows no word and no picture: what it finds with words is luck."""
    config = {
        "model_cfg": {
            "embed_dim": 32,
            "vision_cfg": {"image_size": 96, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
        }
    }
    weights = Weights("small CLIP:random", "open_clip", None, config, 8, CLIP_MEAN, CLIP_STD, seed=seed)
    return ClipEncoder(weights.clip(), weights.name, weights.describe())


@dataclass(frozen=True, eq=False)
class Probe:
    """One CLIP on several categories; intervals are at 95 %, over test images."""

    encoder: ClipEncoder
    categories: Sequence[Category]
    how: Resampling = field(default_factory=Resampling)

    @cached_property
    def _images(self) -> dict[str, Tensor]:
        return {c.name: torch.stack([self.encoder.see(image).whole for image in c.data.test]) for c in self.categories}

    @cached_property
    def _texts(self) -> dict[PromptConfig, Tensor]:
        return {}

    def study(self, prompts: PromptConfig, category: Category) -> PromptStudy:
        """What these words say of a category's images; nobody's labels are looked at."""
        if prompts not in self._texts:
            self._texts[prompts] = self.encoder.texts([phrase.text for phrase in prompts.phrases()])
        return PromptStudy(prompts, self._texts[prompts], self._images[category.name])

    def auroc(self, prompts: PromptConfig, category: Category, kind: str | None = None) -> Measured | None:
        """AUROC of these words on a category's defects, or on one kind of them."""
        data = category.data
        chosen = np.arange(len(data.kinds)) if kind is None else data.indices([kind])
        scores = self.study(prompts, category).scores.double().numpy()
        return image_metrics(data.kinds[chosen] != GOOD, scores[chosen], resampling=self.how).auroc

    def interval(self, prompts: PromptConfig, category: Category, kind: str | None = None) -> Interval | None:
        """The same with its interval alone."""
        return interval_of(self.auroc(prompts, category, kind))

    def difference(self, prompts: PromptConfig, others: Sequence[PromptConfig], category: Category) -> Interval | None:
        """What these words have over others, or over several others on average, on the same drawn images."""
        return paired_difference(self.auroc(prompts, category), self.mean_auroc(others, category), self.how)

    def mean_auroc(self, wordings: Sequence[PromptConfig], category: Category) -> Measured | None:
        """Mean AUROC of several wordings, each on its own; None where there are none, or it is not defined."""
        measured = [self.auroc(prompts, category) for prompts in wordings]
        found = [(m.estimate, m.resampled) for m in measured if m is not None and m.resampled is not None]
        if not found:
            return None
        estimates, resampled = zip(*found, strict=True)
        return self.how.measured(float(np.mean(estimates)), np.mean(resampled, axis=0))

    def raised_states(self, category: Category) -> dict[str, str]:
        """By kind of defect, the anomalous state of the trade to which its images are nearest, compared with good ones.

        What all images have of a state is taken off, so that it is the defect that is asked for and not the thing.
        """
        study, kinds = self.study(category.own, category), category.data.kinds
        near = study.images @ study.states[1].T
        good = near[torch.from_numpy(kinds == GOOD)].mean(0)
        return {
            kind: study.names[1][int((near[torch.from_numpy(kinds == kind)].mean(0) - good).argmax())]
            for kind in dict.fromkeys(kinds.tolist())
            if kind != GOOD
        }
