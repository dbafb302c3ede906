"""Whether prompts tell normal from anomalous on the images at hand, and which of them say anything.

The survey arXiv 2507.15905 names the signature of a domain gap: the similarities of an image to normal and to
anomalous prompts are nearly identical. Here that is measured on states, each averaged over its templates, because
templates move the similarities of both kinds alike. No labels are needed, and none are given: this says whether CLIP
understands the words on such images, not which images are defective.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from explainvad.detection.clip.prompts import PLACE, Phrase, PromptConfig

TEMPERATURE = 0.07  # tau of WinCLIP's equation 1
NEARLY_IDENTICAL = 0.3  # separation, 0 to 1, below which the kinds of prompt are not told apart
AGREEMENT = 2.0  # contrast below which prompts do not agree on how images differ
MATTERS = 0.005  # of the score, that leaving a state out moves on some image


def class_mean(texts: Tensor) -> Tensor:
    """One embedding (d,) of unit length for texts (P, d) of one kind: the mean of unit vectors, as CLIP ensembles."""
    return F.normalize(texts.mean(0), dim=0)


def state_means(texts: Tensor, prompts: PromptConfig) -> tuple[Tensor, Tensor]:
    """Embeddings (n, d) of normal and of anomalous states, over templates, of those (P, d) of ``prompts.phrases()``."""
    normal, anomalous = (len(states) for states in prompts.states())
    means = F.normalize(texts.unflatten(0, (normal + anomalous, -1)).mean(1), dim=1)
    return means[:normal], means[normal:]


def text_score(normal: Tensor, anomalous: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Softmax over the two cosines (equation 1): in (0, 1), 0.5 where both kinds of prompt fit alike."""
    return torch.sigmoid((anomalous - normal) / temperature)


@dataclass(frozen=True, slots=True, eq=False)
class Separation:
    """How normal and anomalous prompts compare on N images; arrays float32 (N,)."""

    normal: Tensor  # cosine to the mean of the normal prompts
    anomalous: Tensor
    overlap: Tensor  # AUROC: chance that an anomalous prompt is nearer to the image than a normal one; 0.5: alike
    class_cosine: float  # between the two means: 1 where the words say the same
    contrast: float | None  # spread of margins over images, in errors left by the choice of prompts; None for one image

    @property
    def margin(self) -> Tensor:
        """Cosine to the anomalous mean minus that to the normal one: above 0 the image looks anomalous."""
        return self.anomalous - self.normal

    @property
    def distance(self) -> Tensor:
        """By image, how far the two kinds of prompt are apart: 0 when shuffled, 1 when one is nearer throughout."""
        return (2 * self.overlap - 1).abs()

    @property
    def separation(self) -> float:
        """Median distance over the images."""
        return float(self.distance.median())

    @property
    def domain_gap(self) -> bool:
        """The survey's signature: on half of the images or more the similarities are nearly identical."""
        return self.separation < NEARLY_IDENTICAL

    @property
    def says_the_same(self) -> bool:
        """Whether the prompts do not agree on how the images differ, so that a ranking by them is mostly chance."""
        return self.contrast is not None and self.contrast < AGREEMENT


def separation(text_normal: Tensor, text_anomalous: Tensor, image_embeddings: Tensor) -> Separation:
    """Compare prompts (P0, d) and (P1, d) on images (N, d); all rows of unit length."""
    for name, rows in (("normal", text_normal), ("anomalous", text_anomalous), ("image", image_embeddings)):
        if rows.ndim != 2 or not len(rows):
            raise ValueError(f"expected {name} embeddings of shape (n, d) with n >= 1, got {tuple(rows.shape)}")
    near = image_embeddings @ text_normal.T, image_embeddings @ text_anomalous.T
    means = class_mean(text_normal), class_mean(text_anomalous)
    above = near[1][:, :, None] - near[0][:, None]
    return Separation(
        normal=image_embeddings @ means[0],
        anomalous=image_embeddings @ means[1],
        overlap=((above > 0).float() + 0.5 * (above == 0).float()).mean((1, 2)),
        class_cosine=float(means[0] @ means[1]),
        contrast=_contrast(*near),
    )


def _contrast(normal: Tensor, anomalous: Tensor) -> float | None:
    """Standard deviation of margins over images by their standard error over prompts; similarities (N, P0), (N, P1).

    What a prompt says of all images alike is taken off first, so that only differences between images count.
    """
    if len(normal) < 2 or min(normal.shape[1], anomalous.shape[1]) < 2:
        return None
    kinds = [near - near.mean(0) for near in (normal, anomalous)]
    margin = kinds[1].mean(1) - kinds[0].mean(1)
    error = sum((near.var(1) / near.shape[1] for near in kinds), torch.zeros(len(normal))).mean().sqrt()
    return float(margin.std() / error.clamp_min(1e-9))


