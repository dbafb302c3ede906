"""Reconstruction scorer: how badly the features of a place are rebuilt by a decoder that knows normal images only.

Its members for the epistemic part of the doubt are passes with the decoder's dropout left on. They see every second row
and column of the grid: the decoder's attention takes means over the grid, which a quarter of its cells estimates
well, at a quarter of the price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explainvad.detection.backbone.embedded import EmbeddedBackbone
from explainvad.detection.backbone.optimisation import bf16_pays, warm_cosine
from explainvad.detection.frames import gaussian_blur, spread_out, to_frame, top_mean
from explainvad.detection.reconstruction.decoder import FeatureDecoder, loose_loss, mc_dropout
from explainvad.detection.traced import Place, Spot, most_anomalous, traced_function
from explainvad.detection.transformer import position_code
from explainvad.errors import NotFittedError
from explainvad.types import ImageScore, InspectionImage, PixelFunction, Progress, ScorerCard

WIDTH, DEPTH, HEADS, DROPOUT = 128, 3, 4, 0.4
SIDE = 24  # cells, of the crops of a feature grid that a training step sees
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 1e-4, 0.1
EASY = 0.9  # share of the points that end up as easy; it grows over the first half of the training
FEATURE_BYTES = 1 << 29  # of features held for training, in half precision
SIGMA = 1.0  # cells, blur of the map
TOP = 0.01  # share of cells whose mean distance is the image's score
MEMBERS = 6  # passes with dropout


class FeatureReconstruction:
    """Dinomaly on the embedded backbone; the unit of its score is cosine distance, 0 to 2."""

    name = "reconstruction"

    def __init__(
        self, backbone: EmbeddedBackbone, steps: int = 300, batch: int = 4, progress: Progress | None = None
    ) -> None:
        self.backbone, self.steps, self.batch, self.progress = backbone, steps, batch, progress
        self.decoder: FeatureDecoder | None = None
        self.facts: dict[str, str] = {}

    def fit(self, images: Sequence[InspectionImage], seed: int) -> None:
        """Train the decoder. The same seed, features and steps give the same weights on one machine (one thread)."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self._train(images, seed)
        finally:
            torch.set_num_threads(threads)

    def _train(self, images: Sequence[InspectionImage], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        first = self._grid(images[0])
        grids = [self._grid(images[i]).half() for i in spread_out(len(images), FEATURE_BYTES // (2 * first.numel()))]
        device = self.backbone.device
        with torch.random.fork_rng(devices=[]):  # initialisation and dropout draw on the global generator
            torch.manual_seed(seed)
            decoder = FeatureDecoder(self._groups(), WIDTH, DEPTH, HEADS, DROPOUT).to(device).train()
            optimiser = torch.optim.AdamW(decoder.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
            mean_loss = 0.0
            for step in range(self.steps):
                progress = step / self.steps
                optimiser.param_groups[0]["lr"] = LEARNING_RATE * warm_cosine(progress, WARM_UP)
                features, position = self._crops(grids, generator)
                with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=bf16_pays(device)):
                    distance = decoder(features, position)
                loss = loose_loss(distance, EASY * min(1.0, 2 * progress))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
                optimiser.step()
                mean_loss += (float(distance.detach().mean()) - mean_loss) / min(step + 1, 50)
                if self.progress:
                    self.progress("training the reconstruction", step + 1, self.steps)
        self.decoder = decoder.eval().requires_grad_(False)
        self.facts = {
            "training": f"{self.steps} steps of {self.batch} crops from {len(grids)} images",
            "distance when trained": f"{mean_loss:.4f}",
        }

    def _groups(self) -> tuple[int, int]:
        architecture = self.backbone.network.architecture
        return architecture.width, architecture.dimension

    def _grid(self, image: InspectionImage) -> Tensor:
        """Both levels of the backbone as unit vectors, (width + dimension, rows, cols)."""
        detail, features = self.backbone.levels(image)
        return torch.cat((torch.nn.functional.normalize(detail, dim=0), features))

    def _crops(self, grids: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features (B, N, C) of equal crops of random images, and the code (B, N, WIDTH) of where they lie."""
        chosen = torch.randint(len(grids), (self.batch,), generator=generator).tolist()
        rows, cols = (min(SIDE, *(grids[i].shape[axis] for i in chosen)) for axis in (1, 2))
        features, positions = [], []
        for i in chosen:
            size = grids[i].shape[1:]
            top, left = (
                int(torch.randint(whole - part + 1, (), generator=generator))
                for whole, part in zip(size, (rows, cols), strict=True)
            )
            features.append(grids[i][:, top : top + rows, left : left + cols].flatten(1).T.float())
            positions.append(position_code(rows, cols, (size[0], size[1]), (top, left), WIDTH))
        return torch.stack(features).to(self.backbone.device), torch.stack(positions).to(self.backbone.device)

    def score(self, images: Sequence[InspectionImage]) -> list[ImageScore]:
        """Score each image on its own; ``evidence``: distance float32 (groups, rows, cols), a group for each level."""
        return [self._score(image) for image in images]

    @torch.inference_mode()
    def _score(self, image: InspectionImage) -> ImageScore:
        decoder = self._fitted()
        grid = self._grid(image)
        rows, cols = grid.shape[1:]
        tokens = grid.permute(1, 2, 0).to(self.backbone.device)
        position = position_code(rows, cols, (rows, cols), (0, 0), WIDTH).unflatten(0, (rows, cols)).to(tokens)
        by_level = decoder(tokens.flatten(0, 1)[None], position.flatten(0, 1))[0].cpu().T.unflatten(1, (rows, cols))
        smooth = gaussian_blur(by_level.mean(0), SIGMA)
        tokens, position = tokens[::2, ::2], position[::2, ::2]
        passes = mc_dropout(decoder, tokens.flatten(0, 1), position.flatten(0, 1), MEMBERS).mean(2).cpu()
        members = gaussian_blur(passes.unflatten(1, tokens.shape[:2]), SIGMA / 2)
        return ImageScore(
            scorer=self.name,
            value=top_mean(smooth, TOP),
            anomaly_map=to_frame(smooth, image.height, image.width),
            evidence={"distance": by_level.numpy()},
            members=np.array([top_mean(m, TOP) for m in members], dtype=np.float32),
            member_maps=members.numpy(),
        )

    def pixel_function(
        self, image: InspectionImage, score: ImageScore, baseline: InspectionImage, at: Place | None = None
    ) -> PixelFunction:
        """The cosine distance of the place that is rebuilt worst, or ``at`` another, over both levels."""
        decoder, backbone = self._fitted(), self.backbone
        place = at or most_anomalous(score.evidence["distance"].mean(0))
        spot = Spot.of(backbone.size(image), backbone.windows(image), place)
        frame = spot.size[0] // backbone.stride, spot.size[1] // backbone.stride

        def reading(levels: Sequence[Tensor]) -> Tensor:
            grid = torch.cat((torch.nn.functional.normalize(levels[0], dim=0), levels[1]))
            rows, cols = grid.shape[1:]
            position = position_code(rows, cols, frame, spot.origin(backbone.stride), WIDTH).to(grid)
            row, col = spot.cell(rows, cols)
            distance: Tensor = decoder(grid.flatten(1).T[None], position)[0, row * cols + col].mean()
            return distance

        what = f"cosine distance of the features at y {place[0]:.1%}, x {place[1]:.1%} from their reconstruction"
        return traced_function(backbone, (0, 1), image, baseline, spot, what, reading)

    def _fitted(self) -> FeatureDecoder:
        if self.decoder is None:
            raise NotFittedError(f"the {self.name} scorer was used before fit: call fit, or load a bundle")
        return self.decoder

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and settings from which :meth:`restore` makes the same scorer."""
        settings = {"steps": self.steps, "batch": self.batch, "facts": dict(self.facts)}
        return {k: v.cpu().numpy() for k, v in self._fitted().state_dict().items()}, settings

    @classmethod
    def restore(
        cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any], backbone: EmbeddedBackbone
    ) -> Self:
        """Rebuild a fitted scorer on the same backbone; every weight must be there, none may be left over."""
        scorer = cls(backbone, settings["steps"], settings["batch"])
        scorer.facts = dict(settings["facts"])
        decoder = FeatureDecoder(scorer._groups(), WIDTH, DEPTH, HEADS, DROPOUT)
        decoder.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()}, strict=True)
        scorer.decoder = decoder.to(backbone.device).eval().requires_grad_(False)
        return scorer

    def card(self) -> ScorerCard:
        """For the report's model card."""
        return ScorerCard(
            name=self.name,
            family="reconstruction",
            summary="Rebuilds the backbone's features through a noisy bottleneck; scores what is rebuilt badly",
            source="Guo et al., Dinomaly, CVPR 2025",
            weights=f"decoder trained from scratch on the reference images; backbone {self.backbone.weights}",
            facts=self.facts,
        )
