"""EfficientAD: where a student, and a student of an autoencoder, disagree with their teachers.

Batzner, Heckler & König, "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies" (WACV 2024).
A student S learns on normal images what a teacher T says of every patch, from the hardest of its errors only; an
autoencoder A learns the same through a bottleneck, and a second half S' of the student's channels learns to say what A
says. |T - S| shows patches that never occurred, |A - S'| arrangements that never did. Each map is scaled by
its quantiles on normal images that nothing was trained on.

Differences from the paper: a step sees a crop, the schedule is a short warm cosine instead of 70,000 steps of Adam, A
sees every frame as a square, and the border that a PDN does not describe takes the nearest score instead of 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from explainvad.detection.backbones import Backbones
from explainvad.detection.distillation.pdn import BORDER, CELL, Networks, PatchDescription
from explainvad.detection.distillation.pictures import drawn, greyed, other_pictures, relit
from explainvad.detection.distillation.teacher import (
    backbone_description,
    distil,
    pixels_of,
    random_crop,
    standardise_channels,
)
from explainvad.detection.frames import FRAME_BYTES, resized, shorter_side_size, spread_out, to_frame
from explainvad.detection.loading import load_strictly
from explainvad.detection.scorer import FrozenScorer, ScorerOptions
from explainvad.detection.training import arrays_of, reproducible, restored, train
from explainvad.detection.weights_lock import present
from explainvad.types import ImageScore, InspectionImage

LOW, HIGH, SPAN = 0.9, 0.995, 0.1  # q_a and q_b, and what a normalised map rises by between them
HELD_OUT, MOST_HELD = 0.1, 50  # share of the FIT images that scale the maps, and how many at most
TARGET_BYTES = 1 << 29  # of a backbone's descriptions held for the distillation
SEES = 2  # times the teacher's resolution, at which the backbone sees frames
WEIGHT_DECAY = 1e-5


class EfficientADOptions(ScorerOptions):
    """Networks as in the paper; the budget is one for CPUs."""

    size: Literal["small", "medium"] = Field("small", description="of the networks: EfficientAD-S or -M")
    resolution: int = Field(256, ge=64, le=2048, description="px, of the working frame's shorter side")
    channels: int = Field(384, ge=1, le=2048, description="of a description")
    teacher: str = Field(
        "wide-resnet-50-2", description="backbone that a teacher is distilled from where there are no weights pdn-SIZE"
    )
    teacher_layers: tuple[int, ...] = Field((2, 3), min_length=1, description="of that backbone")
    distill_steps: int = Field(400, ge=1, le=1_000_000, description="training steps of such a teacher")
    steps: int = Field(600, ge=1, le=1_000_000, description="training steps of student and autoencoder")
    side: int = Field(128, ge=36, le=2048, description="px, of the square crop that a training step sees")
    learning_rate: float = Field(1e-3, gt=0, le=0.1, description="of AdamW, at its highest")
    penalty: Path | None = Field(
        None, description="folder of pictures of other things, which the student must not know"
    )
    members: int = Field(4, ge=0, le=64, description="passes with the autoencoder's dropout, that measure doubt")


class EfficientAD(FrozenScorer[EfficientADOptions]):
    """Student, teacher and autoencoder; the unit of the score is SPAN for the way from q_a to q_b of normal images.

    ``evidence``: branches float32 (2, rows, cols), the normalised maps of |T - S| and |A - S'| on the grid of
    descriptions, which ends BORDER cells before the working frame does. Needs no backbone once it is fitted.
    """

    name = "efficient-ad"
    family = "distillation"
    summary = "Disagreement of a student with a teacher about patches, and with an autoencoder about the whole image"
    source = "Batzner et al., EfficientAD, WACV 2024"
    options_type = EfficientADOptions

    @property
    def weights(self) -> str:
        """For the report."""
        teacher = self.facts.get("teacher", f"pdn-{self.options.size}, or distilled from {self.options.teacher}")
        return f"student and autoencoder trained from scratch on the reference images; teacher: {teacher}"

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Get a teacher, train student and autoencoder, and scale the maps on a tenth of the images, kept out."""
        o, device = self.options, self.backbones.device
        held = spread_out(len(images), min(MOST_HELD, round(HELD_OUT * len(images))), least=1)
        rest = [i for i in range(len(images)) if i not in held] or held
        with reproducible(seed, device) as generator:
            networks = self._placed(Networks(o.size, o.channels))
            frames, teacher = self._taught(networks.teacher, images, rest, generator)
            standardise_channels(networks.teacher, frames, device)
            others, penalty = other_pictures(o.penalty, o.resolution)

            def loss_of(step: int) -> Tensor:
                frame = pixels_of(drawn(frames, generator), device)
                pixels, cells = random_crop(frame, o.side, generator)
                other = None
                if others:
                    other = pixels_of(drawn(others, generator), device)
                    other = greyed(other, generator)[..., *random_crop(other, o.side, generator)[0]]
                with self.backbones.precision():
                    return networks.loss(frame, relit(frame, generator), pixels, cells, other)

            loss = train(
                nn.ModuleList((networks.student, networks.autoencoder)),
                loss_of,
                o.steps,
                learning_rate=o.learning_rate,
                weight_decay=WEIGHT_DECAY,
                what=f"training {self.label}",
                progress=self.progress,
            )
        self._networks = networks
        arrays = arrays_of(networks)
        facts = {
            "teacher": teacher,
            "training": f"{o.steps} steps, each on a crop of {o.side} px, from {len(frames)} images",
            "loss when trained": f"{loss:.4f}",
            "penalty": penalty,
            "scaling": f"quantiles of {len(held)} images kept out of the training"
            if rest != held
            else "quantiles of the only image, which was trained on too: other parts score high",
            "frame": f"{o.resolution} px on the shorter side, which the autoencoder sees as a square; "
            f"{BORDER * CELL} px along its border take the nearest score",
        }
        self.load({**arrays, "quantiles": self._quantiles([self._frame(images[i]) for i in held])}, facts)

    def _taught(
        self,
        teacher: PatchDescription,
        images: Sequence[InspectionImage],
        chosen: Sequence[int],
        generator: torch.Generator,
    ) -> tuple[list[Tensor], str]:
        """Frames to train on, after ``teacher`` was loaded from the store or distilled; and what to say of it."""
        o, store = self.options, self.backbones.store
        first = self._frame(images[chosen[0]])
        chosen = [chosen[i] for i in spread_out(len(chosen), FRAME_BYTES // first.numel())]
        if (name := f"pdn-{o.size}") in present(store.root):
            weights = store.weights(name)
            load_strictly(name, teacher, weights.tensors())
            return [first, *(self._frame(images[i]) for i in chosen[1:])], weights.describe()
        # a pool of its own: the large backbone is forgotten afterwards, and the fitted scorer does not ask for it
        backbones = Backbones(store, self.backbones.device, self.backbones.bf16)
        extractor = backbones.extractor(o.teacher, SEES * o.resolution)
        extractor.request(o.teacher_layers)
        held = spread_out(len(chosen), TARGET_BYTES * CELL**2 // (first[0].numel() * o.channels * 2))
        frames, descriptions = [], []
        for number, i in enumerate(chosen):
            image = images[i]
            frames.append(self._frame(image))
            if number in held:
                size = frames[-1].shape[1], frames[-1].shape[2]
                description = backbone_description(extractor, o.teacher_layers, image, o.channels, size)
                descriptions.append((frames[-1], description))
            if self.progress:
                self.progress("looking through the teacher's teacher", number + 1, len(chosen))
        with self.backbones.precision():
            error = distil(
                teacher, descriptions, side=o.side, steps=o.distill_steps, device=self.backbones.device,
                generator=generator, progress=self.progress,
            )  # fmt: skip
        return frames, (
            f"distilled from {extractor.name} on {len(descriptions)} reference images in {o.distill_steps} steps, "
            f"mean square error {error:.3f} of the variance; {extractor.weights}"
        )

    def _quantiles(self, frames: Sequence[Tensor]) -> NDArray[np.float32]:
        """q_a and q_b of each branch over normal frames, (2, 2)."""
        with torch.inference_mode():
            maps = [enlarged(self._disagreement(f)[0], f.shape[1:]).flatten(1).numpy() for f in frames]
        found = np.quantile(np.concatenate(maps, axis=1), (LOW, HIGH), axis=1).T
        return np.ascontiguousarray(found, dtype=np.float32)

    def load(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> None:
        """Restore the networks; every weight must be there, none may be left over (RuntimeError)."""
        super().load(arrays, facts)
        weights = {name: array for name, array in self.arrays.items() if name != "quantiles"}
        self._networks = self._placed(restored(lambda: Networks(self.options.size, self.options.channels), weights))

    def score_one(self, image: InspectionImage) -> ImageScore:
        """Score one image; members are passes with the autoencoder's dropout left on."""
        low, high = self.fitted()["quantiles"].T[..., None, None]
        span = (high - low).clamp_min(1e-6 * high + 1e-12)  # of maps that never change, too
        frame = self._frame(image)
        branches, sampled = self._disagreement(frame, self.options.members)
        branches = SPAN * (branches - low) / span
        sampled = (branches[0] + SPAN * (sampled - low[1]) / span[1]) / 2
        whole = enlarged(branches.mean(0, keepdim=True), frame.shape[1:])[0]
        return ImageScore(
            scorer=self.label,
            value=float(whole.max()),
            anomaly_map=to_frame(whole, image.height, image.width),
            evidence={"branches": branches.numpy()},
            members=sampled.flatten(1).amax(1).numpy(),
            member_maps=F.pad(sampled[:, None], (BORDER,) * 4, mode="replicate")[:, 0].numpy(),
        )

    def _disagreement(self, frame: Tensor, passes: int = 0) -> tuple[Tensor, Tensor]:
        with self.backbones.precision():
            whole, sampled = self._networks.disagreement(pixels_of(frame, self.backbones.device), passes)
        return whole.cpu(), sampled.cpu()

    def _frame(self, image: InspectionImage) -> Tensor:
        """The working frame, uint8 (3, rows, cols)."""
        return resized(image.pixels, shorter_side_size(image.height, image.width, self.options.resolution, CELL))

    def _placed(self, networks: Networks) -> Networks:
        return networks.to(self.backbones.device).to(memory_format=torch.channels_last)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (n, rows, cols) of descriptions over their frame of ``size`` px: (n, h, w).

    The border, which has no descriptions, takes the nearest ones, because a 0 there would call every defect
    normal. Without it the enlargement would push what it shows towards the border.
    """
    padded = F.pad(maps[None], (BORDER,) * 4, mode="replicate")
    return F.interpolate(padded, size=tuple(size), mode="bilinear", align_corners=False)[0]
