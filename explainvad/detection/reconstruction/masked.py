"""Reconstruction scorer: a masked autoencoder trained from scratch on the reference images.

Each patch is predicted several times from other patches only, over complementary masks, so an anomaly is never
shown to the network at the place where it is judged (the identity-mapping trap of the survey, arXiv 2507.15905,
section 4). The residual is divided by the standard deviation that the network itself predicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from explainvad.detection.frames import (
    blend_weight,
    gaussian_blur,
    to_frame,
    to_working,
    top_mean,
    windows,
    working_size,
)
from explainvad.detection.reconstruction.network import (
    Architecture,
    MaskedAutoencoder,
    likelihood_loss,
    mask_groups,
    patchify,
    position_code,
)
from explainvad.errors import NotFittedError
from explainvad.types import ImageScore, InspectionImage, Progress, ScorerCard

GROUPS = 2  # half of the patches is visible at a time
TRAINING_BLOCKS = (1, 2)  # block sides, in patches
SCORING_BLOCKS = (1, 2)
WINDOW = 384  # px of the working frame seen at once
CROP = 256  # px, largest training crop
FRAME_BYTES = 1 << 30  # of working frames held for training
VARIANCE_FLOOR = (2 / 127.5) ** 2  # two grey levels: below that lies quantisation, not evidence


def standardise(image: Tensor) -> Tensor:
    """uint8 -> float in [-1, 1]: what the network reads."""
    return image.float() / 127.5 - 1.0


class MaskedReconstruction:
    """ViT masked autoencoder as a scorer; the unit of its score is predicted standard deviations."""

    name = "reconstruction"

    def __init__(
        self,
        resolution: int = 256,
        steps: int = 1000,
        batch: int = 4,
        learning_rate: float = 3e-3,
        sigma: float = 2.0,
        device: str = "cpu",
        architecture: Architecture | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.resolution, self.steps, self.batch = resolution, steps, batch
        self.learning_rate, self.sigma, self.device = learning_rate, sigma, device
        self.architecture = architecture or Architecture()
        self.progress = progress
        self.network: MaskedAutoencoder | None = None
        self.facts: dict[str, str] = {}

    # -- fitting ----------------------------------------------------------------------------------------

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Train on reference images. The same seed and images give the same weights on one machine.

        On one CPU thread: so small a network gains little from a second one, loses much where that one must wait, and
        sums in an order that depends on their number.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self._train(images, seed)
        finally:
            torch.set_num_threads(threads)

    def _train(self, images: Sequence[InspectionImage], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        frames = self._frames(images)
        with torch.random.fork_rng(devices=[]):  # initialisation draws on the global generator; the caller's is kept
            torch.manual_seed(seed)
            network = MaskedAutoencoder(self.architecture).to(self.device)
        optimiser = torch.optim.AdamW(network.parameters(), self.learning_rate, (0.9, 0.95), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _warm_cosine(step / self.steps))
        loss_mean = 0.0
        for step in range(self.steps):
            patches, position, rows, cols = self._crops(frames, generator)
            block = TRAINING_BLOCKS[step % len(TRAINING_BLOCKS)]
            group = mask_groups(rows, cols, block, GROUPS, generator)
            visible, hidden = _split(group == 0)
            mean, log_variance = network(patches, position, cols, visible, hidden)
            loss = likelihood_loss(patches[:, hidden], mean, log_variance)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            loss_mean += (float(loss.detach()) - loss_mean) / min(step + 1, 50)
            if self.progress:
                self.progress("training the autoencoder", step + 1, self.steps)
        self.network = network.eval().requires_grad_(False)
        self.facts = {
            "training": f"{self.steps} steps of {self.batch} crops from {len(frames)} images",
            "final loss": f"{loss_mean:.4f}",
        }

    def _frames(self, images: Sequence[InspectionImage]) -> list[Tensor]:
        """Working frames of as many images as FRAME_BYTES hold, evenly spaced over all of them."""
        first = self.working_frame(images[0])
        count = min(len(images), max(8, FRAME_BYTES // first.numel()))
        chosen = torch.linspace(0, len(images) - 1, count).round().int().tolist()
        return [self.working_frame(images[i]) for i in chosen]

    def working_frame(self, image: InspectionImage) -> Tensor:
        """The image in the network's frame, uint8 (3, h, w)."""
        size = working_size(image.height, image.width, self.resolution, self.architecture.patch)
        return to_working(image.pixels, size)

    def _crops(self, frames: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor, int, int]:
        """Cut a batch of equal windows at random places: patches (B, N, D), position codes (B, N, width), grid."""
        patch = self.architecture.patch
        chosen = [frames[int(i)] for i in torch.randint(len(frames), (self.batch,), generator=generator)]
        rows, cols = (min(CROP // patch, *(f.shape[axis] // patch for f in chosen)) for axis in (1, 2))
        patches, positions = [], []
        for frame in chosen:
            grid = (frame.shape[1] // patch, frame.shape[2] // patch)
            top = int(torch.randint(grid[0] - rows + 1, (1,), generator=generator))
            left = int(torch.randint(grid[1] - cols + 1, (1,), generator=generator))
            crop = frame[:, top * patch : (top + rows) * patch, left * patch : (left + cols) * patch]
            patches.append(patchify(standardise(crop)[None], patch)[0])
            positions.append(position_code(rows, cols, grid, (top, left), self.architecture.width))
        return torch.stack(patches).to(self.device), torch.stack(positions).to(self.device), rows, cols

    # -- scoring ----------------------------------------------------------------------------------------

    def score(self, images: Sequence[InspectionImage]) -> list[ImageScore]:
        """Score each image on its own; ``evidence`` in the working frame: prediction (h, w, 3), deviation (h, w)."""
        return [self._score(image) for image in images]

    @torch.inference_mode()
    def _score(self, image: InspectionImage) -> ImageScore:
        frame = self.working_frame(image)
        mean, variance = self.predict(frame)
        residual = (standardise(frame) - mean).square().mean(0)
        z = gaussian_blur((residual / (variance + VARIANCE_FLOOR)).sqrt(), self.sigma)
        return ImageScore(
            scorer=self.name,
            value=top_mean(z),
            anomaly_map=to_frame(z, image.height, image.width),
            evidence={
                "prediction": ((mean + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy(),
                "deviation": variance.sqrt().numpy(),
            },
        )

    def predict(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Predict a working frame uint8 (3, h, w) from itself: mean (3, h, w) in [-1, 1], variance (h, w).

        The variance is that of the mixture over masks: what the network expects, plus how far its answers from
        different contexts lie apart.
        """
        rows, cols = frame.shape[1:]
        mean, variance, weight = torch.zeros(3, rows, cols), torch.zeros(rows, cols), torch.zeros(rows, cols)
        for y, x in windows(rows, cols, WINDOW, self.architecture.patch):
            window_mean, window_variance = self._predict_window(standardise(frame), y, x)
            w = blend_weight(*window_variance.shape)
            mean[:, y, x] += w * window_mean
            variance[y, x] += w * window_variance
            weight[y, x] += w
        return mean / weight, variance / weight

    def _predict_window(self, frame: Tensor, y: slice, x: slice) -> tuple[Tensor, Tensor]:
        network, patch = self.fitted(), self.architecture.patch
        patches = patchify(frame[None, :, y, x], patch).to(self.device)
        rows, cols = (y.stop - y.start) // patch, (x.stop - x.start) // patch
        grid, origin = (
            (frame.shape[1] // patch, frame.shape[2] // patch),
            (y.start // patch, x.start // patch),
        )
        position = position_code(rows, cols, grid, origin, self.architecture.width).to(self.device)
        total = torch.zeros_like(patches[0])
        square = torch.zeros_like(total)
        expected = torch.zeros(rows * cols, patch * patch, device=self.device)
        count = torch.zeros(rows * cols, 1, device=self.device)
        for visible, hidden in _complementary(rows, cols):
            mean, log_variance = network(patches, position, cols, visible, hidden)
            total[hidden] += mean[0]
            square[hidden] += mean[0].square()
            expected[hidden] += log_variance[0].exp()
            count[hidden] += 1
        mean = total / count
        spread = (square / count - mean.square()).clamp_min(0).unflatten(1, (3, -1)).mean(1)
        image = F.pixel_shuffle(mean.T.unflatten(1, (rows, cols)), patch)
        variance = F.pixel_shuffle((expected / count + spread).T.unflatten(1, (rows, cols)), patch)[0]
        return image.cpu(), variance.cpu()

    def fitted(self) -> MaskedAutoencoder:
        """The trained network; NotFittedError before ``fit``."""
        if self.network is None:
            raise NotFittedError(f"the {self.name} scorer was asked to score before fit: call fit, or load a bundle")
        return self.network

    # -- at rest ----------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and settings from which :meth:`restore` makes the same scorer."""
        settings: dict[str, Any] = {
            "resolution": self.resolution,
            "sigma": self.sigma,
            "steps": self.steps,
            "batch": self.batch,
            "architecture": dict(self.architecture.as_dict()),
            "facts": dict(self.facts),
        }
        return {k: v.cpu().numpy() for k, v in self.fitted().state_dict().items()}, settings

    @classmethod
    def restore(
        cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any], device: str
    ) -> MaskedReconstruction:
        """Rebuild a fitted scorer; every weight must be there, none may be left over."""
        scorer = cls(
            resolution=settings["resolution"],
            steps=settings["steps"],
            batch=settings["batch"],
            sigma=settings["sigma"],
            device=device,
            architecture=Architecture(**settings["architecture"]),
        )
        scorer.facts = dict(settings["facts"])
        network = MaskedAutoencoder(scorer.architecture)
        network.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()}, strict=True)
        scorer.network = network.to(device).eval().requires_grad_(False)
        return scorer

    def card(self) -> ScorerCard:
        """For the report's model card."""
        return ScorerCard(
            name=self.name,
            family="reconstruction",
            summary="Vision Transformer masked autoencoder; scores hidden patches only, in predicted deviations",
            source="He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022",
            weights="trained from scratch on the reference images",
            facts=self.facts,
        )


def _warm_cosine(progress: float, warm: float = 0.1) -> float:
    """Share of the learning rate at ``progress`` in [0, 1]: a linear rise, then half a cosine down to zero."""
    return (progress + 1e-3) / (warm + 1e-3) if progress < warm else 0.5 * (1 + math.cos(math.pi * progress))


def _split(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the true and of the false entries."""
    return chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]


def _complementary(rows: int, cols: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(visible, hidden) pairs that hide each patch GROUPS - 1 times per block side; the same for every image."""
    generator = torch.Generator().manual_seed(0)
    for block in SCORING_BLOCKS:
        group = mask_groups(rows, cols, block, GROUPS, generator)
        for k in range(GROUPS):
            visible, hidden = _split(group == k)
            if len(visible) and len(hidden):
                yield visible, hidden
