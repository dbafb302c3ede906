"""WinCLIP and WinCLIP+: what CLIP's words say of an image and of windows in it, without or with a few references.

Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR 2023. Text score of a window:
softmax over cosines to the mean normal and anomalous prompt (equation 1), brought to patches by the harmonic mean of
the windows that cover them (section 4.2), over scales by the harmonic mean with the whole image's score. With
references (WinCLIP+, section 4.3) half of the map is the reference association: (1 - cosine)/2 to the nearest
reference embedding, of patches and of windows. Squares of a long image are scored one by one and blended.

The members for the epistemic part of the doubt are bootstrapped words and references: states, templates and images
drawn with replacement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Annotated, Any, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from explainvad.detection.backbones import Backbones
from explainvad.detection.clip.encoder import ClipEncoder, Encoding
from explainvad.detection.clip.explained import prompted_region, square_function
from explainvad.detection.clip.prompt_separation import (
    NEARLY_IDENTICAL,
    TEMPERATURE,
    separation,
    state_means,
    text_score,
)
from explainvad.detection.clip.prompts import Phrase, PromptConfig
from explainvad.detection.clip.window_maps import blended, over_scales, to_patches, window_cover
from explainvad.detection.frames import spread_out, to_frame
from explainvad.detection.scorer import FrozenScorer, ScorerOptions
from explainvad.detection.traced import Place, most_anomalous
from explainvad.errors import ConfigError, UsageError
from explainvad.types import ImageScore, InspectionImage, PixelFunction, Progress, PromptedRegion

MEMBERS = 16  # bootstrapped choices of words and references
LOOKED_AT = 32  # FIT images, at most, that the prompts are tried on
WORDS = "phrases", "words"  # arrays that do not belong to a reference
FLOOR = 1e-6  # of a reference distance, so that its harmonic mean exists


class WinCLIPOptions(ScorerOptions):
    """Options of :class:`WinCLIP`."""

    backbone: str = Field(default="clip-vit-b-16-plus-240", description="CLIP of the weight store")
    prompts: PromptConfig = Field(default=PromptConfig(), description="words; [prompts] where not given")
    shots: int = Field(default=4, ge=0, le=64, description="reference images it compares with; 0: words alone")
    scales: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(2, 3), min_length=1, description="sides of windows, in patches"
    )
    temperature: float = Field(default=TEMPERATURE, gt=0, description="tau of equation 1")


class WinCLIP(FrozenScorer[WinCLIPOptions]):
    """``arrays``: phrases (P, d) and words, a hash of their texts; with references, by square: owner (R,), the number
    of its FIT image, and tokens and windows-k (R, n, d)."""

    name = "winclip"
    family = "zero-/few-shot vision-language"
    summary = "Similarity of windows to words for normal and anomalous parts, and to a few reference images"
    source = "Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR 2023"
    options_type = WinCLIPOptions
    few_images = True

    def __init__(self, options: WinCLIPOptions, backbones: Backbones, progress: Progress | None = None) -> None:
        super().__init__(options, backbones, progress)
        self.encoder = ClipEncoder.of(backbones, options.backbone)
        self.phrases: tuple[Phrase, ...] = options.prompts.phrases()
        self.extendable = options.shots > 0
        if max(options.scales) > self.encoder.grid:
            raise ConfigError(
                f"{options.backbone} sees {self.encoder.grid} patches a side, expected scales up to that, got "
                f"{max(options.scales)}"
            )
        self.cover = {k: window_cover(self.encoder.grid, k) for k in options.scales}

    @property
    def weights(self) -> str:
        """Of the CLIP."""
        return self.encoder.weights

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Embed the words, and references evenly spread over the FIT images; see how well the words fit them."""
        o = self.options
        texts = self.encoder.texts([phrase.text for phrase in self.phrases])
        # Of few images each must be able to leave, and one be left
        shots = max(2, o.shots) if self.separate and o.shots else o.shots
        references = spread_out(len(images), shots, least=1) if shots else []
        others = spread_out(len(images), LOOKED_AT, least=1)
        looked_at = sorted({*references, *others})
        whole, seen = [], {}
        for done, i in enumerate(looked_at, start=1):
            encoding = self.encoder.see(images[i], o.scales if i in references else ())
            whole.append(encoding.whole)
            if i in references:
                seen[i] = encoding
            if self.progress:
                self.progress(f"{self.label}: reading reference images", done, len(looked_at))
        self.arrays = {"phrases": texts, "words": _digest(self.phrases), **_reference_arrays(seen, o.scales)}
        found = separation(*state_means(texts, o.prompts), torch.stack(whole))
        self.separation = found.separation, NEARLY_IDENTICAL, len(whole)
        self.facts = {
            "CLIP": o.backbone,
            "prompts": f"{o.prompts.describe()}; {len(texts)} phrases",
            "references": f"{len(references)} images" if references else "none, words alone (zero-shot)",
        }

    def load(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> None:
        """The inverse of ``state``. UsageError when the prompts are not those that were embedded."""
        if arrays["words"].tobytes() != _digest(self.phrases).numpy().tobytes():
            raise UsageError(
                f"{self.label} was fitted with other prompts than {self.options.prompts.describe()}: fit it again"
            )
        super().load(arrays, facts)

    def extend(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Take all of them in as references; nothing changes where words alone are asked."""
        arrays = self.fitted()
        if "owner" not in arrays:
            return
        first = int(arrays["owner"].max()) + 1
        seen = {first + i: self.encoder.see(image, self.options.scales) for i, image in enumerate(images)}
        for name, rows in _reference_arrays(seen, self.options.scales).items():
            arrays[name] = torch.cat((arrays[name], rows))
        self.facts["references"] = f"{len(arrays['owner'].unique())} images"

    def without(self, images: Sequence[int]) -> Self:
        """The same words, with the references among these images taken away. ValueError when none would be left."""
        arrays = self.fitted()
        rest = copy(self)
        rest.arrays = dict(arrays)
        if "owner" in arrays:
            kept = ~torch.isin(arrays["owner"], torch.tensor(images))
            if not kept.any():
                raise ValueError(f"WinCLIP with references needs one, but all {len(images)} were left out")
            rest.arrays |= {name: rows[kept] for name, rows in arrays.items() if name not in WORDS}
        return rest

    def score_one(self, image: InspectionImage) -> ImageScore:
        """Evidence, each float on the patches of the whole frame (rows, cols).

        text-k: text score by windows of k x k patches; text-image (squares,): of each square as a whole; phrases
        float16 (P, rows, cols): cosine to each of ``phrases``, mean over the windows that cover a patch;
        reference-tokens and reference-k: distances to the nearest reference.
        """
        encoding = self.encoder.see(image, self.options.scales)
        text = self._text(encoding)
        maps = {f"text-{k}": scores for k, scores in text.items() if k}
        zero_shot = over_scales([text[0][:, :, None].expand_as(text[self.options.scales[0]]), *maps.values()])
        value, total = text[0], zero_shot
        if "owner" in self.arrays:
            association = self._association(encoding)
            maps |= {f"reference-{k}": scores for k, scores in association.items()}
            mean = torch.stack(list(association.values())).mean(0)
            total = (zero_shot + mean) / 2
            value = (text[0] + mean.amax(2)) / 2
        places = self.encoder.places(image)
        map_ = blended(total, places)
        return ImageScore(
            scorer=self.label,
            value=float(value[0].max()),
            anomaly_map=to_frame(map_[0], image.height, image.width),
            evidence={
                **{name: blended(scores[:1], places)[0].numpy() for name, scores in maps.items()},
                "text-image": text[0][0].numpy(),
                "phrases": blended(self._phrase_maps(encoding), places).half().numpy(),
            },
            members=value[1:].amax(1).numpy().astype(np.float32),
            member_maps=map_[1:].numpy(),
        )

    def pixel_function(
        self, image: InspectionImage, score: ImageScore, baseline: InspectionImage, at: Place | None = None
    ) -> PixelFunction:
        """How much nearer the square that looks most anomalous, or that ``at`` a place, is to anomalous words."""
        square = int(score.evidence["text-image"].argmax())
        return square_function(self.encoder, self._words()[0], image, baseline, square, at)

    def prompted_region(self, image: InspectionImage, score: ImageScore, at: Place | None = None) -> PromptedRegion:
        """The patch that looks most anomalous, or that ``at`` a place, as its windows see it, beside all phrases."""
        place = at or most_anomalous(score.anomaly_map)
        encoding = self.encoder.see(image, self.options.scales)
        return prompted_region(self.encoder, encoding, self.cover, self.phrases, self.arrays["phrases"], image, place)

    def _text(self, encoding: Encoding) -> dict[int, Tensor]:
        """Text scores for all words and for each member (1 + B first): of squares (.., S) under 0, of patches
        (.., S, n) under each scale."""
        words = self._words()

        def score(rows: Tensor) -> Tensor:
            near = torch.einsum("...d,bcd->cb...", rows, words)
            return text_score(near[0], near[1], self.options.temperature)

        return {0: score(encoding.image)} | {
            k: to_patches(score(rows), self.cover[k]) for k, rows in encoding.windows.items()
        }

    def _association(self, encoding: Encoding) -> dict[str, Tensor]:
        """Reference association (1 + B, S, n) of patches, and of windows brought to patches, by scale."""
        drawn = self._references()

        def distance(rows: Tensor, references: Tensor) -> Tensor:
            near = (rows.flatten(0, 1) @ references.flatten(0, 1).T).unflatten(1, (len(references), -1))
            best = near.amax(2)  # (S * n, R)
            chosen = torch.stack([best[:, squares].amax(1) for squares in drawn])
            return ((1 - chosen) / 2).clamp_min(FLOOR).unflatten(1, rows.shape[:2])

        windows = {
            f"{k}": to_patches(distance(rows, self.arrays[f"windows-{k}"]), self.cover[k])
            for k, rows in encoding.windows.items()
        }
        return {"tokens": distance(encoding.tokens, self.arrays["tokens"]), **windows}

    def _phrase_maps(self, encoding: Encoding) -> Tensor:
        """Cosine (P, S, n) of patches to every phrase: mean over the windows of all scales that cover it."""
        cover = torch.cat([self.cover[k] for k in encoding.windows])
        rows = torch.cat(list(encoding.windows.values()), dim=1)
        return torch.einsum("swd,wn,pd->psn", rows, cover / cover.sum(0), self.arrays["phrases"])

    def _words(self) -> Tensor:
        """Mean normal and anomalous embedding (1 + B, 2, d), of all phrases and of each member's draw."""
        normal, anomalous = (len(states) for states in self.options.prompts.states())
        kinds = self.arrays["phrases"].unflatten(0, (normal + anomalous, -1)).split([normal, anomalous])
        generator = torch.Generator().manual_seed(0)
        means = [torch.stack([kind.mean((0, 1)) for kind in kinds])]
        for _ in range(MEMBERS):
            templates = _draw(kinds[0].shape[1], generator)
            means.append(torch.stack([kind[_draw(len(kind), generator)][:, templates].mean((0, 1)) for kind in kinds]))
        return F.normalize(torch.stack(means), dim=2)

    def _references(self) -> list[Tensor]:
        """Squares of references, of all and of each member's draw of images."""
        owner = self.arrays["owner"]
        images = owner.unique()
        generator = torch.Generator().manual_seed(1)
        drawn = [images[_draw(len(images), generator)] for _ in range(MEMBERS)]
        return [torch.isin(owner, chosen).nonzero()[:, 0] for chosen in (images, *drawn)]


def _reference_arrays(seen: Mapping[int, Encoding], scales: Sequence[int]) -> dict[str, Tensor]:
    """What is kept of reference images, by square; ``seen`` by the image's number."""
    if not seen:
        return {}
    encodings = seen.values()
    return {
        "owner": torch.tensor([i for i, encoding in seen.items() for _ in encoding.image]),
        "tokens": torch.cat([encoding.tokens for encoding in encodings]),
        **{f"windows-{k}": torch.cat([encoding.windows[k] for encoding in encodings]) for k in scales},
    }


def _digest(phrases: Sequence[Phrase]) -> Tensor:
    """SHA-256 of all texts, uint8 (32,)."""
    texts = "\n".join(phrase.text for phrase in phrases)
    return torch.frombuffer(bytearray(hashlib.sha256(texts.encode()).digest()), dtype=torch.uint8)


def _draw(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (count,), generator=generator)