def influence(text_normal: Tensor, text_anomalous: Tensor, image_embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """How far leaving a prompt out moves the score of the image that it moves most: (P0,) and (P1,), in [0, 1]."""
    normal, anomalous = (image_embeddings @ class_mean(texts)[:, None] for texts in (text_normal, text_anomalous))
    score = text_score(normal, anomalous)
    less_normal = text_score(_without_each(text_normal, image_embeddings), anomalous)
    less_anomalous = text_score(normal, _without_each(text_anomalous, image_embeddings))
    return (less_normal - score).abs().amax(0), (less_anomalous - score).abs().amax(0)


def _without_each(texts: Tensor, images: Tensor) -> Tensor:
    """Cosine (N, P) of images to the mean of all texts but one; to nothing, where it is the only one, 0."""
    rest = texts.sum(0) - texts
    return images @ F.normalize(rest, dim=1).T if len(texts) > 1 else torch.zeros(len(images), 1)


class PromptStudy:
    """One set of prompts on a list of images."""

    def __init__(self, prompts: PromptConfig, texts: Tensor, images: Tensor) -> None:
        """``texts`` (P, d) are embeddings of ``prompts.phrases()``, ``images`` (N, d) of images; unit length."""
        self.prompts, self.texts, self.images = prompts, texts, images
        self.phrases: tuple[Phrase, ...] = prompts.phrases()

    @cached_property
    def states(self) -> tuple[Tensor, Tensor]:
        """Embeddings (n, d) of the normal and of the anomalous states: means over templates."""
        return state_means(self.texts, self.prompts)

    @cached_property
    def separation(self) -> Separation:
        """Of states, on all images."""
        return separation(*self.states, self.images)

    @cached_property
    def kinds(self) -> tuple[Tensor, Tensor]:
        """Embeddings of the normal and of the anomalous phrases."""
        anomalous = torch.tensor([phrase.anomalous for phrase in self.phrases])
        return self.texts[~anomalous], self.texts[anomalous]

    @cached_property
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Normal and anomalous states, said of the object."""
        normal, anomalous = self.prompts.states()
        said = [tuple(state.replace(PLACE, self.prompts.object) for state in states) for states in (normal, anomalous)]
        return said[0], said[1]

    @cached_property
    def scores(self) -> Tensor:
        """Zero-shot score (N,) of each image."""
        normal, anomalous = (self.images @ class_mean(texts) for texts in self.kinds)
        return text_score(normal, anomalous)

    @cached_property
    def weights(self) -> tuple[tuple[str, bool, float], ...]:
        """State, whether it is anomalous, and its influence; the weightiest first."""
        normal, anomalous = (values.tolist() for values in influence(*self.states, self.images))
        found = [
            (state, kind, value)
            for kind, states, values in zip((False, True), self.names, (normal, anomalous), strict=True)
            for state, value in zip(states, values, strict=True)
        ]
        return tuple(sorted(found, key=lambda state: -state[2]))

    @property
    def idle(self) -> tuple[str, ...]:
        """States that never matter: without any one of them no image's score moves by MATTERS."""
        return tuple(state for state, _, value in self.weights if value < MATTERS)

    def nearest(self, image: int) -> tuple[str, str]:
        """The normal and the anomalous state that an image is most similar to."""
        first, second = (int((texts @ self.images[image]).argmax()) for texts in self.states)
        return self.names[0][first], self.names[1][second]

    def warnings(self) -> tuple[str, ...]:
        """What makes these prompts doubtful on these images, in sentences."""
        found, said = self.separation, []
        if found.domain_gap:
            alike = int((found.distance < NEARLY_IDENTICAL).sum())
            said.append(
                f"domain gap: normal and anomalous prompts are about equally near to {alike} of {len(self.images)} "
                f"images (separation {found.separation:.2f}, below {NEARLY_IDENTICAL}), so CLIP does not tell them "
                "apart there: name the object, try a set of the trade, or use a scorer fitted to normal images"
            )
        if found.says_the_same:
            said.append(
                f"no contrast: prompts do not agree on which images are more anomalous (agreement "
                f"{found.contrast:.1f}, below {AGREEMENT:g}): their order is mostly chance, or the images are alike"
            )
        return tuple(said)

    def to_json(self, files: list[str]) -> dict[str, Any]:
        """All of it, with the similarity of every image to every phrase."""
        found, near = self.separation, self.images @ self.texts.T
        influences = torch.cat(influence(*self.kinds, self.images)).tolist()
        return {
            "prompts": self.prompts.describe(),
            "separation": found.separation,
            "domain_gap": found.domain_gap,
            "class_cosine": found.class_cosine,
            "agreement": found.contrast,
            "warnings": list(self.warnings()),
            "states": [
                {"state": state, "anomalous": anomalous, "influence": value, "idle": value < MATTERS}
                for state, anomalous, value in self.weights
            ],
            "phrases": [
                {**phrase._asdict(), "similarity": mean, "influence": value}
                for phrase, mean, value in zip(self.phrases, near.mean(0).tolist(), influences, strict=True)
            ],
            "images": [
                {
                    "file": file,
                    "score": float(self.scores[i]),
                    "normal_similarity": float(found.normal[i]),
                    "anomalous_similarity": float(found.anomalous[i]),
                    "overlap": float(found.overlap[i]),
                    "nearest_normal": self.nearest(i)[0],
                    "nearest_anomalous": self.nearest(i)[1],
                    "similarities": [round(value, 5) for value in near[i].tolist()],
                }
                for i, file in enumerate(files)
            ],
        }
